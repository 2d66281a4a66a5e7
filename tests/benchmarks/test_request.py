"""What a request finds from before: runs of other roots, results that no longer answer it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import evaluate
from benchmarks.classify import finetuned
from benchmarks.core import Evaluation, NotRunnable, parse_seeds
from benchmarks.job import Args as Job
from benchmarks.models import GLORIA, RANDOM
from benchmarks.reproduce import Args, claim_runs, drop_outdated, results_name


def test_seeds() -> None:
    assert parse_seeds("0,1,12") == [0, 1, 12]


@pytest.mark.parametrize("text", ["", "a", "0,,1", "-1", "0,0", "1.5", "0,00"])
def test_odd_seeds_are_one_line(text: str) -> None:
    with pytest.raises(SystemExit, match="distinct whole numbers"):
        parse_seeds(text)


def test_a_run_of_another_data_root_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "gloria-seed0"
    folder.mkdir()
    settings = {"run": {"data_root": str(tmp_path / "old")}}
    (folder / "run.json").write_text(json.dumps(settings))
    jobs = [Evaluation(GLORIA, "linear", "rsna"), Evaluation(RANDOM, "linear", "rsna")]
    claim_runs(jobs, [0, 1], tmp_path, tmp_path / "old" / ".." / "old")
    with pytest.raises(SystemExit, match=r"are of .*old, not of .*new"):
        claim_runs(jobs, [0, 1], tmp_path, tmp_path / "new")
    (tmp_path / "DATA_ROOT").unlink()  # a run that was made by hand
    with pytest.raises(SystemExit, match=r"was made from .*old, not from .*new"):
        claim_runs(jobs, [0, 1], tmp_path, tmp_path / "new")
    assert json.loads((folder / "run.json").read_text()) == settings


def test_rows_that_could_not_run_and_dirty_real_numbers_are_made_again(tmp_path: Path) -> None:
    records = {
        "ran": {"dirty": False},
        "dirty": {"dirty": True},
        "could_not": {"dirty": False, "not_run": "no weights"},
    }
    paths = [tmp_path / f"{name}.json" for name in records]
    for clean, left in ((False, ["ran", "dirty"]), (True, ["ran"])):
        for path, record in zip(paths, records.values(), strict=True):
            path.write_text(json.dumps(record))
            path.with_suffix(".npz").touch()
        drop_outdated([*paths, tmp_path / "absent.json"], clean=clean)
        assert [p.stem for p in paths if p.is_file()] == left
        assert [p.stem for p in paths if p.with_suffix(".npz").is_file()] == left


def test_another_linear_protocol_has_results_of_its_own() -> None:
    assert results_name(Args()) == "results"
    assert results_name(Args(probe="linear/cached-features")) == "results"
    assert results_name(Args(probe="linear/mgca")) == "results-mgca"
    assert results_name(Args(corpus="real", probe="linear/cached-features")) == (
        "results-cached-features"
    )


def test_a_recipe_of_another_task_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "evaluate detection --model random --dataset rsna --recipe gloria"
    monkeypatch.setattr("sys.argv", words.split())
    with pytest.raises(SystemExit, match="--recipe of detection is one of phantom, mgca"):
        evaluate.main()


def test_an_encoder_that_is_not_timm_s_is_not_fine_tuned() -> None:
    class Foreign:
        backbone = object()

    model: Any = Foreign()
    with pytest.raises(NotRunnable, match="none of timm's"):
        finetuned(Job(task="finetune", model="chexzero", dataset="nih"), model)
