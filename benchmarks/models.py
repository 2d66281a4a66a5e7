"""The models that tables compare; light to import, so that planning is quick."""

from __future__ import annotations

from typing import Any

from benchmarks.core import Model
from common import config
from gloria.config import PRESETS as GLORIA_PRESETS

ONLY_GLOBAL = ("--loss.local-weight", "0", "--model.similarity.use", "global")
ONLY_LOCAL = ("--loss.global-weight", "0", "--model.similarity.use", "local")

GLORIA = Model("gloria", "gloria")
GLOBAL_ONLY = Model("gloria-global-only", "gloria", ONLY_GLOBAL)
LOCAL_ONLY = Model("gloria-local-only", "gloria", ONLY_LOCAL)
CONVIRT = Model(
    "convirt-gloria",
    "gloria",
    # ConVIRT Sec. 2.3: lambda 0.75 image-to-text, temperature 0.1; encoders and heads are GLoRIA's
    (
        *(*ONLY_GLOBAL, "--loss.tau1", "0.1"),
        *("--loss.image-to-text", "0.75", "--loss.text-to-image", "0.25"),
    ),
)
SHUFFLED = Model("gloria-shuffled", "gloria", ("--data.shuffle-pairs",))
RANDOM = Model("random", "gloria", ("--model.image.weights", "none"), pretrained=False)
IMAGENET = Model("imagenet", "gloria", ("--model.image.weights", "imagenet"), pretrained=False)
MODELS = {m.id: m for m in (GLORIA, GLOBAL_ONLY, LOCAL_ONLY, CONVIRT, SHUFFLED, RANDOM, IMAGENET)}

PRESETS = {"gloria": GLORIA_PRESETS}
"""Every paper's presets."""

PRESET = {"phantom": "phantom", "real": "paper"}
"""Preset of every paper's package that a corpus is run with."""


def settings(model: Model, corpus: str, seed: int) -> Any:
    """The paper's configuration of `model` on `corpus`."""
    words = [PRESET[corpus], *model.flags, "--seed", str(seed)]
    return config.parse(PRESETS[model.paper], words)
