"""Initial weights, and the checkpoints that the authors released."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import timm
from huggingface_hub import hf_hub_download
from torch import Tensor
from transformers import BertModel

from common.checkpoint import (
    CheckpointError,
    load_exactly,
    read_foreign,
    sound_settings,
    state_dict_of,
)
from common.data.phantom import VOCABULARY
from gloria.config import RELEASED, ModelConfig, PretrainConfig, TextConfig
from gloria.model import GLoRIA

KEYS = (
    (r"img_encoder\.model\.", "image_encoder.backbone."),
    (r"img_encoder\.global_embedder\.", "global_image."),
    (r"img_encoder\.local_embedder\.", "local_image."),
    (r"text_encoder\.model\.", "text_encoder.bert."),
)
"""Released key prefixes, behind the last `gloria.`, to ours. There is no text projection."""

IGNORED = {
    r"text_encoder\.model\.embeddings\.position_ids": (
        "a constant that transformers no longer stores"
    ),
    r"img_encoder\.model\.fc\.(weight|bias)": "ImageNet classifier, absent in most files",
}
"""Released keys without a place in the model, and why."""


def rename(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Released keys to ours.

    The authors' loader keeps what follows the last `gloria.`; wrapper prefixes vanish with it.

    Returns:
        The renamed tensors, and each ignored key with the reason.

    Raises:
        CheckpointError: If a key is neither known nor ignored.
    """
    renamed: dict[str, Tensor] = {}
    ignored: dict[str, str] = {}
    for key, value in state.items():
        bare = key.rpartition("gloria.")[2].removeprefix("module.")
        reason = next(
            (why for pattern, why in IGNORED.items() if re.fullmatch(pattern, bare)), None
        )
        found = next(((old, new) for old, new in KEYS if re.match(old, bare)), None)
        if reason:
            ignored[key] = reason
        elif found:
            renamed[re.sub(found[0], found[1], bare, count=1)] = value
        else:
            raise CheckpointError(
                f"unknown key {key!r}; expected prefixes {[old for old, _ in KEYS]}"
            )
    return renamed, ignored


def load_released(
    path: str | Path, *, vocabulary: list[str] | None = None, config: ModelConfig = RELEASED.model
) -> tuple[GLoRIA, dict[str, str]]:
    """A checkpoint of the authors as a model; nothing that the file pickles is executed.

    Args:
        path: For instance `chexpert_resnet50.ckpt`.
        vocabulary: Word pieces; by default those of the text encoder, from the hub.
        config: Architecture of the weights; `dataclasses.replace` it for other inference settings.

    Returns:
        The model in evaluation mode, and the ignored keys with reasons.

    Raises:
        CheckpointError: If the file is unreadable or its keys and shapes are not the model's.
    """
    state, ignored = rename(state_dict_of(read_foreign(path), path))
    pieces = vocabulary or load_vocabulary(config.text)
    model = GLoRIA(config, pieces, local_words=RELEASED.loss.words)
    load_exactly(model, state, path=path)
    return model.eval(), ignored


def load_vocabulary(config: TextConfig) -> list[str]:
    """The word pieces of the text encoder: the phantom's own, a local folder's, or the hub's.

    Raises:
        CheckpointError: If the folder has none, or the hub cannot be reached and no copy is cached.
    """
    if config.encoder is None:
        path = VOCABULARY
    elif Path(config.encoder).is_dir():
        path = Path(config.encoder) / "vocab.txt"
        if not path.is_file():
            raise CheckpointError(f"{config.encoder} holds no vocab.txt: not a BERT folder")
    else:
        try:
            path = Path(hf_hub_download(config.encoder, "vocab.txt"))
        except Exception as error:
            raise CheckpointError(
                offline(config.encoder, "vocab.txt", "--model.text.encoder")
            ) from error
    return path.read_text(encoding="utf-8").splitlines()


def fresh_model(cfg: PretrainConfig) -> GLoRIA:
    """The model before pre-training: published starting weights where asked for, else random."""
    vocabulary = load_vocabulary(cfg.model.text)
    with sound_settings():
        model = GLoRIA(cfg.model, vocabulary, local_words=cfg.loss.words)
    initialise(model)
    return model


def initialise(model: GLoRIA) -> None:
    """Load the published start, ImageNet and BioClinicalBERT, where the settings ask for it.

    Raises:
        CheckpointError: If the hub cannot be reached and no copy is cached, or the text encoder has
            other sizes than the settings.
    """
    image, text = model.config.image, model.config.text
    if image.weights == "imagenet":
        try:
            source = timm.create_model(image.backbone, pretrained=True, num_classes=0)
        except Exception as error:
            raise CheckpointError(
                offline(image.backbone, "ImageNet weights", "--model.image.weights none")
            ) from error
        model.image_encoder.backbone.load_state_dict(source.state_dict())
    if text.encoder:
        try:
            bert = BertModel.from_pretrained(text.encoder)
        except Exception as error:
            raise CheckpointError(
                offline(text.encoder, "weights", "--model.text.encoder")
            ) from error
        load_exactly(model.text_encoder.bert, bert.state_dict(), path=Path(text.encoder))


def offline(name: str, what: str, flag: str) -> str:
    """What to do when the hub does not answer."""
    return (
        f"{what} of {name} cannot be loaded: neither the model hub nor a cached copy is reachable. "
        f"Download it once with network access, point {flag} to a local copy, or use the phantom "
        "preset"
    )
