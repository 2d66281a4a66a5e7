"""Figures 2, 4 and 5, and what masks change: what they show is the model's own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.data.phantom.writers import write_corpus
from common.data.tables import DataError
from maco.checkpoint import fresh_model
from maco.config import PRESETS
from maco.figures import grounding_figure, phrase_map, position_figure, tau_figure
from maco.masks import Args, describe, lungs, mask_report, row_entropies
from maco.model import Output, mask_of
from maco.pairs import load_pairs
from maco.text import Tokens


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


def test_mask_report_tells_scores_that_follow_nearness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images whose nearness to every text is the share of the first row that they show."""
    write_corpus(tmp_path, size="ci", datasets=["mimic"], workers=1)
    cfg = PRESETS["phantom"]
    cfg = replace(cfg, run=replace(cfg.run, data_root=tmp_path))
    model = fresh_model(cfg)
    pairs = load_pairs(cfg, model.word_pieces()).valid
    with torch.no_grad():
        model.importance.weight.zero_()
        model.importance.weight[0, : model.grid] = 1.0
        model.importance.bias.fill_(-model.grid / 2)  # a score of 0 for half of the row
    whole = model.forward

    def showing(images: torch.Tensor, tokens: Tokens, noise: torch.Tensor) -> Output:
        out = whole(images, tokens, noise)
        shown = mask_of(noise, model.config.image.mask_ratio).visible[:, : model.grid].sum(dim=1)
        angle = 0.01 * shown[:, None]
        image_emb = torch.cat([angle.sin(), angle.cos()], dim=1)
        return out._replace(image_emb=image_emb, text_emb=torch.tensor([[1.0, 0.0]] * len(images)))

    monkeypatch.setattr(model, "forward", showing)
    found = mask_report(model, pairs, batch=4, batches=2, masks=8)
    assert found.correlation > 0.98
    assert found.images == pytest.approx(np.log(4), abs=1e-5)
    assert found.images_scaled == pytest.approx(np.log(4), abs=1e-5)
    assert found.texts_scaled < found.texts
    with pytest.raises(DataError, match="not one batch of"):
        mask_report(model, pairs, batch=len(pairs) + 1, batches=1, masks=1)


def test_masks_name_a_folder_that_is_no_run(tmp_path: Path) -> None:
    args = Args(runs=(tmp_path,))
    with pytest.raises(DataError, match="holds no best/"):
        describe(tmp_path, args)
    (tmp_path / "best").mkdir()
    for text in ("{", '{"nonsense": 1}'):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(DataError, match="no settings of maco"):
            describe(tmp_path, args)


def test_row_entropies_scale_rows_of_both_sides() -> None:
    logits, scores = torch.randn(5, 5), torch.randn(5)
    wanted = torch.zeros(4)
    for k in range(5):
        scale = torch.nn.functional.softplus(scores[k])
        for side, rows in enumerate((logits, logits.T)):
            wanted[2 * side] -= rows[k].log_softmax(0)[k] / 5
            wanted[2 * side + 1] -= (scale * rows[k]).log_softmax(0)[k] / 5
    torch.testing.assert_close(row_entropies(logits, scores), wanted)


def test_lungs_are_the_middles_of_both_halves() -> None:
    weights = torch.zeros(12, 12)
    weights[3:10, 1:5], weights[3:10, 7:11] = 1.0, 2.0
    assert lungs(weights) == (1.0, 2.0)
    weights[3:10, 0] = weights[3:10, 5:7] = weights[3:10, 11] = 9.0
    assert lungs(weights) == (1.0, 2.0)
