"""Check data sets on disk: `python -m common.data.verify DATA_ROOT [--datasets rsna]`.

Every file the tables list must exist, be non-empty and decode; every image below the same folders
must be listed; tables must have the published sizes. Nothing is repaired.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from tqdm import tqdm

from common.data import DATASETS
from common.data.facts import counts
from common.data.images import CHANNEL_TOLERANCE, MAGIC
from common.data.inventory import INVENTORIES, Inventory
from common.data.tables import DataError, files_below, sha256

SYNTHETIC = "SYNTHETIC_DATA.txt"
"""Marks a corpus whose sizes mean nothing."""
CHECKSUMS = "SHA256SUMS.txt"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".dcm", ".dicom")
SHOWN = 20
"""Problems of one kind and data set printed by `main`."""


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong; `path` is relative to the data root, with `#<id>` for a row of a table."""

    kind: str
    dataset: str
    path: str
    detail: str = field(default="", compare=False)


@dataclass
class Present:
    """What was found of one data set.

    Attributes:
        dataset: Registry id.
        roots: Its folders; empty if the data set is missing.
        synthetic: Whether it is marked so; sizes are not compared then.
        counts: Measured sizes.
        message: What was looked for, if missing or unreadable.
    """

    dataset: str
    roots: list[Path] = field(default_factory=list)
    synthetic: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    message: str = ""

    def __str__(self) -> str:
        if not self.roots:
            return f"{self.dataset}: {self.message}"
        expected = {} if self.synthetic else counts(self.dataset)
        sizes = [
            f"{name} {n:,}" + (f" (expected {expected[name]:,})" if name in expected else "")
            for name, n in self.counts.items()
        ]
        kind = "synthetic, " if self.synthetic else ""
        where = ", ".join(map(str, self.roots))
        return f"{self.dataset}: present in {where}: {kind}{', '.join(sizes)}"


@dataclass
class Report:
    """All data sets looked for, and all problems, sorted."""

    datasets: list[Present] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [str(present) for present in self.datasets]
        seen: Counter[tuple[str, str]] = Counter()
        for problem in self.problems:
            key = (problem.dataset, problem.kind)
            seen[key] += 1
            if seen[key] <= SHOWN:
                lines.append(f"{problem.kind}\t{problem.dataset}\t{problem.path}\t{problem.detail}")
        lines += [
            f"{kind}\t{dataset}\t... and {n - SHOWN} more"
            for (dataset, kind), n in seen.items()
            if n > SHOWN
        ]
        return "\n".join([*lines, f"{len(self.problems)} problems"])


def verify(
    data_root: Path,
    datasets: Sequence[str] | None = None,
    *,
    decode: bool = True,
    workers: int = 2,
) -> Report:
    """Look at every data set below `data_root`.

    Args:
        data_root: Folder that holds the data sets.
        datasets: Registry ids; an absent one is a problem then. None takes those present.
        decode: Decode every picture; false reads headers, which misses most truncated files.
        workers: Threads that read images.

    Raises:
        DataError: If an id is unknown.
    """
    unknown = [name for name in datasets or () if name not in INVENTORIES]
    if unknown:
        raise DataError(f"unknown data sets {unknown}; choose from {', '.join(INVENTORIES)}")
    report = Report()
    for dataset in datasets or tuple(INVENTORIES):
        present = Present(dataset)
        report.datasets.append(present)
        try:
            DATASETS[dataset].find_home(data_root)
        except DataError as error:
            present.message = str(error)
            if datasets:
                report.problems.append(Problem("missing_dataset", dataset, ".", str(error)))
            continue
        report.problems += _dataset_problems(data_root, present, decode=decode, workers=workers)
    report.problems = sorted(set(report.problems))
    return report


def _dataset_problems(
    data_root: Path, present: Present, *, decode: bool, workers: int
) -> Iterator[Problem]:
    try:
        inventories = INVENTORIES[present.dataset](data_root)
    except DataError as error:
        present.message = f"unreadable: {error}"
        yield Problem("table", present.dataset, _table_of(error, data_root), str(error))
        return
    for inventory in inventories:
        present.roots.append(inventory.root)
        present.counts.update(inventory.counts)
        present.synthetic |= _is_synthetic(inventory.root, data_root)
        for kind, table, name, detail in inventory.faults:
            path = f"{_relative(table, data_root)}#{name}"
            yield Problem(kind, present.dataset, path, detail)
        yield from _checksum_problems(inventory, data_root)
        yield from _file_problems(inventory, data_root, decode=decode, workers=workers)
    if present.synthetic:
        return
    for name, expected in counts(present.dataset).items():
        if name in present.counts and present.counts[name] != expected:
            detail = f"{name}: expected {expected:,}, found {present.counts[name]:,}"
            root = _relative(present.roots[0], data_root)
            yield Problem("count", present.dataset, f"{root}#{name}", detail)


def _table_of(error: DataError, data_root: Path) -> str:
    """The file an error message names, else the data root."""
    words = str(error).replace(": ", " ").split(" ")
    for end in range(len(words), 0, -1):  # a path may contain spaces
        path = Path(" ".join(words[:end]))
        if path.is_file():
            return _relative(path, data_root)
    return "."


def _checksum_problems(inventory: Inventory, data_root: Path) -> Iterator[Problem]:
    own = () if inventory.borrowed else (inventory.root,)
    for folder in {*own, *(table.parent for table in inventory.tables)}:
        if not (folder / CHECKSUMS).is_file():
            continue
        for line in (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines():
            expected, _, name = line.strip().partition(" ")
            path = folder / name.strip().removeprefix("*")
            # The real list names every picture too; those are decoded instead.
            if not name.endswith((".csv", ".csv.gz")) or not path.is_file():
                continue
            found = sha256(path)
            if found != expected.lower():
                detail = f"expected sha256 {expected[:12]}, found {found[:12]}"
                yield Problem("table_hash", inventory.dataset, _relative(path, data_root), detail)


def _file_problems(
    inventory: Inventory, data_root: Path, *, decode: bool, workers: int
) -> Iterator[Problem]:
    dataset, root = inventory.dataset, inventory.root
    # Only folders that hold listed images: other copies may lie beside them.
    tops = sorted({path.split("/")[0] for path in inventory.listed["path"] if "/" in path})
    on_disk = {f"{top}/{name}" for top in tops for name in files_below(root / top, IMAGE_SUFFIXES)}
    listed = set(inventory.listed["path"])
    for name in sorted(listed - on_disk):
        path = _relative(root / name, data_root)
        yield Problem("missing_file", dataset, path, "listed in the tables, not on disk")
    for name in () if inventory.borrowed else sorted(on_disk - listed):
        path = _relative(root / name, data_root)
        yield Problem("unlisted_file", dataset, path, "on disk, not listed in the tables")
    sizes: dict[str, tuple[int, int]] = {}
    names = sorted(listed & on_disk)
    with ThreadPoolExecutor(max_workers=max(workers, 1)) as pool:
        found = pool.map(
            lambda name: inspect_image(root / name, decode=decode, alpha=inventory.opaque_alpha),
            names,
        )
        # disable=None: no bar where nobody watches
        for name, seen in tqdm(
            zip(names, found, strict=True), dataset, len(names), unit="image", disable=None
        ):
            sizes[name] = seen.size
            for kind, detail in seen.problems:
                yield Problem(kind, dataset, _relative(root / name, data_root), detail)
    yield from _box_problems(inventory, data_root, sizes)
    yield from _mask_problems(inventory, data_root, sizes)


def _box_problems(
    inventory: Inventory, data_root: Path, sizes: dict[str, tuple[int, int]]
) -> Iterator[Problem]:
    if inventory.boxes is None:
        return
    path_of = dict(zip(inventory.listed["image_id"], inventory.listed["path"], strict=True))
    table = _relative(inventory.box_table or inventory.tables[0], data_root)
    for name, x, y, width, height in inventory.boxes.itertuples(index=False):
        image_width, image_height = sizes.get(path_of[name], (0, 0))
        if image_width and (x + width > image_width or y + height > image_height):
            detail = (
                f"box x={x:g} y={y:g} width={width:g} height={height:g} leaves the "
                f"{image_width} x {image_height} image"
            )
            yield Problem("box_outside", inventory.dataset, f"{table}#{name}", detail)


def _mask_problems(
    inventory: Inventory, data_root: Path, sizes: dict[str, tuple[int, int]]
) -> Iterator[Problem]:
    path_of = dict(zip(inventory.listed["image_id"], inventory.listed["path"], strict=True))
    table = _relative(inventory.tables[0], data_root)
    for name, end in inventory.mask_ends.items():
        width, height = sizes.get(path_of[name], (0, 0))
        if width and end > width * height:
            detail = f"a run ends at pixel {end} of {width * height}"
            yield Problem("mask_outside", inventory.dataset, f"{table}#{name}", detail)


@dataclass(frozen=True)
class Inspection:
    """(kind, detail) of each problem of one image, and its (width, height), zero if unknown."""

    problems: tuple[tuple[str, str], ...] = ()
    size: tuple[int, int] = (0, 0)


def inspect_image(path: Path, *, decode: bool = True, alpha: bool = False) -> Inspection:
    """Open one image file and say what is wrong with it; `alpha` lets an opaque channel pass."""
    try:
        status = path.stat()
        if not status.st_mode & 0o444:  # root could read it; whoever trains may not
            return Inspection((("unreadable", "no read permission"),))
        if status.st_size == 0:
            return Inspection((("zero_byte", "0 bytes; the download was interrupted"),))
        with path.open("rb") as file:
            start = file.read(132)
    except OSError as error:
        return Inspection((("unreadable", f"{error.strerror}"),))
    if start[128:] == b"DICM":
        return _inspect_dicom(path, decode)
    if start[:4] in MAGIC or start[:3] in MAGIC:
        return _inspect_picture(path, decode, alpha)
    text = start[:24].decode("ascii", "replace").strip()
    return Inspection((("not_an_image", f"{status.st_size} bytes, starts with {text!r}"),))


def _inspect_picture(path: Path, decode: bool, opaque_alpha: bool) -> Inspection:
    try:
        with Image.open(path) as picture:
            size, mode = picture.size, picture.mode
            alpha = picture.has_transparency_data and not opaque_alpha
            spread = 0
            if decode:
                picture.load()
                spread = _channel_spread(picture)
                if picture.has_transparency_data:
                    alpha |= int(np.asarray(picture.convert("RGBA"))[..., 3].min()) < 255
    except (OSError, SyntaxError, ValueError) as error:
        detail = f"{path.stat().st_size} bytes: {error}"
        return Inspection((("truncated", detail),))
    if alpha:
        return Inspection((("wrong_mode", f"{mode} with an alpha channel"),), size)
    if spread > CHANNEL_TOLERANCE:
        return Inspection((("wrong_mode", f"{mode}, channels differ by {spread} levels"),), size)
    return Inspection((), size)


def _channel_spread(picture: Image.Image) -> int:
    """Greatest difference between the colour channels of a pixel."""
    if picture.mode not in ("RGB", "RGBA", "P", "CMYK", "YCbCr"):
        return 0
    channels = np.asarray(picture.convert("RGB"), dtype=np.int16)
    return int((channels.max(axis=2) - channels.min(axis=2)).max())


def _inspect_dicom(path: Path, decode: bool) -> Inspection:
    try:
        image = pydicom.dcmread(path, stop_before_pixels=not decode)
        size = (int(image.Columns), int(image.Rows))
        if decode:
            _ = image.pixel_array
    except RuntimeError as error:
        return Inspection((("codec", f"needs a decoder: {error}"),))
    except Exception as error:  # pydicom raises whatever the parser met
        detail = f"{path.stat().st_size} bytes: {type(error).__name__}: {error}"
        return Inspection((("truncated", detail),))
    problems = []
    if image.get("PhotometricInterpretation") == "MONOCHROME1":
        problems.append(("monochrome1", "stored inverted; read_dicom turns it"))
    bits = int(image.get("BitsStored", 8))
    if bits > 8:
        problems.append(("high_bit_depth", f"{bits} bits stored"))
    return Inspection(tuple(problems), size)


def _is_synthetic(root: Path, data_root: Path) -> bool:
    folders = [root, *(p for p in root.parents if p.is_relative_to(data_root))]
    return any((folder / SYNTHETIC).is_file() for folder in folders)


def _relative(path: Path, data_root: Path) -> str:
    return Path(os.path.relpath(path, data_root)).as_posix()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is there and what is wrong.

    Returns:
        0 if something was found and nothing is wrong, else 1.
    """
    parser = argparse.ArgumentParser(prog="python -m common.data.verify", description=__doc__)
    parser.add_argument("data_root", type=Path)
    parser.add_argument("--datasets", nargs="+", choices=list(INVENTORIES))
    parser.add_argument("--no-decode", action="store_true", help="read headers only")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", module="pydicom")
    report = verify(
        options.data_root,
        options.datasets,
        decode=not options.no_decode,
        workers=options.workers,
    )
    sys.stdout.write(f"{report}\n")
    found = any(present.roots for present in report.datasets)
    return int(bool(report.problems) or not found)


if __name__ == "__main__":
    sys.exit(main())
