"""ConVIRT: a ResNet and a BERT, each with a two-layer head into one space (Sec. 2.3)."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import timm
import torch
from huggingface_hub import PyTorchModelHubMixin
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertModel

from common.config import from_dict
from common.interface import ImageFeatures
from convirt.augment import cropped
from convirt.config import ImageConfig, ModelConfig, TextConfig
from convirt.text import Tokens, WordPieces, sentences

TEXTS_AT_ONCE = 64
"""Texts encoded together at inference, a bound on memory without influence on the result."""


class Embeddings(NamedTuple):
    """One modality in the joint space: (B, D), of any length."""

    emb: Tensor


class Output(NamedTuple):
    """Both towers: (B, D) each, of any length."""

    image_emb: Tensor
    text_emb: Tensor


class ImageEncoder(nn.Module):
    """timm ResNet without classifier."""

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        sizes = {"stem_width": config.stem_width, "channels": config.channels}
        given: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
        given["zero_init_last"] = config.zero_init_last
        self.backbone = cast(
            Any, timm.create_model(config.backbone, num_classes=0, global_pool="", **given)
        )
        self.dim = int(self.backbone.num_features)

    def forward(self, images: Tensor) -> ImageFeatures:
        """(B, 1 or 3, H, W) in [-1, 1] to pooled (B, C) and the last map (B, C, h, w)."""
        last = self.backbone(images.expand(-1, 3, -1, -1))
        return ImageFeatures(last.mean(dim=(2, 3)), last)


class TextEncoder(nn.Module):
    """BERT pooled over its last layer's tokens; embeddings and first layers can be frozen."""

    def __init__(self, config: TextConfig, vocabulary: int) -> None:
        super().__init__()
        self.config = config
        self.bert = BertModel(
            BertConfig(
                vocab_size=vocabulary,
                hidden_size=config.width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=4 * config.width,
                hidden_dropout_prob=config.dropout,
                attention_probs_dropout_prob=config.dropout,
            ),
            add_pooling_layer=False,
        )
        if config.frozen_layers:
            frozen = self.bert.encoder.layer[: config.frozen_layers]
            for module in (self.bert.embeddings, *frozen):
                module.requires_grad_(False)

    def forward(self, tokens: Tokens) -> Tensor:
        """Tokens to (B, C)."""
        out = self.bert(input_ids=tokens.ids, attention_mask=tokens.mask.long())
        feat, mask = out.last_hidden_state, tokens.mask[..., None]
        if self.config.pool == "cls":
            return feat[:, 0]
        if self.config.pool == "mean":
            return (feat * mask).sum(dim=1) / mask.sum(dim=1)
        return feat.masked_fill(~mask, -torch.inf).amax(dim=1)


def head(width: int, dim: int) -> nn.Sequential:
    """Linear, ReLU, linear; the hidden layer as wide as the input."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, dim))


class ConVIRT(
    nn.Module,
    PyTorchModelHubMixin,
    license="apache-2.0",
    tags=["chest-x-ray", "vision-language"],
):
    """Both encoders and their heads g_v, g_u.

    Args:
        settings: Architecture, or its JSON form; weights start random, see
            `convirt.checkpoint.initialise`.
        vocabulary: Word pieces in order, kept in the model's `config.json`.
    """

    def __init__(self, settings: ModelConfig | dict[str, Any], vocabulary: list[str]) -> None:
        super().__init__()
        config = settings if isinstance(settings, ModelConfig) else from_dict(ModelConfig, settings)
        self.config, self.vocabulary = config, vocabulary
        self.image_encoder = ImageEncoder(config.image)
        self.text_encoder = TextEncoder(config.text, len(vocabulary))
        self.image_head = head(self.image_encoder.dim, config.embedding_dim)
        self.text_head = head(config.text.width, config.embedding_dim)

    def forward(self, images: Tensor, tokens: Tokens) -> Output:
        """Both towers at once, so that data-parallel wrappers see one call."""
        image_emb = self.image_head(self.image_encoder(images).pooled)
        return Output(image_emb, self.text_head(self.text_encoder(tokens)))

    @property
    def size(self) -> int:
        """Side of the prepared images, pixels."""
        return self.config.image.size

    @property
    def backbone(self) -> nn.Module:
        """The bare timm image encoder."""
        return cast(nn.Module, self.image_encoder.backbone)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.image_head.parameters()).device

    def word_pieces(self) -> WordPieces:
        """The tokeniser with the model's own vocabulary."""
        return WordPieces(self.vocabulary, max_tokens=self.config.text.max_tokens)

    def normalise(
        self, images: NDArray[np.uint8], *, generator: np.random.Generator | None = None
    ) -> Tensor:
        """(B, size, size) pixels to network input: centre crops, with a generator random ones."""
        return cropped(images, self.config.image.crop, generator).to(self.device)

    def image_features(self, images: Tensor) -> ImageFeatures:
        """Features of the bare image encoder, for downstream tasks."""
        feat: ImageFeatures = self.image_encoder(images)
        return feat

    def embed_images(self, images: Tensor) -> Embeddings:
        """Network input to the joint space."""
        self.eval()
        with torch.no_grad():
            return Embeddings(self.image_head(self.image_encoder(images).pooled))

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """Raw texts to the joint space, `TEXTS_AT_ONCE` at a time.

        Raises:
            ValueError: If a text has no word.
        """
        cleaned = [" ".join(sentences(text, min_words=1)) for text in texts]
        empty = [text for text, words in zip(texts, cleaned, strict=True) if not words]
        if empty:
            raise ValueError(f"{len(empty)} texts have no word, for instance {empty[0]!r}")
        self.eval()
        pieces, parts = self.word_pieces(), []
        with torch.no_grad():
            for start in range(0, len(cleaned), TEXTS_AT_ONCE):
                ids, mask = pieces(cleaned[start : start + TEXTS_AT_ONCE])
                tokens = Tokens(ids.to(self.device), mask.to(self.device))
                parts.append(self.text_head(self.text_encoder(tokens)))
        return Embeddings(torch.cat(parts))

    def similarity(self, images: Embeddings, texts: Embeddings) -> Tensor:
        """(N, T) cosines."""
        return F.normalize(images.emb, dim=-1) @ F.normalize(texts.emb, dim=-1).mT
