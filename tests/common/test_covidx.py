"""COVIDx: lists read from the right, binary lists refused, splits with and without leak."""

from pathlib import Path

import pytest

from common.data import covidx, load, load_tables, splits
from common.data.phantom.writers import write_corpus
from common.data.tables import DataError

TRAIN = """1 a(1).png normal rsna
1 b.jpg pneumonia rsna
COVID 216 COVID(216).png COVID-19 sirm
3 c.JPG COVID-19
"""
TEST = "9 d.png normal rsna\n"


def write(root: Path, train: str = TRAIN, name: str = "train_COVIDx9A.txt") -> Path:
    for part, names in (
        ("train", ("a(1).png", "b.jpg", "COVID(216).png", "c.JPG")),
        ("test", ("d.png",)),
    ):
        (root / part).mkdir(parents=True)
        for file in names:
            (root / part / file).write_bytes(b"pixels")
    (root / name).write_text(train)
    (root / name.replace("train", "test")).write_text(TEST)
    return root


@pytest.mark.parametrize("name", ["train_COVIDx9A.txt", "train.txt", "train_COVIDx_CXR-3A.txt"])
def test_one_row_an_image(tmp_path: Path, name: str) -> None:
    write(tmp_path / "COVIDx", name=name)
    table = covidx.load(tmp_path)
    assert list(table.frame["image_id"]) == [
        *("train/a(1).png", "train/b.jpg", "train/COVID(216).png", "train/c.JPG", "test/d.png")
    ]
    assert list(table.frame["patient_id"]) == ["1", "1", "COVID 216", "3", "9"]
    assert table.labels.to_numpy().argmax(1).tolist() == [0, 1, 2, 2, 0]
    assert list(table.frame["source_split"]) == ["train"] * 4 + ["test"]


def test_missing_images_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "COVIDx")
    (tmp_path / "COVIDx/train/b.jpg").unlink()
    assert covidx.load(tmp_path).exclusions.counts == {"missing_file": 1}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 a(1).png positive bimcv\n", r"line 1 .*binary list"),
        ("1 a(1).png healthy rsna\n", r"line 1 is .*expected: patient file class"),
        ("normal rsna\n", r"line 1 is .*expected: patient file class"),
        ("1 ../../etc/passwd normal rsna\n", "points outside"),
        ("", "is empty"),
    ],
)
def test_other_lists_are_refused(tmp_path: Path, line: str, message: str) -> None:
    write(tmp_path / "COVIDx", train=line)
    with pytest.raises(DataError, match=message):
        covidx.load(tmp_path)


def test_missing_data_set_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train_COVIDx9A"):
        covidx.load(tmp_path)


def test_phantom_round_trip_and_splits(tmp_path: Path) -> None:
    write_corpus(tmp_path, size="ci", datasets=["covidx"], workers=1)
    table = load("covidx", tmp_path)
    assert not table.exclusions.total()
    shares = table.labels.mean()
    assert 0.35 < shares["Normal"] < 0.45
    assert table.labels.sum(axis=1).eq(1).all()
    clean = splits.build("covidx/mgca-v1", load_tables("covidx", tmp_path))
    assert not any(any(n.values()) for n in clean.overlaps(table).values())
    faithful = splits.build("covidx/mgca-released", load_tables("covidx", tmp_path))
    pool = len(table.frame) - len(faithful.parts["test"])
    assert len(faithful.parts["valid"]) == -(-pool // 5)
