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
from imitate.config import RELEASED, ModelConfig, PretrainConfig, TextConfig
from imitate.model import IMITATE

KEYS = (
    (r"encoder\.", "image_encoder.backbone."),
    (r"cls_token$", "aggregation.cls_token"),
    (r"positional_embedding$", "aggregation.positions"),
    (r"multi_attent\.", "aggregation.attention."),
    (r"read_proj\.", "multi_projector."),
    (r"diag_proj\.", "high_projector."),
    (r"text_proj\.", "text_projector."),
    (r"lm_model\.", "text_encoder.bert."),
)
"""Released keys to ours."""

IGNORED = {
    r"lm_model\.pooler\..*": "BERT's pooler, which no code path reads",
    r"lm_model\.embeddings\.position_ids": "a constant that transformers no longer stores",
    r"(encoder\.)?fc\.(weight|bias)": "ImageNet classifier, absent in most files",
}
"""Released keys without a place in the model, and why."""


def rename(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Released keys to ours.

    Returns:
        The renamed tensors, and each ignored key with the reason.

    Raises:
        CheckpointError: If a key is neither known nor ignored.
    """
    renamed: dict[str, Tensor] = {}
    ignored: dict[str, str] = {}
    for key, value in state.items():
        bare = key.removeprefix("module.")
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
) -> tuple[IMITATE, dict[str, str]]:
    """A checkpoint of the authors' code as a model; nothing that the file pickles is executed.

    A file of the encoder alone (`*_encoder.pth`) fills the image encoder; the rest stays random.

    Args:
        path: `*_ckpt.pth` or `*_encoder.pth`; the keys say which.
        vocabulary: Word pieces; by default those of the text encoder, from the hub.
        config: Architecture of the weights.

    Returns:
        The model in evaluation mode, and the ignored keys with reasons.

    Raises:
        CheckpointError: If the file is unreadable or its keys and shapes are not the model's.
    """
    state = state_dict_of(read_foreign(path), path)
    model = IMITATE(config, vocabulary or load_vocabulary(config.text))
    if _is_encoder(state):
        bare = {k.removeprefix("module."): v for k, v in state.items()}
        ignored = {
            k: IGNORED[r"(encoder\.)?fc\.(weight|bias)"] for k in bare if k.startswith("fc.")
        }
        kept = {k: v for k, v in bare.items() if k not in ignored}
        load_exactly(model.image_encoder.backbone, kept, path=path)
        return model.eval(), ignored
    renamed, ignored = rename(state)
    load_exactly(model, renamed, path=path)
    return model.eval(), ignored


def encoder_alone(path: str | Path) -> bool:
    """Whether a released file holds the image encoder and nothing else.

    Raises:
        CheckpointError: If it is unreadable.
    """
    return _is_encoder(state_dict_of(read_foreign(path), path))


def _is_encoder(state: Mapping[str, Tensor]) -> bool:
    return any(key.removeprefix("module.").startswith("conv1.") for key in state)


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


def fresh_model(cfg: PretrainConfig) -> IMITATE:
    """The model before pre-training: published starting weights where asked for, else random."""
    vocabulary = load_vocabulary(cfg.model.text)
    with sound_settings():
        model = IMITATE(cfg.model, vocabulary)
    initialise(model)
    return model


def initialise(model: IMITATE) -> None:
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
            bert = BertModel.from_pretrained(
                text.encoder, num_hidden_layers=text.layers, add_pooling_layer=False
            )
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
