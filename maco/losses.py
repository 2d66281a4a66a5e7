"""MaCo's losses (Eq. 1-4): reconstruction, and contrast weighted by what was visible."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from common.distributed import gather_with_grad
from maco.config import LossConfig
from maco.model import Output


def reconstruction_loss(predicted: Tensor, target: Tensor, *, norm_pix: bool = False) -> Tensor:
    r"""Mean squared error of the removed patches.

    .. math:: \overline{(\hat x_{ij} - x_{ij})^2}

    Source: MaCo Eq. 1, MAE; with `norm_pix` each target patch is standardised first (unbiased
    variance, ledger L8).

    Args:
        predicted: (B, M, C) of the M removed patches of each image.
        target: (B, M, C), normalised pixels.
        norm_pix: Standardise each target patch.

    Returns:
        Scalar, mean over patches and their pixels.

    Raises:
        ValueError: If the shapes differ.
    """
    if predicted.shape != target.shape:
        raise ValueError(f"need one prediction per patch: {predicted.shape} and {target.shape}")
    if norm_pix:
        variance = target.var(dim=-1, keepdim=True)
        target = (target - target.mean(dim=-1, keepdim=True)) / (variance + 1e-6).sqrt()
    return F.mse_loss(predicted, target)


class Weights(NamedTuple):
    """Importance of each sample, (B,).

    Attributes:
        temperature: w_t, multiplies the temperature of its row, in (1, e].
        loss: w_l, multiplies its loss; sums to 1 in each group, no gradient.
    """

    temperature: Tensor
    loss: Tensor


def grouped_softmax(scores: Tensor, group_size: int) -> Tensor:
    """Softmax of (B,) inside consecutive groups; the last group may be smaller."""
    return torch.cat([group.softmax(dim=0) for group in scores.split(group_size)])


def importance_weights(scores: Tensor, *, tau1: float, tau2: float, group_size: int) -> Weights:
    r"""Both weights from the importance scores p.

    .. math:: w_t = \exp(\mathrm{softmax}(p / \tau_1)),\quad w_l = \mathrm{softmax}(p / \tau_2)

    Source: MaCo Eq. 2-3; softmax over groups of D consecutive samples.

    Args:
        scores: (B,).
        tau1: Temperature of w_t.
        tau2: Temperature of w_l.
        group_size: D.
    """
    temperature = grouped_softmax(scores / tau1, group_size).exp()
    return Weights(temperature, grouped_softmax(scores.detach() / tau2, group_size))


def weighted_contrast(logits: Tensor, weights: Weights) -> Tensor:
    r"""Each row's weighted cross entropy, (B,).

    .. math:: -w_l \log \mathrm{softmax}_k(S_{ik} / w_t)[i]

    Source: MaCo Eq. 3 as printed.

    Args:
        logits: (B, B) cosines over tau3; row i belongs to column i.
        weights: Of the rows.
    """
    rows = logits / weights.temperature[:, None]
    pairs = torch.arange(len(rows), device=rows.device)
    return weights.loss * F.cross_entropy(rows, pairs, reduction="none")


def alignment_loss(logits: Tensor, scores: Tensor, cfg: LossConfig) -> Tensor:
    """Contrast weighted by importance (MaCo Eq. 2-3), nats; see `LossConfig` for the reductions.

    Args:
        logits: (B, B) cosines over tau3, images in rows.
        scores: (B,) importance.
        cfg: Temperatures, groups, direction, reduction.

    Returns:
        Scalar; log B when all embeddings coincide (`batch_mean`: times groups / B).
    """
    groups = len(scores.split(cfg.group_size))
    if cfg.weighting == "none":
        even = torch.ones_like(scores)
        weights = Weights(even, even * groups / len(scores))  # sum to the number of groups, too
    else:
        weights = importance_weights(
            scores, tau1=cfg.tau1, tau2=cfg.tau2, group_size=cfg.group_size
        )
    terms = weighted_contrast(logits, weights)
    if cfg.align_direction == "symmetric":
        terms = (terms + weighted_contrast(logits.mT, weights)) / 2
    return terms.mean() if cfg.align_reduction == "batch_mean" else terms.sum() / groups


def released_terms(logits: Tensor, scores: Tensor, *, scale_texts: bool = True) -> Tensor:
    r"""The four cross entropies of the released code, (4,), nats; their mean is its contrast.

    .. math:: \mathrm{CE}(sS),\ \mathrm{CE}(sS^\top),\
              \mathrm{WCE}_s(S),\ \mathrm{WCE}_s(S^\top),\quad s = \mathrm{softplus}(p)

    Source: released loss (ledger L1-L3): s scales the rows of both directions, with gradient; WCE
    is the mean weighted by s, without gradient, of unscaled rows. A text's row in sS^T thereby
    knows which patches of its own image were visible, and similarities that differ by mask alone
    lower its cross entropy (L3b).

    Args:
        logits: (B, B) cosines times the multiplier, images in rows.
        scores: (B,) importance.
        scale_texts: Off, the second term is CE(S^T).
    """
    scale = F.softplus(scores)
    pairs = torch.arange(len(logits), device=logits.device)
    share = scale.detach() / scale.detach().sum()
    texts = scale[:, None] * logits.mT if scale_texts else logits.mT
    scaled = [F.cross_entropy(side, pairs) for side in (scale[:, None] * logits, texts)]
    weighted = [
        (share * F.cross_entropy(side, pairs, reduction="none")).sum()
        for side in (logits, logits.mT)
    ]
    return torch.stack([*scaled, *weighted])


def pretrain_losses(out: Output, cfg: LossConfig, *, gather: bool = True) -> dict[str, Tensor]:
    """Both terms, weighted (Eq. 4); their sum is the loss. Terms of weight 0 are not computed.

    Everything is computed in float32 or better; the contrast runs over all processes, with
    gradients (see `gather_with_grad`), unless `gather` is off.
    """
    join = gather_with_grad if gather else _as_is
    losses: dict[str, Tensor] = {}
    with torch.autocast(out.image_emb.device.type, enabled=False):
        if cfg.mae_weight:
            wide = torch.promote_types(out.predicted.dtype, torch.float32)
            mae = reconstruction_loss(
                out.predicted.to(wide), out.target.to(wide), norm_pix=cfg.norm_pix
            )
            losses["mae"] = cfg.mae_weight * mae
        if cfg.align_weight:
            wide = torch.promote_types(out.image_emb.dtype, torch.float32)
            image, text, scores = (
                join(part.to(wide)) for part in (out.image_emb, out.text_emb, out.scores)
            )
            cosines = F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).mT
            logits = out.multiplier * cosines
            align = (
                released_terms(logits, scores, scale_texts=cfg.scale_texts).mean()
                if cfg.weighting == "released"
                else alignment_loss(logits, scores, cfg)
            )
            losses["align"] = cfg.align_weight * align
    return losses


def _as_is(tensor: Tensor) -> Tensor:
    return tensor
