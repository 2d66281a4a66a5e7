"""Splits that others fixed: NIH ChestX-ray14's official lists, and lists that the user supplies."""

from __future__ import annotations

import pandas as pd
from sklearn.model_selection import train_test_split

from common.data.lists import read_list
from common.data.records import RecordTable
from common.data.tables import DataError

MACO, LOVT = "maco_lists", "lovt_lists"
"""Folders below a data set's root for `train.txt`, `valid.txt` and `test.txt`."""

Parts = dict[str, tuple[str, ...]]


def nih_official(table: RecordTable) -> Parts:
    """The official test list; a tenth of the other list's patients validate.

    Raises:
        DataError: If the table was loaded without the official lists.
    """
    pool, test = _official(table)
    _, held = train_test_split(sorted(set(pool["patient_id"])), test_size=0.1, random_state=0)
    valid = pool["patient_id"].isin(set(held))
    parts = {"train": pool[~valid], "valid": pool[valid], "test": test}
    return {part: tuple(rows["image_id"].tolist()) for part, rows in parts.items()}


def nih_official_images(table: RecordTable) -> Parts:
    """The official test list; a tenth of the other list's images validate.

    Raises:
        DataError: If the table was loaded without the official lists.
    """
    pool, test = _official(table)
    images = pool["image_id"].tolist()
    train, valid = train_test_split(images, test_size=len(images) // 10, random_state=0)
    return {"train": tuple(train), "valid": tuple(valid), "test": tuple(test["image_id"].tolist())}


def _official(table: RecordTable) -> tuple[pd.DataFrame, pd.DataFrame]:
    frame = table.frame
    pool = frame[frame["source_split"] == "train"]
    if not len(pool):
        raise DataError(
            f"the official split needs train_val_list.txt and test_list.txt in {table.root}; "
            "without them take nih/maco-v1"
        )
    return pool, frame[frame["source_split"] == "test"]


def nih_patients(table: RecordTable) -> Parts:
    """70 % of the patients train, 10 % validate, 20 % test."""
    patients = sorted(set(table.frame["patient_id"]))
    train, rest = train_test_split(patients, test_size=0.3, random_state=0)
    valid, test = train_test_split(rest, test_size=2 / 3, random_state=0)
    ids = pd.Series(table.frame["image_id"].to_numpy(), index=table.frame["patient_id"])
    return {
        part: tuple(ids[ids.index.isin(people)].tolist())
        for part, people in (("train", train), ("valid", valid), ("test", test))
    }


def from_lists(table: RecordTable, name: str) -> Parts:
    """The user's copies of authors' lists in the folder `name`, each image once.

    Raises:
        DataError: If a list is absent, or names an image that the table lacks.
    """
    folder = table.root / name
    paths = {part: folder / f"{part}.txt" for part in ("train", "valid", "test")}
    absent = [path.name for path in paths.values() if not path.is_file()]
    if absent:
        raise DataError(
            f"{folder} holds no {', '.join(absent)}; put the authors' lists there under these "
            "names, or take a split that needs none"
        )
    return {part: tuple(dict.fromkeys(read_list(path, table))) for part, path in paths.items()}
