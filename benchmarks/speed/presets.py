"""`make speed-presets`: training steps at the published sizes, by the papers' own loops.

Each paper's `train` runs its PAPER preset on batches of the phantom corpus, prepared at the size of
the preset's images, from random weights (published ones need a hub and cost the same). A few
batches, already on the device, go round: the first turn warms up and compiles, the others are
timed. What data loading reaches, `make speed` measures; a run's `data wait` says if it is enough.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
import tyro
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from benchmarks.models import PRESETS
from common import config, training
from common.provenance import peak_memory

BATCHES = 6
"""Different batches, and so lengths of texts."""
TURNS = 3
"""Turns over them, the first to warm up."""
RANDOM = ("--model.image.weights", "none", "--model.text.encoder", "None")
RANDOM_MACO = ("--model.image.weights", "None", "--model.text.vocabulary", "None")
RANDOM_CLIP = ("--model.weights", "none")
JOBS = {
    "gloria": ("gloria", "paper", *RANDOM),
    "mgca-vit": ("mgca", "paper", *RANDOM),
    "mgca-resnet50": ("mgca", "paper-resnet50", *RANDOM),
    "convirt": ("convirt", "paper", *RANDOM),
    "maco": ("maco", "paper", *RANDOM_MACO),
    "imitate": ("imitate", "paper", *RANDOM),
    "chexzero": ("lrclr", "paper", *RANDOM_CLIP, "--loss.weight", "0"),
    "lrclr": ("lrclr", "paper", *RANDOM_CLIP),
}
"""Package, preset and flags."""
ARMS = {"fp32": ("no", "no"), "bf16": ("bf16", "no"), "compiled": ("bf16", "inductor")}
"""Autocast precision and TorchDynamo's backend."""


@dataclass(frozen=True)
class Args:
    """What to measure."""

    models: tuple[str, ...] = tuple(JOBS)
    """Presets by name."""
    arms: tuple[str, ...] = tuple(ARMS)
    """Full precision, bfloat16, or bfloat16 compiled."""
    data_root: Path = Path("data/phantom-small")
    """Where the phantom corpus lies; sizes that are missing are prepared."""
    limit: float = 600
    """Seconds after which a measurement is given up."""
    out: Path | None = None
    """JSON file that keeps the measurements with their provenance; the README shows
    benchmarks/results/speed.json."""


class Measured(Exception):
    """Ends a training loop that has been timed enough; holds what was found."""


class Stopwatch(training.Run):
    """A run that goes round a few batches, times every step, and ends."""

    def steps(self, loader: DataLoader[Any]) -> Iterator[tuple[int, Any]]:
        """The batches, turn after turn.

        Raises:
            Measured: At the end.
        """
        batches = [send_to_device(batch, self.device) for batch in islice(loader, BATCHES)]
        self.bar = tqdm(disable=True)
        self.window = {"images": 0, "wait": 0.0, "since": time.monotonic()}
        seconds: list[float] = []
        for batch in batches * TURNS:
            _wait()
            started = time.perf_counter()
            with self.accelerator.accumulate(self.model):
                yield self.progress.step, batch
            _wait()
            seconds.append(time.perf_counter() - started)
            self.progress.step += 1
        first, others = seconds[: len(batches)], seconds[len(batches) :]
        size, step = len(batches[0][0]), statistics.median(others)
        raise Measured(
            {
                "batch_size": size,
                "images_per_second": round(size / step, 1),
                "step_seconds": round(step, 4),
                "first_turn_seconds": round(sum(first), 1),
                "peak_memory_mib": peak_memory(),
                **self.record,
            }
        )


def _wait() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def settings(name: str, precision: str, args: Args, out: Path) -> Any:
    """The preset's configuration."""
    paper, *words = JOBS[name]
    words += ["--precision", precision, "--tracker", "none"]
    words += ["--data-root", str(args.data_root), "--out", str(out)]
    return config.parse(PRESETS[paper], words)


def prepare(name: str, args: Args) -> None:
    """Prepare the images of a preset, if they are not; its error is the end."""
    cfg = settings(name, "no", args, Path())
    words = ["--dataset", cfg.data.dataset, "--size", str(cfg.model.image.size)]
    command = [sys.executable, "-m", "common.data", "prepare", *words]
    if subprocess.run([*command, "--data-root", str(args.data_root)], check=False).returncode:
        sys.exit(1)


def measure(name: str, arm: str, args: Args, out: Path, found: Connection) -> None:
    """Send what the steps of one preset took; meant for a process of its own."""
    precision, os.environ["ACCELERATE_DYNAMO_BACKEND"] = ARMS[arm]
    script: Any = import_module(f"{JOBS[name][0]}.pretrain")
    with patch.object(training, "Run", Stopwatch):
        try:
            script.train(settings(name, precision, args, out))
        except Measured as record:
            found.send(record.args[0])
        except torch.OutOfMemoryError:
            found.send({"failed": "out of memory"})


def alone(name: str, arm: str, args: Args) -> dict[str, Any]:
    """`measure` in a fresh process (compilers and forks do not mix), within the limit."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    with TemporaryDirectory() as folder:
        process = context.Process(target=measure, args=(name, arm, args, Path(folder), theirs))
        process.start()
        theirs.close()  # or the end of the process would not be heard
        try:
            found = ours.recv() if ours.poll(args.limit) else {"failed": f"over {args.limit:.0f} s"}
        except EOFError:
            found = {"failed": "ended with the error above"}
        finally:  # Ctrl-C, too: a run would take it as a wish to save
            process.kill()
            process.join()
    return {"model": name, "arm": arm, "preset": JOBS[name], **found}


def row(record: dict[str, Any]) -> str:
    """A line of the printed table."""
    title = f"{record['model']:15}{record['arm']:10}"
    if "failed" in record:
        return title + record["failed"]
    return (
        f"{title}batch {record['batch_size']:4}{record['images_per_second']:9.0f} images/s"
        f"{record['peak_memory_mib'] / 1024:7.1f} GiB{record['first_turn_seconds']:7.1f} s at first"
    )


def main() -> None:
    """Measure, print, and keep."""
    args = tyro.cli(Args, description=__doc__)
    unknown = sorted(({*args.models} - set(JOBS)) | ({*args.arms} - set(ARMS)))
    if unknown:
        sys.exit(f"error: unknown {unknown}; there are {', '.join(JOBS)} and {', '.join(ARMS)}")
    for name in args.models:
        prepare(name, args)
    records = []
    for arm in args.arms:
        for name in tqdm(args.models, desc=arm, file=sys.stderr):
            records.append(alone(name, arm, args))
            tqdm.write(row(records[-1]), file=sys.stdout)
            if args.out:
                args.out.write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
