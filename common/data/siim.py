"""SIIM-ACR Pneumothorax Segmentation 2019: 12,047 labelled images, 2,669 with pneumothorax masks.

Origin: images of NIH ChestX-ray14, annotated by radiologists of the SIIM and the STR. Access:
Kaggle account and the competition's terms. A model trained on NIH has seen these images.

Masks are run lengths `start length ...`: a start counts from the end of the run before, pixels run
down the columns of the image. An image has a row for each annotation, which may overlap: the mask
is their union. Negatives are marked `-1`, in the first release ` -1`; its column is called
` EncodedPixels`. Both tables are read the same way here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common.data.images import dimensions
from common.data.records import EXAMPLES, RecordTable, assemble
from common.data.tables import (
    DataError,
    files_below,
    find_table,
    first_home,
    has_table,
    read_table,
    table_sha256,
)

ROOTS: tuple[str, ...] = (
    "siim-acr-pneumothorax-segmentation",
    "siim-acr-pneumothorax",
    "SIIM_Pneumothorax",
    "siim",
    "SIIM",
    "pneumothorax",
    ".",
)
TABLES = ("stage_2_train.csv", "train-rle.csv")
"""Both stages' labels, or the first stage's; the first that exists is read."""
TRAIN = "dicom-images-train"
SUFFIX = ".dcm"
MIRROR = "png_images"
MIRROR_TABLES = ("stage_1_train_images.csv", "stage_1_test_images.csv")
"""Of the mirror in PNG: its file names say nothing of the ids, these tables do."""
NEGATIVE = "-1"
SIDE = 1024
"""Of every real image and mask, pixels."""


def find_home(data_root: Path) -> Path:
    """The first of `ROOTS` that holds one of `TABLES`.

    Raises:
        DataError: If none does; lists the places looked in.
    """

    def holds(folder: Path) -> bool:
        return any(has_table(folder, name) for name in TABLES)

    wanted = " or ".join(TABLES)
    return first_home(data_root, ROOTS, holds, dataset="siim", wanted=wanted)


def table_of(home: Path) -> Path:
    """The label table that is read."""
    for name in TABLES:
        if has_table(home, name):
            return find_table(home, name)
    raise DataError(f"{home} holds none of {', '.join(TABLES)}")


def read_rows(path: Path) -> pd.DataFrame:
    """One row an annotation: `ImageId` and `rle`, "" for negatives.

    Raises:
        DataError: If a run length is malformed or blank, or an image is both negative and
            positive.
    """
    table = read_table(path, ["ImageId", "EncodedPixels"])
    rows = pd.DataFrame({"ImageId": table["ImageId"].str.strip()})
    text = table["EncodedPixels"].str.strip()
    rows["rle"] = text.replace(NEGATIVE, "")
    for number, (cell, rle) in enumerate(zip(text, rows["rle"], strict=True), start=1):
        numbers = rle.split()
        if not cell or len(numbers) % 2 or not all(n.isdigit() for n in numbers):
            raise DataError(
                f"{path}: data row {number} is {rle[:40]!r}; expected {NEGATIVE} or pairs of start "
                "and length"
            )
    negative = rows["rle"] == ""
    both = sorted(set(rows["ImageId"][negative]) & set(rows["ImageId"][~negative]))
    if both:
        raise DataError(f"{path}: images with and without a mask: {both[:EXAMPLES]}")
    return rows


def load(data_root: Path, *, check_files: bool = True) -> RecordTable:
    """The labelled images, one row each; the label is `Pneumothorax`.

    Repeated rows and images without a row are counted. Extra columns: `rles`, the image's run
    lengths joined by `;`, and `rows`, its row numbers in the table. `patient_id` is the image id:
    the real one is in the DICOM headers alone.

    Args:
        data_root: Folder that holds one of `ROOTS`.
        check_files: Look for the DICOM files, or those of the PNG mirror; false loads the table
            alone.

    Raises:
        DataError: If the table is absent or malformed.
    """
    home = find_home(data_root)
    path = table_of(home)
    scans = sorted(files_below(home, (SUFFIX,))) if check_files else []
    every = read_rows(path)
    rows = every.drop_duplicates()
    numbers = pd.Series(rows.index.astype(str), index=rows.index)
    images = rows.groupby("ImageId", sort=False)["rle"].agg(";".join).reset_index()
    order = numbers.groupby(rows["ImageId"], sort=False).agg(" ".join).to_numpy()
    ids = images["ImageId"]
    frame = pd.DataFrame(
        {
            "image_id": ids,
            "study_id": ids,
            "patient_id": ids,
            "path": image_paths(home, ids, scans) if check_files else ids + ".dcm",
            "view": "frontal",
            "source_split": "train",
            "rles": images["rle"],
            "rows": order,
        }
    )
    labels = pd.DataFrame({"Pneumothorax": (images["rle"] != "").astype("float32")})
    table = assemble(
        frame,
        labels,
        dataset="siim",
        root=home,
        table_sha256=table_sha256(path),
        suffixes=(SUFFIX, ".png") if check_files else (),
    )
    table.exclusions.add("duplicate", every["ImageId"][every.duplicated()])
    table.exclusions.add("unlabelled", unlabelled(scans, ids))
    return replace(table, rows_in=len(table) + table.exclusions.total())


def image_paths(home: Path, ids: pd.Series, scans: Sequence[str]) -> pd.Series:
    """Path of each image below `home`: the DICOM of its name among `scans`, else the mirror's."""
    found = mirrored(home) | {Path(name).stem: name for name in scans}
    return ids.map(lambda name: found.get(name, f"{TRAIN}/{name}{SUFFIX}"))


def mirrored(home: Path) -> dict[str, str]:
    """Path of each image in the PNG mirror, by its tables; empty without them.

    Its masks are not read: the run lengths of the label table are what they were drawn from.
    """
    tables = [
        read_table(find_table(home, name), ["ImageId", "new_filename"])
        for name in MIRROR_TABLES
        if has_table(home, name)
    ]
    return {
        image: f"{MIRROR}/{Path(name).name}"
        for table in tables
        for image, name in zip(table["ImageId"].str.strip(), table["new_filename"], strict=True)
    }


def unlabelled(scans: Sequence[str], ids: pd.Series) -> list[str]:
    """Images without a row: the challenge's test images, and 37 among those for training."""
    known = set(ids)
    return [name for name in scans if Path(name).stem not in known]


def side_of(table: RecordTable) -> int:
    """Side of the images and masks, pixels, from the first header."""
    return dimensions(table.root / table.frame["path"].iloc[0])[1]


def union(rles: Sequence[str], *, side: int = SIDE) -> NDArray[np.bool_]:
    """The mask of an image: everything that one of its annotations covers; (side, side)."""
    mask = np.zeros((side, side), dtype=bool)
    for rle in rles:
        mask |= decode(rle, side=side)
    return mask


def decode(rle: str, *, side: int = SIDE) -> NDArray[np.bool_]:
    """One annotation's mask.

    Args:
        rle: Starts (each from the end of the run before) and lengths, down the columns; "" is none.
        side: Of the image, pixels.

    Returns:
        (side, side).

    Raises:
        DataError: If a run leaves the image.
    """
    flat, at = np.zeros(side * side, dtype=bool), 0
    numbers = [int(n) for n in rle.split()]
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        at += start
        if at + length > len(flat):
            raise DataError(f"a run ends at {at + length} of {len(flat)} pixels; absolute starts?")
        flat[at : at + length] = True
        at += length
    return flat.reshape(side, side).T
