"""Regions that a transformer attends to: the most attended patch of each head (Sec. 3, Eq. 3-4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lrclr.config import RegionConfig


class Regions(NamedTuple):
    """One region a head, in the heads' order; two heads may agree.

    Attributes:
        patch: (B, K) patch number, from 0.
        score: (B, K) attention from [CLS] over all layers.
    """

    patch: Tensor
    score: Tensor


@torch.no_grad()
def class_row(attention: Sequence[Tensor], cfg: RegionConfig | None = None) -> Tensor:
    r"""What [CLS] attends to through all layers, for each head.

    .. math:: a = e_0^\top A_L A_{L-1} \cdots A_1

    Source: LRCLR Eq. 4, TransFG's order; a vector times matrices instead of a product of matrices.
    No identity, no mixing of heads, no normalisation. Without gradient: an argmax has none.

    Args:
        attention: Of each layer, (B, H, N, N), rows are queries and sum to 1.
        cfg: Variants.

    Returns:
        (B, H, N); rows sum to 1.

    Raises:
        ValueError: If layers have different numbers of heads or tokens.
    """
    cfg = cfg or RegionConfig()
    shapes = {tuple(layer.shape[1:]) for layer in attention}
    if len(shapes) != 1:
        raise ValueError(f"every layer needs the same heads and tokens, found {sorted(shapes)}")
    # what is selected before the last layer has not seen that one
    whole = cfg.layers == "all" or cfg.select_at == "before_last"
    attention = attention if whole else attention[:-1]
    if cfg.rollout == "last_layer":
        return attention[-1][:, :, 0]
    with torch.autocast(attention[0].device.type, enabled=False):
        return _product(attention, cfg)


def _product(attention: Sequence[Tensor], cfg: RegionConfig) -> Tensor:
    layers = [a.to(torch.promote_types(a.dtype, torch.float32)) for a in attention]
    if cfg.order == "newest_left":
        layers.reverse()
    half = cfg.rollout == "residual"
    row = layers[0][:, :, 0]
    if half:
        first = torch.zeros_like(row)
        first[..., 0] = 1
        row = (row + first) / 2
    for layer in layers[1:]:
        passed = torch.einsum("bhn,bhnm->bhm", row, layer)
        row = (passed + row) / 2 if half else passed
    return row


def select(row: Tensor, prefix: int = 1) -> Regions:
    """The most attended patch of each head; ties go to the lowest.

    Args:
        row: (B, H, N) of `class_row`.
        prefix: Tokens before the patches, left out.
    """
    score, patch = row[..., prefix:].max(dim=-1)
    return Regions(patch, score)


def gather(tokens: Tensor, regions: Regions, prefix: int = 1) -> Tensor:
    """[CLS] and the selected tokens: (B, N, D) to (B, 1 + K, D)."""
    rows = torch.arange(len(tokens), device=tokens.device)[:, None]
    chosen = tokens[rows, regions.patch + prefix]
    return torch.cat([tokens[:, :1], chosen], dim=1)


def by_score(regions: Regions) -> Tensor:
    """(B, K) heads by their own maximum, largest first: the regions of a host alone (Fig. 5)."""
    return regions.score.argsort(dim=1, descending=True, stable=True)
