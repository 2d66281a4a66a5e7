"""The global and the local contrast (Sec. 3, Eq. 5-6)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from common.distributed import gather_with_grad
from lrclr.config import LossConfig
from lrclr.model import Output


def global_loss(image_emb: Tensor, text_emb: Tensor, scale: Tensor) -> Tensor:
    r"""CLIP's symmetric loss, :math:`(\mathrm{CE}(S, i) + \mathrm{CE}(S^\top, i)) / 2`.

    Args:
        image_emb: (B, E) of any length.
        text_emb: (B, E) of any length; row i belongs to image i.
        scale: Scalar, factor of the cosines.

    Returns:
        Scalar, nats, mean over B; log B when all embeddings coincide.
    """
    logits = scale * F.normalize(image_emb, dim=-1) @ F.normalize(text_emb, dim=-1).mT
    pairs = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.mT, pairs)) / 2


def local_loss(image_emb: Tensor, text_emb: Tensor, scale: Tensor, cfg: LossConfig) -> Tensor:
    r"""Contrast of the class tokens after the joint passes of matched pairs.

    .. math:: \overline{-\log \frac{\exp(v_i \cdot t_i)}{\sum_k \exp(v_i \cdot t_k)}}

    Source: LRCLR Eq. 5, with cosine, scale and mean where it prints a dot product, none and a sum
    (ledger L16). Both class tokens have seen both inputs of their pair, so this loss can vanish on
    noise (L11): it says nothing by itself about alignment.

    Args:
        image_emb: (B, D).
        text_emb: (B, D); row i comes from the pass of row i of image_emb.
        scale: Scalar.
        cfg: Variants.

    Returns:
        Scalar, nats; log B when all embeddings coincide; 0 for one pair.

    Raises:
        ValueError: If the shapes differ.
    """
    if image_emb.shape != text_emb.shape:
        raise ValueError(f"need one text per image: {image_emb.shape} and {text_emb.shape}")
    if cfg.normalize:
        image_emb, text_emb = (F.normalize(x, dim=-1) for x in (image_emb, text_emb))
    return contrast(scale * image_emb @ text_emb.mT, cfg)


def contrast(logits: Tensor, cfg: LossConfig) -> Tensor:
    """Cross entropy of (B, B) logits against the diagonal, by rows or the mean of both ways."""
    pairs = torch.arange(len(logits), device=logits.device)
    rows = F.cross_entropy(logits, pairs, reduction=cfg.reduction)
    if not cfg.symmetric:
        return rows
    return (rows + F.cross_entropy(logits.mT, pairs, reduction=cfg.reduction)) / 2


def pretrain_losses(out: Output, cfg: LossConfig) -> dict[str, Tensor]:
    """The terms, weighted; their sum is Eq. 6. In float32 or better."""
    image_emb, text_emb = _wide(out.image_emb), _wide(out.text_emb)
    with torch.autocast(image_emb.device.type, enabled=False):
        if cfg.gather:
            image_emb, text_emb = gather_with_grad(image_emb), gather_with_grad(text_emb)
        losses = {"global": global_loss(image_emb, text_emb, _wide(out.scale))}
        if not cfg.weight:
            return losses
        one = torch.ones_like(out.scale)
        scale = {"own": out.local_scale, "shared": out.scale, "one": one}[cfg.scale]
        if cfg.pairs == "all":
            assert out.all_pairs is not None
            local = contrast(scale * _wide(out.all_pairs), cfg)
        else:
            assert out.local_image is not None
            assert out.local_text is not None
            v, t = _wide(out.local_image), _wide(out.local_text)
            if cfg.gather:
                v, t = gather_with_grad(v), gather_with_grad(t)
            local = local_loss(v, t, scale, cfg)
        if cfg.scale != "own":  # every trained parameter needs a gradient
            local = local + 0 * out.local_scale
    return {**losses, "local": cfg.weight * local}


def clamp_scales(*scales: torch.nn.Parameter) -> None:
    """Keep learned scales, stored as logarithms, at 100 or less."""
    for scale in scales:
        scale.data.clamp_(max=math.log(100))


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
