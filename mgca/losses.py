"""MGCA's losses (Sec. 3.2): instance-, token- and prototype-wise alignment."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from common.distributed import gather_with_grad
from mgca.config import LossConfig
from mgca.model import Output
from mgca.prototypes import sinkhorn

QUANTILES = (0.1, 0.9)
"""Between which the released code clips token weights (ledger D07)."""


def instance_loss(image_emb: Tensor, text_emb: Tensor, *, tau: float) -> Tensor:
    r"""Symmetric InfoNCE between images and reports (ITA).

    .. math:: \mathrm{CE}(S, i) + \mathrm{CE}(S^\top, i),\quad S_{ij} = v_i^\top t_j / \tau

    Source: MGCA Eq. 3 is half of this (ledger D05).

    Args:
        image_emb: (B, D) unit vectors.
        text_emb: (B, D) unit vectors; row i belongs to image i.
        tau: Temperature.

    Returns:
        Scalar, nats, mean over B; 2 log B when all embeddings coincide.

    Raises:
        ValueError: If the shapes differ.
    """
    if image_emb.shape != text_emb.shape:
        raise ValueError(f"need one report per image: {image_emb.shape} and {text_emb.shape}")
    logits = image_emb @ text_emb.mT / tau
    pairs = torch.arange(len(logits), device=logits.device)
    return F.cross_entropy(logits, pairs) + F.cross_entropy(logits.mT, pairs)


def attend(queries: Tensor, keys: Tensor, *, tau: float, mask: Tensor | None = None) -> Tensor:
    """Cosine cross-attention: mean of `keys` (B, S, D) under softmax(query . key / tau).

    Args:
        queries: (B, Q, D) unit vectors.
        keys: (B, S, D) unit vectors.
        tau: Temperature.
        mask: (B, S) bool, True = takes part.

    Returns:
        (B, Q, D), of any length.
    """
    scores = queries @ keys.mT / tau
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None], -torch.inf)
    return scores.softmax(dim=-1) @ keys


class TokenContrast(NamedTuple):
    """Cross entropies of each token (B, S) against what it attends to, in both directions."""

    rows: Tensor
    columns: Tensor


def token_contrast(
    tokens: Tensor, attended: Tensor, *, tau: float, mask: Tensor | None = None
) -> TokenContrast:
    r"""InfoNCE inside each pair between tokens and what they see of the other modality.

    .. math:: \mathrm{CE}(S_i, j),\ \mathrm{CE}(S_i^\top, j),\quad
              S_{i,jk} = z_{ij}^\top o_{ik} / \tau

    Source: MGCA Eq. 5. Negatives are the other tokens of the same pair; with a mask padding is
    none of them (ledger D13).

    Args:
        tokens: (B, S, D) unit vectors.
        attended: (B, S, D), row j is what token j sees.
        tau: Temperature.
        mask: (B, S) bool, True = real token; the others get 0.

    Returns:
        Nats; log S where all tokens coincide.
    """
    logits = tokens @ attended.mT / tau  # (B, S, S)
    own = logits.diagonal(dim1=1, dim2=2)
    if mask is None:
        return TokenContrast(logits.logsumexp(dim=2) - own, logits.logsumexp(dim=1) - own)
    low = torch.finfo(logits.dtype).min
    rows = logits.masked_fill(~mask[:, None], low).logsumexp(dim=2) - own
    columns = logits.masked_fill(~mask[:, :, None], low).logsumexp(dim=1) - own
    return TokenContrast(rows.masked_fill(~mask, 0.0), columns.masked_fill(~mask, 0.0))


@torch.no_grad()
def token_weights(attention: Tensor, mask: Tensor, *, rule: str) -> Tensor:
    """How much each token counts in the token contrast; no gradient.

    Source: MGCA Eq. 5 weighs by raw attention to [CLS] over S (`literal`); the released code
    clips what is not zero between quantiles and makes it sum to 1 (`clipped`; ledger D07).

    Args:
        attention: (B, S) attention of [CLS]; 0 where there is no token.
        mask: (B, S) bool, True = real token.
        rule: `clipped`, `normalised` or `literal`.

    Returns:
        (B, S); rows sum to 1 except for `literal`.
    """
    if rule == "literal":
        return attention / mask.sum(dim=1, keepdim=True)
    if rule == "clipped":
        some = attention.masked_fill(attention == 0, torch.nan)
        low, high = some.nanquantile(attention.new_tensor(QUANTILES), dim=1, keepdim=True)
        attention = torch.where(attention == 0, attention, attention.clamp(low, high))
    return attention / attention.sum(dim=1, keepdim=True)


def token_loss(out: Output, cfg: LossConfig, *, mask_padding: bool) -> Tensor:
    """Token-wise alignment (CTA), both directions; MGCA Eq. 6 is half of this (ledger D06).

    Args:
        out: Both towers; cosine attention is computed here, learned attention comes with it.
        cfg: Temperatures and weighting.
        mask_padding: Keep padded words out of the word contrast (ledger D13).

    Returns:
        Scalar, nats, mean over B.
    """
    patches, words, mask = out.image.patch_emb, out.text.word_emb, out.text.word_mask
    seen_patches, seen_words = out.attended_patches, out.attended_words
    if seen_patches is None or seen_words is None:
        seen_patches = attend(words, patches, tau=cfg.tau_cta)
        seen_words = attend(patches, words, tau=cfg.tau_cta, mask=mask)
    resnet = out.image.patch_weights is None
    seen_patches = F.normalize(seen_patches, dim=-1)
    if resnet or cfg.normalise_attended_patches:
        seen_words = F.normalize(seen_words, dim=-1)
    by_word = token_contrast(
        words, seen_patches, tau=cfg.tau_cta, mask=mask if mask_padding else None
    )
    by_patch = token_contrast(patches, seen_words, tau=cfg.tau_cta)
    word_weights = token_weights(out.text.word_weights, mask, rule=cfg.token_weights)
    everywhere = torch.ones(patches.shape[:2], dtype=torch.bool, device=patches.device)
    patch_weights = (
        everywhere / patches.shape[1]
        if out.image.patch_weights is None
        else token_weights(out.image.patch_weights, everywhere, rule=cfg.token_weights)
    )
    sides = [(by_word, word_weights), (by_patch, patch_weights)]
    terms = [((side.rows + side.columns) * weights).sum() for side, weights in sides]
    return torch.stack(terms).sum() / (2 * len(patches))


def prototype_loss(image_scores: Tensor, text_scores: Tensor, cfg: LossConfig) -> Tensor:
    r"""Prototype-wise alignment (CPA): each modality predicts the other's Sinkhorn codes.

    .. math:: -\tfrac12 \left[\overline{q_v \log\mathrm{softmax}(s_t / \tau)}
              + \overline{q_t \log\mathrm{softmax}(s_v / \tau)}\right]

    Source: MGCA Eq. 7-9, which omit the minus (ledger D10).

    Args:
        image_scores: (B, K) cosines with the prototypes.
        text_scores: (B, K).
        cfg: Temperature, codes.

    Returns:
        Scalar, nats, mean over B; log K where all scores are equal.

    Raises:
        ValueError: If the shapes differ.
    """
    if image_scores.shape != text_scores.shape:
        raise ValueError(f"need pairs of scores: {image_scores.shape} and {text_scores.shape}")

    def cross_entropy(teacher: Tensor, student: Tensor) -> Tensor:
        codes = sinkhorn(teacher, eps=cfg.sinkhorn_eps, iterations=cfg.sinkhorn_iterations)
        return -(codes * (student / cfg.tau_cpa).log_softmax(dim=1)).sum(dim=1).mean()

    return (cross_entropy(image_scores, text_scores) + cross_entropy(text_scores, image_scores)) / 2


def pretrain_losses(out: Output, cfg: LossConfig, *, mask_padding: bool) -> dict[str, Tensor]:
    """The three terms, weighted; their sum is the loss. Terms of weight 0 are not computed.

    Everything is computed in float32 or better. With `gather` instances and codes are those of all
    processes (see `gather_with_grad`); tokens are only ever compared inside a pair.
    """
    half = 0.5 if cfg.scaling == "paper" else 1.0
    gather = gather_with_grad if cfg.gather else _as_is
    losses: dict[str, Tensor] = {}
    with torch.autocast(out.image.emb.device.type, enabled=False):
        out = _at_least_float32(out)
        if cfg.ita_weight:
            ita = instance_loss(gather(out.image.emb), gather(out.text.emb), tau=cfg.tau_ita)
            losses["ita"] = cfg.ita_weight * half * ita
        if cfg.cta_weight:
            cta = token_loss(out, cfg, mask_padding=mask_padding)
            losses["cta"] = cfg.cta_weight * half * cta
        if cfg.cpa_weight:
            cpa = prototype_loss(gather(out.image_scores), gather(out.text_scores), cfg)
            losses["cpa"] = cfg.cpa_weight * cpa
    return losses


def _as_is(tensor: Tensor) -> Tensor:
    return tensor


def _at_least_float32(value: Any) -> Any:
    """Every floating-point tensor of nested named tuples in float32 or better."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(torch.promote_types(value.dtype, torch.float32))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_at_least_float32(part) for part in value))
    return value
