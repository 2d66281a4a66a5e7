"""Object-CXR (MIDL 2020): foreign objects on chest radiographs; 8,000 + 1,000 + 1,000 images.

Origin: JF Healthcare. Access: CC BY-NC 4.0, today by torrent and mirrors. Half of the images of
each part hold objects; support devices are not annotated.

An annotation lists objects separated by `;`, each `type x1 y1 x2 y2 ...` in pixels of the original:
0 a rectangle, 1 an ellipse (both by their box), 2 a polygon, whose box here is that of its corners.
MGCA's code takes a larger one around the polygon's pole; that is not reproduced.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from common.data.records import Box, RecordTable, assemble
from common.data.tables import DataError, find_table, read_table, resolve_inside, sha256

ROOTS: tuple[str, ...] = ("object-CXR", "object-cxr", "Object-CXR", "objectcxr", "object_cxr", ".")
PARTS = ("train", "dev", "test")
SUFFIXES = (".jpg",)
LABEL = "Foreign Object"
LEAST = {"0": 4, "1": 4, "2": 6}
"""Numbers that a shape needs, by type; a box has just these."""


def find_home(data_root: Path) -> Path:
    """The first of `ROOTS` that holds `train.csv` and `dev.csv`.

    Raises:
        DataError: If none does; lists the places looked in.
    """
    for name in ROOTS:
        home = data_root / name
        if all((home / f"{part}.csv").is_file() for part in PARTS[:2]):
            return home
    looked = "".join(f"\n  {data_root / name}" for name in ROOTS)
    raise DataError(f"object_cxr is missing; looked for train.csv and dev.csv in:{looked}")


def tables(home: Path) -> dict[str, Path]:
    """The tables by part; the test part's came later and can be absent."""
    return {part: find_table(home, f"{part}.csv") for part in PARTS if _there(home, part)}


def _there(home: Path, part: str) -> bool:
    return (home / f"{part}.csv").is_file()


def read_rows(path: Path, part: str) -> pd.DataFrame:
    """`image_id`, `path` and `annotation` of one part.

    Raises:
        DataError: If a column is missing, or an annotation malformed; names the row.
    """
    table = read_table(path, ["image_name", "annotation"], alias={"image_path": "image_name"})
    names = table["image_name"].str.strip().str.rpartition("/")[2]
    for name in names:
        resolve_inside(path.parent, name)
    rows = pd.DataFrame({"image_id": part + "/" + names, "annotation": table["annotation"]})
    rows["path"] = rows["image_id"]
    for number, text in enumerate(rows["annotation"], start=1):
        try:
            boxes_of(text)
        except ValueError as error:
            raise DataError(f"{path}: data row {number}: {error}") from error
    return rows


def boxes_of(annotation: str) -> tuple[Box, ...]:
    """The boxes of an annotation, in its order; "" is none.

    Raises:
        ValueError: If a shape is not understood or has no area.
    """
    boxes = []
    for shape in filter(None, (part.strip() for part in annotation.split(";"))):
        kind, *numbers = shape.split()
        if kind not in LEAST or len(numbers) < LEAST[kind] or len(numbers) % 2:
            raise ValueError(f"{shape[:40]!r} is no shape; expected 0|1 x1 y1 x2 y2 or 2 x1 y1 ...")
        xs, ys = ([float(n) for n in numbers[start::2]] for start in (0, 1))
        width, height = max(xs) - min(xs), max(ys) - min(ys)
        if not width or not height:
            raise ValueError(f"{shape[:40]!r} has no area")
        boxes.append(Box(min(xs), min(ys), width, height, LABEL))
    return tuple(boxes)


def load(data_root: Path, *, check_files: bool = True) -> RecordTable:
    """All parts with a table, one row an image; the label is `Foreign Object`.

    Args:
        data_root: Folder that holds one of `ROOTS`.
        check_files: Look for the image files; false loads the tables alone.

    Raises:
        DataError: If a table is absent or malformed.
    """
    home = find_home(data_root)
    found = tables(home)
    rows = pd.concat([read_rows(p, part) for part, p in found.items()], ignore_index=True)
    boxes = {
        image_id: shapes
        for image_id, text in zip(rows["image_id"], rows["annotation"], strict=True)
        if (shapes := boxes_of(text))
    }
    frame = rows[["image_id", "path"]].assign(
        study_id=rows["image_id"],
        patient_id=rows["image_id"],
        view="frontal",
        source_split=rows["image_id"].str.partition("/")[0],
    )
    labels = pd.DataFrame({LABEL: rows["image_id"].isin(boxes).astype("float32")})
    return assemble(
        frame,
        labels,
        dataset="object_cxr",
        root=home,
        table_sha256=sha256(*found.values()),
        suffixes=SUFFIXES if check_files else (),
        boxes=boxes,
    )
