"""MGCA: a ViT's or ResNet's tokens and a BERT's words in one space (paper Sec. 3.1)."""

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
from mgca.augment import crop_and_normalise
from mgca.config import ImageConfig, LossConfig, ModelConfig, TextConfig
from mgca.prototypes import Prototypes
from mgca.text import Tokens, WordFeatures, WordPieces, aggregate_words, caption

TEXTS_AT_ONCE = 64
"""Texts encoded together at inference, a bound on memory without influence on the result."""


class ImageTokens(NamedTuple):
    """What an image encoder gives MGCA.

    Attributes:
        pooled: (B, C) global feature.
        tokens: (B, P, C') patch or region features, row by row of the grid.
        attention: (B, P) attention of the last block's [CLS] query to each patch, mean over heads;
            None for a ResNet, which has no [CLS].
        grid: Rows and columns of the P tokens.
    """

    pooled: Tensor
    tokens: Tensor
    attention: Tensor | None
    grid: tuple[int, int]


class ImageOutput(NamedTuple):
    """Images in the joint space; unit vectors.

    Attributes:
        emb: (B, D).
        patch_emb: (B, P, D).
        patch_weights: (B, P) importance of the patches, or None where all count alike.
        grid: Rows and columns of the P patches.
    """

    emb: Tensor
    patch_emb: Tensor
    patch_weights: Tensor | None
    grid: tuple[int, int]


class TextOutput(NamedTuple):
    """Reports in the joint space; unit vectors.

    Attributes:
        emb: (B, D).
        word_emb: (B, W, D), [CLS] left out.
        word_weights: (B, W) importance of the words, 0 where there is none.
        word_mask: (B, W) bool, True = takes part in the token contrast.
    """

    emb: Tensor
    word_emb: Tensor
    word_weights: Tensor
    word_mask: Tensor


class Output(NamedTuple):
    """Both towers, what each sees of the other, and the cosines with the prototypes.

    Attributes:
        image: Images.
        text: Reports.
        attended_patches: (B, W, D) what each word sees of the patches; None for cosine attention,
            which the loss computes.
        attended_words: (B, P, D) what each patch sees of the words; or None.
        image_scores: (B, K).
        text_scores: (B, K).
    """

    image: ImageOutput
    text: TextOutput
    attended_patches: Tensor | None
    attended_words: Tensor | None
    image_scores: Tensor
    text_scores: Tensor


class ViTEncoder(nn.Module):
    """timm ViT; only the [CLS] row of the last block's attention is computed explicitly."""

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        sizes = {
            "patch_size": config.patch,
            "embed_dim": config.width,
            "depth": config.depth,
            "num_heads": config.heads,
        }
        given: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
        self.backbone = cast(
            Any, timm.create_model(config.backbone, num_classes=0, img_size=config.crop, **given)
        )
        self.dim = self.token_dim = int(self.backbone.embed_dim)

    def forward(self, images: Tensor) -> ImageTokens:
        """(B, 1 or 3, H, W) in [-1, 1] to [CLS], patches and their importance."""
        vit = self.backbone
        x = vit.patch_embed(images.expand(-1, 3, -1, -1))
        x = vit.norm_pre(vit.patch_drop(vit._pos_embed(x)))
        for block in vit.blocks[:-1]:
            x = block(x)
        attention = cls_attention(vit.blocks[-1], x)
        x = vit.norm(vit.blocks[-1](x))
        return ImageTokens(x[:, 0], x[:, 1:], attention[:, 1:], vit.patch_embed.grid_size)


@torch.no_grad()
def cls_attention(block: Any, x: Tensor) -> Tensor:
    """Softmax attention of the [CLS] query to all tokens of a ViT block, mean over heads.

    Args:
        block: A timm ViT block.
        x: (B, 1 + P, C) what enters it.

    Returns:
        (B, 1 + P), rows sum to 1; the weights of the token contrast take no gradient.
    """
    x = block.norm1(x)
    attn, width = block.attn, x.shape[-1]
    weight, bias = attn.qkv.weight, attn.qkv.bias
    query = F.linear(x[:, :1], weight[:width], bias[:width])
    key = F.linear(x, weight[width : 2 * width], bias[width : 2 * width])
    return _mean_attention(query, key, heads=attn.num_heads)


def _mean_attention(
    query: Tensor, key: Tensor, *, heads: int, mask: Tensor | None = None
) -> Tensor:
    """(B, 1, C) and (B, T, C) to (B, T): softmax over the T tokens, mean over heads."""
    q = query.unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, H, 1, C/H)
    k = key.unflatten(-1, (heads, -1)).transpose(1, 2)
    scores = (q @ k.mT).squeeze(2) * k.shape[-1] ** -0.5  # (B, H, T)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None], -torch.inf)
    return scores.float().softmax(dim=-1).mean(dim=1)


class ResNetEncoder(nn.Module):
    """timm ResNet at `resnet_input` pixels; stage 3 gives regions, the pooled stage 4 the image."""

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        sizes = {"stem_width": config.stem_width, "channels": config.channels}
        given: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
        given["zero_init_last"] = config.zero_init_last
        self.backbone = cast(
            Any, timm.create_model(config.backbone, num_classes=0, global_pool="", **given)
        )
        self.input = config.resnet_input
        self.dim = int(self.backbone.num_features)
        self.token_dim = int(self.backbone.feature_info[3]["num_chs"])

    def forward(self, images: Tensor) -> ImageTokens:
        """(B, 1 or 3, H, W) in [-1, 1] to the pooled feature and the regions."""
        images = F.interpolate(images, self.input, mode="bilinear", align_corners=True)
        last, stages = self.backbone.forward_intermediates(
            images.expand(-1, 3, -1, -1), indices=[3]
        )
        grid = tuple(stages[0].shape[2:])
        return ImageTokens(last.mean(dim=(2, 3)), stages[0].flatten(2).mT, None, grid)


class TextEncoder(nn.Module):
    """BERT with the attention of its last [CLS] query, and word pieces merged into words."""

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
        self.forget_token_types()

    def forget_token_types(self) -> None:
        """With `positions=zero` there are no token types, as in the released encoder."""
        if self.config.positions == "zero":
            types = self.bert.embeddings.token_type_embeddings.weight
            types.requires_grad_(False).zero_()

    def forward(self, tokens: Tokens) -> WordFeatures:
        """Tokens to the report's feature and its words'."""
        zero = torch.zeros_like(tokens.ids) if self.config.positions == "zero" else None
        out = self.bert(
            input_ids=tokens.ids,
            attention_mask=tokens.mask.long(),
            position_ids=zero,
            output_hidden_states=True,
        )
        attention = self._cls_attention(out.hidden_states[-2], tokens.mask)
        full = self.config.pad == "max"
        slots = tokens.ids.shape[1] if full else int(tokens.word_index.max()) + 1
        shift = self.config.word_weight_shift
        return aggregate_words(out.last_hidden_state, attention, tokens, slots=slots, shift=shift)

    @torch.no_grad()
    def _cls_attention(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(B, T) attention of [CLS] in the last layer, before dropout, mean over heads."""
        last = self.bert.encoder.layer[-1].attention.self
        heads = self.config.heads
        return _mean_attention(last.query(hidden[:, :1]), last.key(hidden), heads=heads, mask=mask)


class Head(nn.Module):
    """Projection to unit vectors: linear, batch norm, ReLU, linear, batch norm without scale.

    One head serves vectors (B, C) and tokens (B, T, C); statistics run over all rows of the mask.
    """

    def __init__(self, width: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, dim),
            nn.BatchNorm1d(dim, affine=False),
        )

    def forward(self, feat: Tensor, mask: Tensor | None = None) -> Tensor:
        """(..., C) to (..., D) unit vectors; where `mask` (...) is False, zeros."""
        if mask is None:
            rows = self.layers(feat.flatten(0, -2)).unflatten(0, feat.shape[:-1])
            return F.normalize(rows, dim=-1)
        rows = F.normalize(self.layers(feat[mask]), dim=-1)
        return rows.new_zeros(*mask.shape, rows.shape[-1]).index_put((mask,), rows)


class MGCA(
    nn.Module,
    PyTorchModelHubMixin,
    license="apache-2.0",
    tags=["chest-x-ray", "vision-language"],
):
    """Both encoders, four heads, cross-attention and prototypes.

    Args:
        settings: Architecture, or its JSON form; weights start random, see
            `mgca.checkpoint.initialise`.
        vocabulary: Word pieces in order, kept in the model's `config.json`.
    """

    def __init__(self, settings: ModelConfig | dict[str, Any], vocabulary: list[str]) -> None:
        super().__init__()
        config = settings if isinstance(settings, ModelConfig) else from_dict(ModelConfig, settings)
        self.config, self.vocabulary = config, vocabulary
        resnet = config.image.backbone.startswith("resnet")
        self.image_encoder: ViTEncoder | ResNetEncoder = (
            ResNetEncoder(config.image) if resnet else ViTEncoder(config.image)
        )
        self.text_encoder = TextEncoder(config.text, len(vocabulary))
        hidden, dim, width = config.head_width, config.embedding_dim, config.text.width
        self.global_image = Head(self.image_encoder.dim, hidden, dim)
        self.local_image = Head(self.image_encoder.token_dim, hidden, dim)
        self.global_text = Head(width, hidden, dim)
        self.local_text = Head(width, hidden, dim)
        self.prototypes = Prototypes(config.prototypes, dim)
        learned = config.cta_attention == "learned"
        heads, bias = config.cta_attention_heads, config.cta_attention_bias
        self.word_attention, self.patch_attention = (
            nn.MultiheadAttention(dim, heads, bias=bias, batch_first=True) if learned else None
            for _ in range(2)
        )

    def forward(self, images: Tensor, tokens: Tokens) -> Output:
        """Both towers at once, so that data-parallel wrappers see one call."""
        image, text = self.encode_images(images), self.encode_texts(tokens)
        return Output(
            image,
            text,
            *self.cross_attention(image.patch_emb, text),
            *self.prototypes(torch.cat([image.emb, text.emb])).chunk(2),
        )

    def cross_attention(
        self, patch_emb: Tensor, text: TextOutput
    ) -> tuple[Tensor | None, Tensor | None]:
        """What words see of the patches (B, W, D), and patches of the words (B, P, D) (Eq. 4)."""
        if self.word_attention is None or self.patch_attention is None:
            return None, None
        words = text.word_emb
        patches = self.word_attention(words, patch_emb, patch_emb, need_weights=False)[0]
        seen = self.patch_attention(
            patch_emb, words, words, key_padding_mask=~text.word_mask, need_weights=False
        )[0]
        return patches, seen

    def encode_images(self, images: Tensor) -> ImageOutput:
        """(B, 1 or 3, H, W) in [-1, 1] to unit embeddings of images and patches."""
        feat = self.image_encoder(images)
        emb, patch_emb = self.global_image(feat.pooled), self.local_image(feat.tokens)
        return ImageOutput(emb, patch_emb, feat.attention, feat.grid)

    def encode_texts(self, tokens: Tokens) -> TextOutput:
        """Tokens to unit embeddings of reports and words."""
        feat = self.text_encoder(tokens)
        masked = feat.mask if self.config.text.pad_words == "mask" else None
        words = self.local_text(feat.words, masked)
        return TextOutput(self.global_text(feat.report), words, feat.weights, feat.mask)

    def freeze_unused(self, loss: LossConfig) -> None:
        """Take the parameters that no term of the loss reaches out of training."""
        idle: list[nn.Module | None] = []
        if not loss.cta_weight:
            idle += [self.local_image, self.local_text, self.word_attention, self.patch_attention]
        if not loss.cpa_weight:
            idle += [self.prototypes]
        if not loss.cpa_weight and not loss.ita_weight:
            idle += [self.global_image, self.global_text]
            if isinstance(self.image_encoder, ResNetEncoder):  # the regions come before it
                idle += [self.image_encoder.backbone.layer4]
        for module in idle:
            if module is not None:
                module.requires_grad_(False)

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
        return self.prototypes.weight.device

    def word_pieces(self) -> WordPieces:
        """The tokeniser with the model's own vocabulary and settings."""
        text = self.config.text
        return WordPieces(
            self.vocabulary,
            max_tokens=text.max_tokens,
            pad_to_max=text.pad == "max",
            drop_last_word_if_full=text.drop_last_word_if_full,
        )

    def normalise(
        self, images: NDArray[np.uint8], *, generator: np.random.Generator | None = None
    ) -> Tensor:
        """(B, size, size) pixels to network input: centre crops, with a generator random ones."""
        generators = None if generator is None else [generator] * len(images)
        return crop_and_normalise(images, self.config.image.crop, generators).to(self.device)

    def image_features(self, images: Tensor) -> ImageFeatures:
        """Features of the bare image encoder, for downstream tasks."""
        feat = self.image_encoder(images)
        return ImageFeatures(feat.pooled, feat.tokens)

    def embed_images(self, images: Tensor) -> ImageOutput:
        """`encode_images` for inference."""
        self.eval()
        with torch.no_grad():
            return self.encode_images(images)

    def clean(self, texts: Sequence[str]) -> list[str]:
        """Raw texts as the text encoder reads them; one-word sentences are kept.

        Raises:
            ValueError: If a text has no word left.
        """
        cleaned = [caption(text, "", min_words=1, rule="decimal_safe") for text in texts]
        empty = [text for text, words in zip(texts, cleaned, strict=True) if not words]
        if empty:
            raise ValueError(f"{len(empty)} texts have no word, for instance {empty[0]!r}")
        return cleaned

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Raw texts to (T, D) unit report embeddings, `TEXTS_AT_ONCE` at a time."""
        self.eval()
        cleaned, pieces = self.clean(texts), self.word_pieces()
        parts = []
        with torch.no_grad():
            for start in range(0, len(cleaned), TEXTS_AT_ONCE):
                tokens = pieces(cleaned[start : start + TEXTS_AT_ONCE])
                tokens = Tokens(*(t.to(self.device) for t in tokens))
                parts.append(self.global_text(self.text_encoder(tokens).report))
        return torch.cat(parts)

    def similarity(self, images: ImageOutput, texts: Tensor) -> Tensor:
        """(N, T) cosines of the global embeddings."""
        return images.emb @ texts.mT
