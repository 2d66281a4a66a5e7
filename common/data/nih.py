"""NIH ChestX-ray14: 112,120 frontal radiographs of 30,805 patients, 14 labels mined from reports.

Access: no restriction on use; link to the source, cite and acknowledge the NIH Clinical Center.
Citation: Wang et al., "ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on
Weakly-Supervised Classification and Localization of Common Thorax Diseases", CVPR 2017.

Two label tables circulate: that of 2017 and that of 2020, which differs on 181 images. A label is 1
or 0; `No Finding` is 0 for all 14. RSNA and SIIM show images of this data set.

`View Position`, sex and age are kept as the table has them: ages of the first release can have
units or exceed 400. Neither `Follow-up #` nor the number in a file's name is a date. Boxes are in
pixels of the 1024 x 1024 files, not of `OriginalImage[Width,Height]`.
"""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from common.data.records import EXAMPLES, Box, RecordTable, assemble
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
    *("ChestX-ray14", "chestxray14", "ChestXray14", "ChestXray-NIHCC", "CXR8"),
    *("nih-chest-xrays", "nih-chest-xrays/data", "NIH", "nih", "NIH_CXR14", "."),
)
TABLES = {"2020": "Data_Entry_2017_v2020.csv", "2017": "Data_Entry_2017.csv"}
"""By version; without a choice the first that exists is read."""
ALIAS = {"Patient Sex": "Patient Gender"}
BOX_TABLE = "BBox_List_2017.csv"
BOX = {"Bbox [x": "x", "y": "y", "w": "width", "h]": "height"}
"""Columns of the box table: its header has commas inside brackets, as `OriginalImage[Width` has."""
LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}
SUFFIXES = (".png",)
LABELS = (
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia"),
    *("Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening"),
    "Hernia",
)
NO_FINDING = "No Finding"
BOX_LABELS = {"Infiltrate": "Infiltration"}
_NAME = re.compile(r"\d{8}_\d{3}\.png")


def find_home(data_root: Path) -> Path:
    """The first of `ROOTS` that holds one of `TABLES`.

    Raises:
        DataError: If none does; lists the places looked in.
    """

    def holds(folder: Path) -> bool:
        return any(has_table(folder, name) for name in TABLES.values())

    wanted = " or ".join(TABLES.values())
    return first_home(data_root, ROOTS, holds, dataset="nih", wanted=wanted)


def table_of(home: Path, version: str = "") -> tuple[str, Path]:
    """Version and path of the label table that is read.

    Raises:
        DataError: If there is none of that version, or the version is unknown.
    """
    if version and version not in TABLES:
        raise DataError(f"unknown version {version!r} of nih; choose one of {', '.join(TABLES)}")
    for name in [version] if version else TABLES:
        if has_table(home, TABLES[name]):
            return name, find_table(home, TABLES[name])
    return version, find_table(home, TABLES[version or "2020"])


def read_rows(path: Path) -> pd.DataFrame:
    """One row an image: `image_id` (the file's name), `patient_id`, `view_position`, `sex`, `age`.

    The labels follow as columns `LABELS`, 1 or 0.

    Raises:
        DataError: If a column is missing, or a name or label not understood; names the row.
    """
    columns = ["Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender"]
    table = read_table(path, [*columns, "View Position"], alias=ALIAS)
    table = table.map(str.strip)
    names = table["Image Index"]
    bad = ~names.str.fullmatch(_NAME) | (table["Patient ID"] == "")
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"{path}: data row {row + 1} is image {names.iloc[row]!r} of patient "
            f"{table['Patient ID'].iloc[row]!r}; expected a name like 00000001_000.png and a number"
        )
    rows = pd.DataFrame({"image_id": names, "patient_id": table["Patient ID"]})
    rows["view_position"] = table["View Position"]
    rows["sex"], rows["age"] = table["Patient Gender"], table["Patient Age"]
    return pd.concat([rows, _labels(table["Finding Labels"], path)], axis=1)


def _labels(texts: pd.Series, path: Path) -> pd.DataFrame:
    """(rows, 14) float of 1 and 0."""
    for text in texts.drop_duplicates():
        found = text.split("|")
        unknown = [name for name in found if name not in (*LABELS, NO_FINDING)]
        problem = f"unknown label {unknown[0]!r}" if unknown else ""
        if NO_FINDING in found and len(found) > 1:
            problem = problem or f"{NO_FINDING!r} beside a finding"
        if problem:
            row = int(np.flatnonzero(texts == text)[0])
            raise DataError(
                f"{path}: {problem} in data row {row + 1}, {text!r}; expected {NO_FINDING!r}, or "
                f"some of {', '.join(LABELS)} joined by |"
            )
    states = texts.str.get_dummies(sep="|").reindex(columns=list(LABELS), fill_value=0)
    return states.astype("float32")


def read_names(path: Path) -> list[str]:
    """The image ids of an official list, packed or not.

    Raises:
        DataError: If the file is no text.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable list ({error})") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def lists(home: Path) -> dict[str, Path]:
    """The official lists that are there, by part."""
    return {part: find_table(home, name) for part, name in LISTS.items() if has_table(home, name)}


def official_parts(home: Path) -> dict[str, str]:
    """Part by image id; empty without the lists.

    Raises:
        DataError: If an image is in both lists.
    """
    found = {part: read_names(path) for part, path in lists(home).items()}
    both = sorted(set(found.get("train", ())) & set(found.get("test", ())))
    if both:
        raise DataError(
            f"{home / LISTS['test']}: images that {LISTS['train']} has too: {both[:EXAMPLES]}; "
            "restore the original lists"
        )
    return {name: part for part, names in found.items() for name in names}


def read_boxes(home: Path) -> pd.DataFrame:
    """The box table: `image_id`, `label`, and `x`, `y`, `width`, `height` in pixels of the file.

    Empty without the table. Boxes are not judged here.

    Raises:
        DataError: If a label is unknown or a number malformed; names the row.
    """
    names = ["image_id", "label", *BOX.values()]
    if not has_table(home, BOX_TABLE):
        return pd.DataFrame(columns=names)
    path = find_table(home, BOX_TABLE)
    table = read_table(path, ["Image Index", "Finding Label", *BOX])
    rows = pd.DataFrame({"image_id": table["Image Index"].str.strip()})
    rows["label"] = table["Finding Label"].str.strip().replace(BOX_LABELS)
    for column, name in BOX.items():
        rows[name] = pd.to_numeric(table[column].str.strip(), errors="coerce")
    bad = ~rows["label"].isin(LABELS) | ~np.isfinite(rows[list(BOX.values())]).all(axis=1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"{path}: data row {row + 1} is {list(table.iloc[row])}; expected an image, one of the "
            "14 labels, and x, y, width, height in pixels"
        )
    return rows


def box_problems(boxes: pd.DataFrame) -> dict[str, str]:
    """What is wrong with an image's boxes, by image id; the image's size is not known here."""
    checks = {
        "box of zero or negative area": (boxes[["width", "height"]] <= 0).any(axis=1),
        "box starts outside the image": (boxes[["x", "y"]] < 0).any(axis=1),
    }
    found: dict[str, str] = {}
    for detail, bad in checks.items():
        for name in boxes["image_id"][bad]:
            found.setdefault(name, detail)
    return found


def load(data_root: Path, *, version: str = "", check_files: bool = True) -> RecordTable:
    """The images, one row each, with `LABELS` and the boxes of 880 test images.

    `source_split` is `train` (the official training and validation list) or `test`; it is "" for
    an image in neither list, and for all without the lists: labels can be used without them.
    Extra columns: `view_position` (`PA` or `AP`), `sex`, `age`.

    Args:
        data_root: Folder that holds one of `ROOTS`.
        version: A name of `TABLES`; "" takes the first that exists.
        check_files: Look for the image files in all folders below; false loads the tables alone.

    Raises:
        DataError: If a table is absent or malformed, a box invalid, or an image in both lists.
    """
    home = find_home(data_root)
    _, path = table_of(home, version)
    rows = read_rows(path)
    ids = rows["image_id"]
    part = official_parts(home)
    frame = pd.DataFrame(
        {
            "image_id": ids,
            "study_id": ids,
            "patient_id": rows["patient_id"],
            "path": image_paths(home, ids) if check_files else "images/" + ids,
            "view": "frontal",
            "source_split": [part.get(name, "") for name in ids],
            "view_position": rows["view_position"],
            "sex": rows["sex"],
            "age": rows["age"],
        }
    )
    return assemble(
        frame,
        rows[list(LABELS)],
        dataset="nih",
        root=home,
        table_sha256=table_sha256(path, *lists(home).values()),
        suffixes=SUFFIXES if check_files else (),
        boxes=_boxes(home, set(ids)),
    )


def _boxes(home: Path, known: set[str]) -> dict[str, tuple[Box, ...]]:
    """Boxes by image; a row that repeats another is one box."""
    rows = read_boxes(home)
    problems = box_problems(rows)
    problems |= {name: "not in the label table" for name in rows["image_id"] if name not in known}
    if problems:
        name, detail = next(iter(problems.items()))
        path = find_table(home, BOX_TABLE)
        raise DataError(f"{path}: {len(problems)} images with invalid boxes; {name}: {detail}")
    boxes: dict[str, tuple[Box, ...]] = {}
    for name, label, x, y, width, height in rows.drop_duplicates().itertuples(index=False):
        boxes[name] = (*boxes.get(name, ()), Box(x, y, width, height, label))
    return boxes


def image_paths(home: Path, ids: pd.Series) -> pd.Series:
    """Path of each image below `home`, found by its file name in any folder.

    That serves the flat `images/` and the twelve `images_0NN/images/` of the archives. Of several
    files with one name those in a folder called `images` go first, others may be smaller copies;
    then the first by path counts.
    """
    found: dict[str, str] = {}
    names = files_below(home, SUFFIXES)
    for name in sorted(names, key=lambda n: (Path(n).parent.name != "images", n)):
        found.setdefault(Path(name).name, name)
    return ids.map(lambda name: found.get(name, f"images/{name}"))
