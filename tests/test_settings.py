"""Settings that fit no network end in one line, in every paper."""

from __future__ import annotations

import pytest

from benchmarks.models import PRESETS
from benchmarks.weights import FRESH
from common import config
from common.checkpoint import CheckpointError

FLAGS = {
    "convirt": ("--model.image.backbone", "resnet9000"),
    "gloria": ("--model.image.backbone", "resnet9000"),
    "imitate": ("--model.text.heads", "7"),
    "lrclr": ("--model.image.heads", "7"),
    "maco": ("--model.image.heads", "7"),
    "mgca": ("--model.image.heads", "7"),
}


@pytest.mark.parametrize("paper", FLAGS)
def test_impossible_sizes_are_one_line(paper: str) -> None:
    cfg = config.parse(PRESETS[paper], ["phantom", *FLAGS[paper]])
    with pytest.raises(CheckpointError, match=r"these model settings make no network: \w"):
        FRESH[paper](cfg)
