"""Ensembles over seeds: averaged probabilities, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.core import evaluation, result_path
from benchmarks.ensemble import ADDED, BASE, COLUMN, ensemble_auroc, groups, table
from common.metrics import auroc

LABELS = ["Edema", "Lung Lesion", "Fracture"]


def write(results: Path, seed: int, quality: float, *, corpus: str = "phantom") -> None:
    for row in (BASE, ADDED):
        assert row.model is not None
        path = result_path(results, evaluation(row.model, COLUMN).name, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng([seed, row is ADDED])
        targets = (np.random.default_rng(7).random((60, 3)) < 0.4).astype(np.float32)
        scores = 0.5 + 0.1 * (quality * targets + generator.random((60, 3)))
        ids = np.array([f"i{k}" for k in range(60)])
        arrays = {"test_ids": ids, "test_targets": targets, "test_scores": scores}
        np.savez_compressed(path.with_suffix(".npz"), allow_pickle=False, **arrays)
        details = {"positives": dict.fromkeys(LABELS, 1)}
        record = {"protocol": "p", "splits": {}, "details": details, "corpus": corpus}
        path.write_text(json.dumps(record))


def test_an_ensemble_ranks_by_the_mean_probability(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        write(tmp_path, seed, 0.3)
    named, whole = groups(tmp_path, [0, 1, 2])
    for group, kept in ((named, ["Edema", "Fracture"]), (whole, LABELS)):
        columns = [LABELS.index(name) for name in kept]
        areas = []
        for column in columns:
            truth = whole.base.targets[:, column]
            mean = [sum(float(s[k, column]) for k in range(3)) / 3 for s in whole.base.scores]
            areas.append(auroc(truth[:, None], np.array(mean)[:, None]))
        found = ensemble_auroc(group.base, resamples=50)
        assert found.value == pytest.approx(np.mean(areas), abs=1e-12)
        assert found.low < found.value < found.high


def test_named_findings_belong_to_the_phantom(tmp_path: Path) -> None:
    for seed in (0, 1):
        write(tmp_path, seed, 0.3, corpus="real")
    assert [group.title for group in groups(tmp_path, [0, 1])] == ["3 findings"]


def test_the_table_shows_both_models_and_their_difference(tmp_path: Path) -> None:
    for seed in (0, 1):
        write(tmp_path, seed, 1.0)
    lines = table(tmp_path, [0, 1], resamples=50).splitlines()
    assert len(lines) == 2 + 2 * 3
    assert lines[2].startswith("| CheXzero, 9 named findings | ")
    assert "(p = " in lines[4]


def test_a_missing_seed_leaves_no_table(tmp_path: Path) -> None:
    write(tmp_path, 0, 0.3)
    assert table(tmp_path, [0, 1]) == ""
