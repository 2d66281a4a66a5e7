"""Evaluations forked from one process that has imported everything.

Importing takes longer than many evaluations do. `multiprocessing`'s fork server imports once, each
job is a fresh copy of it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

SERVER = get_context("forkserver")
SERVER.set_forkserver_preload(["benchmarks.evaluate"])


def evaluate(words: Sequence[str]) -> int:
    """Run `python -m benchmarks.evaluate` with `words` in a process of its own; the exit status."""
    job = SERVER.Process(target=_main, args=(words,))
    job.start()
    job.join()
    return job.exitcode or 0


def _main(words: Sequence[str]) -> None:
    from benchmarks.evaluate import main

    sys.argv = [str(Path(__file__).with_name("evaluate.py")), *words]
    main()
