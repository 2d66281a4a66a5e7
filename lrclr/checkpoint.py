"""Initial weights, and CheXzero's released checkpoints."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import open_clip
from torch import Tensor, nn

from common.checkpoint import (
    CheckpointError,
    load_exactly,
    read_foreign,
    sound_settings,
    state_dict_of,
)
from lrclr.config import ModelConfig, PretrainConfig
from lrclr.model import LRCLR

IGNORED = {
    r"input_resolution|context_length|vocab_size": "a number that CLIP's own files carry",
    r"attn_mask": "the causal mask, a constant",
}
"""Keys without a place in the model, and why."""


def clip_weights(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """CLIP's and CheXzero's keys as open_clip has them, in float32, and what is left out."""
    kept: dict[str, Tensor] = {}
    ignored: dict[str, str] = {}
    for key, value in state.items():
        bare = key.removeprefix("module.")
        reason = next((why for p, why in IGNORED.items() if re.fullmatch(p, bare)), None)
        if reason:
            ignored[key] = reason
        else:
            kept[bare] = value.float()
    return kept, ignored


def load_released(
    path: str | Path, *, config: ModelConfig | None = None
) -> tuple[LRCLR, dict[str, str]]:
    """A CheXzero checkpoint as a model; nothing that the file pickles is executed.

    Args:
        path: For instance `best_64_0.0001_original_35000_0.864.pt`.
        config: Architecture of the weights; the paper's by default.

    Returns:
        The model in evaluation mode, its LRCLR module random, and the ignored keys with reasons.

    Raises:
        CheckpointError: If the file is unreadable or its keys and shapes are not the model's.
    """
    model = LRCLR(config or ModelConfig())
    ignored = load_clip(model, path)
    return model.eval(), ignored


def load_clip(model: LRCLR, path: str | Path) -> dict[str, str]:
    """Fill the dual encoder from a CheXzero checkpoint; returns the ignored keys."""
    weights, ignored = clip_weights(state_dict_of(read_foreign(path), path))
    load_exactly(model.clip, weights, path=path)
    return ignored


def fresh_model(cfg: PretrainConfig) -> LRCLR:
    """The model before training: CLIP's or a CheXzero checkpoint's weights, or random ones."""
    with sound_settings():
        model = LRCLR(cfg.model)
    initialise(model)
    return model


def initialise(model: LRCLR) -> None:
    """Load the start that the settings ask for.

    Raises:
        CheckpointError: If the hub cannot be reached and no copy is cached, or a file does not fit.
    """
    config = model.config
    if config.checkpoint is not None:
        load_clip(model, Path(config.checkpoint))
    elif config.weights == "openai":
        logging.disable(logging.ERROR)  # open_clip logs what is raised below
        try:
            source: nn.Module = open_clip.create_model("ViT-B-32-quickgelu", pretrained="openai")
        except Exception as error:
            raise CheckpointError(
                "weights of CLIP ViT-B/32 cannot be loaded: neither the model hub nor a cached "
                "copy is reachable. Download them once with network access, point "
                "--model.checkpoint to a CheXzero checkpoint, or use the phantom preset"
            ) from error
        finally:
            logging.disable(logging.NOTSET)
        load_exactly(model.clip, source.state_dict(), path=Path("openai ViT-B-32"))
