"""The job graph of all tables can be planned, on phantom and on real data, without running it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.core import HERE, evaluations, result_path
from benchmarks.tables import TABLES


@pytest.mark.slow
@pytest.mark.parametrize("corpus", ["phantom", "real"])
def test_every_kind_of_job_can_be_planned(tmp_path: Path, corpus: str) -> None:
    jobs = {}
    for job in (job for table in TABLES.values() for job in evaluations(table)):
        model = job.model  # variants by flags alone are planned alike
        kind = (model.paper, model.variant, model.judged_by, model.pretrained, model.not_on_phantom)
        jobs[kind, job.task, job.dataset] = job.name
    results = tmp_path / "results"
    settings = {
        "corpus": corpus,
        "size": "small",
        "data_root": tmp_path / "data",
        "runs": tmp_path / "runs",
        "results": results,
        "threads": 1,
        "probe": "",
    }
    command = [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(HERE / "Snakefile")),
        *("--cores", "1", "--dry-run", "--quiet", "all", "--nolock"),
        *("--config", *(f"{key}={value}" for key, value in settings.items())),
        *("--", *(str(result_path(results, name, 0)) for name in sorted(jobs.values()))),
    ]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
