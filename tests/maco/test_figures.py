"""Figures 2, 4 and 5: what they show is the model's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from common.data.phantom.writers import write_corpus
from common.data.tables import DataError
from maco.checkpoint import fresh_model
from maco.config import PRESETS
from maco.figures import grounding_figure, phrase_map, position_figure, tau_figure


def test_position_weights_pull_the_map_to_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fresh_model(PRESETS["phantom"])
    image = np.random.default_rng(0).integers(0, 256, (192, 192), np.uint8)
    flat = torch.ones(1, model.grid, model.grid)
    monkeypatch.setattr(model, "ground", lambda *_: flat)
    with torch.no_grad():
        model.importance.weight.zero_()
        model.importance.weight[0, -1] = 1.0
    found = phrase_map(model, image, "small effusion", tau=0.1)
    assert found.shape == image.shape
    row, column = (int(k) for k in np.unravel_index(found.argmax(), found.shape))
    assert min(row, column) > 150
    assert (found.min(), found.max()) == (0.0, 1.0)


def test_grounding_figure_draws_the_phrases(tmp_path: Path) -> None:
    write_corpus(tmp_path, size="ci", datasets=["mimic", "ms_cxr"], workers=1)
    model = fresh_model(PRESETS["phantom"])
    figure = grounding_figure(model, tmp_path, count=2, tau=0.1)
    assert len(figure.axes) == 2
    assert all(axis.patches for axis in figure.axes)
    figure.savefig(tmp_path / "grounding.png")


def test_position_and_tau_figures_read_what_runs_write(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing or empty"):
        position_figure(tmp_path, count=3)
    lines = [{"epoch": k, "weights": [0.1 * k] * 64} for k in (0, 1, 1, 2, 3, 4)]  # 1 was resumed
    (tmp_path / "positions.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    figure = position_figure(tmp_path, count=3)
    assert [axis.get_title() for axis in figure.axes[:3]] == ["epoch 0", "epoch 2", "epoch 4"]
    with pytest.raises(DataError, match="not a grounding result"):
        tau_figure(tmp_path / "none.json")
    row = {"miou": 0.2, "cnr": 0.5}
    result = tmp_path / "result.json"
    result.write_text(json.dumps({"details": {"tau": {"0.1": row, "1": row}}}))
    assert len(tau_figure(result).axes) == 2
