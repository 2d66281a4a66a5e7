"""IMITATE: a ResNet read at its last stage and at all of them, and a frozen BERT (Sec. III)."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import timm
import torch
from huggingface_hub import PyTorchModelHubMixin
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import BertConfig, BertModel

from common.config import from_dict
from common.interface import ImageFeatures
from imitate.augment import cropped, stretched, to_input
from imitate.config import AggregationConfig, ImageConfig, LossConfig, ModelConfig, TextConfig
from imitate.text import Tokens, WordPieces, cleaned

TEXTS_AT_ONCE = 64
"""Texts encoded together, a bound on memory without influence on the result."""


class Section(NamedTuple):
    """One section of every report.

    Attributes:
        emb: (B, D) projected codes, of any length.
        code: (B, C) frozen text codes.
        present: (B,) bool, True = the report has the section.
    """

    emb: Tensor
    code: Tensor
    present: Tensor


class Views(NamedTuple):
    """One feature of both views: (B, D) each, of any length."""

    first: Tensor
    second: Tensor


class Output(NamedTuple):
    """Both views and both sections.

    Attributes:
        high: Global feature.
        multi: Multi-level feature, for the text.
        multi_vv: Multi-level feature from another draw of channels, for the other view.
        findings: Findings sections.
        impression: Impression sections.
    """

    high: Views
    multi: Views
    multi_vv: Views
    findings: Section
    impression: Section


class Embeddings(NamedTuple):
    """Images or texts in the joint space: (B, D), of any length."""

    emb: Tensor


class ImageEncoder(nn.Module):
    """timm ResNet without classifier: its four stages."""

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        sizes = {"stem_width": config.stem_width, "channels": config.channels}
        given: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
        given["zero_init_last"] = config.zero_init_last
        self.backbone = cast(
            Any, timm.create_model(config.backbone, num_classes=0, global_pool="", **given)
        )
        self.widths = tuple(int(info["num_chs"]) for info in self.backbone.feature_info[1:])

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 1 or 3, H, W) to the maps of the four stages."""
        images = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        return list(
            self.backbone.forward_intermediates(
                images, indices=[1, 2, 3, 4], intermediates_only=True
            )
        )


class Aggregation(nn.Module):
    """Channels of all stages as tokens of a pooled grid; only the [CLS] query attends (Sec. III-C).

    Args:
        config: Drop rates, grid, heads.
        widths: Channels of the four stages.
    """

    def __init__(self, config: AggregationConfig, widths: Sequence[int]) -> None:
        super().__init__()
        self.config, self.widths = config, tuple(widths)
        rates = zip(self.widths, config.drop, strict=True)
        self.kept = tuple(int(width * (1 - drop) + 1e-9) for width, drop in rates)
        tokens = sum(self.kept)
        table = config.pad_tokens_to or tokens
        if tokens > table:
            raise ValueError(f"{tokens} channel tokens do not fit into pad_tokens_to={table}")
        dim = config.grid**2
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(torch.zeros(1, 1 + table, dim))
        self.attention = nn.MultiheadAttention(dim, config.heads, batch_first=True)

    def draw(self, batch: int, seed: int) -> list[Tensor]:
        """Channels kept of each stage: (1 or B, kept) int64."""
        generator = torch.Generator().manual_seed(seed)
        rows = batch if self.config.draw_scope == "sample" else 1
        found = []
        for width, kept in zip(self.widths, self.kept, strict=True):
            if self.config.draw_with_replacement:
                found.append(torch.randint(width, (rows, kept), generator=generator))
            else:
                order = torch.rand(rows, width, generator=generator).argsort(dim=1)
                found.append(order[:, :kept])
        return found

    def tokens(self, maps: Sequence[Tensor], drawn: Sequence[Tensor]) -> Tensor:
        """Chosen channels, pooled to the grid and flattened: (B, tokens, grid^2)."""
        parts = []
        for stage, index in zip(maps, drawn, strict=True):
            index = index.to(stage.device).expand(len(stage), -1)
            chosen = stage[torch.arange(len(stage), device=stage.device)[:, None], index]
            parts.append(F.adaptive_avg_pool2d(chosen, self.config.grid).flatten(2))
        joined = torch.cat(parts, dim=1)
        missing = self.positions.shape[1] - 1 - joined.shape[1]
        return F.pad(joined, (0, 0, 0, missing))

    def forward(self, maps: Sequence[Tensor], drawn: Sequence[Tensor]) -> Tensor:
        """Four maps and the channels to keep to the multi-level feature (B, grid^2)."""
        tokens = self.tokens(maps, drawn) + self.positions[:, 1:]
        first = (self.cls_token + self.positions[:, :1]).expand(len(tokens), -1, -1)
        sequence = torch.cat([first, tokens], dim=1)
        seen = self.attention(first, sequence, sequence, need_weights=False)[0]
        return (first + seen)[:, 0]


class TextEncoder(nn.Module):
    """BERT whose last hidden state, at [CLS] or its mean, is the code; frozen but for the end."""

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
            ),
            add_pooling_layer=False,
        )
        self.requires_grad_(False)
        if not 0 <= config.unfreeze_last <= config.layers:
            raise ValueError(
                f"--model.text.unfreeze-last {config.unfreeze_last}: the text encoder has "
                f"{config.layers} layers"
            )
        trained = self.bert.encoder.layer[config.layers - config.unfreeze_last :]
        for layer in trained:
            layer.requires_grad_(True)
        self.eval()

    def train(self, mode: bool = True) -> "TextEncoder":
        """Stays in evaluation mode, trained layers included: codes are targets (ledger A13)."""
        return super().train(False)

    def forward(self, tokens: Tokens) -> Tensor:
        """Tokens to (B, C) codes."""
        out = self.bert(input_ids=tokens.ids, attention_mask=tokens.mask.long())
        states = cast(Tensor, out.last_hidden_state)
        if self.config.pool == "cls":
            return states[:, 0]
        seen = tokens.mask[..., None].to(states)
        return (states * seen).sum(dim=1) / seen.sum(dim=1)


def projector(width: int, hidden: int, dim: int) -> nn.Sequential:
    """Linear, batch norm, ReLU, linear, batch norm without scale (ledger A10)."""
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, dim),
        nn.BatchNorm1d(dim, affine=False),
    )


class IMITATE(
    nn.Module,
    PyTorchModelHubMixin,
    license="apache-2.0",
    tags=["chest-x-ray", "vision-language"],
):
    """Image encoder, aggregation, three projectors and the text encoder.

    Args:
        settings: Architecture, or its JSON form; weights start random, see
            `imitate.checkpoint.initialise`.
        vocabulary: Word pieces in order, kept in the model's `config.json`.
    """

    def __init__(self, settings: ModelConfig | dict[str, Any], vocabulary: list[str]) -> None:
        super().__init__()
        config = settings if isinstance(settings, ModelConfig) else from_dict(ModelConfig, settings)
        self.config, self.vocabulary = config, vocabulary
        self.image_encoder = ImageEncoder(config.image)
        self.aggregation = Aggregation(config.aggregation, self.image_encoder.widths)
        multi, high, text = config.hidden
        dim = config.embedding_dim
        self.multi_projector = projector(config.aggregation.grid**2, multi, dim)
        self.high_projector = projector(self.image_encoder.widths[-1], high, dim)
        self.text_projector = projector(config.text.width, text, dim)
        self.text_encoder = TextEncoder(config.text, len(vocabulary))

    def forward(
        self,
        views: Tensor,
        texts: tuple[Tensor | Tokens, Tensor | Tokens],
        present: tuple[Tensor, Tensor],
        seeds: Tensor,
    ) -> Output:
        """Everything at once, so that data-parallel wrappers see one call.

        Each view is encoded once; both draws of channels come from its stored maps (ledger A17).

        Args:
            views: (B, 2, 1 or 3, H, W) two views of every image.
            texts: Findings and impressions: stored codes (B, C), or tokens where the text encoder
                is trained.
            present: (B,) bool each, which reports have the section.
            seeds: (4,) int64, of the four channel draws of the step.
        """
        first, second = (
            self.encode_view(view, seeds[2 * k : 2 * k + 2])
            for k, view in enumerate(views.unbind(dim=1))
        )
        find, imp = (
            Section(*self.encode_section(text), there)
            for text, there in zip(texts, present, strict=True)
        )
        high, multi, multi_vv = (Views(*pair) for pair in zip(first, second, strict=True))
        return Output(high, multi, multi_vv, find, imp)

    def encode_view(self, view: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 1 or 3, H, W) to its global feature and its multi-level features of two draws."""
        maps = self.image_encoder(view)
        multi, multi_vv = (
            self.multi_projector(self.aggregation(maps, self.aggregation.draw(len(view), seed)))
            for seed in seeds.tolist()
        )
        return self.high_projector(maps[-1].mean(dim=(2, 3))), multi, multi_vv

    def encode_section(self, text: Tensor | Tokens) -> tuple[Tensor, Tensor]:
        """Codes or tokens to projected (B, D) and codes (B, C)."""
        code = text if isinstance(text, Tensor) else self.text_encoder(text)
        return self.text_projector(code), code

    def freeze_unused(self, loss: LossConfig) -> None:
        """Take the parameters that no term of the loss reaches out of training."""
        idle: list[nn.Module] = []
        if not {"vlm", "vvm"} & set(loss.terms):
            idle += [self.aggregation, self.multi_projector]
        if not {"vlh", "vvh"} & set(loss.terms):
            idle += [self.high_projector]
        if not {"vlh", "vlm"} & set(loss.terms):
            idle += [self.text_projector, self.text_encoder]
        for module in idle:
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
        return self.aggregation.cls_token.device

    def word_pieces(self) -> WordPieces:
        """The tokeniser with the model's own vocabulary."""
        return WordPieces(self.vocabulary, max_tokens=self.config.text.max_tokens)

    def normalise(
        self, images: NDArray[np.uint8], *, generator: np.random.Generator | None = None
    ) -> Tensor:
        """(B, size, size) pixels to network input: centre crops, with a generator random ones."""
        image = self.config.image
        if image.resize_mode == "stretch":
            images = np.stack([stretched(one, image.size) for one in images])
        return to_input(cropped(images, image.crop, generator), image.pixel_norm).to(self.device)

    def image_features(self, images: Tensor) -> ImageFeatures:
        """Features of the bare image encoder, for downstream tasks."""
        last = self.image_encoder(images)[-1]
        return ImageFeatures(last.mean(dim=(2, 3)), last)

    def embed_images(self, images: Tensor) -> Embeddings:
        """Network input to the joint space: encoder and global projector."""
        self.eval()
        with torch.no_grad():
            return Embeddings(self.high_projector(self.image_features(images).pooled))

    def codes(self, texts: Sequence[str]) -> Tensor:
        """(N, C) text codes of cleaned texts; texts of like length together."""
        pieces, parts = self.word_pieces(), []
        order = np.argsort([len(text) for text in texts], kind="stable")
        starts = range(0, len(texts), TEXTS_AT_ONCE)
        with torch.no_grad():
            for start in tqdm(starts, desc="encode texts", unit="batch", delay=2):
                tokens = pieces([texts[k] for k in order[start : start + TEXTS_AT_ONCE]])
                parts.append(self.text_encoder(Tokens(*(t.to(self.device) for t in tokens))))
        return torch.cat(parts)[torch.from_numpy(np.argsort(order)).to(self.device)]

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """Raw texts to the joint space.

        Raises:
            ValueError: If a text has no word.
        """
        ready = [cleaned(text) for text in texts]
        empty = [text for text, words in zip(texts, ready, strict=True) if not words]
        if empty:
            raise ValueError(f"{len(empty)} texts have no word, for instance {empty[0]!r}")
        self.eval()
        with torch.no_grad():
            return Embeddings(self.text_projector(self.codes(ready)))

    def similarity(self, images: Embeddings, texts: Embeddings) -> Tensor:
        """(N, T) cosines."""
        return F.normalize(images.emb, dim=-1) @ F.normalize(texts.emb, dim=-1).mT
