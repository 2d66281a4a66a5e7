"""The prepared form: same pixels and records, resumable, nothing lost silently."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from common.data import prepare as module
from common.data.prepare import DecodedImages, open_prepared, prepare
from common.data.records import Exclusions, RecordTable
from common.data.tables import DataError


@pytest.fixture
def table(tmp_path: Path) -> RecordTable:
    """Five pictures of different shapes, the fourth damaged."""
    generator = np.random.default_rng(0)
    ids = [f"i{k}" for k in range(5)]
    for k, name in enumerate(ids):
        pixels = generator.integers(0, 256, (40 + k, 60), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    whole = (tmp_path / "i3.png").read_bytes()
    (tmp_path / "i3.png").write_bytes(whole[: len(whole) // 2])
    columns = {"image_id": ids, "study_id": ids, "patient_id": ids}
    frame = pd.DataFrame({**columns, "path": [f"{i}.png" for i in ids], "view": "frontal"})
    frame["source_split"], frame["section_impression"] = "train", [f"report {i}" for i in ids]
    labels = pd.DataFrame({"Edema": np.array([1, 0, -1, np.nan, 1], np.float32)})
    return RecordTable("made_up", tmp_path, frame, labels, Exclusions(), 5, "abc")


@pytest.fixture
def shards_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD", 2)


@pytest.mark.usefixtures("shards_of_two")
def test_prepared_pixels_and_records_equal_the_source(table: RecordTable, tmp_path: Path) -> None:
    prepare(table, tmp_path, size=32, workers=1)
    images = open_prepared(tmp_path, "made_up", 32, table_sha256=table.table_sha256)
    assert images is not None
    ids = ["i4", "i0", "i2", "i1"]
    np.testing.assert_array_equal(images.read(ids), DecodedImages(table, 32).read(ids))
    back = images.table()
    assert list(back.frame["image_id"]) == ["i0", "i1", "i2", "i4"]
    assert back.frame["section_impression"].tolist() == [f"report i{k}" for k in (0, 1, 2, 4)]
    np.testing.assert_array_equal(back.labels["Edema"], [1, 0, -1, 1])
    assert back.exclusions.counts == {"unreadable": 1}
    assert back.rows_in == 5
    assert "truncated" in images.manifest["unreadable"]["i3"]


@pytest.mark.usefixtures("shards_of_two")
def test_a_killed_prepare_goes_on(table: RecordTable, tmp_path: Path) -> None:
    """A shard that is there is kept; a half-written one has another name and is written anew."""
    folder = prepare(table, tmp_path, size=32, workers=1)
    expected = (folder / "manifest.json").read_text()
    (folder / "manifest.json").unlink()
    (folder / "shard-00001.arrow").rename(folder / "shard-00001.part")
    before = (folder / "shard-00000.arrow").stat().st_mtime_ns
    prepare(table, tmp_path, size=32, workers=1)
    assert (folder / "shard-00000.arrow").stat().st_mtime_ns == before
    assert (folder / "manifest.json").read_text() == expected


def test_an_unfinished_form_is_not_used(table: RecordTable, tmp_path: Path) -> None:
    folder = prepare(table, tmp_path, size=32, workers=1)
    (folder / "manifest.json").unlink()
    assert open_prepared(tmp_path, "made_up", 32, table_sha256=table.table_sha256) is None


def test_other_labels_are_prepared_anew(table: RecordTable, tmp_path: Path) -> None:
    prepare(table, tmp_path, size=32, workers=1)
    prepare(replace(table, labels=1 - table.labels), tmp_path, size=32, workers=1)
    images = open_prepared(tmp_path, "made_up", 32, table_sha256=table.table_sha256)
    assert images is not None
    assert images.table().labels["Edema"].iloc[0] == 0


def test_other_tables_than_it_was_made_from_are_an_error(
    table: RecordTable, tmp_path: Path
) -> None:
    prepare(table, tmp_path, size=32, workers=1)
    with pytest.raises(DataError, match="prepared from other tables"):
        open_prepared(tmp_path, "made_up", 32, table_sha256="another")


def test_mended_images_are_tried_again(table: RecordTable, tmp_path: Path) -> None:
    path = table.root / table.frame["path"].iloc[0]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    folder = prepare(table, tmp_path, size=32, workers=1)
    assert json.loads((folder / "manifest.json").read_text())["excluded"]["unreadable"] == 2
    path.write_bytes(whole)
    prepare(table, tmp_path, size=32, workers=1)
    assert json.loads((folder / "manifest.json").read_text())["excluded"]["unreadable"] == 1


def test_the_manifest_accounts_for_every_row(table: RecordTable, tmp_path: Path) -> None:
    folder = prepare(table, tmp_path, size=32, workers=1)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["rows_in"] == manifest["rows_out"] + sum(manifest["excluded"].values())
    assert set(manifest["shards"]) == {p.name for p in folder.glob("shard-*.arrow")}


def _first_fails(part: RecordTable, path: Path, size: int) -> int:
    if path.name == "shard-00000.arrow":
        raise OSError(28, "No space left on device")
    time.sleep(0.1)
    path.touch()
    return len(part)


def test_a_full_disk_ends_prepare_at_once(
    table: RecordTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARD", 1)
    monkeypatch.setattr(module, "_write_shard", _first_fails)
    many = table.rows([k % 5 for k in range(5)])
    with pytest.raises(OSError, match="No space"):
        prepare(many, tmp_path, size=32, workers=1)
    assert len(list((tmp_path / "prepared").rglob("shard-*.arrow"))) < 4


def test_what_a_download_lacked_is_said(
    table: RecordTable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prepare(table.where(table.frame["image_id"] != "i0", "missing_file"), tmp_path, size=32)
    open_prepared(tmp_path, "made_up", 32, table_sha256=table.table_sha256)
    assert "made without {'missing_file': 1}" in caplog.text
    assert "prepare --dataset made_up --size 32" in caplog.text
