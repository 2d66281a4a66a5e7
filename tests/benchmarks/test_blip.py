"""BLIP's vision tower as a row: loading, shapes, the message without a hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BlipVisionConfig, BlipVisionModel

from benchmarks.blip import PHANTOM, tower
from benchmarks.core import NotRunnable
from benchmarks.models import BLIP
from benchmarks.weights import ready
from common.interface import Predictor


def test_a_local_tower_gives_features_of_resized_positions(tmp_path: Path) -> None:
    small = BlipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    BlipVisionModel(small).save_pretrained(tmp_path)
    image = replace(PHANTOM.model.image, weights=str(tmp_path))
    model = tower(replace(PHANTOM, model=replace(PHANTOM.model, image=image)))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 104, 104), np.uint8)
    images = model.normalise(pixels, generator=None)
    assert images.shape == (3, 3, 96, 96)
    with torch.no_grad():
        feat = model.image_features(images)
    assert feat.pooled.shape == (3, 32)
    assert feat.local.shape == (3, 36, 32)
    moved = model.normalise(pixels, generator=np.random.default_rng(1))
    assert not torch.equal(moved, images)
    assert not isinstance(model, Predictor)  # protocols that need its texts refuse it


def test_without_weights_the_row_says_why(tmp_path: Path) -> None:
    with pytest.raises(NotRunnable, match="BLIP's weights"):
        ready(BLIP, "phantom", 0, tmp_path)
