"""Object-CXR (MIDL 2020): foreign objects on chest radiographs; 8,000 + 1,000 + 1,000 images.

Origin: JF Healthcare. Access: CC BY-NC 4.0, today by torrent and mirrors. Half of the images of
each part hold objects; support devices are not annotated.

An annotation lists objects separated by `;`, each `type x1 y1 x2 y2 ...` in pixels of the original:
0 a rectangle, 1 an ellipse (both by their box), 2 a polygon, by the box of its corners or by the
larger one of MGCA's code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
from shapely import LineString, Polygon
from shapely.ops import polylabel

from common.data.records import Box, RecordTable, assemble
from common.data.tables import (
    DataError,
    find_table,
    first_home,
    has_table,
    read_table,
    resolve_inside,
    table_sha256,
)

ROOTS: tuple[str, ...] = ("object-CXR", "object-cxr", "Object-CXR", "objectcxr", "object_cxr", ".")
PARTS = ("train", "dev", "test")
SUFFIXES = (".jpg",)
LABEL = "Foreign Object"
LEAST = {"0": 4, "1": 4, "2": 4}
"""Numbers that a shape needs, by type; a box has just these."""
Polygons = Literal["corners", "released"]
WIDENED, TOLERANCE = 100, 10
"""Of MGCA's boxes around polygons, pixels."""


def find_home(data_root: Path) -> Path:
    """The first of `ROOTS` that holds `train.csv` and `dev.csv`.

    Raises:
        DataError: If none does; lists the places looked in.
    """

    def holds(folder: Path) -> bool:
        return all(has_table(folder, f"{part}.csv") for part in PARTS[:2])

    wanted = "train.csv and dev.csv"
    return first_home(data_root, ROOTS, holds, dataset="object_cxr", wanted=wanted)


def tables(home: Path) -> dict[str, Path]:
    """The tables by part; the test part's came later and can be absent."""
    names = {part: f"{part}.csv" for part in PARTS}
    return {part: find_table(home, name) for part, name in names.items() if has_table(home, name)}


def read_rows(path: Path, part: str) -> pd.DataFrame:
    """`image_id`, `path` and `annotation` of one part.

    Raises:
        DataError: If a column is missing.
    """
    table = read_table(path, ["image_name", "annotation"], alias={"image_path": "image_name"})
    names = table["image_name"].str.strip().str.rpartition("/")[2]
    for name in names:
        resolve_inside(path.parent, name)
    rows = pd.DataFrame({"image_id": part + "/" + names, "annotation": table["annotation"]})
    rows["path"] = rows["image_id"]
    return rows


def malformed(rows: pd.DataFrame) -> dict[int, str]:
    """What is wrong with annotations, by the number of the data row, from 1."""
    faults = {}
    for number, text in enumerate(rows["annotation"], start=1):
        try:
            boxes_of(text)
        except ValueError as error:
            faults[number] = str(error)
    return faults


def boxes_of(annotation: str, *, polygons: Polygons = "corners") -> tuple[Box, ...]:
    """The boxes of an annotation, in its order; "" is none.

    Args:
        annotation: Shapes as in the tables.
        polygons: `corners` is the least box; `released` is centred where the outline, widened by
            `WIDENED` pixels, is farthest from its rim, and reaches the farther side of the outline
            each way: it can leave the image.

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
        corners = list(zip(xs, ys, strict=True))
        box = Box(min(xs), min(ys), width, height, LABEL)
        boxes.append(_around_pole(corners) if (kind, polygons) == ("2", "released") else box)
    return tuple(boxes)


def _around_pole(corners: Sequence[tuple[float, float]]) -> Box:
    outline = Polygon(corners) if len(corners) > 2 else LineString(corners)
    pole = polylabel(outline.buffer(WIDENED), TOLERANCE)
    left, top, right, bottom = outline.bounds
    half_width = max(pole.x - left, right - pole.x)
    half_height = max(pole.y - top, bottom - pole.y)
    return Box(pole.x - half_width, pole.y - half_height, 2 * half_width, 2 * half_height, LABEL)


def load(
    data_root: Path, *, check_files: bool = True, polygons: Polygons = "corners"
) -> RecordTable:
    """All parts with a table, one row an image; the label is `Foreign Object`.

    Args:
        data_root: Folder that holds one of `ROOTS`.
        check_files: Look for the image files; false loads the tables alone.
        polygons: See `boxes_of`.

    Raises:
        DataError: If a table is absent, or an annotation malformed; names the row.
    """
    home = find_home(data_root)
    found = tables(home)
    parts = {path: read_rows(path, part) for part, path in found.items()}
    for path, part_rows in parts.items():
        for number, fault in malformed(part_rows).items():
            raise DataError(f"{path}: data row {number}: {fault}")
    rows = pd.concat(parts.values(), ignore_index=True)
    boxes = {
        image_id: shapes
        for image_id, text in zip(rows["image_id"], rows["annotation"], strict=True)
        if (shapes := boxes_of(text, polygons=polygons))
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
        table_sha256=table_sha256(*found.values()),
        suffixes=SUFFIXES if check_files else (),
        boxes=boxes,
    )
