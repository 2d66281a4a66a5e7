"""Reproduce tables: `python -m benchmarks.reproduce gloria-table2 [--corpus real --data-root D]`.

Plans every missing step with Snakemake (corpus, prepared images, pre-training, evaluation), runs
it, and prints the table. Interrupted, the same command goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from benchmarks.core import (
    HERE,
    Evaluation,
    Table,
    evaluations,
    parse_seeds,
    result_path,
)
from benchmarks.models import settings
from benchmarks.render import render
from benchmarks.tables import TABLES
from benchmarks.tasks import TASKS
from common.data import DATASETS, chexpert
from common.data.tables import DataError
from common.provenance import git_state

COMMITTED = HERE / "results"
CACHED = "linear/cached-features"
COMPARE = TABLES["compare"]
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**34)}
"""For glibc: a job keeps what it frees; by default each step's tensors are faulted in anew."""


@dataclass(frozen=True)
class Args:
    """What to reproduce."""

    target: tyro.conf.Positional[str] = ""
    """A table (gloria-table2), a paper (gloria) or all."""
    corpus: Literal["phantom", "real"] = "phantom"
    """The synthetic corpus, or real data below the data root."""
    data_root: str = ""
    """Folder of the corpora; the phantom corpus is made there when it is missing."""
    seeds: str = "0"
    """Comma-separated seeds of the whole chain."""
    cores: int = 2
    """Jobs at once."""
    threads: int = 1
    """Threads of each job; another number gives slightly other weights."""
    probe: Literal[
        "auto", "linear/cached-features", "linear/gloria", "linear/mgca", "linear/imitate"
    ] = "auto"
    """Protocol of linear classification.

    auto: cached features on phantom, the model's paper's on real data; others have a folder of
    results of their own.
    """
    executor: str = "local"
    """Snakemake executor, for instance slurm."""
    list: bool = False
    """List tables and papers."""
    record: bool = False
    """Copy the results to benchmarks/results, where committed numbers live."""


def chosen(target: str) -> list[Table]:
    """The tables of a target: one, a paper's, or all but those that stand apart.

    Raises:
        SystemExit: If it names none; lists those there are.
    """
    tables = [
        table
        for name, table in TABLES.items()
        if name == target
        or (not table.apart and (target == "all" or name.startswith(f"{target}-")))
    ]
    if not tables:
        papers = sorted({name.partition("-")[0] for name in TABLES})
        known = ", ".join([*TABLES, *papers, "all"])
        sys.exit(f"error: unknown table {target!r}; choose one of: {known}")
    return tables


def check_data(jobs: Sequence[Evaluation], data_root: Path) -> None:
    """Say at once which real data set is missing, and where it was looked for.

    Raises:
        SystemExit: If any is.
    """
    problems = []
    trained = {settings(j.model, "real", 0).data.dataset for j in jobs if j.model.pretrained}
    tested = {
        TASKS[j.dataset].dataset if j.dataset in TASKS else j.dataset
        for j in jobs
        if j.task != "parameters"
    }
    for name in sorted(trained | tested):
        try:
            DATASETS[name].load(data_root, check_files=False)
        except DataError as error:
            problems.append(str(error))
    if "chexpert" in trained or any(job.task == "retrieval" for job in jobs):
        try:
            chexpert.find_reports(data_root)
        except DataError as error:
            problems.append(str(error))
    if problems:
        sys.exit("error: " + "\n".join(problems) + "\nSee DATA in README.md for access and layout.")


def drop_outdated(targets: Sequence[Path], *, clean: bool) -> None:
    """Delete what is to be made again: rows that could not run and, if `clean`, of dirty code."""
    for path in (path for path in targets if path.is_file()):
        record = json.loads(path.read_text())
        if "not_run" in record or (record["dirty"] and clean):
            path.unlink()
            path.with_suffix(".npz").unlink(missing_ok=True)


def claim_runs(
    jobs: Sequence[Evaluation], seeds: Sequence[int], runs: Path, data_root: Path
) -> None:
    """Note where `runs` takes its data from, and refuse to mix: a run is found by its name alone.

    Raises:
        SystemExit: If a run that the tables need was made from another one.
    """
    marker = runs / "DATA_ROOT"
    if marker.is_file() and Path(marker.read_text()).resolve() != data_root.resolve():
        sys.exit(
            f"error: the results in {runs} are of {marker.read_text()}, not of {data_root}; give "
            f"that as DATA_ROOT, or move {runs} away"
        )
    runs.mkdir(parents=True, exist_ok=True)
    marker.write_text(str(data_root))
    for job in (job for job in jobs if job.model.pretrained):
        for run in (runs / f"{job.model.id}-seed{seed}" for seed in seeds):
            settings_file = run / "run.json"
            if not settings_file.is_file():
                continue
            before = Path(json.loads(settings_file.read_text())["run"]["data_root"])
            if before.resolve() != data_root.resolve():
                sys.exit(
                    f"error: {run} was made from {before}, not from {data_root}; give that as "
                    f"DATA_ROOT, or move {runs} away"
                )


def snakemake(
    targets: Sequence[Path], args: Args, folders: dict[str, Path], *, size: str = "small"
) -> int:
    """Run the job graph up to `targets`, on a phantom of `size`; returns the exit status.

    Raises:
        SystemExit: On Ctrl-C, once every job has saved.
    """
    probe = CACHED if args.corpus == "phantom" else ""  # the judging paper's
    settings = {
        "corpus": args.corpus,
        "size": size,
        **folders,
        "threads": args.threads,
        "probe": probe if args.probe == "auto" else args.probe,
    }
    command = [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(HERE / "Snakefile")),
        *("--cores", str(args.cores), "--executor", args.executor, "--rerun-triggers", "mtime"),
        *("--quiet", "rules", "--rerun-incomplete", "--keep-going", "--nolock"),
        # every job that ends adds a look at the queue each second, for good; here each five
        *("--max-jobs-per-timespan", "100/5s"),
        "--force-use-threads",  # evaluations are forked, see `warm`
        *("--config", *(f"{key}={value}" for key, value in settings.items())),
        *("--", *map(str, targets)),
    ]
    job = subprocess.Popen(
        command, env={**KEEP_MEMORY, **os.environ, "PYTHONPATH": str(Path.cwd())}
    )
    try:
        return job.wait()
    except KeyboardInterrupt:  # Snakemake and its jobs have heard it, too, and save
        job.wait()
        sys.exit("interrupted; the same command goes on from there")


def data_root_of(table: Table, args: Args) -> Path:
    """Where the corpora lie: by default a phantom of the table's size.

    Raises:
        SystemExit: If real data was asked for without saying where, or where a phantom is, or for
            a table of a larger phantom.
    """
    if args.corpus == "real" and table.size != "small":
        sys.exit(f"error: {table.id} is a table of the phantom corpus alone")
    if args.corpus == "real" and not args.data_root:
        sys.exit("error: CORPUS=real needs DATA_ROOT=<folder that holds the data sets>")
    root = Path(args.data_root or f"data/phantom-{table.size}")
    if args.corpus == "real" and (root / "phantom.json").is_file():
        sys.exit(f"error: {root} holds a phantom corpus, no real data")
    return root


def results_name(args: Args) -> str:
    """Folder of the results; one of its own for a linear protocol that is not the corpus's."""
    usual = args.probe == "auto" or (args.corpus, args.probe) == ("phantom", CACHED)
    return "results" if usual else f"results-{args.probe.partition('/')[2]}"


def keep(targets: Sequence[Path], results: Path, committed: Path) -> None:
    """Copy results with their predictions to where committed numbers live."""
    for target in targets:
        kept = committed / target.relative_to(results)
        kept.parent.mkdir(parents=True, exist_ok=True)
        for path in (target, target.with_suffix(".npz")):
            if path.is_file():
                shutil.copy(path, kept.with_suffix(path.suffix))


def main() -> None:
    """Command line."""
    args = tyro.cli(Args, description=__doc__)
    if args.list or not args.target:
        print("\n".join(f"{name:16} {table.title}" for name, table in TABLES.items()))
        return
    seeds = parse_seeds(args.seeds)
    tables = chosen(args.target)
    first = tables[0]  # a table of another size stands apart, alone
    data_root = data_root_of(first, args)
    if args.corpus == "real" and args.probe == "auto" and COMPARE in tables:
        sys.stderr.write("the matrix needs one protocol for all rows: `make compare` makes it\n")
        tables.remove(COMPARE)
    if not tables:
        return
    jobs = list({job.name: job for table in tables for job in evaluations(table)}.values())
    runs = Path("runs") / first.folder(args.corpus)
    results = runs / results_name(args)
    clean = args.record or args.corpus == "real"
    if clean and git_state()["dirty"]:
        sys.exit("error: these numbers come from committed code only; commit, or stash, first")
    if args.record and results.name != "results":
        sys.exit(f"error: --probe {args.probe} is not what committed numbers are of")
    if args.corpus == "real":
        check_data(jobs, data_root)
    claim_runs(jobs, seeds, runs, data_root)
    targets = [result_path(results, job.name, seed) for job in jobs for seed in seeds]
    drop_outdated(targets, clean=clean)
    folders = {"data_root": data_root, "runs": runs, "results": results}
    if snakemake(targets, args, folders, size=first.size):
        sys.exit("error: a step failed, see its message above; the same command goes on from there")
    for table in tables:
        text = render(table, results, seeds)
        path = results / f"{table.id}.md"
        path.write_text(text)
        print(f"\n{text}\n(written to {path})")
    if args.record:
        keep(targets, results, COMMITTED / first.folder(args.corpus))


if __name__ == "__main__":
    main()
