"""LRCLR's figures: drawn from a small model and made-up results."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.data.tables import DataError
from lrclr.checkpoint import fresh_model
from lrclr.config import PRESETS, ImageConfig
from lrclr.figures import boxes_of, findings_figure, regions_figure


def test_boxes_lie_on_the_grid() -> None:
    whole = ImageConfig(size=320, input=224, patch=32)
    step = 320 / 7
    assert boxes_of(np.array([0, 8]), whole) == [(0, 0, step), (step, step, step)]
    cut = ImageConfig(size=104, input=96, patch=12, fit="crop")
    assert boxes_of(np.array([0, 63]), cut) == [(4, 4, 12), (88, 88, 12)]


def test_regions_of_two_heads_beside_the_host_s() -> None:
    torch.manual_seed(0)
    model = fresh_model(PRESETS["phantom"])
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 255, (50, 40)).astype(np.uint8) for _ in range(2)]
    figure = regions_figure(model, images, ["edema", "pneumothorax"])
    assert [len(axes.patches) for axes in figure.axes] == [2, 2, 2, 2]
    beside = regions_figure(model, images, ["edema", "pneumothorax"], host=model)
    assert beside.axes[0].get_title() == "plain CheXzero"


def test_findings_need_their_own_results() -> None:
    cell = {"metric": "auroc:Edema", "value": 0.7, "interval": [0.6, 0.8]}
    record = {"model": "lrclr", "cells": [cell], "details": {"positives": {"Edema": 5}}}
    assert len(findings_figure([record, record]).axes[0].patches) == 2
    with pytest.raises(DataError, match="single findings"):
        findings_figure([{"model": "lrclr", "cells": []}])
