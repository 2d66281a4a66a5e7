"""Initial weights; ConVIRT's authors released no checkpoint."""

from __future__ import annotations

from pathlib import Path

import timm
from huggingface_hub import hf_hub_download
from transformers import BertModel

from common.checkpoint import CheckpointError, load_exactly, sound_settings
from common.data.phantom import VOCABULARY
from convirt.config import PretrainConfig, TextConfig
from convirt.model import ConVIRT


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


def fresh_model(cfg: PretrainConfig) -> ConVIRT:
    """The model before pre-training: published starting weights where asked for, else random."""
    vocabulary = load_vocabulary(cfg.model.text)
    with sound_settings():
        model = ConVIRT(cfg.model, vocabulary)
    initialise(model)
    return model


def initialise(model: ConVIRT) -> None:
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


def offline(name: str, what: str, flag: str) -> str:
    """What to do when the hub does not answer."""
    return (
        f"{what} of {name} cannot be loaded: neither the model hub nor a cached copy is reachable. "
        f"Download it once with network access, point {flag} to a local copy, or use the phantom "
        "preset"
    )
