"""MaCo after pre-training: MAE's start, fine-tuning's crops, phrases, and where they point."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch

from common.checkpoint import CheckpointError
from maco.checkpoint import fresh_model, initialise
from maco.config import PRESETS
from maco.model import Encoder, MaCo, random_crop
from maco.text import phrase


def phantom() -> MaCo:
    return fresh_model(PRESETS["phantom"]).eval()


def test_an_encoder_starts_from_mae_and_keeps_its_positions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = PRESETS["phantom"].model
    settings = replace(settings, image=replace(settings.image, weights="timm/some_mae"))
    model = MaCo(settings, phantom().vocabulary)
    source = Encoder(settings.image)
    torch.nn.init.normal_(source.pos_embed)
    asked: list[str] = []

    def create_model(name: str, **_: Any) -> Encoder:
        asked.append(name)
        return source

    monkeypatch.setattr(timm, "create_model", create_model)
    initialise(model)
    assert asked == ["some_mae"]
    for name, value in model.encoder.state_dict().items():
        torch.testing.assert_close(value, source.state_dict()[name])
    assert not model.encoder.pos_embed.requires_grad
    del source.blocks[-1]
    with pytest.raises(CheckpointError, match="blocks"):
        initialise(model)


def test_crops_cover_the_area_and_mirror_half() -> None:
    across = np.tile(np.arange(200, dtype=np.uint8), (200, 1))
    generator = np.random.default_rng(0)
    crops = [random_crop(across, generator, side=64) for _ in range(400)]
    assert {crop.shape for crop in crops} == {(64, 64)}
    rises = np.array([int(crop[0, -1]) - int(crop[0, 0]) for crop in crops])
    assert 0.4 < (rises > 0).mean() < 0.6
    width = np.abs(rises)
    assert 40 < width.min() < 80  # sqrt(0.08 * 3/4) of 200 pixels
    assert width.max() > 190


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Small LEFT effusion. Heart is large.", "small left effusion. heart is large. "),
        ("No. Small effusion", "small effusion. "),
        ("In ___. Small effusion.", "small effusion. "),
        (", unchanged. Small effusion.", "small effusion. "),
        ("No.", "No."),
    ],
)
def test_phrases_lose_fragments_and_keep_their_order(text: str, kept: str) -> None:
    assert phrase(text) == kept


def test_a_phrase_points_by_dot_products_of_its_own_image() -> None:
    model = phantom()
    images = np.random.default_rng(0).integers(0, 256, (3, 192, 192), np.uint8)
    texts = ["left effusion.", "right pneumothorax.", "cardiomegaly."]
    found = model.ground(images, texts)
    assert found.shape == (3, model.grid, model.grid)
    for k, text in enumerate(texts):
        patches = model.embed_images(model.normalise(images[k : k + 1])).patch_emb
        assert patches is not None
        vector = model.embed_texts([text]).emb[0]
        torch.testing.assert_close(found[k].flatten(), patches[0] @ vector, rtol=1e-4, atol=1e-4)
        cosine = model.ground(images[k : k + 1], [text], cosine=True)[0].flatten()
        lengths = patches[0].norm(dim=1) * vector.norm()
        torch.testing.assert_close(cosine, (patches[0] @ vector) / lengths, rtol=1e-4, atol=1e-5)
