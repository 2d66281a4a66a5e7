"""Jobs forked from one process that has imported everything.

Importing takes longer than many evaluations do. `multiprocessing`'s fork server imports once, each
job is a fresh copy of it, started with the words of a command line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

from benchmarks.models import PRESETS

ROOT = Path(__file__).resolve().parent.parent
TRAINED = [paper for paper in PRESETS if (ROOT / paper / "pretrain.py").is_file()]
"""Packages that pre-train."""

SERVER = get_context("forkserver")
SERVER.set_forkserver_preload(["benchmarks.evaluate", *(f"{paper}.pretrain" for paper in TRAINED)])


def run(module: str, words: Sequence[str]) -> int:
    """Run a module's `main` as its command line would, in a process of its own; the exit status.

    Args:
        module: `benchmarks.evaluate`, or a paper's `pretrain`.
        words: What follows on the command line.
    """
    job = SERVER.Process(target=_main, args=(module, words))
    job.start()
    job.join()
    return job.exitcode or 0


def _main(module: str, words: Sequence[str]) -> None:
    code = import_module(module)
    sys.argv = [str(code.__file__), *words]
    code.main()
