"""GLoRIA: a ResNet's regions and a BERT's words in one space (Sec. 3.1-3.3)."""

import warnings
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
from gloria.augment import crop_and_normalise
from gloria.config import ImageConfig, LossConfig, ModelConfig, TextConfig
from gloria.similarity import global_similarity, hybrid, inference_words, local_similarity
from gloria.text import Tokens, WordPieces, aggregate_words, sentences, word_mask

TEXTS_AT_ONCE = 64
"""Texts encoded together at inference, a bound on memory without influence on the result."""


class ImageOutput(NamedTuple):
    """Images in the joint space.

    Attributes:
        emb: (B, D) global embeddings v_g, any norm.
        region_emb: (B, R, D) region embeddings v_l, row by row of the grid.
        grid: Rows and columns of the R regions.
    """

    emb: Tensor
    region_emb: Tensor
    grid: tuple[int, int]


class TextOutput(NamedTuple):
    """Texts in the joint space.

    Attributes:
        report_emb: (B, D) global embeddings t_g, any norm.
        word_emb: (B, W, D) aggregated positions, [CLS] first.
        word_mask: (B, W) bool, True = takes part in the local loss.
        n_words: (B,) words without [CLS] and [SEP].
    """

    report_emb: Tensor
    word_emb: Tensor
    word_mask: Tensor
    n_words: Tensor


def _joined(parts: Sequence[TextOutput]) -> TextOutput:
    """Batches of texts as one, padded to the longest."""
    most = max(part.word_emb.shape[1] for part in parts)
    report_emb, word_emb, mask, n_words = zip(*parts, strict=True)
    return TextOutput(
        torch.cat(report_emb),
        torch.cat([F.pad(emb, (0, 0, 0, most - emb.shape[1])) for emb in word_emb]),
        torch.cat([F.pad(part, (0, most - part.shape[1])) for part in mask]),
        torch.cat(n_words),
    )


class Output(NamedTuple):
    """Both towers."""

    image: ImageOutput
    text: TextOutput


class ImageEncoder(nn.Module):
    """ResNet whose stage `local_stage` gives regions and whose pooled last stage gives the image.

    Attributes:
        backbone: timm ResNet without classifier; its keys are torchvision's.
        dim: Width of the pooled feature; `region_dim` of a region feature.
    """

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        sizes = {"stem_width": config.stem_width, "channels": config.channels}
        given: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
        given["zero_init_last"] = config.zero_init_last
        self.backbone = cast(
            Any, timm.create_model(config.backbone, num_classes=0, global_pool="", **given)
        )
        self.upsample, self.stage = config.upsample, config.local_stage
        self.dim: int = self.backbone.num_features
        self.region_dim: int = self.backbone.feature_info[config.local_stage]["num_chs"]

    def forward(self, images: Tensor) -> ImageFeatures:
        """(B, 1 or 3, H, W) in [-1, 1] to pooled (B, dim) and regions (B, region_dim, h, w)."""
        if self.upsample:
            images = F.interpolate(images, self.upsample, mode="bilinear", align_corners=True)
        images = images.expand(-1, 3, -1, -1)  # grey as three equal channels, without copies
        last, stages = self.backbone.forward_intermediates(images, indices=[self.stage])
        return ImageFeatures(last.mean(dim=(2, 3)), stages[0])


class TextEncoder(nn.Module):
    """BERT whose last layers are pooled, with word pieces merged into words."""

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
            )
        )

    def forward(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Tokens to report features (B, K) and word features (B, W, K)."""
        out = self.bert(
            input_ids=tokens.ids, attention_mask=tokens.mask.long(), output_hidden_states=True
        )
        last = torch.stack(out.hidden_states[-self.config.last_n_layers :])
        feat = last.sum(dim=0) if self.config.layer_pool == "sum" else last.mean(dim=0)  # (B, T, K)
        report = (feat * (tokens.word_index >= 0).unsqueeze(-1)).sum(dim=1)
        if self.config.global_pool == "mean_fixed":
            report = report / self.config.max_tokens
        words = aggregate_words(feat, tokens, pool=self.config.wordpiece_pool)
        if self.config.l2_norm:
            return F.normalize(report, dim=-1), F.normalize(words, dim=-1)
        return report, words


class GLoRIA(
    nn.Module,
    PyTorchModelHubMixin,
    license="apache-2.0",
    tags=["chest-x-ray", "vision-language"],
):
    """Both encoders and the four representation functions R_vg, R_vl, R_tg, R_tl.

    Args:
        settings: Architecture, or its JSON form; weights start random, see
            `gloria.checkpoint.initialise`.
        vocabulary: Word pieces in order, kept in the model's `config.json`.
        local_words: Words that take part in the local loss, see `gloria.text.word_mask`.
    """

    def __init__(
        self,
        settings: ModelConfig | dict[str, Any],
        vocabulary: list[str],
        local_words: str = LossConfig().words,
    ) -> None:
        super().__init__()
        config = settings if isinstance(settings, ModelConfig) else from_dict(ModelConfig, settings)
        self.config, self.vocabulary, self.local_words = config, vocabulary, local_words
        self.image_encoder = ImageEncoder(config.image)
        self.text_encoder = TextEncoder(config.text, len(vocabulary))
        dim, width = config.embedding_dim, config.text.width
        self.global_image = nn.Linear(self.image_encoder.dim, dim)
        self.local_image = nn.Conv2d(self.image_encoder.region_dim, dim, kernel_size=1, bias=False)
        linear = config.text.projection == "linear"
        if not linear and width != dim:
            raise ValueError(
                f"projection=none needs embedding_dim {dim} to equal the text width {width}"
            )
        self.global_text = nn.Linear(width, dim) if linear else nn.Identity()
        self.local_text = nn.Linear(width, dim, bias=False) if linear else nn.Identity()

    def forward(self, images: Tensor, tokens: Tokens) -> Output:
        """Both towers at once, so that data-parallel wrappers see one call."""
        return Output(self.encode_images(images), self.encode_texts(tokens))

    def encode_images(self, images: Tensor) -> ImageOutput:
        """(B, 1 or 3, H, W) in [-1, 1] to embeddings of images and regions."""
        feat = self.image_encoder(images)
        regions = self.local_image(feat.local)  # (B, D, h, w)
        return ImageOutput(
            self.global_image(feat.pooled), regions.flatten(2).mT, tuple(regions.shape[2:])
        )

    def encode_texts(self, tokens: Tokens) -> TextOutput:
        """Tokens to embeddings of reports and words."""
        report, words = self.text_encoder(tokens)
        mask = word_mask(tokens.n_words, words.shape[1], words=self.local_words)
        return TextOutput(self.global_text(report), self.local_text(words), mask, tokens.n_words)

    def freeze_unused(self, loss: LossConfig) -> None:
        """Take the parameters that no term of the loss reaches out of training.

        BERT's pooler always; a representation function whose terms have weight 0, and with the
        global one the stages behind the regions.
        """
        idle = [self.text_encoder.bert.get_submodule("pooler")]
        if not loss.local_weight:
            idle += [self.local_image, self.local_text]
        if not loss.global_weight:
            behind = range(self.config.image.local_stage + 1, 5)
            idle += [self.image_encoder.backbone.get_submodule(f"layer{k}") for k in behind]
            idle += [self.global_image, self.global_text]
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
        return self.global_image.weight.device

    def word_pieces(self) -> WordPieces:
        """The tokeniser with the model's own vocabulary and settings."""
        text = self.config.text
        return WordPieces(
            self.vocabulary,
            max_tokens=text.max_tokens,
            pad_to_max=text.pad == "max",
            unk_shortens=self.config.compat.unk_shortens,
            units=text.word_units,
        )

    def normalise(
        self, images: NDArray[np.uint8], *, generator: np.random.Generator | None = None
    ) -> Tensor:
        """(B, size, size) pixels to network input: centre crops, with a generator random ones."""
        generators = None if generator is None else [generator] * len(images)
        return crop_and_normalise(images, self.config.image.crop, generators).to(self.device)

    def image_features(self, images: Tensor) -> ImageFeatures:
        """Features of the bare image encoder, for downstream tasks."""
        return self.image_encoder(images)

    def embed_images(self, images: Tensor) -> ImageOutput:
        """`encode_images` for inference (with the released slip if asked for, ledger G36)."""
        self.eval()
        self.image_encoder.train(self.config.compat.train_mode_inference)
        with torch.no_grad():
            return self.encode_images(images)

    def clean(self, texts: Sequence[str]) -> list[str]:
        """Raw texts as the text encoder reads them; warns of one-word texts (ledger G13).

        Raises:
            ValueError: If a text has no word left.
        """
        form = self.config.text
        kept = [
            sentences(text, min_tokens=form.inference_min_tokens, split=form.sentence_split)
            for text in texts
        ]
        empty = [text for text, parts in zip(texts, kept, strict=True) if not parts]
        if empty:
            raise ValueError(f"{len(empty)} texts have no word, for instance {empty[0]!r}")
        cleaned = [" ".join(parts) for parts in kept]
        single = [text for text in cleaned if " " not in text]
        if single:
            warnings.warn(
                f"{len(single)} texts of one word, for instance {single[0]!r}: training drops such "
                "sentences, and a single word attends to all regions alike",
                stacklevel=3,
            )
        return cleaned

    def embed_texts(self, texts: Sequence[str]) -> TextOutput:
        """Raw texts to the joint space, `TEXTS_AT_ONCE` at a time; see `clean`."""
        self.eval()
        cleaned, pieces = self.clean(texts), self.word_pieces()
        parts = []
        with torch.no_grad():
            for start in range(0, len(cleaned), TEXTS_AT_ONCE):
                tokens = pieces(cleaned[start : start + TEXTS_AT_ONCE])
                parts.append(self.encode_texts(Tokens(*(t.to(self.device) for t in tokens))))
        out = _joined(parts)
        return (
            self._characters_as_words(out, texts) if self.config.compat.char_caption_length else out
        )

    def _characters_as_words(self, out: TextOutput, texts: Sequence[str]) -> TextOutput:
        """The released slip of ledger G35: [SEP] and padding join as words."""
        lengths = [len(text.replace("[", "")) for text in texts]
        positions = self.config.text.max_tokens
        if max(lengths) >= positions:
            raise ValueError(
                f"with compat.char_caption_length texts have at most {positions - 1} characters, "
                f"got {max(lengths)}: {texts[lengths.index(max(lengths))]!r}"
            )
        words = F.pad(out.word_emb, (0, 0, 0, positions - out.word_emb.shape[1]))
        return out._replace(word_emb=words, n_words=torch.tensor(lengths, device=words.device))

    def similarity(self, images: ImageOutput, texts: TextOutput) -> Tensor:
        """(N, T) similarity: mean of local and global (Sec. 3.3), or one of them."""
        local, global_ = self.similarities(images, texts)
        form = self.config.similarity
        if form.use != "both":
            return local if form.use == "local" else global_
        return hybrid(local, global_, form.combine)

    def similarities(self, images: ImageOutput, texts: TextOutput) -> tuple[Tensor, Tensor]:
        """Local and global similarity, each (N, T)."""
        skip = self.config.compat.retrieval_skip_first
        words = inference_words(texts.word_emb, texts.n_words, skip_first=skip)
        local = local_similarity(images.region_emb, words, self.config)
        return local, global_similarity(images.emb, texts.report_emb)
