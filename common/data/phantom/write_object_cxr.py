"""The phantom in the layout of Object-CXR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from common.data.phantom.disk import Picture, Result, write_notice, write_sums, write_table
from common.data.phantom.world import draw_study

ROOT = "object-CXR"
TYPES = {"rectangle": 0, "ring": 1, "loop": 2}
COLUMNS = {"train": "image_name", "dev": "image_name", "test": "image_path"}


def plan(seed: int, train: int, valid: int) -> list[Picture]:
    """`train` images for training, half of `valid` as dev part and half as test part."""
    pictures = []
    parts = ["train"] * train + ["dev"] * (valid // 2) + ["test"] * (valid - valid // 2)
    for index, part in enumerate(parts):
        name = f"{index + 1:05d}"
        study = draw_study(seed, index, site="object_cxr")
        kinds = [TYPES[f.kind] for f in study.findings if f.label == "Foreign Object"]
        pictures.append(
            Picture(
                f"{part}/{name}.jpg",
                f"{ROOT}/{part}/{name}.jpg",
                study,
                extra={"part": part, "type": str(kinds[0]) if kinds else ""},
            )
        )
    return pictures


def finish(out: Path, pictures: Sequence[Picture], results: Mapping[str, Result]) -> None:
    """A table a part; objects as rectangle, ellipse or polygon."""
    root, tables = out / ROOT, []
    for part, column in COLUMNS.items():
        rows = []
        for picture in (p for p in pictures if p.extra["part"] == part):
            boxes = results[picture.image_id]["boxes"].get("Foreign Object", [])
            shapes = [_shape(picture.extra["type"], *box) for box in boxes]
            rows.append([picture.image_id.partition("/")[2], ";".join(shapes)])
        tables.append(write_table(root / f"{part}.csv", [column, "annotation"], rows))
    write_notice(root)
    write_sums(root, tables)


def _shape(kind: str, x: int, y: int, width: int, height: int) -> str:
    left, top, right, bottom = x, y, x + width, y + height
    corners = [left, top, right, bottom]
    if kind == "2":
        middle = (left + right) // 2
        corners = [left, top, middle, top, right, bottom, left, bottom]
    return " ".join(map(str, [kind, *corners]))
