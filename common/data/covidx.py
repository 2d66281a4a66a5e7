"""COVIDx: radiographs of normal lungs, other pneumonia and COVID-19, gathered from many places.

Access: Kaggle (`covidx-cxr2`) or COVID-Net's scripts; images keep the terms of their sources, the
lists are AGPL-3.0. Citation: Wang et al., "COVID-Net", Scientific Reports 2020.

A label list is space-separated without header: `patient file class source`. Older lists lack the
source, some patient ids hold a space, so lines are read from the right. Binary lists
(`positive`/`negative`) exist under similar names and cannot give three classes. Every pneumonia
image from RSNA is an RSNA positive, and class is confounded with source.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from common.data.records import RecordTable, assemble
from common.data.tables import DataError, first_home, resolve_inside, table_sha256

ROOTS: tuple[str, ...] = ("COVIDx", "covidx", "covidx-cxr2", "covidx-cxr-2", "COVIDx-CXR", ".")
CLASSES = ("Normal", "Pneumonia", "COVID-19")
"""In the order of MGCA's class ids."""
LISTED_AS = {"normal": "Normal", "pneumonia": "Pneumonia", "COVID-19": "COVID-19"}
BINARY = ("positive", "negative")
SUFFIXES = (".png", ".jpg", ".jpeg")
LISTS = ("{}_COVIDx9A.txt", "{}_COVIDx_CXR-3A.txt", "{}_COVIDx8A.txt", "{}.txt")
"""Names that a part's list can have; the first that exists is read."""
PARTS = ("train", "test")


def find_home(data_root: Path) -> Path:
    """The first of `ROOTS` that holds both lists and a `train` folder.

    Raises:
        DataError: If none does; lists the places looked in.
    """

    def holds(folder: Path) -> bool:
        return (folder / "train").is_dir() and all(_list(folder, part) for part in PARTS)

    lists = ", ".join(name.format("train") for name in LISTS)
    wanted = f"train/ and one of {lists}"
    return first_home(data_root, ROOTS, holds, dataset="covidx", wanted=wanted)


def tables(home: Path) -> list[Path]:
    """The label lists that are read."""
    return [path for part in PARTS if (path := _list(home, part))]


def _list(home: Path, part: str) -> Path | None:
    """A part's label list, beside the images or in the `labels` folder of COVID-Net."""
    places = [home / folder / name.format(part) for name in LISTS for folder in ("", "labels")]
    return next((path for path in places if path.is_file()), None)


def read_list(path: Path, part: str) -> pd.DataFrame:
    """One row a line: `image_id`, `patient_id`, `path`, `class`, `source`.

    Raises:
        DataError: If the list is binary, or a line or class is not understood; names the line.
    """
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error})") from error
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        has_source = len(words) >= 4 and words[-1] not in LISTED_AS
        label = words[-2] if has_source else words[-1]
        name_at = -3 if has_source else -2
        if label in BINARY:
            raise DataError(
                f"{path}: line {number} says {label!r}: a binary list has no three classes; use an "
                "A list, for instance train_COVIDx9A.txt (whose first version said positive for "
                "COVID-19 on 943 lines: take the corrected one)"
            )
        if label not in LISTED_AS or len(words) + name_at < 1:
            raise DataError(
                f"{path}: line {number} is {line!r}; expected: patient file class [source], with "
                f"class one of {', '.join(LISTED_AS)}"
            )
        name = words[name_at]
        resolve_inside(path.parent, name)
        rows.append(
            {
                "image_id": f"{part}/{name}",
                "patient_id": " ".join(words[:name_at]),
                "path": f"{part}/{name}",
                "class": LISTED_AS[label],
                "source": words[-1] if has_source else "",
            }
        )
    if not rows:
        raise DataError(f"{path} is empty; is the download complete?")
    return pd.DataFrame(rows)


def load(data_root: Path, *, check_files: bool = True) -> RecordTable:
    """Both parts, one row an image; one of `CLASSES` is 1, the others 0.

    Args:
        data_root: Folder that holds one of `ROOTS`.
        check_files: Look for the image files; false loads the lists alone.

    Raises:
        DataError: If a list is absent, binary or malformed.
    """
    home = find_home(data_root)
    parts = {part: read_list(path, part) for part, path in zip(PARTS, tables(home), strict=True)}
    rows = pd.concat(parts.values(), ignore_index=True)
    frame = rows[["image_id", "patient_id", "path", "source"]].assign(
        study_id=rows["image_id"],
        view="frontal",
        source_split=rows["image_id"].str.partition("/")[0],
    )
    labels = pd.DataFrame({name: (rows["class"] == name).astype("float32") for name in CLASSES})
    return assemble(
        frame,
        labels,
        dataset="covidx",
        root=home,
        table_sha256=table_sha256(*tables(home)),
        suffixes=SUFFIXES if check_files else (),
    )
