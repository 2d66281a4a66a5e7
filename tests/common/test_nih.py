"""NIH ChestX-ray14: both label tables, both trees, boxes, official lists, patient-wise splits."""

import gzip
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

from common.data import load, load_tables, nih, splits
from common.data.facts import facts
from common.data.phantom.world import draw_study
from common.data.phantom.write_nih import finding_labels, labels_of
from common.data.phantom.writers import write_corpus
from common.data.records import Box, RecordTable
from common.data.tables import DataError
from common.data.verify import verify

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient {},View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
ROWS = (
    "00000001_000.png,Cardiomegaly|Effusion,0,1,058Y,M,PA,2682,2749,0.143,0.143",
    "00000001_001.png,No Finding,1,1,58,M,PA,2682,2749,0.143,0.143",
    "00000002_000.png,Pleural_Thickening,0,2,412,F,AP,2500,2048,0.168,0.168",
)
BOXES = (
    "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000002_000.png,Infiltrate,1.5,2,30,40.25,,,\n"
)
SPEC = find_spec("torchxrayvision")
OFFICIAL = os.environ.get("NIH_LISTS", "")
"""Folder with the official lists, packed or not; without it their checks are skipped."""


def write(
    root: Path, rows: tuple[str, ...] = ROWS, *, version: str = "2020", folders: bool = False
) -> Path:
    """The first release has a twelfth, empty column; one folder an image, or all in one."""
    root.mkdir(parents=True, exist_ok=True)
    end = "," if version == "2017" else ""
    header = HEADER.format("Gender" if version == "2017" else "Sex")
    text = "".join(f"{line}{end}\n" for line in (header, *rows))
    (root / nih.TABLES[version]).write_text(text)
    (root / nih.BOX_TABLE).write_text(BOXES)
    (root / nih.LISTS["train"]).write_text("00000001_000.png\n00000001_001.png\n")
    (root / nih.LISTS["test"]).write_text("00000002_000.png\n")
    for number, row in enumerate(rows, start=1):
        folder = root / (f"images_{number:03d}/images" if folders else "images")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / row.partition(",")[0].strip("/.")).write_bytes(b"pixels")
    return root


@pytest.mark.parametrize("version", ["2020", "2017"])
@pytest.mark.parametrize("folders", [False, True])
@pytest.mark.parametrize("place", ["ChestX-ray14", "nih-chest-xrays/data", "."])
def test_both_tables_and_both_trees(
    tmp_path: Path, version: str, folders: bool, place: str
) -> None:
    write(tmp_path / place, version=version, folders=folders)
    table = nih.load(tmp_path)
    assert tuple(table.labels) == nih.LABELS
    assert [[k for k, v in record.labels.items() if v == 1] for record in table] == [
        ["Cardiomegaly", "Effusion"],
        [],
        ["Pleural_Thickening"],
    ]
    assert set(table.labels.to_numpy().ravel()) == {0, 1}
    assert list(table.frame["patient_id"]) == ["1", "1", "2"]
    assert list(table.frame["source_split"]) == ["train", "train", "test"]
    assert list(table.frame["sex"]) == ["M", "M", "F"]
    assert list(table.frame["age"]) == ["058Y", "58", "412"]
    assert list(table.frame["view_position"]) == ["PA", "PA", "AP"]
    assert set(table.frame["view"]) == {"frontal"}
    assert all(record.path.is_file() for record in table)
    assert [record.boxes for record in table] == [
        *((), ()),
        (Box(1.5, 2, 30, 40.25, "Infiltration"),),
    ]


def test_the_version_can_be_chosen(tmp_path: Path) -> None:
    write(tmp_path, version="2017")
    changed = ROWS[1].replace("No Finding", "Hernia")
    write(tmp_path, (ROWS[0], changed, ROWS[2]))
    assert nih.load(tmp_path).labels["Hernia"].sum() == 1
    assert nih.load(tmp_path, version="2017").labels["Hernia"].sum() == 0
    with pytest.raises(DataError, match="unknown version '2018' of nih; choose one of 2020, 2017"):
        nih.load(tmp_path, version="2018")
    (tmp_path / nih.TABLES["2017"]).unlink()
    with pytest.raises(DataError, match=r"holds neither Data_Entry_2017\.csv nor"):
        nih.load(tmp_path, version="2017")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("00000003_000.png,No Finding|Mass,0,3,1,M,PA", "'No Finding' beside a finding in data ro"),
        ("00000003_000.png,Infiltrate,0,3,1,M,PA", "unknown label 'Infiltrate' in data row 4"),
        ("00000003_000.png,,0,3,1,M,PA", "unknown label '' in data row 4"),
        ("../00000003_000.png,Mass,0,3,1,M,PA", "data row 4 is image '../00000003_000.png'"),
        ("00000003_000.png,Mass,0,,1,M,PA", "of patient ''; expected a name like"),
        ("00000001_000.png,Mass,0,1,1,M,PA", "1 image ids have two different rows"),
    ],
)
def test_edited_rows_are_refused(tmp_path: Path, row: str, words: str) -> None:
    write(tmp_path, (*ROWS, f"{row},1,1,0.1,0.1"))
    with pytest.raises(DataError, match=words):
        nih.load(tmp_path, check_files=False)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("00000001_000.png,Granuloma,1,2,3,4,,,", r"data row 2 is .*Granuloma.*one of the 14"),
        ("00000001_000.png,Mass,1,two,3,4,,,", r"data row 2 is .*'two'"),
        ("00000001_000.png,Mass,1,2,0,4,,,", "00000001_000.png: box of zero or negative area"),
        ("00000001_000.png,Mass,-1,2,3,4,,,", "00000001_000.png: box starts outside"),
        ("00000009_000.png,Mass,1,2,3,4,,,", "00000009_000.png: not in the label table"),
    ],
)
def test_edited_boxes_are_refused(tmp_path: Path, row: str, words: str) -> None:
    write(tmp_path)
    (tmp_path / nih.BOX_TABLE).write_text(f"{BOXES}{row}\n")
    with pytest.raises(DataError, match=words) as error:
        nih.load(tmp_path)
    assert nih.BOX_TABLE in str(error.value)


def test_a_missing_column_and_an_absent_corpus(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nih is missing; looked for Data_Entry_2017_v2020\.csv"):
        nih.load(tmp_path)
    write(tmp_path)
    path = tmp_path / nih.TABLES["2020"]
    path.write_text(path.read_text().replace("Patient Sex", "Patient"))
    with pytest.raises(DataError, match=r"no column \['Patient Gender'\]"):
        nih.load(tmp_path)


def test_lists_and_boxes_are_optional(tmp_path: Path) -> None:
    write(tmp_path)
    for name in (*nih.LISTS.values(), nih.BOX_TABLE):
        (tmp_path / name).unlink()
    table = nih.load(tmp_path)
    assert set(table.frame["source_split"]) == {""}
    assert not table.boxes
    with pytest.raises(DataError, match=r"needs train_val_list\.txt and test_list\.txt"):
        splits.build("nih/official", table)


def test_lists_may_be_packed_but_not_overlap(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / nih.LISTS["test"]
    Path(f"{path}.gz").write_bytes(gzip.compress(b"00000001_001.png\n"))
    path.unlink()
    with pytest.raises(DataError, match=r"images that train_val_list.txt has too: \['00000001_00"):
        nih.load(tmp_path)
    Path(f"{path}.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match="not a readable list"):
        nih.load(tmp_path)


def test_missing_and_repeated_images_are_counted(tmp_path: Path) -> None:
    write(tmp_path, (*ROWS, ROWS[0]))
    (tmp_path / "images/00000001_001.png").unlink()
    (tmp_path / "images/00000002_000.png").write_bytes(b"")
    table = nih.load(tmp_path)
    assert table.exclusions.counts == {"duplicate": 1, "missing_file": 1, "zero_byte": 1}
    assert len(nih.load(tmp_path, check_files=False)) == 3


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("nih")
    write_corpus(root, size="ci", datasets=["nih", "nih-folders"], workers=1)
    return root


@pytest.mark.parametrize("layout", ["ChestX-ray14", "nih-chest-xrays"])
def test_phantom_round_trip(phantom: Path, layout: str, tmp_path: Path) -> None:
    shutil.copytree(phantom / layout, tmp_path / layout)
    assert verify(tmp_path, ["nih"]).problems == []
    table = load("nih", tmp_path)
    world = phantom / "world" / ("nih.jsonl" if layout == "ChestX-ray14" else "nih-folders.jsonl")
    lines = pd.read_json(world, lines=True)
    assert not table.exclusions.total()
    assert list(table.frame["image_id"]) == lines["image_id"].tolist()
    assert [str(record.path.relative_to(tmp_path)) for record in table] == lines["path"].tolist()
    assert (layout == "ChestX-ray14") == (
        table.frame["path"].str.partition("/")[0] == "images"
    ).all()
    offset = 11 if layout == "ChestX-ray14" else 12
    for record, index in zip(table, lines["index"].tolist(), strict=True):
        cell = finding_labels(draw_study(offset, index, site="nih"))
        present = {name for name, value in record.labels.items() if value}
        assert present == set(cell.split("|")) - {nih.NO_FINDING}
        assert {box.label for box in record.boxes} <= present
    test = table.frame[table.frame["source_split"] == "test"]
    assert len(table.boxes) <= -(-len(test) // 10)
    assert set(table.boxes) <= set(test["image_id"])
    if layout == "ChestX-ray14":  # the other is a quarter of the size
        assert table.boxes
        assert 1.3 < len(table) / table.frame["patient_id"].nunique() < 1.7


def test_phantom_labels() -> None:
    found = {}
    for index in range(600):
        for finding in draw_study(11, index, site="nih").findings:
            key = (finding.label, finding.kind == "pneumonia", int(finding.severity * 3))
            found[key] = labels_of(finding)
    assert found["Lung Lesion", False, 0] == found["Lung Lesion", False, 1] == ["Nodule"]
    assert found["Lung Lesion", False, 2] == ["Mass"]
    assert found["Consolidation", False, 0] == ["Infiltration"]
    assert found["Consolidation", True, 2] == ["Consolidation", "Pneumonia"]
    assert found["Pleural Effusion", False, 0] == ["Effusion"]
    assert {name for names in found.values() for name in names} == set(nih.LABELS) - {
        *("Emphysema", "Fibrosis", "Hernia")
    }


@pytest.mark.parametrize("split_id", ["nih/official", "nih/maco-v1"])
def test_splits_share_no_patient(phantom: Path, split_id: str) -> None:
    table = load_tables("nih", phantom)
    split = splits.build(split_id, table)
    assert split == splits.build(split_id, load_tables("nih", phantom))
    assert sum(map(len, split.parts.values())) == len(table)
    assert split.overlaps(table) == {
        pair: {"images": 0, "patients": 0} for pair in ("train-valid", "train-test", "valid-test")
    }
    patients = {p: split.select(p, table).frame["patient_id"].nunique() for p in split.parts}
    if split_id == "nih/official":
        official = table.frame["image_id"][table.frame["source_split"] == "test"]
        assert split.parts["test"] == tuple(official)
        assert patients["valid"] == -(-(patients["train"] + patients["valid"]) // 10)
    else:
        shares = [patients[p] / sum(patients.values()) for p in ("train", "valid", "test")]
        assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.03)


def test_the_authors_lists(phantom: Path, tmp_path: Path) -> None:
    shutil.copytree(phantom / "ChestX-ray14", tmp_path / "ChestX-ray14")
    table = load_tables("nih", tmp_path)
    with pytest.raises(DataError, match=r"maco_lists holds no train\.txt, valid\.txt, test\.txt"):
        splits.build("nih/maco-lists", table)
    drawn = splits.build("nih/maco-v1", table)
    folder = tmp_path / "ChestX-ray14/maco_lists"
    folder.mkdir()
    for part, ids in drawn.parts.items():
        (folder / f"{part}.txt").write_text("".join(f"images/{name} 0 1 0\n" for name in ids))
    assert splits.build("nih/maco-lists", table).parts == drawn.parts
    (folder / "valid.txt").write_text(f"images/{drawn.parts['train'][0]} 0 1 0\n")
    with pytest.raises(DataError, match="train-valid share 1 images, 1 patients"):
        splits.build("nih/maco-lists", table)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> RecordTable:
    """The tables are package data of torchxrayvision; the official lists are not."""
    if SPEC is None or SPEC.submodule_search_locations is None:
        pytest.skip("needs the tables inside torchxrayvision")
    root = tmp_path_factory.mktemp("real")
    for name in (nih.TABLES["2020"], nih.BOX_TABLE):
        packed = Path(SPEC.submodule_search_locations[0]) / "data" / f"{name}.gz"
        shutil.copy(packed, root)
    for path in Path(OFFICIAL).glob("*_list.txt*") if OFFICIAL else ():
        shutil.copy(path, root)
    return nih.load(root, check_files=False)


def test_real_labels_and_boxes(real: RecordTable) -> None:
    known = facts("nih")
    assert len(real) == known["counts"]["images"]
    assert real.frame["patient_id"].nunique() == known["counts"]["patients"]
    assert {f"2020 {k}": int(n) for k, n in real.labels.sum().items()}.items() <= (
        known["counts"].items()
    )
    assert real.frame["view_position"].value_counts().to_dict() == known["views"]
    boxes = pd.Series([box.label for found in real.boxes.values() for box in found])
    assert len(real.boxes) == known["counts"]["boxed_images"]
    assert boxes.value_counts().to_dict() == known["box_labels"]
    split = splits.build("nih/maco-v1", real)
    assert not any(any(shared.values()) for shared in split.overlaps(real).values())
    shares = [len(split.parts[part]) / len(real) for part in ("train", "valid", "test")]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.01)


@pytest.mark.skipif(not OFFICIAL, reason="needs the official lists: NIH_LISTS=<folder>")
def test_real_official_split(real: RecordTable) -> None:
    known = facts("nih")
    part = real.frame["source_split"]
    assert part.value_counts().to_dict() == {
        "train": known["counts"]["train_list"],
        "test": known["counts"]["test_list"],
    }
    assert real.frame.groupby("source_split")["patient_id"].nunique().to_dict() == known["patients"]
    assert {k: int(n) for k, n in real.labels[part == "test"].sum().items()} == known["test_labels"]
    assert set(real.boxes) <= set(real.frame["image_id"][part == "test"])
    splits.build("nih/official", real)
