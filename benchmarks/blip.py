"""The vision tower of BLIP (Li et al., ICML 2022), a row of MGCA Table 5.

Settings are light; torch and transformers load with the tower. The paper's checkpoint, pre-trained
on 14 million natural pairs, is not on the model hub in transformers' form: by default the tower of
the later 129 million one is taken, and `--model.image.weights` points to any other.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated

import tyro

from common.config import RunConfig, cite

if TYPE_CHECKING:
    from common.interface import Encoder


@dataclass(frozen=True)
class ImageConfig:
    """Weights and sizes."""

    weights: str = cite("Salesforce/blip-image-captioning-base", note="the base model on the hub")
    """Hub id or local folder of a BLIP model."""
    size: int = cite(256, code="MGCA's pre-training data set: imsize")
    """Long side after the resize that precedes zero padding, pixels."""
    crop: int = cite(224, code="MGCA's pre-training data set: crop_size")
    """Side of the network input, pixels; the table of positions is interpolated."""


@dataclass(frozen=True)
class ModelConfig:
    """What the papers' settings call the model."""

    image: ImageConfig = field(default_factory=ImageConfig)


@dataclass(frozen=True)
class Config:
    """A paper's settings, as far as an encoder without pre-training needs them."""

    model: ModelConfig = field(default_factory=ModelConfig)
    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)
    """Only the seed counts."""


PAPER = Config()
PHANTOM = replace(PAPER, model=ModelConfig(ImageConfig(size=104, crop=96)))
PRESETS = {"paper": PAPER, "phantom": PHANTOM}


def tower(cfg: Config) -> Encoder:
    """The vision tower with its preprocessing.

    Raises:
        CheckpointError: If the weights cannot be had.
    """
    from benchmarks.blip_tower import BlipTower

    return BlipTower.from_hub(cfg.model.image)
