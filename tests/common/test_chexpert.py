"""CheXpert in each of its layouts, its reports, and the 5x200 set."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.data import chexpert
from common.data.chexpert import BATCHES, five_by_200, five_by_200_pools
from common.data.labels import CHEXPERT_14, COMPETITION
from common.data.records import RecordTable
from common.data.tables import DataError

Row = tuple[str, dict[str, str]]

TRAIN: list[Row] = [
    ("train/patient00001/study1/view1_frontal", {"Edema": "1.0", "Support Devices": "0.0"}),
    ("train/patient00001/study1/view2_lateral", {"Edema": "1.0"}),
    ("train/patient21514/study2/view1_frontal", {"Lung Opacity": "-1.0"}),
    ("train/patient64540/study1/view1_lateral", {"No Finding": "1.0"}),
]
VALID: list[Row] = [("valid/patient64541/study1/view1_frontal", dict.fromkeys(CHEXPERT_14, "0.0"))]


def write_table(path: Path, rows: Sequence[Row], prefix: str = "CheXpert-v1.0-small/") -> None:
    frame = pd.DataFrame([{"Path": f"{prefix}{name}.jpg", **values} for name, values in rows])
    view = frame["Path"].str.extract("(frontal|lateral)", expand=False).str.capitalize()
    frame["Frontal/Lateral"] = view
    frame["Sex"], frame["Age"], frame["AP/PA"] = "Female", "60", "AP"
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_14]
    frame.reindex(columns=columns).to_csv(path, index=False)


def write_corpus(
    root: Path, prefix: str = "CheXpert-v1.0-small/", train: Sequence[Row] = TRAIN
) -> Path:
    write_table(root / "train.csv", train, prefix)
    write_table(root / "valid.csv", VALID, prefix)
    for name, _ in [*train, *VALID]:
        touch(root / f"{name}.jpg")
    return root


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"pixels")


@pytest.mark.parametrize(
    ("folder", "prefix"),
    [
        ("CheXpert-v1.0-small", "CheXpert-v1.0-small/"),
        ("CheXpert-v1.0", "CheXpert-v1.0/"),
        ("chexpert/CheXpert-v1.0-small", "CheXpert-v1.0-small/"),
        (".", "CheXpert-v1.0-small/"),  # mirrors that drop the top folder
    ],
)
def test_layouts_give_the_same_ids(tmp_path: Path, folder: str, prefix: str) -> None:
    write_corpus(tmp_path / folder, prefix)
    table = chexpert.load(tmp_path)
    assert list(table.frame["image_id"]) == [name for name, _ in [*TRAIN, *VALID]]
    assert all(record.path.is_file() for record in table)
    first = table[0]
    assert (first.patient_id, first.study_id) == ("patient00001", "patient00001/study1")
    assert list(table.frame["view"]) == ["frontal", "lateral", "frontal", "lateral", "frontal"]
    assert list(table.frame["source_split"]) == ["train"] * 4 + ["valid"]
    assert (table.frame["sex"][0], table.frame["ap_pa"][0]) == ("Female", "AP")


def test_the_four_label_states_survive_by_name(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    labels = chexpert.load(tmp_path).labels
    assert list(labels.columns) == list(CHEXPERT_14)
    assert labels["Edema"][0] == 1
    assert labels["Support Devices"][0] == 0
    assert labels["Lung Opacity"][2] == -1
    assert np.isnan(labels["Lung Lesion"][2])


def test_columns_go_by_name(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    frame = pd.read_csv(tmp_path / "train.csv", dtype=str)
    before = chexpert.load(tmp_path).labels
    frame[frame.columns[::-1]].to_csv(tmp_path / "train.csv", index=False)
    pd.testing.assert_frame_equal(chexpert.load(tmp_path).labels, before)


def test_aimi_batches_are_found_by_patient_number(tmp_path: Path) -> None:
    write_table(tmp_path / BATCHES[1] / "train.csv", TRAIN, "CheXpert-v1.0/")
    write_table(tmp_path / BATCHES[1] / "valid.csv", VALID, "CheXpert-v1.0/")
    places = [
        f"{BATCHES[2]}/patient00001/study1/view1_frontal.jpg",
        f"{BATCHES[2]}/patient00001/study1/view2_lateral.jpg",
        f"{BATCHES[3]}/patient21514/study2/view1_frontal.jpg",
        f"{BATCHES[4]}/patient64540/study1/view1_lateral.jpg",
        f"{BATCHES[1]}/valid/patient64541/study1/view1_frontal.jpg",
    ]
    for place in places:
        touch(tmp_path / place)
    table = chexpert.load(tmp_path)
    assert list(table.frame["path"]) == places
    assert list(table.frame["image_id"]) == [name for name, _ in [*TRAIN, *VALID]]


def test_missing_and_empty_files_are_counted(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    (tmp_path / f"{TRAIN[0][0]}.jpg").unlink()
    (tmp_path / f"{TRAIN[2][0]}.jpg").write_bytes(b"")
    table = chexpert.load(tmp_path)
    assert table.exclusions.counts == {"missing_file": 1, "zero_byte": 1}
    assert table.rows_in == len(table) + 2 == 5
    assert len(chexpert.load(tmp_path, check_files=False)) == 5


def test_the_table_hash_does_not_depend_on_the_parts_read(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    train = chexpert.load(tmp_path, ["train"])
    assert train.table_sha256 == chexpert.load(tmp_path).table_sha256
    assert set(train.frame["source_split"]) == {"train"}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Edema", "Oedema", r"train\.csv: no column \['Edema'\]"),
        ("-1.0", "-2.0", r"train\.csv: 'Lung Opacity' is '-2.0' in data row 3"),
        (
            "small/train/patient00001",
            "small/../etc/patient00001",
            r"Path '.*\.\./etc.*' in data row 1",
        ),
        (
            "CheXpert-v1.0-small/train/patient00001",
            "/abs/train/patient00001",
            "in data row 1 is not",
        ),
    ],
)
def test_edited_tables_are_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    write_corpus(tmp_path)
    path = tmp_path / "train.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=words):
        chexpert.load(tmp_path)


def test_an_absent_corpus_lists_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="chexpert is missing") as error:
        chexpert.load(tmp_path)
    assert all(str(tmp_path / root) in str(error.value) for root in chexpert.ROOTS)


TEST = [
    ("test/patient64741/study1/view1_frontal", {"Edema": "1"}),
    ("test/patient64741/study1/view2_lateral", {"Edema": "1"}),
    ("test/patient64742/study1/view1_frontal", {"Lung Lesion": "1"}),
]


def write_test_set(root: Path, names: Sequence[str] = chexpert.TEST_TABLES) -> None:
    rows = [(name, {**dict.fromkeys(CHEXPERT_14, "0"), **values}) for name, values in TEST]
    listed = pd.DataFrame([{"Path": f"CheXpert/{name}.jpg", **values} for name, values in rows])
    root.mkdir(parents=True, exist_ok=True)
    if "test_labels.csv" in names:
        listed.to_csv(root / "test_labels.csv", index=False)
    if "groundtruth.csv" in names:
        # Other row and column order than the images: joined by key or wrong.
        studies = listed.assign(Study=listed["Path"].str.rpartition("/")[0]).drop(columns="Path")
        studies = studies.drop_duplicates()[::-1][["Study", *CHEXPERT_14[::-1]]]
        studies.to_csv(root / "groundtruth.csv", index=False)
    for name, _ in rows:
        touch(root / f"{name}.jpg")


@pytest.mark.parametrize(
    "names", [("test_labels.csv",), ("groundtruth.csv",), ("test_labels.csv", "groundtruth.csv")]
)
def test_the_test_set_is_joined_by_key(tmp_path: Path, names: Sequence[str]) -> None:
    write_test_set(tmp_path / "CheXpert", names)
    table = chexpert.load_test(tmp_path)
    assert list(table.frame["image_id"]) == [name for name, _ in TEST]
    assert list(table.labels["Edema"]) == [1, 1, 0]
    assert list(table.labels["Lung Lesion"]) == [0, 0, 1]
    assert list(table.frame["view"]) == ["frontal", "lateral", "frontal"]
    assert set(table.frame["source_split"]) == {"test"}


def test_contradicting_test_tables_are_refused(tmp_path: Path) -> None:
    write_test_set(tmp_path / "CheXpert")
    path = tmp_path / "CheXpert" / "groundtruth.csv"
    frame = pd.read_csv(path)
    frame.loc[0, "Edema"] = 1 - frame.loc[0, "Edema"]
    frame.to_csv(path, index=False)
    with pytest.raises(DataError, match="disagree"):
        chexpert.load_test(tmp_path)


def test_test_images_without_a_study_row_are_counted(tmp_path: Path) -> None:
    write_test_set(tmp_path / "CheXpert", ["groundtruth.csv"])
    touch(tmp_path / "CheXpert" / "test/patient64799/study1/view1_frontal.jpg")
    assert chexpert.load_test(tmp_path).exclusions.counts == {"unlabelled": 1}


PLUS = """path_to_image,report,section_findings,section_impression,split
train/patient00001/study1/view1_frontal.jpg,All of it,Clear.,No change.,train
train/patient00001/study1/view2_lateral.jpg,All of it,nan,,train
valid/patient64541/study1/view1_frontal.jpg,All of it,,None,valid
"""


def test_chexpert_plus_reports_join_by_image(tmp_path: Path) -> None:
    write_corpus(tmp_path / "CheXpert-v1.0-small")
    (tmp_path / "chexpertplus").mkdir()
    (tmp_path / "chexpertplus" / "df_chexpert_plus_240401.csv").write_text(PLUS)
    reports = chexpert.load_reports(tmp_path)
    assert reports.loc[TRAIN[1][0], "section_findings"] == ""
    table = chexpert.load(tmp_path)
    joined = chexpert.join_reports(table, reports)
    assert joined.exclusions.counts == {"no_report": 2}
    assert joined[0].sections == {"findings": "Clear.", "impression": "No change."}
    assert joined[2].sections["impression"] == "None"  # a word, not an absence
    assert len(chexpert.join_reports(table, reports, keep_unmatched=True)) == 5


@pytest.mark.parametrize(
    "header", ["path,report", "Path,Report Impression", "path_to_image,section_impression"]
)
def test_a_table_of_ones_own_serves_as_reports(tmp_path: Path, header: str) -> None:
    own = tmp_path / "own.csv"
    own.write_text(f"{header}\n/data/CheXpert-v1.0/{TRAIN[0][0]}.png,Normal.\n")
    reports = chexpert.load_reports(tmp_path, own)
    assert reports.loc[TRAIN[0][0], "section_impression"] == "Normal."


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("path\na.jpg\n", "no column section_impression or"),
        ("path,report\nimg_1.jpg,Clear.\n", "'img_1.jpg' names no image"),
        (f"path,report\n{TRAIN[0][0]},A\n{TRAIN[0][0]},B\n", "two different reports"),
    ],
)
def test_unusable_report_tables(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "own.csv").write_text(content)
    with pytest.raises(DataError, match=words):
        chexpert.load_reports(tmp_path, tmp_path / "own.csv")


def test_missing_reports_say_where_they_were_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="chexpertplus/df_chexpert_plus"):
        chexpert.load_reports(tmp_path)


def single_finding_corpus(root: Path, per_class: int = 4) -> RecordTable:
    def name(k: int) -> str:
        return f"train/patient{k:05d}/study1/view1_frontal"

    rows: list[Row] = []
    for finding in COMPETITION:
        rows += [(name(len(rows) + i), {finding: "1.0"}) for i in range(per_class)]
    spoiled = [
        {"Edema": "1.0", "Atelectasis": "-1.0"},  # uncertain excludes
        {"Edema": "1.0", "Fracture": "1.0"},
        {"Edema": "1.0", "Cardiomegaly": "1.0"},
        {"Edema": "-1.0"},
    ]
    rows += [(name(len(rows) + i), values) for i, values in enumerate(spoiled)]
    rows += [(name(900).replace("frontal", "lateral"), {"Edema": "1.0"})]
    rows += [(name(901), {"Edema": "1.0", "Pneumonia": "0.0", "No Finding": "1.0"})]
    return chexpert.load(write_corpus(root, train=rows))


def test_pools_of_5x200(tmp_path: Path) -> None:
    pools = five_by_200_pools(single_finding_corpus(tmp_path))
    assert list(pools) == list(COMPETITION)
    assert [len(pool) for pool in pools.values()] == [4, 4, 4, 5, 4]  # No Finding is not tested


def test_5x200_shrinks_to_the_smallest_pool(tmp_path: Path) -> None:
    table = single_finding_corpus(tmp_path)
    drawn = five_by_200(table, seed=0)
    assert drawn["label"].value_counts(sort=False).to_dict() == dict.fromkeys(COMPETITION, 4)
    picked = table.select(drawn["image_id"])
    assert list(picked.labels[list(COMPETITION)].idxmax(axis=1)) == list(drawn["label"])
    with pytest.raises(DataError, match="cannot draw 5 images a class"):
        five_by_200(table, seed=0, per_class=5)


def test_an_int_seed_restarts_in_each_class_and_a_state_does_not(tmp_path: Path) -> None:
    table = single_finding_corpus(tmp_path)
    pools = list(five_by_200_pools(table).values())
    restarted = five_by_200(table, seed=3, per_class=2)["image_id"]
    expected = [name for pool in pools for name in pool.sample(n=2, random_state=3)]
    assert list(restarted) == expected
    state = np.random.RandomState(3)
    carried = five_by_200(table, seed=np.random.RandomState(3), per_class=2)["image_id"]
    assert list(carried) == [name for pool in pools for name in pool.sample(2, random_state=state)]
    assert list(carried) != expected
