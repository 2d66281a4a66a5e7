"""SIIM: both markers, relative run lengths down the columns, unions, splits by image and by row."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from common.data import facts, load, load_tables, siim, splits
from common.data.inventory import siim_inventory
from common.data.phantom.disk import run_lengths
from common.data.phantom.writers import write_corpus
from common.data.tables import DataError

PACKAGE = Path(pytest.importorskip("torchxrayvision").__file__).parent
REAL = PACKAGE / "data" / "siim-pneumothorax-train-rle.csv.gz"


def write(root: Path, text: str, name: str = "train-rle.csv") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
    return root


@pytest.mark.parametrize("column", [" EncodedPixels", "EncodedPixels"])
@pytest.mark.parametrize("marker", [" -1", "-1"])
def test_both_markers_and_column_names(tmp_path: Path, column: str, marker: str) -> None:
    write(tmp_path / "siim", f"ImageId,{column}\na,{marker}\nb, 1 2 3 4\nb,0 1\n")
    table = siim.load(tmp_path, check_files=False)
    assert table.labels["Pneumothorax"].tolist() == [0, 1]
    assert table.frame["rles"].tolist() == ["", "1 2 3 4;0 1"]
    assert table.frame["rows"].tolist() == ["0", "1 2"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,-1\na,1 2\n", "with and without a mask"),
        ("a,1 2 3\n", r"data row 1 is '1 2 3'"),
        ("a,none\n", "expected -1 or pairs"),
        ("a,\n", "expected -1 or pairs"),
    ],
)
def test_edited_tables_are_refused(tmp_path: Path, rows: str, message: str) -> None:
    write(tmp_path, f"ImageId,EncodedPixels\n{rows}")
    with pytest.raises(DataError, match=message):
        siim.load(tmp_path, check_files=False)


def test_repeated_rows_change_nothing(tmp_path: Path) -> None:
    """As when both stages' tables are joined; `verify` names them."""
    write(tmp_path / "siim", "ImageId,EncodedPixels\na,-1\na,-1\nb,1 2\nb,1 2\nb,3 4\n")
    table = siim.load(tmp_path, check_files=False)
    assert table.labels["Pneumothorax"].tolist() == [0, 1]
    assert table.frame["rles"].tolist() == ["", "1 2;3 4"]
    assert table.frame["rows"].tolist() == ["0", "2 4"]
    assert table.exclusions.counts == {"duplicate": 2}
    assert table.rows_in == 4
    faults = siim_inventory(tmp_path)[0].faults
    assert [(kind, name) for kind, _, name, _ in faults] == [
        ("duplicate_row", "a"),
        ("duplicate_row", "b"),
    ]


def test_images_without_a_row_are_counted(tmp_path: Path) -> None:
    """37 of the training images have none, nor have the challenge's test images."""
    write(tmp_path / "siim", "ImageId,EncodedPixels\na,-1\n")
    for name in ("dicom-images-train/1/2/a.dcm", "dicom-images-train/3/4/b.dcm", "stage_2/c.dcm"):
        path = tmp_path / "siim" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"1")
    assert siim.load(tmp_path).exclusions.counts == {"unlabelled": 2}
    found = siim_inventory(tmp_path)[0]
    assert set(found.listed["image_id"]) >= {"a", "stage_2/c.dcm"}
    assert found.counts["train-rle images"] == 1  # each stage's table has sizes of its own


def test_runs_are_relative_and_go_down_the_columns() -> None:
    """On 4 x 4: one pixel in, two long; then two on, three long, over into the next column."""
    mask = siim.decode("1 2 2 3", side=4)
    assert np.flatnonzero(mask.T.ravel()).tolist() == [1, 2, 5, 6, 7]
    assert mask[1, 0]
    assert mask[3, 1]
    with pytest.raises(DataError, match="absolute"):
        siim.decode("10 3 10 3", side=4)


def test_golden_mask() -> None:
    golden = np.load(Path(__file__).parents[1] / "golden" / "gloria" / "segmentation.npz")
    rows, columns = golden["rle_shape"]
    assert rows == columns
    mask = siim.decode(str(golden["rle"]), side=int(rows))
    np.testing.assert_array_equal(mask, golden["rle_mask"] > 0)


def test_unions_not_sums() -> None:
    assert siim.union(["0 4", "2 4"], side=3).sum() == 6


def test_the_phantom_encodes_what_the_loader_decodes() -> None:
    mask = np.random.default_rng(0).random((32, 32)) > 0.7
    np.testing.assert_array_equal(siim.union(run_lengths(mask), side=32), mask)


def test_phantom_round_trip(tmp_path: Path) -> None:
    write_corpus(tmp_path, size="ci", datasets=["siim"], workers=1)
    table = load("siim", tmp_path)
    assert table.exclusions.counts == {"unlabelled": 3}
    side = siim.side_of(table)
    assert side == 256
    positive = table.frame[table.labels["Pneumothorax"] == 1]
    for rles in positive["rles"]:
        area = siim.union(rles.split(";"), side=side).mean()
        assert 0 < area < 0.3
    split = splits.build("siim/gloria-v1", load_tables("siim", tmp_path))
    assert not any(any(n.values()) for n in split.overlaps(table).values())


def test_the_png_mirror_is_found_by_its_tables(tmp_path: Path) -> None:
    """Its names do not hold the ids, and masks lie under the same names; DICOM goes first."""
    home = write(tmp_path / "siim", "ImageId,EncodedPixels\na,-1\nb,0 1\nc,-1\nd,-1\n")
    rows = "new_filename,ImageId,has_pneumo\n0_test_0_.png,a,0\n../../1_test_1_.png,b,1\n"
    write(home, rows, "stage_1_test_images.csv")
    write(home, "new_filename,ImageId,has_pneumo\n2_train_0_.png,c,0\n", siim.MIRROR_TABLES[0])
    for folder in ("png_images", "png_masks"):
        (home / folder).mkdir()
        for name in ("0_test_0_.png", "1_test_1_.png", "2_train_0_.png"):
            Image.new("L", (64, 64)).save(home / folder / name)
    (home / siim.TRAIN).mkdir()
    (home / siim.TRAIN / "c.dcm").write_bytes(b"a header")
    table = siim.load(tmp_path)
    assert dict(zip(table.frame["image_id"], table.frame["path"], strict=True)) == {
        "a": "png_images/0_test_0_.png",
        "b": "png_images/1_test_1_.png",
        "c": "dicom-images-train/c.dcm",
    }
    assert table.exclusions.counts == {"missing_file": 1}
    assert siim.side_of(table) == 64


def test_maco_s_clean_draw_is_gloria_s_and_its_lists_may_leak(tmp_path: Path) -> None:
    ids = [f"1.2.{k}" for k in range(40)]
    write(tmp_path, "ImageId,EncodedPixels\n" + "".join(f"{name},-1\n" for name in ids))
    table = siim.load(tmp_path, check_files=False)
    clean = splits.build("siim/maco-v1", table)
    assert clean.parts == splits.build("siim/gloria-v1", table).parts
    assert "siim/gloria-v1" in clean.rule
    folder = tmp_path / "maco_lists"
    folder.mkdir()
    for part, names in {"train": ids[:30], "valid": ids[30:35], "test": ids[25:40]}.items():
        (folder / f"{part}.txt").write_text("".join(f"{name}.png\n" for name in names))
    leaking = splits.build("siim/maco-lists", table)
    assert leaking.allow_image_overlap
    assert "share 494 images" in leaking.rule
    shared = {pair: n["images"] for pair, n in leaking.overlaps(table).items()}
    assert shared == {"train-valid": 0, "train-test": 5, "valid-test": 5}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("siim")
    pd.read_csv(REAL, dtype=str, keep_default_na=False).to_csv(
        root / "stage_2_train.csv", index=False
    )
    return root


def test_real_counts_and_the_leak_of_the_released_split(real: Path) -> None:
    table = siim.load(real, check_files=False)
    known = facts.facts("siim")
    rows = siim.read_rows(siim.table_of(real))
    counts = {k.split()[-1]: n for k, n in known["counts"].items() if k.startswith("stage_2")}
    assert len(rows) == counts["label_rows"]
    assert len(table) == counts["images"]
    assert int(table.labels["Pneumothorax"].sum()) == counts["positive_images"]
    assert int((rows["rle"] != "").sum()) == counts["annotations"]
    leaking = splits.build("siim/gloria-released", table)
    assert {k: len(v) for k, v in leaking.parts.items()} == known["gloria_released"]["images"]
    shared = leaking.overlaps(table)
    for pair, images in known["gloria_released"]["shared"].items():
        other = "-".join(reversed(pair.split("-")))
        assert shared.get(pair, shared.get(other))["images"] == images  # type: ignore[index]


def test_every_real_mask_decodes(real: Path) -> None:
    rows = siim.read_rows(siim.table_of(real))
    for rle in rows["rle"][rows["rle"] != ""][:200]:
        assert 0 < siim.decode(rle).mean() < 0.5
