"""Decode once: resized 8-bit images, sections and labels of a data set as Arrow shards.

`<data root>/prepared/<dataset>-<size>/` holds `shard-*.arrow` (readable with `datasets`),
`plan.json` (what it is made from) and, once complete, `manifest.json` (hashes, exclusions). A
killed `prepare` goes on where it stopped: a shard exists only when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple, Protocol

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from tqdm.auto import tqdm

from common.data import load, load_tables
from common.data.images import read_grey, resize_and_pad
from common.data.records import COLUMNS, Exclusions, RecordTable
from common.data.tables import DataError, sha256

log = logging.getLogger(__name__)

SHARD = 512
LABEL = "label_"
VERSION = 1
ABSENT = ("missing_file", "zero_byte", "no_report")
"""Reasons that end with a complete download; the tables do not change then."""


class Images(Protocol):
    """Square 8-bit images by id."""

    size: int

    def read(self, image_ids: Sequence[str]) -> NDArray[np.uint8]:
        """(n, size, size) in the order of the ids."""
        ...


class DecodedImages:
    """Decodes the source files each time; right for a few images, slow for training."""

    def __init__(self, table: RecordTable, size: int) -> None:
        self.size = size
        self.paths = dict(zip(table.frame["image_id"], table.frame["path"], strict=True))
        self.root = table.root

    def read(self, image_ids: Sequence[str]) -> NDArray[np.uint8]:
        """Decode, resize and pad."""
        planes = [
            resize_and_pad(read_grey(self.root / self.paths[i]), self.size) for i in image_ids
        ]
        return np.stack(planes).astype(np.uint8, copy=False)


class PreparedImages:
    """Reads memory-mapped pixels; a copy of 64 KB an image at 256 pixels."""

    def __init__(self, folder: Path) -> None:
        self.manifest = json.loads((folder / "manifest.json").read_text())
        self.size: int = self.manifest["size"]
        self.dataset = _open_shards(folder)
        ids = self.dataset.data.column("image_id").to_pylist()
        self.row = {image_id: i for i, image_id in enumerate(ids)}
        chunks = self.dataset.data.column("pixels").chunks
        planes = [
            np.frombuffer(c.buffers()[2], np.uint8, len(c) * self.size**2, _start(c))
            for c in chunks
        ]
        self.planes = [plane.reshape(-1, self.size, self.size) for plane in planes]
        self.starts = np.cumsum([0, *map(len, chunks)])

    def read(self, image_ids: Sequence[str]) -> NDArray[np.uint8]:
        """Copy the pixels of `image_ids`."""
        rows = np.array([self.row[i] for i in image_ids])
        shard = np.searchsorted(self.starts, rows, side="right") - 1
        out = np.empty((len(rows), self.size, self.size), np.uint8)
        for k, (s, r) in enumerate(zip(shard, rows - self.starts[shard], strict=True)):
            out[k] = self.planes[s][r]
        return out

    def table(self) -> RecordTable:
        """The records as they were when prepared; unreadable images are among the exclusions."""
        frame = self.dataset.remove_columns("pixels").to_pandas()
        names = [c for c in frame.columns if c.startswith(LABEL)]
        exclusions = Exclusions()
        exclusions.counts = dict(self.manifest["excluded"])
        exclusions.examples = dict(self.manifest["examples"])
        return RecordTable(
            self.manifest["dataset"],
            Path(self.manifest["root"]),
            frame.drop(columns=names),
            frame[names].rename(columns=lambda c: c[len(LABEL) :]).astype("float32"),
            exclusions,
            self.manifest["rows_in"],
            self.manifest["table_sha256"],
        )


def _start(chunk: pa.Array) -> int:
    """Byte at which a chunk's first image begins in its data buffer."""
    offsets = np.frombuffer(chunk.buffers()[1], np.int32)
    return int(offsets[chunk.offset])


def _open_shards(folder: Path) -> datasets.Dataset:
    shards = [datasets.Dataset.from_file(str(p)) for p in sorted(folder.glob("shard-*.arrow"))]
    return datasets.concatenate_datasets(shards)


def prepared_folder(data_root: Path, dataset: str, size: int) -> Path:
    """Where the prepared form of a data set lies."""
    return data_root / "prepared" / f"{dataset}-{size}"


def open_prepared(
    data_root: Path, dataset: str, size: int, *, table_sha256: str
) -> PreparedImages | None:
    """The prepared form if it is complete, else None; warns of what was absent when it was made.

    Args:
        data_root: Folder of the corpora.
        dataset: Registry id.
        size: Side of the images, pixels.
        table_sha256: Of the tables that are there now.

    Raises:
        DataError: If it was made from other tables: its labels may differ.
    """
    folder = prepared_folder(data_root, dataset, size)
    if not (folder / "manifest.json").is_file():
        return None
    prepared = PreparedImages(folder)
    before = prepared.manifest["table_sha256"]
    again = (
        f"run `python -m common.data prepare --dataset {dataset} --size {size} "
        f"--data-root {data_root}` again"
    )
    if before != table_sha256:
        raise DataError(
            f"{folder} was prepared from other tables ({before[:12]}) than those of {data_root} "
            f"({table_sha256[:12]}); {again}"
        )
    absent = {k: n for k, n in prepared.manifest["excluded"].items() if k in ABSENT}
    if absent:
        log.warning("%s was made without %s; if they are there now, %s", folder, absent, again)
    return prepared


class Opened(NamedTuple):
    """A data set as training and protocols read it.

    Attributes:
        tables: Its tables alone: what splits are drawn from.
        table: The records whose images are there.
        images: Their pixels: prepared if they are, else decoded at every read.
    """

    tables: RecordTable
    table: RecordTable
    images: Images


def open_dataset(data_root: Path, dataset: str, size: int) -> Opened:
    """Records and square images of a data set.

    Raises:
        DataError: If it is absent or malformed, or was prepared from other tables.
    """
    tables = load_tables(dataset, data_root)
    prepared = open_prepared(data_root, dataset, size, table_sha256=tables.table_sha256)
    if prepared:
        return Opened(tables, prepared.table(), prepared)
    table = load(dataset, data_root)
    return Opened(tables, table, DecodedImages(table, size))


def prepare(table: RecordTable, data_root: Path, *, size: int, workers: int = 2) -> Path:
    """Write the prepared form of `table`; returns its folder at once when it is up to date.

    Images that cannot be decoded are counted as `unreadable` with their message, not lost; the next
    call tries their shards again.
    """
    folder = prepared_folder(data_root, table.dataset, size)
    plan = {
        "version": VERSION,
        "size": size,
        "table_sha256": table.table_sha256,
        "records": _digest(table),
    }
    folder.mkdir(parents=True, exist_ok=True)
    if _json(folder / "plan.json") != plan:
        for path in folder.iterdir():  # the folder itself may be a link to another disk
            path.unlink()
        _write_json(folder / "plan.json", plan)
    if (folder / "manifest.json").is_file() and not _forget_failures(folder):
        return folder
    parts = [table.rows(slice(i, i + SHARD)) for i in range(0, len(table), SHARD)]
    shards = {folder / f"shard-{k:05d}.arrow": part for k, part in enumerate(parts)}
    todo = {path: part for path, part in shards.items() if not path.is_file()}
    with (
        ProcessPoolExecutor(workers) as pool,
        tqdm(total=len(table), unit="image", desc=f"prepare {table.dataset} at {size}") as bar,
    ):
        bar.update(sum(len(part) for path, part in shards.items() if path not in todo))
        jobs = [pool.submit(_write_shard, part, path, size) for path, part in todo.items()]
        try:
            for job in as_completed(jobs):
                bar.update(job.result())
        except BaseException:  # Ctrl-C or a full disk: only what has begun is waited for
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    _write_manifest(table, folder, sorted(shards), plan)
    return folder


def _digest(table: RecordTable) -> str:
    """A hash over everything that goes into the shards beside pixels."""
    rows = pd.util.hash_pandas_object(pd.concat([table.frame, table.labels], axis=1), index=False)
    return hashlib.sha256(rows.to_numpy().tobytes()).hexdigest()


def _json(path: Path) -> object:
    return json.loads(path.read_text()) if path.is_file() else None


def _write_json(path: Path, content: object) -> None:
    """All of it or nothing."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(content, indent=2) + "\n")
    unfinished.rename(path)


def _forget_failures(folder: Path) -> bool:
    """Remove the shards that lack images, and the manifest; whether there were any."""
    failed = [p for p in folder.glob("*.failures.json") if json.loads(p.read_text())]
    if failed:
        (folder / "manifest.json").unlink()  # first: killed in between, it is not complete
    for path in failed:
        (folder / path.name.replace(".failures.json", ".arrow")).unlink(missing_ok=True)
    return bool(failed)


def _write_shard(part: RecordTable, path: Path, size: int) -> int:
    """Decode one shard's images; returns how many rows it handled."""
    decoder, pixels, failures = DecodedImages(part, size), {}, {}
    for image_id in part.frame["image_id"]:
        try:
            pixels[image_id] = decoder.read([image_id])[0].tobytes()
        except DataError as error:
            failures[image_id] = str(error)
    keep = part.frame["image_id"].isin(pixels)
    columns: dict[str, pa.Array] = {
        name: pa.array(part.frame.loc[keep, name].astype(str), pa.string())
        for name in part.frame.columns
        if name in COLUMNS or name.startswith("section_")
    }
    for name in part.labels.columns:
        columns[f"{LABEL}{name}"] = pa.array(part.labels.loc[keep, name].to_numpy("float32"))
    columns["pixels"] = pa.array(list(pixels.values()), pa.binary())
    (path.with_suffix(".failures.json")).write_text(json.dumps(failures))
    table = pa.table(columns)
    unfinished = path.with_suffix(".part")
    with pa.OSFile(str(unfinished), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    unfinished.rename(path)
    return len(part)


def _write_manifest(
    table: RecordTable, folder: Path, shards: list[Path], plan: dict[str, object]
) -> None:
    failures = {
        k: v
        for p in shards
        for k, v in json.loads(p.with_suffix(".failures.json").read_text()).items()
    }
    done = table.where(~table.frame["image_id"].isin(failures), "unreadable")
    manifest = {
        **plan,
        **done.exclusion_report(),
        "root": str(table.root),
        "unreadable": failures,
        "shards": {p.name: sha256(p) for p in shards},
    }
    _write_json(folder / "manifest.json", manifest)
