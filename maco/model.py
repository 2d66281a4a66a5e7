"""MaCo: masked autoencoder, report encoder, and importance of the visible positions (Sec. 3)."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import torch
from huggingface_hub import PyTorchModelHubMixin
from numpy.typing import NDArray
from timm.layers import LayerNorm
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertModel

from common.config import from_dict
from common.interface import ImageFeatures
from maco.config import DecoderConfig, ImageConfig, LossConfig, ModelConfig, TextConfig
from maco.positions import position_table
from maco.text import Tokens, WordPieces, phrase, sentences

MEAN, DEVIATION = 0.4978, 0.2449
"""Of 8-bit pixels over 255, in the released transforms."""
MULTIPLIER_LIMIT = 100.0
"""Of 1 / tau3, as in CLIP (ledger L7)."""
TEXT_GROUPS = 4
"""Of a batch by length, each padded to its own longest: sections vary more than tenfold."""
TEXTS_AT_ONCE = 64
"""Texts encoded together at inference, a bound on memory without influence on the result."""


class Output(NamedTuple):
    """Both towers and the reconstruction.

    Attributes:
        image_emb: (B, D) mean of the visible tokens, of any length.
        text_emb: (B, D) of any length.
        scores: (B,) importance p of what was visible.
        multiplier: Scalar, 1 / tau3.
        predicted: (B, M, C) of the M removed patches.
        target: (B, M, C) normalised pixels.
    """

    image_emb: Tensor
    text_emb: Tensor
    scores: Tensor
    multiplier: Tensor
    predicted: Tensor
    target: Tensor


class Embeddings(NamedTuple):
    """Images or texts in the joint space, of any length.

    Attributes:
        emb: (B, D).
        patch_emb: (B, P, D) of images; None for texts.
    """

    emb: Tensor
    patch_emb: Tensor | None = None


class Mask(NamedTuple):
    """Which patches the encoder sees.

    Attributes:
        kept: (B, K) int64 indices of the visible patches, by rising noise.
        removed: (B, P - K) int64 indices of the others, by rising noise.
        visible: (B, P) bool, True = seen.
    """

    kept: Tensor
    removed: Tensor
    visible: Tensor


def mask_of(noise: Tensor, ratio: float) -> Mask:
    """Keep the patches with the lowest noise (B, P), int(P (1 - ratio)) of them (MAE)."""
    order = noise.argsort(dim=1)
    count = int(noise.shape[1] * (1 - ratio))
    kept, removed = order[:, :count], order[:, count:]
    visible = torch.zeros_like(noise, dtype=torch.bool).scatter(1, kept, True)
    return Mask(kept, removed, visible)


def patchify(images: Tensor, side: int) -> Tensor:
    """(B, C, H, W) to (B, P, side * side * C): patches row by row; row, column, channel inside."""
    patches = images.unfold(2, side, side).unfold(3, side, side)  # (B, C, h, w, side, side)
    return patches.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


def rows_of(tokens: Tensor, index: Tensor) -> Tensor:
    """(B, P, C) tokens at (B, K) positions: (B, K, C)."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


class Encoder(VisionTransformer):
    """timm ViT with fixed positions, which can leave patches out."""

    cls_token: nn.Parameter
    pos_embed: nn.Parameter

    def __init__(self, config: ImageConfig) -> None:
        super().__init__(
            img_size=config.input,
            patch_size=config.patch,
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.heads,
            num_classes=0,
        )
        grid = config.input // config.patch
        self.pos_embed.data = position_table(config.width, grid, rule=config.positions)
        self.pos_embed.requires_grad_(False)

    def forward_visible(self, images: Tensor, kept: Tensor) -> Tensor:
        """(B, 1 or 3, H, W) and the (B, K) patches to see: tokens (B, 1 + K, C), [CLS] first.

        Only the visible patches pass through the projection and the blocks.
        """
        conv = self.patch_embed.proj
        columns = F.unfold(images.expand(-1, 3, -1, -1), conv.kernel_size, stride=conv.stride).mT
        visible = F.linear(rows_of(columns, kept), conv.weight.flatten(1), conv.bias)
        positions = self.pos_embed[:, 1:].expand(len(images), -1, -1)
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(images), -1, -1)
        tokens = torch.cat([first, visible + rows_of(positions, kept)], dim=1)
        return cast(Tensor, self.norm(self.blocks(tokens)))


class Decoder(nn.Module):
    """Visible tokens to the pixels of the removed patches.

    Args:
        config: Sizes.
        width: Of the encoder.
        grid: Patches along a side.
        pixels: Numbers of a target patch.
        positions: Rule of the position table, see `position_table`.
    """

    def __init__(
        self, config: DecoderConfig, *, width: int, grid: int, pixels: int, positions: str
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(width, config.width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.width))
        table = position_table(config.width, grid, rule=positions)
        self.pos_embed = nn.Parameter(table, requires_grad=False)
        self.blocks = nn.Sequential(
            *(
                Block(config.width, config.heads, qkv_bias=True, norm_layer=LayerNorm)
                for _ in range(config.depth)
            )
        )
        self.norm = LayerNorm(config.width)
        self.head = nn.Linear(config.width, pixels)

    def forward(self, tokens: Tensor, mask: Mask) -> Tensor:
        """(B, 1 + K, C) to (B, M, pixels) of the removed patches alone."""
        tokens = self.embed(tokens)
        places = torch.cat([mask.kept, mask.removed], dim=1)
        empty = self.mask_token.to(tokens.dtype).expand(len(tokens), mask.removed.shape[1], -1)
        patches = torch.cat([tokens[:, 1:], empty], dim=1)
        positions = rows_of(self.pos_embed[:, 1:].expand(len(tokens), -1, -1), places)
        sequence = torch.cat([tokens[:, :1] + self.pos_embed[:, :1], patches + positions], dim=1)
        hidden = self.blocks(sequence)[:, 1 + mask.kept.shape[1] :]
        return cast(Tensor, self.head(self.norm(hidden)))


class TextEncoder(nn.Module):
    """BERT and how its tokens become one vector."""

    def __init__(self, config: TextConfig, vocabulary: int, dim: int) -> None:
        super().__init__()
        self.config = config
        self.bert = BertModel(
            BertConfig(
                vocab_size=vocabulary,
                hidden_size=config.width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=config.feedforward,
                max_position_embeddings=config.max_tokens,
                hidden_dropout_prob=config.dropout,
                attention_probs_dropout_prob=config.dropout,
            ),
            add_pooling_layer=config.pool == "pooler",
        )
        if not config.projection and config.width != dim:
            raise ValueError(
                f"text.projection is off: text.width {config.width} must equal image.width {dim}"
            )
        self.projection = nn.Linear(config.width, dim) if config.projection else nn.Identity()
        if config.init == "xavier":
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    nn.init.xavier_uniform_(module.weight)
                    nn.init.zeros_(module.bias)

    def forward(self, tokens: Tokens) -> Tensor:
        """Tokens to (B, D); shorter texts pass apart, so that few are padded to the longest."""
        lengths = tokens.mask.sum(dim=1)
        order = lengths.argsort(stable=True)
        parts = []
        for rows in order.chunk(TEXT_GROUPS):
            longest = int(lengths[rows[-1]])
            parts.append(self.encode(tokens.ids[rows, :longest], tokens.mask[rows, :longest]))
        return torch.cat(parts)[order.argsort()]

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T) word pieces, True = real, to (B, D), all padded alike."""
        out = self.bert(input_ids=ids, attention_mask=mask.long())
        if self.config.pool == "pooler":
            feat = out.pooler_output
        elif self.config.pool == "cls":
            feat = out.last_hidden_state[:, 0]
        else:
            words = mask[..., None]
            feat = (out.last_hidden_state * words).sum(dim=1) / words.sum(dim=1)
        return cast(Tensor, self.projection(feat))


def centre_start(grid: int) -> Tensor:
    """(1, P) importance weights that fall off from the centre (ledger A14)."""
    ramp = torch.linspace(0.5, 1.0, (grid + 1) // 2)
    line = torch.cat([ramp[: grid // 2], ramp.flip(0)])
    return torch.outer(line, line).flatten().softmax(dim=0)[None]


class MaCo(
    nn.Module,
    PyTorchModelHubMixin,
    license="apache-2.0",
    tags=["chest-x-ray", "vision-language"],
):
    """Encoder, decoder, report encoder, projection of images, and the importance layer.

    Args:
        settings: Architecture, or its JSON form; weights start random, see
            `maco.checkpoint.initialise`.
        vocabulary: Word pieces in order, kept in the model's `config.json`.
    """

    def __init__(self, settings: ModelConfig | dict[str, Any], vocabulary: list[str]) -> None:
        super().__init__()
        config = settings if isinstance(settings, ModelConfig) else from_dict(ModelConfig, settings)
        self.config, self.vocabulary = config, vocabulary
        image = config.image
        if image.input % image.patch or image.size % (image.input // image.patch):
            raise ValueError(
                f"patches of {image.patch} must fill the input of {image.input} pixels, and their "
                f"grid the {image.size} pixels of the target: position i is the same area in both"
            )
        self.grid = image.input // image.patch
        self.target_side = image.size // self.grid
        self.encoder = Encoder(image)
        self.decoder = Decoder(
            config.decoder,
            width=image.width,
            grid=self.grid,
            pixels=3 * self.target_side**2,
            positions=image.positions,
        )
        self.image_projection = nn.Linear(image.width, image.width)
        self.text_encoder = TextEncoder(config.text, len(vocabulary), image.width)
        self.importance = nn.Linear(self.grid**2, 1)
        self._start()

    def _start(self) -> None:
        """MAE's initialisation of both transformers; importance weights zero or centred."""
        for part in (self.encoder, self.decoder, self.image_projection):
            for module in part.modules():
                if isinstance(module, nn.Linear):
                    nn.init.xavier_uniform_(module.weight)
                    nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.encoder.patch_embed.proj.weight.data.flatten(1))
        for token in (self.encoder.cls_token, self.decoder.mask_token):
            nn.init.normal_(token, std=0.02)
        nn.init.zeros_(self.importance.weight)
        nn.init.zeros_(self.importance.bias)
        if self.config.position_start == "centre":
            self.importance.weight.data.copy_(centre_start(self.grid))
        start = torch.tensor(1 / self.config.tau3)
        self.temperature = nn.Parameter(start.log() if self.config.temperature == "log" else start)

    @property
    def multiplier(self) -> Tensor:
        """1 / tau3."""
        return self.temperature if self.config.temperature == "linear" else self.temperature.exp()

    def clamp_temperature(self) -> None:
        """Keep a logarithm below its limit; of the parameter, so that its gradient lives on."""
        if self.config.temperature == "log":
            self.temperature.data.clamp_(max=math.log(MULTIPLIER_LIMIT))

    def forward(self, images: Tensor, tokens: Tokens, noise: Tensor) -> Output:
        """Everything at once, so that data-parallel wrappers see one call.

        Args:
            images: (B, 1, S, S) 8-bit pixels of side `image.size`.
            tokens: Report sentences.
            noise: (B, P) uniform; the patches with the lowest are seen.
        """
        pixels = standardised(images)
        mask = mask_of(noise, self.config.image.mask_ratio)
        latent = self.encoder.forward_visible(self.reduced(pixels), mask.kept)
        seen = self.image_projection(latent)
        image_emb = seen[:, 0] if self.config.image.pool == "cls" else seen[:, 1:].mean(dim=1)
        target = rows_of(patchify(pixels, self.target_side), mask.removed).repeat_interleave(3, -1)
        return Output(
            image_emb,
            self.text_encoder(tokens),
            self.scores(mask.visible),
            self.multiplier,
            self.decoder(latent, mask),
            target,
        )

    def scores(self, visible: Tensor) -> Tensor:
        """(B, P) visible patches to importance scores (B,), in float32 under autocast too."""
        with torch.autocast(visible.device.type, enabled=False):
            return self.importance(visible.to(self.importance.weight.dtype)).squeeze(1)

    def reduced(self, pixels: Tensor) -> Tensor:
        """(B, 1, S, S) to the encoder's side, bicubic (ledger A5)."""
        side = self.config.image.input
        if pixels.shape[-1] == side:
            return pixels
        smooth = self.config.image.resize_antialias
        return F.interpolate(pixels, (side, side), mode="bicubic", antialias=smooth)

    def freeze_unused(self, loss: LossConfig) -> None:
        """Take the parameters that no term of the loss reaches out of training."""
        idle: list[nn.Module] = []
        if not loss.mae_weight:
            idle += [self.decoder]
        if not loss.align_weight:
            idle += [self.image_projection, self.text_encoder]
            self.temperature.requires_grad_(False)
        if not loss.align_weight or loss.weighting == "none":
            idle += [self.importance]
        for module in idle:
            module.requires_grad_(False)

    @property
    def size(self) -> int:
        """Side of the prepared images, pixels."""
        return self.config.image.size

    @property
    def backbone(self) -> nn.Module:
        """The bare timm image encoder."""
        return self.encoder

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.temperature.device

    def word_pieces(self) -> WordPieces:
        """The tokeniser with the model's own vocabulary."""
        return WordPieces(self.vocabulary, max_tokens=self.config.text.max_tokens)

    def normalise(
        self, images: NDArray[np.uint8], *, generator: np.random.Generator | None = None
    ) -> Tensor:
        """(B, size, size) pixels to network input (B, 1, input, input).

        With a generator, crops of 8 to 100 % of the area, some mirrored: the fine-tuning recipe's.
        """
        if generator is not None:
            side = self.config.image.input
            images = np.stack([random_crop(image, generator, side=side) for image in images])
        pixels = torch.from_numpy(np.ascontiguousarray(images))[:, None].to(self.device)
        return self.reduced(standardised(pixels))

    def image_features(self, images: Tensor) -> ImageFeatures:
        """Features of the bare encoder: mean of its normed patch tokens, and those tokens."""
        tokens = self.encoder.forward_features(images.expand(-1, 3, -1, -1))
        return ImageFeatures(tokens[:, 1:].mean(dim=1), tokens[:, 1:])

    def embed_images(self, images: Tensor) -> Embeddings:
        """Network input to the joint space, nothing masked."""
        self.eval()
        with torch.no_grad():
            tokens = self.image_projection(
                self.encoder.forward_features(images.expand(-1, 3, -1, -1))
            )
            pooled = tokens[:, 0] if self.config.image.pool == "cls" else tokens[:, 1:].mean(dim=1)
            return Embeddings(pooled, tokens[:, 1:])

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """Raw texts to the joint space: every sentence in order, lower case.

        List numbers stay, as the phantom's models are trained with them (`sentence_split`).

        Raises:
            ValueError: If a text has no word.
        """
        cleaned = ["".join(sentences(text, rule="safe")).lower() for text in texts]
        empty = [text for text, words in zip(texts, cleaned, strict=True) if not words.strip()]
        if empty:
            raise ValueError(f"{len(empty)} texts have no word, for instance {empty[0]!r}")
        self.eval()
        pieces, parts = self.word_pieces(), []
        with torch.no_grad():
            for start in range(0, len(cleaned), TEXTS_AT_ONCE):
                tokens = pieces(cleaned[start : start + TEXTS_AT_ONCE])
                parts.append(self.text_encoder(Tokens(*(t.to(self.device) for t in tokens))))
        return Embeddings(torch.cat(parts))

    def similarity(self, images: Embeddings, texts: Embeddings) -> Tensor:
        """(N, T) cosines."""
        return F.normalize(images.emb, dim=-1) @ F.normalize(texts.emb, dim=-1).mT

    def ground(
        self, images: NDArray[np.uint8], texts: Sequence[str], *, cosine: bool = False
    ) -> Tensor:
        """(B, size, size) pixels and their B phrases to similarities (B, grid, grid).

        Source: released grounding script: dot products of projected patches and the text vector,
        neither normalised (ledger G2); the position weights are applied by the protocol.
        """
        patches = self.embed_images(self.normalise(images)).patch_emb
        text_emb = self.embed_texts([phrase(text) for text in texts]).emb
        assert patches is not None
        if cosine:
            patches, text_emb = F.normalize(patches, dim=-1), F.normalize(text_emb, dim=-1)
        return torch.einsum("bpd,bd->bp", patches, text_emb).unflatten(1, (self.grid, self.grid))

    def position_weights(self) -> Tensor:
        """(grid, grid) weights of the importance layer (Fig. 4)."""
        return self.importance.weight.detach().view(self.grid, self.grid)


def standardised(images: Tensor) -> Tensor:
    """8-bit pixels to float32 of the corpus's mean 0 and deviation 1."""
    return images.float().div(255).sub(MEAN).div(DEVIATION)


def random_crop(
    image: NDArray[np.uint8], generator: np.random.Generator, *, side: int
) -> NDArray[np.uint8]:
    """Random crop (area 0.08-1, aspect 3/4-4/3) resized to `side`, mirrored half the time.

    Source: the released fine-tuning recipe (ledger C2).
    """
    size = len(image)
    area, ratio = (
        generator.uniform(0.08, 1.0),
        np.exp(generator.uniform(-np.log(4 / 3), np.log(4 / 3))),
    )
    width, height = (min(size, round(size * np.sqrt(area * r))) for r in (ratio, 1 / ratio))
    left, top = (int(generator.integers(0, size - side + 1)) for side in (width, height))
    cut = image[top : top + height, left : left + width]
    view = cv2.resize(cut, (side, side), interpolation=cv2.INTER_LINEAR)
    return np.asarray(view[:, ::-1] if generator.random() < 0.5 else view, np.uint8)
