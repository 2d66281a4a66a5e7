"""Named splits, their files, label fractions and authors' lists."""

import json
import logging
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.data import split_rules, splits
from common.data.records import RecordTable, assemble
from common.data.splits import Split, fraction, read_list
from common.data.tables import DataError

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Pleural Effusion",
    "Enlarged Cardiomediastinum",
    "Lung Lesion",
    "Lung Opacity",
    "Pneumonia",
    "Pneumothorax",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)


def chexpert_like(root: Path, patients: int = 120, valid: int = 10) -> RecordTable:
    """Three frontals and one lateral a patient; 30 patients could be in the 5x200 set."""
    rows: list[tuple[str, ...]] = []
    for k in range(patients + valid):
        part = "train" if k < patients else "valid"
        for view in ("view1_frontal", "view2_frontal", "view3_frontal", "view4_lateral"):
            name = f"{part}/patient{k:05d}/study1/{view}"
            rows.append((name, f"patient{k:05d}", view[6:], part, FINDINGS[len(rows) % 5]))
    frame = pd.DataFrame(
        rows, columns=["image_id", "patient_id", "view", "source_split", "finding"]
    )
    labels = pd.get_dummies(frame.pop("finding"), dtype="float32")
    labels = labels.reindex(columns=list(FINDINGS), fill_value=0.0)
    labels.loc[frame["patient_id"] > "patient00030", "Fracture"] = 1.0
    frame["study_id"], frame["path"] = frame["patient_id"], frame["image_id"] + ".jpg"
    return assemble(frame, labels, dataset="chexpert", root=root, table_sha256="abc")


def rsna_like(root: Path, images: int = 100) -> RecordTable:
    ids = [f"{(k * 7919) % 99991:05d}" for k in range(images)]
    frame = pd.DataFrame({"image_id": ids, "study_id": ids, "patient_id": ids, "path": ids})
    frame["view"], frame["source_split"] = "frontal", "train"
    labels = pd.DataFrame({"Pneumonia": np.arange(images) % 4 == 0}).astype("float32")
    return assemble(frame, labels, dataset="rsna", root=root, table_sha256="abc")


@pytest.fixture
def chexpert_table(tmp_path: Path) -> RecordTable:
    return chexpert_like(tmp_path)


OTHERS = ("chexpert_test", "mimic", "covidx", "siim", "object_cxr", "nih")
RULES = [
    name
    for name in [*split_rules.SPLITS, "chexpert5x200/seed7"]
    if not name.startswith(OTHERS) and not name.endswith("lists")
]


@pytest.mark.parametrize("split_id", RULES)
def test_every_rule_is_repeatable_and_whole(tmp_path: Path, split_id: str) -> None:
    make: Callable[[Path], RecordTable] = (
        rsna_like if split_id.startswith("rsna") else chexpert_like
    )
    split = splits.build(split_id, make(tmp_path))
    assert split == splits.build(split_id, make(tmp_path))
    assert split.rule
    for ids in split.parts.values():
        assert len(ids) == len(set(ids)) > 0


def test_mimic_official_keeps_frontal_images_of_the_release_s_parts(tmp_path: Path) -> None:
    table = replace(chexpert_like(tmp_path), dataset="mimic")
    names = ["train", "validate", "test"] * len(table)
    table.frame["source_split"] = names[: len(table)]
    frontal = table.frame[table.frame["view"] == "frontal"]
    table.frame["patient_id"] = table.frame["image_id"]
    split = splits.build("mimic/official", table)
    for part, name in {"train": "train", "valid": "validate", "test": "test"}.items():
        assert split.parts[part] == tuple(frontal["image_id"][frontal["source_split"] == name])


def test_a_split_does_not_depend_on_row_order(tmp_path: Path) -> None:
    table = rsna_like(tmp_path)
    shuffled = table.select(reversed(list(table.frame["image_id"])))
    assert splits.build("rsna/gloria-v1", table).parts == (
        splits.build("rsna/gloria-v1", shuffled).parts
    )


def test_gloria_keeps_5x200_out_and_parts_apart(chexpert_table: RecordTable) -> None:
    split = splits.build("chexpert/gloria-v1", chexpert_table)
    held = splits.build("chexpert5x200/gloria-v1", chexpert_table).parts["test"]
    pool = 120 * 3 - len(held)
    assert len(split.parts["valid"]) == pool // 10
    assert len(split.parts["train"]) == pool - pool // 10
    assert len(split.parts["test"]) == 30
    assert not set(held) & set(split.parts["train"] + split.parts["valid"])
    assert not any("lateral" in name for ids in split.parts.values() for name in ids)
    assert all(shared["images"] == 0 for shared in split.overlaps(chexpert_table).values())


def test_the_patient_variant_shares_no_patient(chexpert_table: RecordTable) -> None:
    table = chexpert_table
    split = splits.build("chexpert/gloria-v1-patient", table)
    assert all(n == 0 for pair in split.overlaps(table).values() for n in pair.values())
    held = table.select(splits.build("chexpert5x200/gloria-v1", table).parts["test"])
    for part in ("train", "valid"):
        patients = set(split.select(part, table).frame["patient_id"])
        assert not patients & set(held.frame["patient_id"])


@pytest.mark.parametrize("paper", ["gloria", "mgca"])
def test_the_released_split_leaks_and_says_so(
    paper: str, chexpert_table: RecordTable, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        split = splits.build(f"chexpert/{paper}-released", chexpert_table)
    assert split.allow_image_overlap
    held = {"gloria": "chexpert5x200/gloria-v1", "mgca": "chexpert5x200/mgca-seed0"}[paper]
    evaluated = set(splits.build(held, chexpert_table).parts["test"])
    assert not evaluated & {i for part in ("train", "valid") for i in split.parts[part]}
    assert split.overlaps(chexpert_table)["train-valid"]["images"] > 0
    assert "train-valid share" in caplog.text


def test_undeclared_overlap_is_an_error(tmp_path: Path) -> None:
    table = chexpert_like(tmp_path)
    a, b, *_ = table.frame["image_id"]  # one patient
    parts = {"train": (a,), "test": (b,)}
    with pytest.raises(DataError, match="share 0 images, 1 patients; set allow_patient_overlap"):
        Split("x", "chexpert", parts, "by hand", "abc").check_overlaps(table)
    Split("x", "chexpert", parts, "", "abc", allow_patient_overlap=True).check_overlaps(table)
    same = Split(
        "x", "chexpert", {"train": (a,), "test": (a,)}, "", "abc", allow_patient_overlap=True
    )
    with pytest.raises(DataError, match="an image may be in one part only"):
        same.check_overlaps(table)


def test_unknown_ids_and_wrong_tables(tmp_path: Path, chexpert_table: RecordTable) -> None:
    with pytest.raises(DataError, match=r"choose one of .*rsna/gloria-v1.*chexpert5x200/seed<k>"):
        splits.build("rsna/gloria", chexpert_table)
    with pytest.raises(DataError, match="splits rsna, not chexpert"):
        splits.build("rsna/gloria-v1", chexpert_table)
    with pytest.raises(DataError, match=r"no image for \['test'\]"):
        splits.build("chexpert/gloria-v1", chexpert_like(tmp_path, valid=0))


def test_a_draw_after_exclusions_warns(
    chexpert_table: RecordTable, caplog: pytest.LogCaptureFixture
) -> None:
    some = chexpert_table.where(np.arange(len(chexpert_table)) > 3, "missing_file")
    splits.build("chexpert/gloria-v1", some)
    assert "drawn without {'missing_file': 4}" in caplog.text


def test_split_files_verify_their_content(tmp_path: Path, chexpert_table: RecordTable) -> None:
    split = splits.build("chexpert/gloria-v1", chexpert_table)
    path = tmp_path / "splits" / "gloria.json"
    split.save(path)
    assert Split.load(path, chexpert_table) == split
    content = json.loads(path.read_text())
    moved = content["parts"]["valid"].pop()
    content["parts"]["train"].append(moved)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="do not match the stored hashes"):
        Split.load(path)


def test_a_split_of_another_table_version_is_refused(
    tmp_path: Path, chexpert_table: RecordTable
) -> None:
    other = Split("x", "chexpert", {"train": ("a",)}, "", "another")
    other.save(tmp_path / "x.json")
    with pytest.raises(DataError, match="made from a chexpert table another, but"):
        Split.load(tmp_path / "x.json", chexpert_table)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(DataError, match="not a split file"):
        Split.load(tmp_path / "x.json")


def test_hashes_ignore_the_order_of_ids() -> None:
    a = Split("x", "d", {"train": ("a", "b"), "test": ("c",)}, "", "0")
    b = Split("y", "d", {"test": ("c",), "train": ("b", "a")}, "other words", "1")
    assert a.sha256 == b.sha256
    moved = Split("x", "d", {"train": ("a",), "test": ("b", "c")}, "", "0")
    assert moved.sha256["total"] != a.sha256["total"]


def test_select_counts_images_that_are_absent(chexpert_table: RecordTable) -> None:
    split = splits.build("chexpert/gloria-v1", chexpert_table)
    gone = split.parts["test"][:2]
    here = chexpert_table.where(~chexpert_table.frame["image_id"].isin(gone), "missing_file")
    part = split.select("test", here)
    assert part.exclusions.counts == {"not_in_table": 2}
    assert list(part.frame["image_id"]) == list(split.parts["test"][2:])
    with pytest.raises(DataError, match="no part 'dev'; it has train, valid, test"):
        split.select("dev", here)


def test_select_refuses_another_dataset(tmp_path: Path, chexpert_table: RecordTable) -> None:
    split = splits.build("rsna/gloria-v1", rsna_like(tmp_path))
    with pytest.raises(DataError, match="made from rsna; the chexpert table"):
        split.select("train", chexpert_table)


def test_nested_fractions_nest_and_keep_patients_together(chexpert_table: RecordTable) -> None:
    ids = splits.build("chexpert/gloria-v1", chexpert_table).parts["train"]
    tenth = fraction(ids, chexpert_table, 0.1, seed=1)
    half = fraction(ids, chexpert_table, 0.5, seed=1)
    assert len(half) == round(len(ids) / 2)
    assert set(tenth) < set(half) < set(ids)
    assert set(fraction(ids, chexpert_table, 1.0, seed=1)) == set(ids)
    assert tenth != fraction(ids, chexpert_table, 0.1, seed=2)
    taken = pd.Series(half).str.slice(0, 18)
    cut = [p for p in taken.unique() if (taken == p).sum() < sum(i.startswith(p) for i in ids)]
    assert len(cut) <= 1  # only the patient at the border
    assert half == fraction(ids[::-1], chexpert_table, 0.5, seed=1)


def test_sample_fractions_are_pandas_own(tmp_path: Path) -> None:
    table = rsna_like(tmp_path)
    ids = tuple(table.frame["image_id"])
    expected = tuple(pd.Series(ids).sample(frac=0.1, random_state=42))
    assert fraction(ids, table, 0.1, seed=42, rule="sample") == expected


def test_a_fraction_without_positives_warns(tmp_path: Path) -> None:
    table = rsna_like(tmp_path)
    positive = table.frame["image_id"][table.labels["Pneumonia"] == 1]
    negative = table.frame["image_id"][table.labels["Pneumonia"] == 0]
    ids = (*negative, positive.iloc[0])
    with pytest.warns(UserWarning, match=r"no positive for \['Pneumonia'\]"):
        fraction(ids, table, 0.02, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fraction(tuple(negative), table, 0.02, seed=0)  # there was none to begin with


def test_a_lost_label_of_a_data_set_of_its_own_warns(tmp_path: Path) -> None:
    """NIH shares four names with CheXpert's five; its other labels are judged, too."""
    table = rsna_like(tmp_path)
    every = np.ones(len(table), np.float32)
    labels = pd.DataFrame({"Atelectasis": every, "Hernia": np.eye(len(table))[0]})
    table = replace(table, labels=labels.astype("float32"))
    ids = tuple(table.frame["image_id"])
    last = next(seed for seed in range(20) if ids[0] not in _drawn(ids, table, seed))
    with pytest.warns(UserWarning, match=r"no positive for \['Hernia'\]"):
        fraction(ids, table, 0.1, seed=last)


def _drawn(ids: tuple[str, ...], table: RecordTable, seed: int) -> tuple[str, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fraction(ids, table, 0.1, seed=seed)


@pytest.mark.parametrize(("share", "rule"), [(0, "nested"), (1.1, "nested"), (0.5, "random")])
def test_unknown_fractions(tmp_path: Path, share: float, rule: str) -> None:
    table = rsna_like(tmp_path)
    with pytest.raises(ValueError, match=r"share must lie|unknown rule"):
        fraction(tuple(table.frame["image_id"]), table, share, seed=0, rule=rule)


WANTED = ("train/patient00001/study1/view1_frontal", "train/patient00000/study1/view4_lateral")


@pytest.mark.parametrize(
    "content",
    [
        "{}\n{}\n",
        "{}.jpg\n\n{}.jpg\n",
        "CheXpert-v1.0-small/{}.jpg 0 1 0\n/data/my files/{}.jpg 1 0 0\n",
        "Path,Edema\nCheXpert-v1.0/{}.jpg,1\nCheXpert-v1.0/{}.jpg,0\n",
        "label,image_id\n1,{}\n0,{}\n",
        "{}.jpg,1\n{}.jpg,0\n",
    ],
)
def test_list_files_of_several_kinds(
    tmp_path: Path, chexpert_table: RecordTable, content: str
) -> None:
    (tmp_path / "list.txt").write_text(content.format(*WANTED))
    assert read_list(tmp_path / "list.txt", chexpert_table) == WANTED


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("train/patient00001/study1/view1_frontal\nnobody\n", r"1 of 2 lines .*'nobody'"),
        ("view1_frontal.jpg\n", "1 of 1 lines"),  # names many images
        ("", "0 of 0 lines"),
        (b"\xff\xfe\x00", "not a readable list"),
    ],
)
def test_unusable_list_files(
    tmp_path: Path, chexpert_table: RecordTable, content: str | bytes, words: str
) -> None:
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_list(tmp_path / "list.txt", chexpert_table)
