"""MS-CXR: 1,162 phrases of radiologists with boxes, on 1,047 images of MIMIC-CXR-JPG.

Access: PhysioNet, credentialed; the images are those of MIMIC-CXR-JPG. Citation: Boecking et al.,
"Making the Most of Text Semantics to Improve Biomedical Vision-Language Processing", ECCV 2022.

Release 0.1 names its files `..._v1.0.0`, release 1.1.0 `..._v1.1.0`; both are read, as CSV or,
where that is absent, as COCO JSON. A row is a box, in pixels of the original image; subject and
study are in its path alone. Nothing is split here: every phrase is for testing. The `split` column
of release 1.1.0 does not follow MIMIC's, so `seen_in_pretraining` counts what is in which part of
MIMIC.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from common.data import mimic_cxr
from common.data.records import Box, RecordTable, assemble
from common.data.tables import (
    DataError,
    find_table,
    first_home,
    has_table,
    read_table,
    table_sha256,
)

log = logging.getLogger(__name__)

_RELEASES = ("0.1", "1.1.0")
ROOTS: tuple[str, ...] = (
    *(f"ms-cxr/{release}" for release in _RELEASES),
    *(f"physionet.org/files/ms-cxr/{release}" for release in _RELEASES),
    *("ms-cxr", "MS-CXR", "ms_cxr", "MS_CXR", "."),
)
STEM = "MS_CXR_Local_Alignment"
TABLES = tuple(
    f"{STEM}_v{version}{end}" for version in ("1.0.0", "1.1.0") for end in (".csv", ".json")
)
"""The first that exists is read."""
CATEGORIES = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Lung Opacity"),
    *("Pleural Effusion", "Pneumonia", "Pneumothorax"),
)
BOX = {"x": "x", "y": "y", "w": "width", "h": "height"}
SIZE = ("image_width", "image_height")
COLUMNS = ("dicom_id", "category_name", "label_text", "path", *BOX, *SIZE)
_PATH = re.compile(r"(?:^|/)(files/p\d\d/p(\d{8})/s(\d{8})/([0-9A-Za-z-]+)\.jpg)$")


@dataclass(frozen=True)
class Phrase:
    """What one sentence says of one image, and where.

    Attributes:
        image_id: DICOM id.
        path: Of the image file.
        text: As in the table.
        category: One of `CATEGORIES`.
        boxes: At least one, in pixels of the image; they may overlap.
        width: Of the image, pixels.
        height: Of the image, pixels.
    """

    image_id: str
    path: Path
    text: str
    category: str
    boxes: tuple[Box, ...]
    width: int
    height: int


def find_home(data_root: Path) -> Path:
    """The first of `ROOTS` that holds one of `TABLES`.

    Raises:
        DataError: If none does; lists the places looked in.
    """

    def holds(folder: Path) -> bool:
        return any(has_table(folder, name) for name in TABLES)

    return first_home(data_root, ROOTS, holds, dataset="ms_cxr", wanted=" or ".join(TABLES))


def table_of(home: Path) -> Path:
    """The table that is read."""
    for name in TABLES:
        if has_table(home, name):
            return find_table(home, name)
    raise DataError(f"{home} holds none of {', '.join(TABLES)}")


def read_rows(path: Path) -> pd.DataFrame:
    """One row a box; boxes are not judged here.

    Columns: `image_id`, `study_id`, `patient_id`, `path` (below MIMIC-CXR-JPG), `category`, `text`
    ("" where it holds no word), `x`, `y`, `width`, `height`, `image_width`, `image_height` (pixels,
    NaN where malformed).

    Raises:
        DataError: If the file is unreadable, or a path or category not understood; names the row.
    """
    packed = path.with_suffix("") if path.suffix == ".gz" else path
    table = _coco(path) if packed.suffix == ".json" else read_table(path, COLUMNS)
    parts = table["path"].str.strip().str.extract(_PATH)
    category = table["category_name"].str.strip()
    odd_path = parts.isna().any(axis=1) | (parts[3] != table["dicom_id"].str.strip())
    for bad, name, wanted in (
        (odd_path, "path", "files/p../p<subject>/s<study>/<dicom_id>.jpg"),
        (~category.isin(CATEGORIES), "category_name", f"one of {', '.join(CATEGORIES)}"),
    ):
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise DataError(
                f"{path}: {name} is {table[name].iloc[row]!r} in data row {row + 1}; "
                f"expected {wanted}"
            )
    rows = pd.DataFrame({"image_id": parts[3], "study_id": parts[2], "patient_id": parts[1]})
    rows["path"], rows["category"] = parts[0], category
    text = table["label_text"].str.strip()
    said = text.str.contains(r"[^\W_]") & (text.str.lower() != "nan")
    rows["text"] = text.where(said, "")
    for column, name in {**BOX, **{side: side for side in SIZE}}.items():
        rows[name] = pd.to_numeric(table[column].str.strip(), errors="coerce")
    return rows


def _coco(path: Path) -> pd.DataFrame:
    """The columns of the CSV from the COCO JSON, as strings."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        images = {image["id"]: image for image in content["images"]}
        category = {kind["id"]: kind["name"] for kind in content["categories"]}
        rows = [
            (
                Path(image["file_name"]).stem,
                category[note["category_id"]],
                note.get("label_text"),
                image["path"],
                *note["bbox"],
                image["width"],
                image["height"],
            )
            for note in content["annotations"]
            for image in [images[note["image_id"]]]
        ]
        table = pd.DataFrame(rows, columns=list(COLUMNS))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not COCO annotations ({type(error).__name__}: {error})"
        ) from error
    return table.map(lambda value: "" if value is None or value != value else str(value))


def box_problems(rows: pd.DataFrame) -> dict[int, str]:
    """What is wrong with a row's box, by position of the row."""
    right, bottom = rows["x"] + rows["width"], rows["y"] + rows["height"]
    outside = (rows[["x", "y"]] < 0).any(axis=1)
    outside |= (right > rows["image_width"]) | (bottom > rows["image_height"])
    checks = {
        "box or image size is no number": ~np.isfinite(rows[[*BOX.values(), *SIZE]]).all(axis=1),
        "box of zero or negative area": (rows[["width", "height"]] <= 0).any(axis=1),
        "box outside the image": outside,
    }
    found: dict[int, str] = {}
    for detail, bad in checks.items():
        for row in np.flatnonzero(bad).tolist():
            found.setdefault(row, detail)
    return found


def checked_rows(path: Path) -> pd.DataFrame:
    """`read_rows`, refused where a box is not inside its image.

    Raises:
        DataError: If a box has no area, leaves its image or is no box; names file, row and image.
    """
    rows = read_rows(path)
    problems = box_problems(rows)
    if problems:
        row = min(problems)
        values = rows.iloc[row]
        box = ", ".join(f"{name}={values[name]:g}" for name in (*BOX.values(), *SIZE))
        raise DataError(
            f"{path}: {len(problems)} invalid boxes; {problems[row]} in data row {row + 1}, image "
            f"{values['image_id']}: {box}"
        )
    sizes = rows.groupby("image_id")[list(SIZE)].nunique().max(axis=1)
    if (sizes > 1).any():
        raise DataError(f"{path}: image {sizes.index[sizes > 1][0]} has two sizes")
    return rows


def load(data_root: Path, *, check_files: bool = True) -> RecordTable:
    """The annotated images, one row each, with their boxes; a label is 1 where it has a box.

    The root is that of MIMIC-CXR-JPG. `source_split` is `test` throughout; the extra column
    `mimic_split` is MIMIC's own part, "" where its split table is absent. Further boxes of an image
    are data; repeated rows count as duplicates, so `rows_in` counts images and repeated rows.

    Args:
        data_root: Folder that holds one of `ROOTS`, and MIMIC-CXR-JPG.
        check_files: Look for the image files; false loads the tables alone.

    Raises:
        DataError: If a table is absent or malformed, or a box not inside its image.
    """
    path = table_of(find_home(data_root))
    root = mimic_cxr.find_home(data_root)
    rows = checked_rows(path)
    images = rows[~rows["image_id"].duplicated() | rows.duplicated()].reset_index(drop=True)
    part = mimic_parts(root)
    frame = images[["image_id", "study_id", "patient_id", "path"]].assign(
        view="frontal",
        source_split="test",
        mimic_split=[part.get(name, "") for name in images["image_id"]],
    )
    present = pd.crosstab(rows["image_id"], rows["category"]) > 0
    present = present.reindex(columns=list(CATEGORIES), fill_value=False)
    table = assemble(
        frame,
        present.loc[images["image_id"]].astype("float32"),
        dataset="ms_cxr",
        root=root,
        table_sha256=table_sha256(path),
        boxes=_boxes(rows),
    )
    if not check_files:
        return table
    # Not by a walk: few of MIMIC's 377,110 files are wanted.
    sizes = [_size(root / name) for name in table.frame["path"]]
    if len(table) and max(sizes) < 0:
        raise DataError(
            f"ms_cxr: none of the {len(table)} annotated images is below {root} "
            f"(first: {table.frame['path'].iloc[0]}); they are those of MIMIC-CXR-JPG"
        )
    state = np.array(sizes)
    whole = table.where(state >= 0, "missing_file")
    return whole.where(state[state >= 0] > 0, "zero_byte")


def _size(path: Path) -> int:
    """Bytes, -1 where there is no file."""
    return path.stat().st_size if path.is_file() else -1


def _boxes(rows: pd.DataFrame) -> dict[str, tuple[Box, ...]]:
    """Boxes by image; a row that repeats another is one box."""
    boxes: dict[str, tuple[Box, ...]] = {}
    columns = ["image_id", *BOX.values(), "category"]
    for name, *box in rows.drop_duplicates()[columns].itertuples(index=False):
        boxes[name] = (*boxes.get(name, ()), Box(*box))
    return boxes


def mimic_parts(root: Path) -> dict[str, str]:
    """MIMIC's official part by image id; empty without its split table."""
    if not has_table(root, mimic_cxr.SPLIT):
        return {}
    split = read_table(find_table(root, mimic_cxr.SPLIT), ["dicom_id", "split"])
    return dict(zip(split["dicom_id"], split["split"], strict=True))


def phrases(data_root: Path) -> tuple[Phrase, ...]:
    """The phrases with their boxes, in the order of the table.

    Source: MaCo's released grounding data set: the boxes of an image whose texts are equal in lower
    case are one phrase, with the category of the last one, so two findings under one sentence are
    one. Boxes without a text are counted in the log, see `left_out`.

    Raises:
        DataError: If a table is absent or malformed, or a box not inside its image.
    """
    path = table_of(find_home(data_root))
    root = mimic_cxr.find_home(data_root)
    rows = checked_rows(path).drop_duplicates()
    silent = rows["text"] == ""
    if silent.any():
        log.warning("%s: %d boxes without a phrase are left out", path, int(silent.sum()))
    rows = rows[~silent].assign(key=rows["text"].str.lower())
    found = []
    for (image_id, _), group in rows.groupby(["image_id", "key"], sort=False):
        first = group.iloc[0]
        found.append(
            Phrase(
                image_id=image_id,
                path=root / first["path"],
                text=first["text"],
                category=group["category"].iloc[-1],
                boxes=_boxes(group)[image_id],
                width=int(first["image_width"]),
                height=int(first["image_height"]),
            )
        )
    return tuple(found)


def left_out(data_root: Path) -> dict[str, int]:
    """How many boxes `phrases` leaves out: rows that repeat another, and those without a phrase.

    Raises:
        DataError: If the table is absent or malformed.
    """
    rows = read_rows(table_of(find_home(data_root)))
    return {
        "repeated_rows": int(rows.duplicated().sum()),
        "boxes_without_text": int((rows.drop_duplicates()["text"] == "").sum()),
    }


def seen_in_pretraining(data_root: Path) -> dict[str, int]:
    """Annotated images by MIMIC's official part: those of `train` were seen in pre-training.

    Returns:
        Images under `train`, `validate`, `test`, and `""` for those in no part.

    Raises:
        DataError: If a table is absent or malformed.
    """
    table = load(data_root, check_files=False)
    parts = table.frame["mimic_split"].value_counts()
    return {name: int(parts.get(name, 0)) for name in (*mimic_cxr.SPLITS, "")}
