"""Steps at the published sizes: settings, the stopwatch around a paper's own loop, the table."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.render import speed_table
from benchmarks.speed import presets
from common import training
from common.data.phantom.writers import write_corpus
from lrclr import pretrain
from lrclr.config import PRESETS


@pytest.mark.parametrize("name", presets.JOBS)
def test_measured_are_the_published_sizes_from_random_weights(name: str, tmp_path: Path) -> None:
    cfg = presets.settings(name, "bf16", presets.Args(data_root=tmp_path), tmp_path)
    paper, preset = presets.JOBS[name][:2]
    published = presets.PRESETS[paper][preset]
    assert cfg.optim == published.optim
    assert cfg.run.precision == "bf16"
    assert cfg.run.data_root == tmp_path
    if paper == "lrclr":
        assert cfg.model == replace(published.model, weights="none")
    else:
        assert cfg.model.image.weights in ("none", None)
        assert cfg.model.image == replace(published.model.image, weights=cfg.model.image.weights)
        assert cfg.model.text.layers == published.model.text.layers


def test_a_stopwatch_times_the_paper_s_own_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_corpus(tmp_path, size="ci", datasets=["mimic"], workers=1)
    cfg = PRESETS["phantom"]
    run = replace(cfg.run, data_root=tmp_path, out=tmp_path / "run", tracker="none")
    cfg = replace(cfg, run=run, optim=replace(cfg.optim, batch_size=8))
    steps = []
    monkeypatch.setattr(training, "Run", presets.Stopwatch)
    monkeypatch.setattr(presets, "BATCHES", 2)
    monkeypatch.setattr(pretrain, "clamp_scales", lambda *scales: steps.append(scales))
    with pytest.raises(presets.Measured) as found:
        pretrain.train(cfg)
    record = found.value.args[0]
    assert len(steps) == 2 * presets.TURNS
    assert record["batch_size"] == 8
    assert record["images_per_second"] == pytest.approx(8 / record["step_seconds"], rel=0.05)
    assert math.isfinite(record["first_turn_seconds"])
    assert record["hardware"]


def test_a_process_that_dies_is_heard_at_once(tmp_path: Path) -> None:
    found = presets.alone("lrclr", "fp32", presets.Args(data_root=tmp_path, limit=120))
    assert found["failed"] == "ended with the error above"


def test_the_table_says_what_failed_and_what_was_not_tried(tmp_path: Path) -> None:
    facts = {
        "hardware": "1 x Card",
        "packages": {"torch": "2.13"},
        "commit": "0123456789abcdef",
        "dirty": False,
    }
    done = {"batch_size": 48, "images_per_second": 99.6, "peak_memory_mib": 2048, **facts}
    path = tmp_path / "speed.json"
    records = [
        {"model": "a", "arm": "fp32", "failed": "out of memory"},
        {"model": "b", "arm": "fp32", **done},
        {"model": "a", "arm": "bf16", **done},
    ]
    path.write_text(json.dumps(records))
    text = speed_table(path)
    assert "| a            | 48    | out of memory | 100, 2.0 GiB |" in text
    assert "| b            | 48    | 100, 2.0 GiB  | –            |" in text
    assert "compiled" not in text
    assert "1 x Card, torch 2.13, commit 0123456789ab." in text
