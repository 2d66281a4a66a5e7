"""Figures 3 and 4 from an untrained model: what they show is the model's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.data.phantom.writers import write_corpus
from common.data.prepare import open_dataset
from mgca.checkpoint import fresh_model
from mgca.config import PRESETS, RELEASED
from mgca.figures import embedding_figure, single_label_embeddings, word_figure, word_maps


@pytest.mark.parametrize("attention", ["learned", "cosine"])
def test_word_maps_are_weights_over_the_patches(attention: str, tmp_path: Path) -> None:
    cfg = PRESETS["phantom"]
    model_cfg = replace(cfg.model, cta_attention=attention)  # type: ignore[arg-type]
    model = fresh_model(replace(cfg, model=model_cfg))
    view = torch.randn(1, 1, 96, 96).clamp(-1, 1)
    found = word_maps(model, view, "Small left pleural effusion.", tau=0.1)
    assert found.words == ["small", "left", "pleural", "effusion"]
    assert found.maps.shape == (4, 12, 12)
    np.testing.assert_allclose(found.maps.sum(axis=(1, 2)), 1, rtol=1e-4)
    word_figure(view, found).savefig(tmp_path / "words.png")
    with pytest.raises(ValueError, match="no word"):
        word_maps(model, view, "...", tau=0.1)
    assert RELEASED.model.cta_attention == "cosine"
    pieces = ["[CLS]", *found.words, "[SEP]"]
    text = replace(model_cfg.text, max_tokens=len(pieces), drop_last_word_if_full=True)
    model = fresh_model(replace(cfg, model=replace(model_cfg, text=text)))
    full = word_maps(model, view, "Small left pleural effusion.", tau=0.1)
    assert full.words == ["small", "left", "pleural"]  # [SEP] is lost with the last word


def test_embeddings_of_single_labels(tmp_path: Path) -> None:
    write_corpus(tmp_path, size="ci", datasets=["chexpert"], workers=1)
    model = fresh_model(PRESETS["phantom-resnet50"])
    _, table, images = open_dataset(tmp_path, "chexpert", model.size)
    names = ("Atelectasis", "Pleural Effusion")
    found = single_label_embeddings(model, table, images, names=names, most=4)
    counts = np.bincount(found.labels, minlength=2)
    assert (counts > 0).all()
    assert (counts <= 4).all()
    assert found.prototypes.max() < 50
    embedding_figure(found).savefig(tmp_path / "prototypes.png")
