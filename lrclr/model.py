"""CheXzero, a CLIP of radiographs and impressions, with LRCLR's module beside it (Sec. 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from huggingface_hub import PyTorchModelHubMixin
from numpy.typing import NDArray
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from common.config import from_dict
from common.interface import ImageFeatures
from lrclr.config import LossConfig, ModelConfig
from lrclr.cross import CrossModality, prompt_scores
from lrclr.hosts import ClipHost, TextTokens, clip_blocks
from lrclr.images import to_input
from lrclr.regions import Regions, class_row, gather, select
from lrclr.text import byte_pairs, tokenised


class Output(NamedTuple):
    """A batch of pairs.

    Attributes:
        image_emb: (B, E) global features, of any length.
        text_emb: (B, E).
        scale: Scalar, factor of the global cosines.
        local_image: (B, D) v_l of matched passes.
        local_text: (B, D) t_l of matched passes.
        local_scale: Scalar.
        all_pairs: (B, B) raw similarities of every pass.
    """

    image_emb: Tensor
    text_emb: Tensor
    scale: Tensor
    local_image: Tensor | None
    local_text: Tensor | None
    local_scale: Tensor
    all_pairs: Tensor | None


class Embeddings(NamedTuple):
    """Images or texts in the joint space: (B, E), of any length."""

    emb: Tensor


class ImageSide(NamedTuple):
    """What the image encoder and the selection give.

    Attributes:
        feature: (B, D) the global class token after the last norm.
        regions: What was selected; None if not asked for.
        tokens: (B, 1 + K, D) [CLS] and the regions; None without regions.
    """

    feature: Tensor
    regions: Regions | None
    tokens: Tensor | None


class Explained(NamedTuple):
    """Regions of images, and how a prompt attends to them: (B, K)."""

    regions: Regions
    scores: Tensor


def silent_block(width: int, heads: int) -> ResidualAttentionBlock:
    """A block of CLIP that changes nothing until it is trained: both of its outputs start at 0."""
    block = ResidualAttentionBlock(width, heads, act_layer=QuickGELU)
    for last in (block.attn.out_proj, block.mlp.c_proj):
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return block


class LRCLR(
    nn.Module,
    PyTorchModelHubMixin,
    license="apache-2.0",
    tags=["chest-x-ray", "vision-language"],
):
    """CLIP with QuickGELU, and the cross-modality transformer over its selected regions.

    Args:
        settings: Architecture, or its JSON form; weights start random, see
            `lrclr.checkpoint.initialise`.
    """

    def __init__(self, settings: ModelConfig | dict[str, Any]) -> None:
        super().__init__()
        config = settings if isinstance(settings, ModelConfig) else from_dict(ModelConfig, settings)
        self.config = config
        image, text = config.image, config.text
        if image.fit == "crop" and image.input > image.size:
            raise ValueError(
                f"a crop of --model.image.input {image.input} does not fit --model.image.size "
                f"{image.size}"
            )
        if image.fit == "resize" and (image.rotate or image.zoom):
            raise ValueError("--model.image.rotate and zoom need --model.image.fit crop")
        vision = CLIPVisionCfg(
            layers=image.layers,
            width=image.width,
            head_width=image.width // image.heads,
            patch_size=image.patch,
            image_size=image.input,
        )
        words = CLIPTextCfg(
            context_length=text.context,
            vocab_size=byte_pairs().vocab_size,
            width=text.width,
            heads=text.heads,
            layers=text.layers,
        )
        self.clip = CLIP(config.embedding_dim, vision, words, quick_gelu=True)
        self.lrclr = CrossModality(image.width, text.width, config.cross)
        further = config.regions.select_at == "extra_layer"
        self.extra = silent_block(image.width, image.heads) if further else None

    @property
    def host(self) -> ClipHost:
        """The dual encoder as LRCLR sees it."""
        return ClipHost(self.clip)

    def forward(
        self, images: Tensor, ids: Tensor, pairs: str = "none", normalize: bool = True
    ) -> Output:
        """Everything at once, so that data-parallel wrappers see one call.

        Args:
            images: (B, 1 or 3, H, W) network input.
            ids: (B, T) of `lrclr.text.tokenised`.
            pairs: Joint passes: `none`, `matched` or `all`.
            normalize: Cosines in `all`, see `LossConfig`.
        """
        image = self.image_side(images, regions=pairs != "none")
        text = self.host.text_tokens(ids)
        v = t = every = None
        if pairs == "matched":
            v, t, _ = self.lrclr(image.tokens, text)
        elif pairs == "all":
            assert image.tokens is not None
            every = self.lrclr.all_pairs(image.tokens, text, normalize=normalize)
        return Output(
            image.feature @ self.clip.visual.proj,
            self.text_feature(text),
            self.clip.logit_scale.exp(),
            v,
            t,
            self.lrclr.logit_scale.exp(),
            every,
        )

    def image_side(self, images: Tensor, *, regions: bool) -> ImageSide:
        """The global feature and, if asked for, the regions (ledger L04).

        Args:
            images: (B, 1 or 3, H, W) network input.
            regions: Whether they are wanted; with `post` nothing is spent on them otherwise.
        """
        wide, cfg = images.expand(-1, 3, -1, -1), self.config.regions
        if cfg.select_at == "post":
            image = self.host.image_tokens(wide, attention=regions)
            if image.attention is None:
                return ImageSide(image.tokens[:, 0], None, None)
            found = select(class_row(image.attention, cfg), image.prefix)
            tokens = gather(image.tokens, found, image.prefix)
            return ImageSide(tokens[:, 0], found, tokens)
        visual = cast(Any, self.clip.visual)
        blocks = [*visual.transformer.resblocks, *([] if self.extra is None else [self.extra])]
        x, attention = clip_blocks(blocks[:-1], visual._embeds(wide), attention=True)
        assert attention is not None
        found = select(class_row(attention, cfg))
        tokens = visual.ln_post(clip_blocks(blocks[-1:], gather(x, found), attention=False)[0])
        return ImageSide(tokens[:, 0], found, tokens)

    def text_feature(self, text: TextTokens) -> Tensor:
        """Tokens to the joint space: (B, E)."""
        if self.config.text.pool == "mean":
            valid = text.valid[..., None].to(text.tokens)
            pooled = (text.tokens * valid).sum(dim=1) / valid.sum(dim=1)
        else:
            rows = torch.arange(len(text.tokens), device=text.tokens.device)
            pooled = text.tokens[rows, text.cls_index]
        return cast(Tensor, pooled @ self.clip.text_projection)

    @torch.no_grad()
    def select(self, images: Tensor) -> Regions:
        """Regions of network input (B, 1 or 3, H, W)."""
        found = self.image_side(images, regions=True).regions
        assert found is not None
        return found

    @torch.no_grad()
    def explain(self, images: Tensor, prompts: Sequence[str]) -> Explained:
        """Regions of each image, and its prompt's attention to them (Fig. 4).

        Args:
            images: (B, 1 or 3, H, W) network input.
            prompts: One an image.
        """
        self.eval()
        ids = tokenised(prompts, self.config.text.context, cut=False).to(self.device)
        image, text = self.image_side(images, regions=True), self.host.text_tokens(ids)
        attention = self.lrclr(image.tokens, text, weights=True)[2]
        assert attention is not None
        assert image.regions is not None
        count = image.regions.patch.shape[1]
        return Explained(image.regions, prompt_scores(attention, text, count))

    def freeze(self, loss: LossConfig, which: str) -> None:
        """Take out of training what is asked for, and what no term of the loss reaches."""
        clip = cast(Any, self.clip)
        if which in ("image", "both"):
            clip.visual.requires_grad_(False)
        if which in ("text", "both"):
            for part in (clip.transformer, clip.token_embedding, clip.ln_final):
                part.requires_grad_(False)
            clip.positional_embedding.requires_grad_(False)
            clip.text_projection.requires_grad_(False)
        if not loss.weight:
            self.lrclr.requires_grad_(False)

    @property
    def size(self) -> int:
        """Side of the prepared images, pixels."""
        return self.config.image.size

    @property
    def backbone(self) -> nn.Module:
        """The bare image encoder."""
        return cast(nn.Module, self.clip.visual)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return cast(torch.device, self.clip.logit_scale.device)

    def normalise(
        self, images: NDArray[np.uint8], *, generator: np.random.Generator | None = None
    ) -> Tensor:
        """(B, size, size) pixels to network input; a generator gives random crops, if any."""
        generators = None if generator is None else [generator] * len(images)
        return to_input(images, self.config.image, generators).to(self.device)

    def image_features(self, images: Tensor) -> ImageFeatures:
        """[CLS] after the last norm, and the patches', of the bare encoder."""
        tokens = self.host.image_tokens(images.expand(-1, 3, -1, -1), attention=False).tokens
        return ImageFeatures(tokens[:, 0], tokens[:, 1:])

    def embed_images(self, images: Tensor) -> Embeddings:
        """Network input to the joint space: the global feature alone, as CheXzero's."""
        self.eval()
        with torch.no_grad():
            feature = self.image_side(images, regions=False).feature
            return Embeddings(feature @ self.clip.visual.proj)

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """Raw texts to the joint space; longer ones, reports for instance, are cut."""
        self.eval()
        with torch.no_grad():
            found = self.host.text_tokens(
                tokenised(texts, self.config.text.context).to(self.device)
            )
            return Embeddings(self.text_feature(found))

    def similarity(self, images: Embeddings, texts: Embeddings) -> Tensor:
        """(N, T) cosines, without the scale."""
        return F.normalize(images.emb, dim=-1) @ F.normalize(texts.emb, dim=-1).mT
