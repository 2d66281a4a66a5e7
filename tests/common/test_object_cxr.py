"""Object-CXR: shapes to boxes, both column names, splits."""

import json
from pathlib import Path

import numpy as np
import pytest

from common.data import load, load_tables, object_cxr, splits
from common.data.phantom.writers import write_corpus
from common.data.records import Box
from common.data.tables import DataError


def write(root: Path, annotation: str, column: str = "image_name") -> Path:
    for part in ("train", "dev"):
        (root / part).mkdir(parents=True)
        (root / part / "00001.jpg").write_bytes(b"pixels")
        (root / f"{part}.csv").write_text(f"{column},annotation\n00001.jpg,{annotation}\n")
    return root


@pytest.mark.parametrize("column", ["image_name", "image_path"])
def test_shapes_become_boxes(tmp_path: Path, column: str) -> None:
    write(tmp_path / "object-CXR", "1 50 60 80 95;0 10 20 30 25;2 10 10 60 12 64 70 20 66", column)
    table = object_cxr.load(tmp_path)
    assert table.boxes["train/00001.jpg"] == (
        Box(50, 60, 30, 35, "Foreign Object"),
        Box(10, 20, 20, 5, "Foreign Object"),
        Box(10, 10, 54, 60, "Foreign Object"),
    )
    assert table.labels["Foreign Object"].tolist() == [1, 1]


def test_golden_boxes() -> None:
    """The released boxes, those around polygons included; ours of polygons are never larger."""
    path = Path(__file__).parents[1] / "golden" / "mgca" / "reports.json"
    for case in json.loads(path.read_text())["object_cxr_boxes_xywh"]:
        found = object_cxr.boxes_of(case["annotation"], polygons="released")
        np.testing.assert_allclose(
            [(b.x, b.y, b.width, b.height) for b in found], case["boxes"], rtol=1e-6
        )
        for least, box in zip(object_cxr.boxes_of(case["annotation"]), found, strict=True):
            assert least.width <= box.width
            assert least.height <= box.height


def test_a_polygon_of_two_points_has_a_box() -> None:
    assert object_cxr.boxes_of("2 10 10 50 60") == (Box(10, 10, 40, 50, "Foreign Object"),)
    around = object_cxr.boxes_of("2 10 10 50 60", polygons="released")[0]
    assert around.width >= 40


def test_no_annotation_is_no_object(tmp_path: Path) -> None:
    write(tmp_path, "")
    table = object_cxr.load(tmp_path)
    assert table.labels["Foreign Object"].tolist() == [0, 0]
    assert not table.boxes


@pytest.mark.parametrize("shape", ["3 1 2 3 4", "0 1 2 3", "2 1 2", "0 5 5 5 9", "0 a 2 3 4"])
def test_malformed_shapes_are_refused(tmp_path: Path, shape: str) -> None:
    write(tmp_path, shape)
    with pytest.raises(DataError, match=r"train\.csv: data row 1"):
        object_cxr.load(tmp_path)


def test_phantom_round_trip_and_splits(tmp_path: Path) -> None:
    write_corpus(tmp_path, size="ci", datasets=["object_cxr"], workers=1)
    table = load("object_cxr", tmp_path)
    assert not table.exclusions.total()
    assert 0.3 < table.labels["Foreign Object"].mean() < 0.7
    assert all(b.x + b.width <= 256 for boxes in table.boxes.values() for b in boxes)
    split = splits.build("object_cxr/mgca-v1", load_tables("object_cxr", tmp_path))
    assert not any(any(n.values()) for n in split.overlaps(table).values())
    faithful = splits.build("object_cxr/mgca-released", load_tables("object_cxr", tmp_path))
    assert len(faithful.parts["valid"]) < len(split.parts["valid"])
