"""Published sizes come out of the real label tables, read by our loaders.

The tables are package data of torchxrayvision, a test-only dependency; none of its code is used.
"""

import shutil
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.data import chexpert, rsna, splits
from common.data.facts import facts
from common.data.labels import COMPETITION
from common.data.records import RecordTable

SPEC = find_spec("torchxrayvision")
pytestmark = pytest.mark.skipif(SPEC is None, reason="needs the tables inside torchxrayvision")
CHEXPERT, RSNA = facts("chexpert"), facts("rsna")


def packaged(name: str) -> Path:
    assert SPEC is not None
    assert SPEC.submodule_search_locations is not None
    return Path(SPEC.submodule_search_locations[0]) / "data" / name


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> RecordTable:
    root = tmp_path_factory.mktemp("chexpert")
    home = root / "CheXpert-v1.0-small"
    home.mkdir()
    shutil.copy(packaged("chexpert_train.csv.gz"), home / "train.csv.gz")
    return chexpert.load(root, ["train"], check_files=False)


@pytest.fixture(scope="module")
def with_valid(train: RecordTable) -> RecordTable:
    """The expert-labelled table is not public: one row stands in for it."""
    row = train.frame[:1].assign(
        image_id="valid/patient64541/study1/view1_frontal",
        patient_id="patient64541",
        source_split="valid",
    )
    return splits_table(train, row)


def splits_table(table: RecordTable, row: pd.DataFrame) -> RecordTable:
    return type(table)(
        table.dataset,
        table.root,
        pd.concat([table.frame, row], ignore_index=True),
        pd.concat([table.labels, table.labels[:1]], ignore_index=True),
        table.exclusions,
        table.rows_in + 1,
        table.table_sha256,
    )


@pytest.fixture(scope="module")
def rsna_table(tmp_path_factory: pytest.TempPathFactory) -> RecordTable:
    root = tmp_path_factory.mktemp("rsna")
    with zipfile.ZipFile(packaged("kaggle_stage_2_train_labels.csv.zip")) as archive:
        archive.extract(rsna.LABEL_TABLE, root)
    return rsna.load(root, check_files=False)


def states(column: pd.Series) -> list[int]:
    return [*(int((column == value).sum()) for value in (1, 0, -1)), int(column.isna().sum())]


def test_chexpert_rows(train: RecordTable) -> None:
    counts, frame = CHEXPERT["counts"], train.frame
    frontal = frame["view"] == "frontal"
    assert len(train) == counts["train_images"]
    assert train.exclusions.total() == 0
    assert frame["patient_id"].nunique() == counts["train_patients"]
    assert frame["study_id"].nunique() == counts["train_studies"]
    assert frontal.sum() == counts["train_frontal"]
    assert frame["view"].value_counts()["lateral"] == len(train) - counts["train_frontal"]
    assert frame["ap_pa"].replace("", "blank").value_counts().to_dict() == CHEXPERT["ap_pa"]
    assert frame["sex"].value_counts().to_dict() == CHEXPERT["sex"]
    files = frame["image_id"].str.rpartition("/")[2]
    assert files.value_counts().to_dict() == CHEXPERT["view_files"]
    assert (files.str.partition("_")[2] == frame["view"]).all()


def test_chexpert_label_states(train: RecordTable) -> None:
    assert {name: states(train.labels[name]) for name in train.labels} == CHEXPERT["train_labels"]
    frontal = train.labels[train.frame["view"] == "frontal"]
    expected = CHEXPERT["train_frontal_labels"]
    assert {name: states(frontal[name]) for name in COMPETITION} == expected


def test_aimi_batches_hold_the_published_numbers(train: RecordTable) -> None:
    places = chexpert._batch_paths(train.frame["path"]).str.partition("/")[0]
    counts = places.map({folder: str(k) for k, folder in chexpert.BATCHES.items()}).value_counts()
    assert counts.to_dict() == CHEXPERT["batches"]


def test_5x200_pools_and_mgcas_draw(train: RecordTable) -> None:
    known = CHEXPERT["five_by_200"]
    pools = chexpert.five_by_200_pools(train)
    assert {name: len(pool) for name, pool in pools.items()} == known["pools"]
    everywhere = np.concatenate(list(pools.values()))
    assert (train.select(everywhere).labels["No Finding"] != 1).all()
    draw = train.select(splits.build("chexpert5x200/mgca-seed0", train).parts["test"]).frame
    sizes = {"images": draw["image_id"].nunique()}
    sizes["studies"] = draw["study_id"].nunique()
    sizes["patients"] = draw["patient_id"].nunique()
    assert sizes == known["mgca_draw"]
    gloria = splits.build("chexpert5x200/gloria-v1", train)
    assert len(gloria.parts["test"]) == 1000
    assert gloria.parts["test"] != tuple(draw["image_id"])


@pytest.fixture(scope="module")
def released(with_valid: RecordTable) -> splits.Split:
    return splits.build("chexpert/mgca-released", with_valid)


def test_the_released_split_leaks_as_published(
    with_valid: RecordTable, released: splits.Split
) -> None:
    known, split = CHEXPERT["released_leak"], released
    shared = split.overlaps(with_valid)["train-valid"]
    assert shared["images"] == known["valid_images_still_in_train"]
    assert shared["patients"] == known["shared_patients"]
    for part in ("train", "valid"):
        frame = split.select(part, with_valid).frame
        assert len(frame) == known[f"{part}_rows"]
        assert (frame["view"] == "frontal").sum() == known[f"{part}_frontal"]


def test_mgcas_label_fractions(with_valid: RecordTable, released: splits.Split) -> None:
    frame = released.select("train", with_valid).frame
    frontal = frame["image_id"][frame["view"] == "frontal"]
    sizes = [
        len(splits.fraction(frontal.tolist(), with_valid, share, seed=42, rule="sample"))
        for share in (0.01, 0.1)
    ]
    assert sizes == [1858, 18577]


def test_the_corrected_split_shares_no_image(with_valid: RecordTable) -> None:
    split = splits.build("chexpert/gloria-v1", with_valid)
    assert {name: len(ids) for name, ids in split.parts.items()} == {
        "train": 191027 - 1000 - 5000,
        "valid": 5000,
        "test": 1,
    }
    assert split.overlaps(with_valid)["train-valid"]["images"] == 0
    patients = splits.build("chexpert/gloria-v1-patient", with_valid)
    assert patients.overlaps(with_valid)["train-valid"]["patients"] == 0
    assert 4990 <= len(patients.parts["valid"]) <= 5000


def test_rsna_images_and_boxes(rsna_table: RecordTable) -> None:
    counts = RSNA["counts"]
    boxes = pd.Series({name: len(found) for name, found in rsna_table.boxes.items()})
    assert len(rsna_table) == counts["images"]
    assert int(rsna_table.labels["Pneumonia"].sum()) == counts["positive_images"] == len(boxes)
    assert boxes.sum() == counts["boxes"]
    per_image = {str(n): int(k) for n, k in boxes.value_counts().items()}
    assert per_image == RSNA["boxes_per_positive"]
    every = [box for found in rsna_table.boxes.values() for box in found]
    for side in ("width", "height"):
        sizes = [getattr(box, side) for box in every]
        assert [min(sizes), max(sizes)] == RSNA["box_range"][side]
    assert all(box.x + box.width <= 1024 and box.y + box.height <= 1024 for box in every)


def test_rsna_split_of_gloria_and_mgca(rsna_table: RecordTable) -> None:
    split = splits.build("rsna/gloria-v1", rsna_table)
    for part, expected in RSNA["gloria_v1"].items():
        chosen = split.select(part, rsna_table)
        assert [len(chosen), int(chosen.labels["Pneumonia"].sum())] == expected
    sizes = [
        len(splits.fraction(split.parts["train"], rsna_table, share, seed=42, rule=rule))
        for share in (0.01, 0.1)
        for rule in ("sample", "nested")
    ]
    assert sizes == [187, 187, 1868, 1868]
