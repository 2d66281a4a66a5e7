"""What LRCLR needs of a dual encoder, for CLIP and for a timm ViT beside a BERT (Sec. 3).

Values pass through the fast attention kernel; probabilities, of which only an argmax is used, are
computed beside it without gradient. Nothing is stored on the host's modules.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrclr.config import CrossConfig, RegionConfig
from lrclr.cross import CrossModality, Local


class ImageTokens(NamedTuple):
    """Images after the last layer.

    Attributes:
        tokens: (B, prefix + P, D) after the final norm, [CLS] first.
        attention: Of each layer, (B, H, N, N) without gradient; None if not asked for.
        prefix: Tokens before the patches.
    """

    tokens: Tensor
    attention: list[Tensor] | None
    prefix: int


class TextTokens(NamedTuple):
    """Texts after the last layer.

    Attributes:
        tokens: (B, T, D) after the final norm.
        cls_index: (B,) int64, where the text's own feature stands.
        valid: (B, T) bool, True = part of the text.
    """

    tokens: Tensor
    cls_index: Tensor
    valid: Tensor


class Host(Protocol):
    """A dual encoder that LRCLR can be attached to; an adapter, not itself a module."""

    image_width: int
    text_width: int

    def image_tokens(self, images: Tensor, *, attention: bool) -> ImageTokens:
        """Network input to tokens."""
        ...

    def text_tokens(self, *text: Tensor) -> TextTokens:
        """What the host's tokeniser gives to tokens."""
        ...


def attended(
    q: Tensor, k: Tensor, v: Tensor, *, wanted: bool, mask: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """(B, H, N, d) each to mixed values, and the probabilities (B, H, N, N) if `wanted`."""
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    if not wanted:
        return mixed, None
    with torch.no_grad(), torch.autocast(q.device.type, enabled=False):
        q, k = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (q, k))
        return mixed, (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)


def clip_blocks(
    blocks: Iterable[Any], x: Tensor, *, attention: bool
) -> tuple[Tensor, list[Tensor] | None]:
    """(B, N, D) through open_clip's blocks, and the attention of each if asked for."""
    kept: list[Tensor] = []
    for block in blocks:
        inner = block.attn
        y = F.linear(block.ln_1(x), inner.in_proj_weight, inner.in_proj_bias)
        q, k, v = (
            part.unflatten(-1, (inner.num_heads, -1)).transpose(1, 2) for part in y.chunk(3, dim=-1)
        )
        mixed, probabilities = attended(q, k, v, wanted=attention)
        if probabilities is not None:
            kept.append(probabilities)
        x = x + block.ls_1(inner.out_proj(mixed.transpose(1, 2).flatten(2)))
        x = x + block.ls_2(block.mlp(block.ln_2(x)))
    return x, kept if attention else None


def clip_image_tokens(visual: Any, images: Tensor, *, attention: bool) -> ImageTokens:
    """Tokens of open_clip's vision transformer; images (B, 3, H, W)."""
    x, kept = clip_blocks(visual.transformer.resblocks, visual._embeds(images), attention=attention)
    return ImageTokens(visual.ln_post(x), kept, 1)


def clip_text_tokens(clip: Any, ids: Tensor) -> TextTokens:
    """Tokens of open_clip's text transformer, cut behind the longest text of the batch.

    The end token has the largest id. Padding is 0, which is also an ordinary token: what counts is
    the place of the end.
    """
    end = ids.argmax(dim=1)
    length = int(end.max()) + 1
    x = clip.token_embedding(ids[:, :length]) + clip.positional_embedding[:length]
    x = clip.transformer(x, attn_mask=clip.attn_mask[:length, :length])
    valid = torch.arange(length, device=ids.device) <= end[:, None]
    return TextTokens(clip.ln_final(x), end, valid)


def vit_image_tokens(vit: Any, images: Tensor, *, attention: bool) -> ImageTokens:
    """Tokens of a timm vision transformer with a class token; images (B, 3, H, W)."""
    x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
    kept: list[Tensor] = []
    for block in vit.blocks:
        inner = block.attn
        y = inner.qkv(block.norm1(x)).unflatten(-1, (3, inner.num_heads, -1))
        q, k, v = (part.transpose(1, 2) for part in y.unbind(dim=2))
        q, k = inner.q_norm(q), inner.k_norm(k)
        mixed, probabilities = attended(q, k, v, wanted=attention)
        if probabilities is not None:
            kept.append(probabilities)
        out = inner.proj_drop(inner.proj(mixed.transpose(1, 2).flatten(2)))
        x = x + block.drop_path1(block.ls1(out))
        x = x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))
    return ImageTokens(vit.norm(x), kept if attention else None, vit.num_prefix_tokens)


def require_class_token(vit: Any) -> None:
    """Refuse a network whose attention has no class row to select regions with.

    Raises:
        TypeError: If it has no blocks or no class token.
    """
    if not hasattr(vit, "blocks") or not getattr(vit, "has_class_token", False):
        raise TypeError(
            f"{type(vit).__name__} has no class token's attention to select regions with; "
            "LRCLR needs a vision transformer with [CLS]"
        )


class ClipHost:
    """open_clip's CLIP.

    Args:
        clip: The model; not copied.
    """

    def __init__(self, clip: Any) -> None:
        self.clip = clip
        self.image_width = int(clip.visual.ln_post.normalized_shape[0])
        self.text_width = int(clip.ln_final.normalized_shape[0])

    def image_tokens(self, images: Tensor, *, attention: bool) -> ImageTokens:
        """(B, 3, H, W) to tokens."""
        return clip_image_tokens(self.clip.visual, images, attention=attention)

    def text_tokens(self, *text: Tensor) -> TextTokens:
        """Ids (B, T) to tokens."""
        return clip_text_tokens(self.clip, *text)


class VitBertHost:
    """A timm ViT beside a BERT of transformers, as MGCA and MaCo have.

    Args:
        vit: With a class token.
        bert: Without pooling; [CLS] is a text's own feature.

    Raises:
        TypeError: See `require_class_token`.
    """

    def __init__(self, vit: Any, bert: Any) -> None:
        require_class_token(vit)
        self.vit, self.bert = vit, bert
        self.image_width, self.text_width = int(vit.embed_dim), int(bert.config.hidden_size)

    def image_tokens(self, images: Tensor, *, attention: bool) -> ImageTokens:
        """(B, 1 or 3, H, W) to tokens."""
        return vit_image_tokens(self.vit, images.expand(-1, 3, -1, -1), attention=attention)

    def text_tokens(self, *text: Tensor) -> TextTokens:
        """Ids and mask, (B, T) each, to tokens."""
        ids, mask = text
        states = self.bert(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return TextTokens(states, torch.zeros(len(ids), dtype=torch.long, device=ids.device), mask)


class Attached(nn.Module):
    """LRCLR's own parameters for a host; the host's are not touched, nor are its keys.

    Args:
        host: See `Host`.
        cross: Sizes of the cross-modality transformer.
        regions: How regions are selected.
    """

    def __init__(self, host: Host, cross: CrossConfig, regions: RegionConfig) -> None:
        super().__init__()
        self.host, self.regions = host, regions
        self.lrclr = CrossModality(host.image_width, host.text_width, cross)

    def forward(self, images: Tensor, *text: Tensor) -> Local:
        """Pairs of network input and text to their local class tokens."""
        image = self.host.image_tokens(images, attention=True)
        return self.lrclr.of_tokens(image, self.host.text_tokens(*text), self.regions)


def attach(
    host: Host, cross: CrossConfig | None = None, regions: RegionConfig | None = None
) -> Attached:
    """LRCLR as an add-on: add its `lrclr.losses.local_loss` to the host's own losses.

    Both encoders run once more than in the host's own forward pass. Regions are chosen behind the
    last layer.

    Example:
        >>> local = attach(VitBertHost(mgca.image_encoder.backbone, mgca.text_encoder.bert))
        >>> out = local(images, tokens.ids, tokens.mask)

    Raises:
        ValueError: If `regions` asks for another place than `post`.
    """
    if regions and regions.select_at != "post":
        raise ValueError(f"select_at={regions.select_at!r} belongs to LRCLR's own model; use post")
    return Attached(host, cross or CrossConfig(), regions or RegionConfig())
