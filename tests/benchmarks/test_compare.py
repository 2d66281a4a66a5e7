"""Side by side: pairs on the same images, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.compare import Args, paired, scores_of
from benchmarks.compare import tests as lines_of
from benchmarks.core import evaluation, result_path
from benchmarks.tables.compare import TABLE
from common.metrics import rank_aurocs

COLUMN = TABLE.columns[0]
ROWS = {row.name: row for row in TABLE.rows}


def write(
    results: Path, name: str, seed: int, quality: float, ids: str = "i", **record: Any
) -> None:
    model = ROWS[name].model
    assert model is not None
    path = result_path(results, evaluation(model, COLUMN).name, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    targets = (np.random.default_rng(7).random((80, 2)) < 0.4).astype(np.float32)
    scores = quality * targets + generator.random((80, 2)) + 10 * seed  # scales are the model's own
    named = np.array([f"{ids}{k}" for k in range(80)])
    arrays = {"test_ids": named, "test_targets": targets, "test_scores_0.01": scores}
    np.savez_compressed(path.with_suffix(".npz"), allow_pickle=False, **arrays)
    path.write_text(json.dumps({"protocol": "p", "splits": {}, "details": {}, **record}))


def test_the_better_model_wins_over_all_seeds(tmp_path: Path) -> None:
    for seed in (0, 1):
        write(tmp_path, "ConVIRT", seed, 0.0)
        write(tmp_path, "GLoRIA", seed, 1.0)
    lines = lines_of(Args(results=tmp_path, seeds="0,1", resamples=200))
    assert len(lines) == 3
    assert "GLoRIA | CheXpert 1% | +" in lines[2]
    assert float(lines[2].split("|")[-2]) < 0.05


def test_the_difference_is_that_of_the_means_over_seeds(tmp_path: Path) -> None:
    areas: dict[str, list[float]] = {"ConVIRT": [], "GLoRIA": []}
    for name, quality in (("ConVIRT", 0.1), ("GLoRIA", 0.3)):
        for seed in (0, 1, 2):
            write(tmp_path, name, seed, quality)
            found = scores_of(ROWS[name], COLUMN, tmp_path, [seed])
            assert found is not None
            truth, scores = (a.astype(np.float64) for a in (found.targets, found.scores[:, 0]))
            areas[name].append(float(rank_aurocs(truth, scores).mean()))
    both = [scores_of(ROWS[name], COLUMN, tmp_path, [0, 1, 2]) for name in areas]
    assert both[0] is not None
    assert both[1] is not None
    expected = np.mean(areas["GLoRIA"]) - np.mean(areas["ConVIRT"])
    assert paired(both[1], both[0], resamples=10).difference == pytest.approx(expected)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"protocol": "other"}, "other protocol"),
        ({"splits": {"s": {"sha256": "0"}}}, "other split"),
        ({"details": {"0.01": {"sha256": "0"}}}, "other labelled images"),
    ],
)
def test_what_is_no_pair_is_named(tmp_path: Path, record: dict[str, Any], reason: str) -> None:
    write(tmp_path, "ConVIRT", 0, 0.0, details={"0.01": {"sha256": "1"}})
    write(tmp_path, "GLoRIA", 0, 1.0, **record)
    lines = lines_of(Args(results=tmp_path, resamples=10))
    assert lines[2] == f"| GLoRIA | CheXpert 1% | – | {reason} |"


def test_what_is_missing_is_left_out_and_other_images_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "ConVIRT", 0, 0.0)
    assert scores_of(ROWS["GLoRIA"], COLUMN, tmp_path, [0]) is None
    assert scores_of(ROWS["ConVIRT"], COLUMN, tmp_path, [0, 1]) is None
    write(tmp_path, "GLoRIA", 0, 1.0, ids="other")
    found = [scores_of(ROWS[name], COLUMN, tmp_path, [0]) for name in ("ConVIRT", "GLoRIA")]
    assert found[0] is not None
    assert found[1] is not None
    with pytest.raises(ValueError, match="other test images"):
        paired(found[0], found[1], resamples=10)
    model = ROWS["GLoRIA"].model
    assert model is not None
    result_path(tmp_path, evaluation(model, COLUMN).name, 0).write_text('{"not_run": "no weights"}')
    assert scores_of(ROWS["GLoRIA"], COLUMN, tmp_path, [0]) is None
    with pytest.raises(SystemExit, match="choose one of"):
        lines_of(Args(results=tmp_path, against="nobody"))
