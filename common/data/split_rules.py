"""Rules behind the named splits: a table in, image ids by part out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from common.data import chexpert, given_splits
from common.data.records import RecordTable
from common.data.tables import DataError

Parts = dict[str, tuple[str, ...]]

GLORIA_NUMPY_SEED = 6
"""Set by GLoRIA's package at import; the only seed behind its 5x200 draw."""
CHEXPERT_VALID = 5000
CHEXPERT_SMALL = 50_000
"""Pools below this give a tenth instead of `CHEXPERT_VALID`, so that small corpora can be split."""


@dataclass(frozen=True)
class Rule:
    """How a named split is made."""

    dataset: str
    build: Callable[[RecordTable], Parts]
    text: str
    allow_patient_overlap: bool = False
    allow_image_overlap: bool = False


def rule_of(split_id: str) -> Rule:
    """The rule called `split_id`; `chexpert5x200/seed<k>` exists for every k.

    Raises:
        DataError: If there is none; lists those there are.
    """
    seeded = re.fullmatch(r"chexpert5x200/seed(\d+)", split_id)
    if seeded:
        return _five_by_200_rule(int(seeded[1]))
    if split_id not in SPLITS:
        known = ", ".join([*SPLITS, "chexpert5x200/seed<k>"])
        raise DataError(f"unknown split {split_id!r}; choose one of {known}")
    return SPLITS[split_id]


def _mimic_official(table: RecordTable) -> Parts:
    """The data set's own split of its frontal images."""
    return _mimic_parts(table.frame[table.frame["view"] == "frontal"])


def _mimic_all_views(table: RecordTable) -> Parts:
    return _mimic_parts(table.frame)


def _mimic_parts(frame: pd.DataFrame) -> Parts:
    names = {"train": "train", "valid": "validate", "test": "test"}
    return {
        part: tuple(frame["image_id"][frame["source_split"] == name])
        for part, name in names.items()
    }


def _rsna_gloria(table: RecordTable) -> Parts:
    return {part: tuple(ids) for part, ids in _thirds(sorted(table.frame["image_id"])).items()}


def _five_by_200_gloria(table: RecordTable) -> pd.Series:
    state = np.random.RandomState(GLORIA_NUMPY_SEED)
    return chexpert.five_by_200(table, seed=state)["image_id"]


def _chexpert_pool(table: RecordTable) -> pd.DataFrame:
    """Frontal training rows by id; the order of the table does not matter then."""
    frame = table.frame
    pool = frame[(frame["view"] == "frontal") & (frame["source_split"] == "train")]
    return pool.sort_values("image_id")


def _chexpert_test(table: RecordTable) -> tuple[str, ...]:
    frame = table.frame
    expert = (frame["view"] == "frontal") & (frame["source_split"] == "valid")
    return _tuple(frame["image_id"][expert])


def _valid_size(pool: int) -> int:
    return CHEXPERT_VALID if pool >= CHEXPERT_SMALL else pool // 10


def _chexpert_gloria(table: RecordTable) -> Parts:
    pool = _chexpert_pool(table)["image_id"]
    pool = pool[~pool.isin(_five_by_200_gloria(table))]
    valid = pool.sample(n=_valid_size(len(pool)), random_state=0)
    train = pool[~pool.isin(valid)]
    return {"train": _tuple(train), "valid": _tuple(valid), "test": _chexpert_test(table)}


def _chexpert_gloria_patient(table: RecordTable) -> Parts:
    pool = _chexpert_pool(table)
    held = table.frame["image_id"].isin(_five_by_200_gloria(table))
    pool = pool[~pool["patient_id"].isin(table.frame["patient_id"][held])]
    images = pool.groupby("patient_id").size().sample(frac=1.0, random_state=0)
    chosen = images.index[images.cumsum() <= _valid_size(len(pool))]
    valid = pool["patient_id"].isin(chosen)
    return {
        "train": _tuple(pool["image_id"][~valid]),
        "valid": _tuple(pool["image_id"][valid]),
        "test": _chexpert_test(table),
    }


def _index_label_leak(table: RecordTable, five_by_200: pd.Series) -> Parts:
    """The index-label bug: rows are chosen by position, then dropped by the number they had before.

    After the 5x200 rows are gone, position and number differ, so nearly every validation row stays
    in training and as many other rows vanish.
    """
    ids = table.frame["image_id"][table.frame["source_split"] == "train"].reset_index(drop=True)
    ids = ids[~ids.isin(five_by_200)]
    positions = np.random.RandomState(0).choice(len(ids), _valid_size(len(ids)), replace=False)
    valid = ids.iloc[positions]
    train = ids.drop(positions, errors="ignore")
    return {"train": _tuple(train), "valid": _tuple(valid), "test": _chexpert_test(table)}


def _first_views(table: RecordTable) -> Parts:
    first = table.frame["image_id"][table.frame["image_id"].str.contains("view1_frontal")]
    return {"test": tuple(sorted(first))}


def _covidx_test(table: RecordTable) -> tuple[str, ...]:
    return _tuple(table.frame["image_id"][table.frame["source_split"] == "test"])


def _covidx_mgca(table: RecordTable) -> Parts:
    pool = table.frame[table.frame["source_split"] == "train"]
    patients = sorted(set(pool["patient_id"]))
    _, held = train_test_split(patients, test_size=0.1, random_state=0)
    valid = pool["patient_id"].isin(set(held))
    return {
        "train": _tuple(pool["image_id"][~valid]),
        "valid": _tuple(pool["image_id"][valid]),
        "test": _covidx_test(table),
    }


def _covidx_released(table: RecordTable) -> Parts:
    pool = table.frame["image_id"][table.frame["source_split"] == "train"].tolist()
    train, valid = train_test_split(pool, test_size=0.2, random_state=0)
    return {"train": tuple(train), "valid": tuple(valid), "test": _covidx_test(table)}


def _rsna_dense(table: RecordTable) -> Parts:
    drawn = _thirds(sorted(table.frame["image_id"]), held=0.4)
    return {part: tuple(ids) for part, ids in drawn.items()}


def _object_cxr(table: RecordTable, held: float) -> Parts:
    part = table.frame["source_split"]
    pool = sorted(table.frame["image_id"][part == "train"])
    train, valid = train_test_split(pool, test_size=held, random_state=0)
    test = _tuple(table.frame["image_id"][part == "dev"])
    return {"train": tuple(train), "valid": tuple(valid), "test": test}


def _thirds(items: list[str], *, held: float = 0.3) -> dict[str, list[str]]:
    """All but `held` to train on, half of the rest to test, the first part of the second cut."""
    train, rest = train_test_split(items, test_size=held, random_state=0)
    test, valid = train_test_split(rest, test_size=0.5, random_state=0)
    return {"train": train, "valid": valid, "test": test}


def _siim_images(table: RecordTable) -> Parts:
    return {part: tuple(ids) for part, ids in _thirds(table.frame["image_id"].tolist()).items()}


def _siim_rows(table: RecordTable) -> Parts:
    owner = {
        int(row): name
        for name, rows in table.frame[["image_id", "rows"]].itertuples(index=False)
        for row in rows.split()
    }
    drawn = _thirds([owner[row] for row in sorted(owner)])
    return {part: tuple(dict.fromkeys(ids)) for part, ids in drawn.items()}


def _five_by_200_rule(seed: int) -> Rule:
    def draw(table: RecordTable) -> Parts:
        return {"test": _tuple(chexpert.five_by_200(table, seed=seed)["image_id"])}

    return Rule("chexpert", draw, f"200 images of each of five classes, seed {seed} in each class")


_POOL = "train frontal without chexpert5x200/gloria-v1"
_LEAK = (
    "reproduces the leak of GLoRIA's and MGCA's code: 5,000 valid rows by position (numpy seed 0), "
    "dropped from train by index label; train and valid hold laterals too, as the released tables "
    "do, and are filtered to frontal when read"
)
SPLITS: dict[str, Rule] = {
    "mimic/official": Rule(
        "mimic", _mimic_official, "the release's train, validate and test, views PA and AP"
    ),
    "mimic/official-all-views": Rule(
        "mimic",
        _mimic_all_views,
        "the release's train, validate and test, every image, laterals and unknown views too",
    ),
    "rsna/gloria-v1": Rule(
        "rsna",
        _rsna_gloria,
        "70/15/15 of the sorted ids, scikit-learn, seed 0 in both cuts; as in GLoRIA's and MGCA's "
        "code, test is the first part of the second cut",
    ),
    "chexpert/gloria-v1": Rule(
        "chexpert",
        _chexpert_gloria,
        f"{_POOL}; 5,000 random images (a tenth below 50,000) are valid, seed 0; test is "
        "valid.csv frontal. Images, not patients, are disjoint, as the paper has it",
        allow_patient_overlap=True,
    ),
    "chexpert/gloria-v1-patient": Rule(
        "chexpert",
        _chexpert_gloria_patient,
        f"{_POOL}'s patients; random patients of up to 5,000 images (a tenth below 50,000) are "
        "valid, seed 0; test is valid.csv frontal",
    ),
    "chexpert/gloria-released": Rule(
        "chexpert",
        lambda table: _index_label_leak(table, _five_by_200_gloria(table)),
        f"without chexpert5x200/gloria-v1; {_LEAK}",
        allow_patient_overlap=True,
        allow_image_overlap=True,
    ),
    "chexpert/mgca-released": Rule(
        "chexpert",
        lambda table: _index_label_leak(table, chexpert.five_by_200(table, seed=0)["image_id"]),
        f"without chexpert5x200/mgca-seed0; {_LEAK}",
        allow_patient_overlap=True,
        allow_image_overlap=True,
    ),
    "chexpert_test/view1-v1": Rule(
        "chexpert_test",
        _first_views,
        "the first frontal view (view1) of each study, by path: CheXzero's 500 radiographs",
    ),
    "covidx/mgca-v1": Rule(
        "covidx",
        _covidx_mgca,
        "10 % of the training list's patients are valid, scikit-learn, seed 0; test is the "
        "official list; the paper says 10 % of the images",
    ),
    "covidx/mgca-released": Rule(
        "covidx",
        _covidx_released,
        "20 % of the training list's images are valid, scikit-learn, seed 0, as in MGCA's code; "
        "test is the official list; a patient's images can be on both sides",
        allow_patient_overlap=True,
    ),
    "object_cxr/mgca-v1": Rule(
        "object_cxr",
        lambda table: _object_cxr(table, 0.2),
        "80/20 of the training part, scikit-learn, seed 0, the paper's 6,400 / 1,600; test is dev",
    ),
    "object_cxr/mgca-released": Rule(
        "object_cxr",
        lambda table: _object_cxr(table, 0.1),
        "90/10 of the training part, scikit-learn, seed 0, as in MGCA's code; test is dev",
    ),
    "rsna/mgca-dense-v1": Rule(
        "rsna",
        _rsna_dense,
        "60/20/20 of the sorted ids, scikit-learn, seed 0 in both cuts; for detection and "
        "segmentation, images without box kept",
    ),
    "siim/gloria-v1": Rule(
        "siim",
        _siim_images,
        "70/15/15 of the images in the table's order, scikit-learn, seed 0 in both cuts",
    ),
    "siim/maco-v1": Rule(
        "siim",
        _siim_images,
        "70/15/15 of the distinct images, scikit-learn, seed 0 in both cuts: MaCo's ratios without "
        "the shared images of its lists (ledger S3); the same draw as siim/gloria-v1",
    ),
    "siim/maco-lists": Rule(
        "siim",
        partial(given_splits.from_lists, name=given_splits.MACO),
        f"the lists of MaCo's authors, which the user supplies in {given_splits.MACO}/; they leak: "
        "train and test share 494 images, valid and test 124, train and valid 478",
        allow_patient_overlap=True,
        allow_image_overlap=True,
    ),
    "nih/official": Rule(
        "nih",
        given_splits.nih_official,
        "test_list.txt is test; 10 % of the patients of train_val_list.txt are valid, "
        "scikit-learn, seed 0",
    ),
    "nih/kad-v1": Rule(
        "nih",
        given_splits.nih_official_images,
        "test_list.txt is test; a tenth of the images of train_val_list.txt are valid, "
        "scikit-learn, seed 0: KAD's and IMITATE's 77,872 / 8,652 / 25,596; a patient's images can "
        "be in training and validation",
        allow_patient_overlap=True,
    ),
    "rsna/lovt-lists": Rule(
        "rsna",
        partial(given_splits.from_lists, name=given_splits.LOVT),
        f"LoVT's lists, which the user supplies in {given_splits.LOVT}/",
    ),
    "nih/maco-v1": Rule(
        "nih",
        given_splits.nih_patients,
        "70/10/20 of the patients, scikit-learn, seed 0 in both cuts: MaCo's ratios; the paper's "
        "own lists are for the user to supply, as nih/maco-lists. Crosses the official test list",
    ),
    "nih/maco-lists": Rule(
        "nih",
        partial(given_splits.from_lists, name=given_splits.MACO),
        f"the lists of MaCo's authors, which the user supplies in {given_splits.MACO}/; they cross "
        "the official test list: 17,920 of its images are in their training list",
    ),
    "siim/gloria-released": Rule(
        "siim",
        _siim_rows,
        "70/15/15 of the table's rows, scikit-learn, seed 0 in both cuts, as in GLoRIA's and "
        "MGCA's code: an image with several annotations can be in several parts",
        allow_patient_overlap=True,
        allow_image_overlap=True,
    ),
    "chexpert5x200/gloria-v1": Rule(
        "chexpert",
        lambda table: {"test": _tuple(_five_by_200_gloria(table))},
        "200 images of each of five classes, one numpy state of seed 6 through the classes",
    ),
    "chexpert5x200/mgca-seed0": _five_by_200_rule(0),
}


def _tuple(ids: pd.Series) -> tuple[str, ...]:
    return tuple(ids.tolist())  # iterating a column of strings is ten times slower
