"""Initial weights, and the checkpoints that the authors released."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import timm
import torch
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
from mgca.config import PRESETS, ModelConfig, PretrainConfig, TextConfig
from mgca.model import MGCA

KEYS = (
    (r"img_encoder_q\.model\.", "image_encoder.backbone."),
    (r"img_encoder_q\.global_embed\.head\.", "global_image.layers."),
    (r"img_encoder_q\.local_embed\.head\.", "local_image.layers."),
    (r"text_encoder_q\.model\.", "text_encoder.bert."),
    (r"text_encoder_q\.global_embed\.head\.", "global_text.layers."),
    (r"text_encoder_q\.local_embed\.head\.", "local_text.layers."),
    (r"prototype_layer\.", "prototypes."),
    (r"word_local_atten_layer\.", "word_attention."),
    (r"patch_local_atten_layer\.", "patch_attention."),
)
"""Released key prefixes to ours."""

UNTRAINED = re.compile(r"(patch|word)_local_atten_layer\..*")
"""Cross-attention that the released default computes without; its biases then are still zero."""

IGNORED = {
    r"text_encoder_q\.model\.embeddings\.position_ids": (
        "a constant that transformers no longer stores"
    ),
    r"text_encoder_q\.model\.encoder\.layer\.\d+\.crossattention\..*": "never run nor trained",
    r"img_encoder_q\.model\.(fc|head)\.(weight|bias)": "ImageNet classifier, absent in most files",
}
"""Released keys without a place in the model, and why."""

TOKEN_TYPES = "text_encoder.bert.embeddings.token_type_embeddings.weight"
"""The released encoder has none: two rows of zeros."""


def rename(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Released keys to ours; 1 x 1 convolutions of the local heads become linear layers.

    Returns:
        The renamed tensors, and each ignored key with the reason.

    Raises:
        CheckpointError: If a key is neither known nor ignored.
    """
    renamed: dict[str, Tensor] = {}
    ignored: dict[str, str] = {}
    idle = not any(bool(value.any()) for key, value in state.items() if _attention_bias(key))
    for key, value in state.items():
        bare = key.removeprefix("module.").removeprefix("model.")
        reason = next(
            (why for pattern, why in IGNORED.items() if re.fullmatch(pattern, bare)), None
        )
        if idle and UNTRAINED.fullmatch(bare):
            reason = "never trained: all biases are zero"
        found = next(((old, new) for old, new in KEYS if re.match(old, bare)), None)
        if reason:
            ignored[key] = reason
        elif found:
            name = re.sub(found[0], found[1], bare, count=1)
            is_convolution = name.startswith("local_") and value.ndim == 3
            renamed[name] = value.squeeze(-1) if is_convolution else value
        else:
            raise CheckpointError(
                f"unknown key {key!r}; expected prefixes {[old for old, _ in KEYS]}"
            )
    words = renamed.get("text_encoder.bert.embeddings.word_embeddings.weight")
    if words is not None and TOKEN_TYPES not in renamed:
        renamed[TOKEN_TYPES] = torch.zeros(2, words.shape[1], dtype=words.dtype)
    return renamed, ignored


def _attention_bias(key: str) -> bool:
    return "_local_atten_layer." in key and key.endswith("bias")


def load_released(
    path: str | Path, *, vocabulary: list[str] | None = None, config: ModelConfig | None = None
) -> tuple[MGCA, dict[str, str]]:
    """A checkpoint of the authors as a model; nothing that the file pickles is executed.

    Args:
        path: `vit_base.ckpt` or `resnet_50.ckpt`; the keys say which.
        vocabulary: Word pieces; by default those of the text encoder, from the hub.
        config: Architecture of the weights; by default the released one of that backbone.

    Returns:
        The model in evaluation mode, and the ignored keys with reasons.

    Raises:
        CheckpointError: If the file is unreadable or its keys and shapes are not the model's.
    """
    state, ignored = rename(state_dict_of(read_foreign(path), path))
    if config is None:
        vit = "image_encoder.backbone.cls_token" in state
        config = PRESETS["released" if vit else "released-resnet50"].model
        if any(key.startswith("word_attention.") for key in state):
            config = replace(config, cta_attention="learned")
    model = MGCA(config, vocabulary or load_vocabulary(config.text))
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


def fresh_model(cfg: PretrainConfig) -> MGCA:
    """The model before pre-training: published starting weights where asked for, else random."""
    vocabulary = load_vocabulary(cfg.model.text)
    with sound_settings():
        model = MGCA(cfg.model, vocabulary)
    initialise(model)
    return model


def initialise(model: MGCA) -> None:
    """Load the published start, ImageNet and BioClinicalBERT, where the settings ask for it.

    Raises:
        CheckpointError: If the hub cannot be reached and no copy is cached, or an encoder has other
            sizes than the settings.
    """
    image, text = model.config.image, model.config.text
    if image.weights == "imagenet":
        try:
            source = timm.create_model(image.backbone, pretrained=True, num_classes=0)
        except Exception as error:
            raise CheckpointError(
                offline(image.backbone, "ImageNet weights", "--model.image.weights none")
            ) from error
        load_exactly(model.image_encoder.backbone, source.state_dict(), path=image.backbone)
    if text.encoder:
        try:
            bert = BertModel.from_pretrained(
                text.encoder, num_hidden_layers=text.layers, add_pooling_layer=False
            )
        except Exception as error:
            raise CheckpointError(
                offline(text.encoder, "weights", "--model.text.encoder")
            ) from error
        load_exactly(model.text_encoder.bert, bert.state_dict(), path=Path(text.encoder))
        model.text_encoder.forget_token_types()


def offline(name: str, what: str, flag: str) -> str:
    """What to do when the hub does not answer."""
    return (
        f"{what} of {name} cannot be loaded: neither the model hub nor a cached copy is reachable. "
        f"Download it once with network access, point {flag} to a local copy, or use the phantom "
        "preset"
    )
