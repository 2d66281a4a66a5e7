"""MGCA's word aggregation and token alignment as plain loops, one pair at a time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def aggregate(feat: Tensor, attention: Tensor, pieces: list[str]) -> tuple[Tensor, Tensor]:
    """One text's pieces to words, left to right: sums of features (W, C) and of attention (W,)."""
    groups: list[list[int]] = []
    for position, piece in enumerate(pieces):
        if piece == "[PAD]":
            break
        if piece.startswith("##") and groups:
            groups[-1].append(position)
        else:
            groups.append([position])
    words = torch.stack([torch.stack([feat[p] for p in group]).sum(dim=0) for group in groups])
    return words, torch.stack([attention[group].sum() for group in groups])


def clipped_weights(attention: Tensor) -> Tensor:
    """Attention (S,) clipped to its 10 % and 90 % quantiles, sum 1 (ledger D07)."""
    low, high = attention.quantile(0.1), attention.quantile(0.9)
    clipped = attention.clamp(low, high)
    return clipped / clipped.sum()


def token_loss(
    patches: Tensor,
    words: list[Tensor],
    patch_weights: Tensor,
    word_weights: list[Tensor],
    tau: float,
) -> Tensor:
    """Token-wise alignment with cosine attention, both directions, a loop over pairs.

    Args:
        patches: (B, P, D) unit vectors.
        words: The words (W_i, D) of each report, unit vectors.
        patch_weights: (B, P) attention of [CLS].
        word_weights: Attention (W_i,) of [CLS] in each report.
        tau: Temperature of attention and contrast.

    Returns:
        Scalar, nats, mean over pairs; MGCA Eq. 6 is half of it.
    """
    total = patches.new_zeros(())
    for p, w, p_attention, w_attention in zip(
        patches, words, patch_weights, word_weights, strict=True
    ):
        for tokens, others, attention in ((w, p, w_attention), (p, w, p_attention)):
            seen = F.normalize((tokens @ others.T / tau).softmax(dim=1) @ others, dim=1)
            logits, own = tokens @ seen.T / tau, torch.arange(len(tokens))
            rows = F.cross_entropy(logits, own, reduction="none")
            columns = F.cross_entropy(logits.T, own, reduction="none")
            total = total + (clipped_weights(attention) * (rows + columns)).sum() / 2
    return total / len(patches)
