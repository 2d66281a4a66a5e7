"""Declarations against published data, rendering, and the committed page."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cards, render
from benchmarks.core import PUBLISHED, Row, Table, evaluations, published_values, result_path
from benchmarks.reproduce import Args, check_data, chosen, data_root_of
from benchmarks.tables import TABLES

ROOT = Path(__file__).parents[2]
TABLE2 = TABLES["gloria-table2"]


def record(**changes: Any) -> dict[str, Any]:
    cell = {"dataset": "rsna", "metric": "auroc", "label_fraction": 0.01, "value": 0.75, "n": 10}
    return {
        "corpus": "phantom",
        "model": "gloria",
        "seed": 0,
        "commit": "0" * 40,
        "dirty": False,
        "hardware": "two cores",
        "protocol": "linear/cached-features",
        "splits": {},
        "details": {},
        "cells": [cell],
        "pretraining": {
            **{"seconds": 120.0, "pairs": 100, "epochs": 6, "peak_memory_mib": 900},
            **{"commit": "abc", "dirty": False, "processes": 2},
            **{"precision": "no", "hardware": "two cores"},
        },
        **changes,
    }


def write(results: Path, seed: int, content: dict[str, Any]) -> None:
    path = result_path(results, "gloria/linear__rsna", seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("table", [t for t in TABLES.values() if t.published], ids=lambda t: t.id)
def test_every_declared_cell_is_published(table: Table) -> None:
    """Or blank in print; rows of our own have none."""
    assert table.published
    with (PUBLISHED / table.published).open(newline="") as file:
        blank = {(c["method"], c["dataset"]) for c in csv.DictReader(file) if not c["value"]}
    expected = {(r.name, c) for r in table.rows for c in table.columns if not (r.ours or c.ours)}
    missing = expected - set(published_values(table))
    assert set(published_values(table)) <= expected
    assert {(name, column.dataset) for name, column in missing} <= blank


def test_published_numbers_of_table_2() -> None:
    values = {(name, c.title): v.value for (name, c), v in published_values(TABLE2).items()}
    assert values["GLoRIA", "CheXpert 1%"] == 86.6
    assert values["Random", "RSNA 100%"] == 74.1


def test_each_evaluation_runs_once() -> None:
    jobs = [job.name for job in evaluations(TABLES["gloria-table3"])]
    assert sorted(jobs) == [
        "gloria/linear__chexpert",
        "gloria/linear__rsna",
        "gloria/zero_shot__chexpert5x200",
        "gloria/zero_shot__rsna",
    ]


def test_a_row_has_a_model_or_a_reason() -> None:
    with pytest.raises(ValueError, match="reason"):
        Row("nothing")


def test_rendering_shows_mean_deviation_and_reasons(tmp_path: Path) -> None:
    write(tmp_path, 0, record())
    cell = {**record()["cells"][0], "value": 0.85}
    write(tmp_path, 1, record(seed=1, cells=[cell]))
    text = render.render(TABLE2, tmp_path, [0, 1])
    assert "80.0 ± 7.1" in text
    assert "Corpus: phantom" in text
    assert "gloria 2.0 min (float32, 5 images/s, 900 MiB, 2 processes)" in text
    assert "DSVE: not run" in text
    assert "difference" not in text  # phantom numbers are never compared with published ones


def test_test_images_seen_in_pretraining_are_never_lost(tmp_path: Path) -> None:
    """A later result of the same model that met none says nothing of the earlier one."""
    for seed, seen in ((0, 54), (1, 0)):
        trained = {**record()["pretraining"], "test_images_seen": seen}
        write(tmp_path, seed, record(seed=seed, pretraining=trained))
    text = render.render(TABLE2, tmp_path, [0, 1])
    assert "test images seen in pre-training: gloria 54 of rsna" in text


def test_published_digits_are_those_of_the_paper() -> None:
    texts = {
        (name, c.title): v.text
        for (name, c), v in published_values(TABLES["gloria-table4"]).items()
    }
    assert texts["Random", "SIIM 1%"] == "0.090"
    six = {c.title: v.text for (_, c), v in published_values(TABLES["mgca-table6"]).items()}
    assert six["CheXpert 10%"] == "89.13 ± 0.16"


def test_real_results_show_differences_and_refuse_dirty_code(tmp_path: Path) -> None:
    write(tmp_path, 0, record(corpus="real"))
    assert "-11.1" in render.render(TABLE2, tmp_path, [0])
    weights = {**record()["pretraining"], "dirty": True}
    for dirty in (record(corpus="real", dirty=True), record(corpus="real", pretraining=weights)):
        write(tmp_path, 0, dirty)
        with pytest.raises(ValueError, match="uncommitted"):
            render.render(TABLE2, tmp_path, [0])


def test_weights_of_other_commits_and_hardware_name_them(tmp_path: Path) -> None:
    write(tmp_path, 0, record())
    assert "hardware of pre-training" not in render.render(TABLE2, tmp_path, [0])
    weights = {**record()["pretraining"], "commits": ["abc", "def"], "hardware": "a card"}
    write(tmp_path, 0, record(commit="abc", pretraining=weights))
    text = render.render(TABLE2, tmp_path, [0])
    assert "commit of pre-training, where it is another: gloria abc, def" in text
    assert "hardware of pre-training, where it is another: gloria a card" in text


def test_corpora_are_never_mixed(tmp_path: Path) -> None:
    write(tmp_path, 0, record())
    write(tmp_path, 1, record(corpus="real"))
    with pytest.raises(ValueError, match="in one table"):
        render.render(TABLE2, tmp_path, [0, 1])


def test_a_row_that_cannot_run_prints_its_reason(tmp_path: Path) -> None:
    content = {k: v for k, v in record().items() if k not in ("cells", "protocol", "splits")}
    write(tmp_path, 0, {**content, "not_run": "no weights"})
    assert "GLoRIA: not run: no weights" in render.render(TABLE2, tmp_path, [0])


def test_a_value_that_cannot_be_had_names_its_reason(tmp_path: Path) -> None:
    write(tmp_path, 0, record(cells=[]))
    assert "GLoRIA: not run: it has no such value." in render.render(TABLE2, tmp_path, [0])
    write(tmp_path, 0, record(cells=[], details={"labels_without_auroc": ["Hernia"]}))
    text = render.render(TABLE2, tmp_path, [0])
    assert "GLoRIA: not run: the test part lacks a class of Hernia." in text


def test_committed_pages_match_their_sources() -> None:
    assert render.PAGE.read_text() == render.page()
    assert render.README.read_text() == render.with_tables(render.README.read_text())
    for paper, card in cards.CARDS.items():
        text = (ROOT / paper / "README.md").read_text()
        assert cards.filled(text, cards.generated(card)) == text


def test_committed_results_are_clean_and_complete() -> None:
    for path in render.COMMITTED.glob("*/*/*.json"):
        content = json.loads(path.read_text())
        assert not content["dirty"], path
        assert "not_run" in content or path.with_suffix(".npz").is_file(), path


def test_targets(capsys: pytest.CaptureFixture[str]) -> None:
    assert [t.id for t in chosen("gloria-table1")] == ["gloria-table1"]
    assert [t.id for t in chosen("gloria")] == [name for name in TABLES if "gloria" in name]
    apart = {"imitate-figure4", "lrclr-controls", "maco-controls", "maco-controls-bench"}
    assert {t.id for t in chosen("all")} == set(TABLES) - apart
    assert [t.id for t in chosen("imitate-figure4")] == ["imitate-figure4"]
    assert "imitate-figure4" not in {t.id for t in chosen("imitate")}
    with pytest.raises(SystemExit, match="gloria-table2"):
        chosen("gloria-table9")


def test_a_table_of_a_larger_phantom_has_folders_of_its_own() -> None:
    larger = TABLES["maco-controls-bench"]
    assert larger.folder("phantom") == "phantom-bench"
    assert TABLE2.folder("phantom") == "phantom"
    assert TABLE2.folder("real") == "real"
    assert all(table.apart for table in TABLES.values() if table.size != "small")
    with pytest.raises(SystemExit, match="phantom corpus alone"):
        data_root_of(larger, Args(larger.id, corpus="real", data_root="/data"))


def test_missing_real_data_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="looked for") as stop:
        check_data(evaluations(TABLE2), tmp_path)
    assert "chexpert" in str(stop.value)
    assert "rsna" in str(stop.value)


def test_make_lists_its_targets() -> None:
    done = subprocess.run(
        ["make"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert "reproduce-%" in done.stdout
    assert sys.version_info >= (3, 11)


def test_tables_can_be_declared_without_published_numbers() -> None:
    assert published_values(replace(TABLE2, published=None)) == {}
