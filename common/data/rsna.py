"""RSNA Pneumonia Detection Challenge 2018, stage 2: 26,684 images, 6,012 with pneumonia boxes.

Origin: images of NIH ChestX-ray14, annotated by radiologists of the RSNA and the STR. Access:
Kaggle account and the competition's terms, non-commercial research, no redistribution. Citation:
Shih et al., "Augmenting the National Institutes of Health chest radiograph dataset with expert
annotations of possible pneumonia", Radiology: Artificial Intelligence 2019.

`patientId` names an image, not a person: the real patient links lie in NIH's mapping, so a split by
`patient_id` is a split by image here. A model trained on NIH has seen these images. The target is
pneumonia-like opacity; 11,821 of the negatives are abnormal for another reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from common.data.records import EXAMPLES, Box, RecordTable, assemble
from common.data.tables import (
    DataError,
    files_below,
    find_table,
    first_home,
    has_table,
    read_labels,
    read_table,
    table_sha256,
)

ROOTS: tuple[str, ...] = (
    "rsna-pneumonia-detection-challenge",
    "rsna_pneumonia_detection_challenge",
    "RSNA_Pneumonia",
    "rsna_pneumonia",
    "rsna",
    "RSNA",
    ".",
)
LABEL_TABLE = "stage_2_train_labels.csv"
CLASS_TABLE = "stage_2_detailed_class_info.csv"
TEST_TABLE = "stage_2_sample_submission.csv"
IMAGES = "stage_2_train_images"
TEST_IMAGES = "stage_2_test_images"
SUFFIXES = (".dcm",)
CLASSES = ("Normal", "No Lung Opacity / Not Normal", "Lung Opacity")
BOX = ["x", "y", "width", "height"]


def find_home(data_root: Path) -> Path:
    """The first of `ROOTS` that holds the label table.

    Raises:
        DataError: If none does; lists the places looked in.
    """
    return first_home(
        data_root, ROOTS, lambda f: has_table(f, LABEL_TABLE), dataset="rsna", wanted=LABEL_TABLE
    )


def load(data_root: Path, *, check_files: bool = True) -> RecordTable:
    """The annotated images, one row each, with their boxes.

    The label is `Pneumonia` (the table's `Target`); the three-way class is the column
    `detailed_class`, "" where the class table is absent. Extra rows of an image are its further
    boxes, not exclusions, so `rows_in` counts images and repeated rows.

    Args:
        data_root: Folder that holds one of `ROOTS`.
        check_files: Look for the DICOM files; false loads the tables alone.

    Raises:
        DataError: If a table is absent or malformed, a box invalid, or a target contradictory.
    """
    home = find_home(data_root)
    path = find_table(home, LABEL_TABLE)
    rows = read_rows(home)
    problems = box_problems(rows)
    if problems:
        name, detail = next(iter(problems.items()))
        raise DataError(f"{path}: {len(problems)} images with invalid boxes; {name}: {detail}")
    # Further boxes of an image are data; a repeated row is a duplicate, which `assemble` counts.
    images = rows[~rows["patientId"].duplicated() | rows.duplicated()].reset_index(drop=True)
    if rows.groupby("patientId")["Target"].nunique().max() > 1:
        raise DataError(f"{path}: an image has Target 0 and 1; restore the original table")
    ids = images["patientId"]
    classes = detailed_classes(home)
    frame = pd.DataFrame(
        {
            "image_id": ids,
            "study_id": ids,
            "patient_id": ids,
            "path": image_paths(home, ids) if check_files else IMAGES + "/" + ids + ".dcm",
            "view": "frontal",
            "source_split": "train",
            "detailed_class": [classes.get(name, "") for name in ids],
        }
    )
    return assemble(
        frame,
        images[["Target"]].rename(columns={"Target": "Pneumonia"}),
        dataset="rsna",
        root=home,
        table_sha256=table_sha256(path),
        suffixes=SUFFIXES if check_files else (),
        boxes=_boxes(rows),
    )


def read_rows(home: Path) -> pd.DataFrame:
    """The label table: `patientId`, box columns as floats (NaN blank), `Target` 0 or 1."""
    path = find_table(home, LABEL_TABLE)
    table = read_table(path, ["patientId", *BOX, "Target"])
    rows = pd.DataFrame({"patientId": table["patientId"].str.strip()})
    for name in BOX:
        text = table[name].str.strip()
        rows[name] = pd.to_numeric(text.replace("", np.nan), errors="coerce")
        bad = (text != "") & rows[name].isna() & (text.str.lower() != "nan")
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise DataError(f"{path}: {name} is {text.iloc[row]!r} in data row {row + 1}")
    rows["Target"] = read_labels(table, ["Target"], path=path)["Target"]
    if not rows["Target"].isin([0, 1]).all():
        raise DataError(f"{path}: Target must be 0 or 1 in every row")
    return rows


def box_problems(rows: pd.DataFrame) -> dict[str, str]:
    """What is wrong with an image's boxes, by image id; the image's size is not known here."""
    blank, some = rows[BOX].isna().all(axis=1), rows[BOX].isna().any(axis=1)
    positive = rows["Target"] == 1
    checks = {
        "positive without a complete box": positive & some,
        "negative with a box": ~positive & ~blank,
        "box not finite": positive & np.isinf(rows[BOX]).any(axis=1),
        "box of zero or negative area": positive & (rows[["width", "height"]] <= 0).any(axis=1),
        "box starts outside the image": positive & (rows[["x", "y"]] < 0).any(axis=1),
    }
    found: dict[str, str] = {}
    for detail, bad in checks.items():
        for name in rows["patientId"][bad]:
            found.setdefault(name, detail)
    return found


def _boxes(rows: pd.DataFrame) -> dict[str, tuple[Box, ...]]:
    """Boxes by image; a row that repeats another is one box."""
    boxes: dict[str, tuple[Box, ...]] = {}
    positive = rows[rows["Target"] == 1].drop_duplicates()
    for name, x, y, width, height in positive[["patientId", *BOX]].itertuples(index=False):
        boxes[name] = (*boxes.get(name, ()), Box(x, y, width, height, "Pneumonia"))
    return boxes


def box_mask(boxes: Sequence[Box], *, side: int) -> NDArray[np.bool_]:
    """Everything inside one of the boxes: (side, side)."""
    mask = np.zeros((side, side), dtype=bool)
    for box in boxes:
        top, left = round(box.y), round(box.x)
        mask[top : round(box.y + box.height), left : round(box.x + box.width)] = True
    return mask


def detailed_classes(home: Path) -> dict[str, str]:
    """Three-way class by image, empty without the table.

    The table repeats an image once a box, so it is looked up, never merged.
    """
    if not has_table(home, CLASS_TABLE):
        return {}
    path = find_table(home, CLASS_TABLE)
    table = read_table(path, ["patientId", "class"])[["patientId", "class"]].drop_duplicates()
    unknown = sorted(set(table["class"]) - set(CLASSES))
    if unknown:
        raise DataError(f"{path}: class {unknown[0]!r}; expected one of {', '.join(CLASSES)}")
    twice = table["patientId"][table["patientId"].duplicated()]
    if len(twice):
        raise DataError(f"{path}: two classes for one image: {list(twice[:EXAMPLES])}")
    return dict(zip(table["patientId"], table["class"], strict=True))


def image_paths(home: Path, ids: pd.Series) -> pd.Series:
    """Path of each image below `home`: the Kaggle folder, else found by the header's PatientID.

    The index reads every header once; it serves the MD.ai layout
    `<study UID>/<series UID>/<SOP UID>.dcm`.
    """
    expected = IMAGES + "/" + ids + ".dcm"
    if (home / IMAGES).is_dir():
        return expected
    found: dict[str, str] = {}
    for name in sorted(files_below(home, SUFFIXES)):
        try:
            header = pydicom.dcmread(home / name, stop_before_pixels=True)
        except (InvalidDicomError, OSError):
            continue  # `verify` names it; here it is a missing file
        found.setdefault(str(header.get("PatientID", "")), name)
    return pd.Series([found.get(i, e) for i, e in zip(ids, expected, strict=True)], index=ids.index)
