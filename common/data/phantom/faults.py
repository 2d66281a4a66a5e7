"""Damage a phantom corpus the way downloads and edits damage real ones, and say where.

Every fault is planted on an image or table of its own, so that a checker must report exactly the
manifest.
"""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.config import disable_value_validation
from pydicom.uid import ExplicitVRLittleEndian

from common.data import nih
from common.data.phantom import (
    write_chexpert,
    write_covidx,
    write_mimic,
    write_ms_cxr,
    write_nih,
    write_object_cxr,
    write_open_i,
    write_rsna,
    write_siim,
)
from common.data.phantom.disk import SUMS, dicom_bytes, is_root, write_sums, write_whole

MANIFEST = "faults.json"
LOGIN_PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>403 Forbidden</title></head><body>Log in</body></html>\n"
)
WIDTH_BEYOND = 2.0
"""A box outside its image is this many times as wide as the image."""

WIDTH_CELL: Mapping[str, int] = {"rsna": 3, "nih": 4, "ms_cxr": -4}
"""Which cell of a box table's row is the width; a phrase may hold commas."""

Line = dict[str, Any]
"""An image of `world/<dataset>.jsonl`."""


@dataclass(frozen=True)
class Place:
    """Where the tables of a data set lie, below the corpus.

    Attributes:
        root: Folder of `SHA256SUMS.txt`.
        table: Table with one row an image; takes duplicate rows.
        hashed: Another table, below the corpus, whose bytes may stop matching its listed hash.
    """

    root: str
    table: str
    hashed: str


PLACES: Mapping[str, Place] = {
    "chexpert": Place(
        "CheXpert-v1.0-small", "train.csv", f"chexpertplus/{write_chexpert.PLUS_TABLE}"
    ),
    "mimic": Place(
        write_mimic.IMAGES,
        "mimic-cxr-2.0.0-metadata.csv.gz",
        f"{write_mimic.IMAGES}/mimic-cxr-2.0.0-negbio.csv.gz",
    ),
    "rsna": Place(
        write_rsna.ROOT, write_rsna.LABEL_TABLE, f"{write_rsna.ROOT}/{write_rsna.CLASS_TABLE}"
    ),
    "object_cxr": Place(write_object_cxr.ROOT, "train.csv", f"{write_object_cxr.ROOT}/test.csv"),
    "siim": Place(write_siim.ROOT, write_siim.TABLE, f"{write_siim.ROOT}/{write_siim.TABLE}"),
    "covidx": Place(
        write_covidx.ROOT,
        write_covidx.LISTS["train"],
        f"{write_covidx.ROOT}/{write_covidx.LISTS['test']}",
    ),
    "nih": Place(write_nih.ROOT, nih.TABLES["2020"], f"{write_nih.ROOT}/{nih.BOX_TABLE}"),
    "ms_cxr": Place(
        write_ms_cxr.ROOT, write_ms_cxr.TABLE, f"{write_ms_cxr.ROOT}/{write_ms_cxr.TABLE}"
    ),
    "open_i": Place(
        write_open_i.ROOT, "indiana_projections.csv", f"{write_open_i.ROOT}/indiana_reports.csv"
    ),
}


class _Planter:
    """Hands out untouched images of one data set and collects the manifest."""

    def __init__(self, out: Path, dataset: str) -> None:
        lines = (out / "world" / f"{dataset}.jsonl").read_text().splitlines()
        self.out, self.dataset, self.place = out, dataset, PLACES[dataset]
        self.unused: list[Line] = [
            line for line in map(json.loads, lines) if line["extra"].get("part") != "test"
        ]
        self.unused = self.unused[3:]  # the first few stay whole, for whoever wants a good example
        if dataset == "mimic":
            shared = _annotated(out)  # a fault of theirs would be MS-CXR's too
            self.unused = [line for line in self.unused if line["image_id"] not in shared]
        self.faults: list[dict[str, str]] = []

    def take(self, wanted: Callable[[Line], bool] = lambda line: True) -> Line:
        """The next untouched image that is `wanted`."""
        for n, line in enumerate(self.unused):
            if wanted(line):
                return self.unused.pop(n)
        raise ValueError(f"{self.dataset}: no image left to damage; write a larger corpus")

    def note(self, kind: str, path: str) -> None:
        """Add to the manifest."""
        self.faults.append({"kind": kind, "dataset": self.dataset, "path": path})

    def edit(self, name: str, change: Callable[[list[str]], list[str]]) -> None:
        """Change the lines of a table and refresh its listed hash."""
        root = self.out / self.place.root
        path = root / name
        write_whole(path, _pack(path, "".join(change(_unpack(path).splitlines(keepends=True)))))
        names = [line.split("  ", 1)[1] for line in (root / SUMS).read_text().splitlines()]
        write_sums(root, [root / listed for listed in names])


def _annotated(out: Path) -> set[str]:
    """Images of MIMIC that MS-CXR annotates."""
    world = out / "world" / "ms_cxr.jsonl"
    lines = world.read_text().splitlines() if world.is_file() else []
    return {json.loads(line)["image_id"] for line in lines}


def plant_faults(out: Path, *, datasets: Sequence[str] = tuple(PLACES)) -> list[dict[str, str]]:
    """Damage the clean corpus `out` in place and write `faults.json`.

    Args:
        out: As written by `write_corpus`.
        datasets: Names of `PLACES`.

    Returns:
        The manifest: `kind`, `dataset`, and `path` below `out`. For faults of a table's rows the
        path is the table's, `#`, and the image or patient id.

    Raises:
        ValueError: If a data set is unknown, or `out` was damaged before.
    """
    unknown = [name for name in datasets if name not in PLACES]
    if unknown:
        raise ValueError(f"no faults for {unknown}; choose from {', '.join(PLACES)}")
    if (out / MANIFEST).is_file():
        raise ValueError(f"{out} has faults already; write the corpus anew to another folder")
    faults: list[dict[str, str]] = []
    for name in datasets:
        planter = _Planter(out, name)
        # Hashes of edited tables are refreshed before the one mismatch is planted.
        for plant in (_damage_files, _damage_pixels, _damage_tables, _break_hash):
            plant(planter)
        faults += planter.faults
    write_whole(out / MANIFEST, (json.dumps(faults, indent=2) + "\n").encode())
    return faults


def _damage_files(planter: _Planter) -> None:
    """Empty, cut, replaced, missing, unlisted and unreadable files."""
    if planter.dataset == "ms_cxr":
        return  # its pictures are MIMIC's
    out = planter.out
    for kind in ("zero_byte", "truncated", "not_an_image", "missing_file", "unreadable"):
        path = planter.take(_is_packed)["path"]
        if kind == "zero_byte":
            (out / path).write_bytes(b"")
        elif kind == "truncated":
            data = (out / path).read_bytes()
            (out / path).write_bytes(data[: len(data) * 6 // 10])
        elif kind == "not_an_image":
            (out / path).write_bytes(LOGIN_PAGE)
        elif kind == "missing_file":
            (out / path).unlink()
        else:
            _make_unreadable(out / path)
        planter.note(kind, path)
    source = Path(planter.take(_is_packed)["path"])
    stranger = source.with_name(f"unlisted_{source.name}")
    if planter.dataset == "chexpert":
        stranger = source.with_name(f"view9_frontal{source.suffix}")
    (out / stranger).write_bytes((out / source).read_bytes())
    planter.note("unlisted_file", stranger.as_posix())


def _is_packed(line: Line) -> bool:
    """Whether the file is compressed, so that a cut makes it undecodable."""
    return bool(line["encoding"] != "dicom")


def _make_unreadable(path: Path) -> None:
    """Mode 000; for root, who may read anything, a link to nowhere."""
    if is_root():
        path.unlink()
        path.symlink_to("moved-away")
    else:
        path.chmod(0)


def _damage_pixels(planter: _Planter) -> None:
    """Colour, inverted or deep pixels, as far as the format has them."""
    if planter.dataset == "ms_cxr":
        return
    out = planter.out
    if planter.dataset in ("rsna", "siim"):
        for kind, change in (("monochrome1", _invert), ("high_bit_depth", _deepen)):
            path = planter.take()["path"]
            with disable_value_validation():
                write_whole(out / path, change(out / path))
            planter.note(kind, path)
        return
    path = planter.take()["path"]
    with Image.open(out / path) as picture:
        grey = np.asarray(picture.convert("L"))
    buffer = io.BytesIO()
    tinted = np.stack([grey, grey // 2 + 40, 255 - grey], axis=2)
    if path.endswith(".png"):
        opaque = np.full_like(grey, 255)
        Image.fromarray(np.concatenate([tinted, opaque[..., None]], axis=2)).save(buffer, "PNG")
    else:
        Image.fromarray(tinted).save(buffer, "JPEG", quality=90)
    write_whole(out / path, buffer.getvalue())
    planter.note("wrong_mode", path)


def _invert(path: Path) -> bytes:
    """MONOCHROME1 with inverted pixels: shows the same picture when read correctly."""
    data = pydicom.dcmread(path)
    return _replace_pixels(data, 255 - data.pixel_array, bits=8, kind="MONOCHROME1")


def _deepen(path: Path) -> bytes:
    """Twelve bits a pixel."""
    data = pydicom.dcmread(path)
    return _replace_pixels(
        data, data.pixel_array.astype(np.uint16) * 16, bits=12, kind="MONOCHROME2"
    )


def _replace_pixels(data: pydicom.Dataset, pixels: np.ndarray, *, bits: int, kind: str) -> bytes:
    data.PhotometricInterpretation = kind
    data.BitsAllocated, data.BitsStored, data.HighBit = 8 * pixels.itemsize, bits, bits - 1
    raw = pixels.tobytes()
    data.PixelData = raw + b"\0" * (len(raw) % 2)
    data["PixelData"].VR = "OW" if bits > 8 else "OB"
    data["PixelData"].is_undefined_length = False
    if "LossyImageCompression" in data:
        del data.LossyImageCompression
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dicom_bytes(data)


def _damage_tables(planter: _Planter) -> None:
    """A repeated row, a box or mask beyond its image, a patient in two splits."""
    if planter.dataset == "open_i":
        return  # its images are listed in XML, not in rows
    table = planter.place.table
    where = f"{planter.place.root}/{table}"
    image = planter.take(lambda line: _one_row(planter.dataset, line))["image_id"]
    key = _row_key(planter.dataset, image)
    planter.edit(table, lambda rows: [row for row in rows for _ in range(1 + (key in row))])
    planter.note("duplicate_row", f"{where}#{image}")
    if planter.dataset in WIDTH_CELL:
        _widen_box(planter)
    if planter.dataset == "siim":
        line = planter.take(lambda line: len(line["rles"].get("Pneumothorax", ())) == 1)
        beyond = f"{line['image_id']}, 0 {line['width'] * line['height'] + 1}\n"
        planter.edit(table, lambda rows: [*rows, beyond])
        planter.note("mask_outside", f"{where}#{line['image_id']}")
    elif planter.dataset == "mimic":
        _split_patient(planter)
    elif planter.dataset == "nih":
        _list_twice(planter)
    elif planter.dataset == "chexpert":
        _repeat_patient(planter)


def _row_key(dataset: str, image_id: str) -> str:
    """What a table's row contains for this image and no other."""
    if dataset == "covidx":
        return f" {image_id.partition('/')[2]} "
    if dataset == "object_cxr":
        return f"{image_id.partition('/')[2]},"
    return f"{image_id}.jpg," if dataset == "chexpert" else f"{image_id},"


def _one_row(dataset: str, line: Line) -> bool:
    """Whether the image has one row in the table that gets a duplicate."""
    if dataset in ("chexpert", "object_cxr"):
        return bool(line["extra"]["part"] == "train")
    if dataset == "siim":
        return not line["rles"].get("Pneumothorax")
    return dataset != "rsna" or not line["boxes"].get("Consolidation")


def _widen_box(planter: _Planter) -> None:
    """The boxes of one image become wider than it."""
    table = nih.BOX_TABLE if planter.dataset == "nih" else planter.place.table
    rows = _unpack(planter.out / planter.place.root / table).splitlines()
    boxed = {row.partition(",")[0] for row in rows}
    if planter.dataset == "rsna":  # lists images without box too
        boxed = {row.partition(",")[0] for row in rows if row.endswith(",1")}
    line = planter.take(lambda line: line["image_id"] in boxed)
    name, wide = line["image_id"], f"{line['width'] * WIDTH_BEYOND:.1f}"
    cell = WIDTH_CELL[planter.dataset]
    planter.edit(table, lambda rows: [_widen(row, name, wide, cell) for row in rows])
    planter.note("box_outside", f"{planter.place.root}/{table}#{name}")


def _widen(row: str, image_id: str, width: str, cell: int) -> str:
    if not row.startswith(f"{image_id},"):
        return row
    cells = row.split(",")
    cells[cell] = width
    return ",".join(cells)


def _list_twice(planter: _Planter) -> None:
    """NIH: an image of a training patient with several moves to the test list."""
    several = Counter(line["extra"]["patient_id"] for line in planter.unused)
    line = planter.take(
        lambda line: line["extra"]["list"] == "train" and several[line["extra"]["patient_id"]] > 1
    )
    name = f"{line['image_id']}\n"
    planter.edit(nih.LISTS["train"], lambda rows: [row for row in rows if row != name])
    planter.edit(nih.LISTS["test"], lambda rows: [*rows, name])
    where = f"{planter.place.root}/{nih.LISTS['test']}"
    planter.note("patient_in_two_splits", f"{where}#{line['extra']['patient_id']}")


def _split_patient(planter: _Planter) -> None:
    """MIMIC: one study of a training patient with several moves to the test split."""
    name = "mimic-cxr-2.0.0-split.csv.gz"
    line = planter.take(lambda line: line["number"] == 2 and line["extra"]["split"] == "train")
    study, patient = line["extra"]["study_id"], line["extra"]["subject_id"]

    def change(rows: list[str]) -> list[str]:
        return [row.replace(",train", ",test") if f",{study}," in row else row for row in rows]

    planter.edit(name, change)
    planter.note("patient_in_two_splits", f"{planter.place.root}/{name}#{patient}")


def _repeat_patient(planter: _Planter) -> None:
    """CheXpert: a training patient's image is copied into the validation set as another study."""
    line = planter.take(lambda line: line["extra"]["part"] == "train" and line["view"] != "LATERAL")
    patient = line["image_id"].split("/")[1]
    copy = f"valid/{patient}/study9/view1_frontal"
    root = planter.place.root
    target = planter.out / root / f"{copy}.jpg"
    write_whole(target, (planter.out / line["path"]).read_bytes())
    labels = ",".join(f"{value:.1f}" for value in (line["truth"][n] for n in line["truth"]))
    row = f"{root}/{copy}.jpg,{line['sex']},{line['age']},Frontal,{line['view']},{labels}\n"
    planter.edit("valid.csv", lambda rows: [*rows, row])
    planter.note("patient_in_two_splits", f"{root}/valid.csv#{patient}")


def _break_hash(planter: _Planter) -> None:
    """Change a table's bytes but not its listed hash: an empty line at the end."""
    path = planter.out / planter.place.hashed
    write_whole(path, _pack(path, _unpack(path) + "\n"))
    planter.note("table_hash", planter.place.hashed)


def _unpack(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()


def _pack(path: Path, text: str) -> bytes:
    data = text.encode()
    return gzip.compress(data, mtime=0) if path.suffix == ".gz" else data
