"""IMITATE's clinically-informed contrastive loss and its sum (Sec. III-D, Eq. 1-5)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from common.distributed import gather_with_grad
from imitate.config import LossConfig
from imitate.model import Output, Section, Views


def correlation(codes: Tensor) -> Tensor:
    r"""Pearson correlation of text codes, over their features.

    .. math:: R_{ij} = \frac{(z_i - \bar z_i)^\top (z_j - \bar z_j)}
              {\|z_i - \bar z_i\| \|z_j - \bar z_j\|}

    Source: IMITATE Eq. 3, whose upper limit B must be the code's width (ledger B1). A code without
    variance correlates with nothing (B18).

    Args:
        codes: (B, C) frozen text codes, before projection.

    Returns:
        (B, B) in [-1, 1]; at least float32.
    """
    wide = codes.to(torch.promote_types(codes.dtype, torch.float32))
    centred = wide - wide.mean(dim=1, keepdim=True)
    length = centred.norm(dim=1, keepdim=True)
    unit = torch.where(length > 0, centred / length.clamp(min=1e-30), torch.zeros_like(centred))
    return unit @ unit.mT


def kernel(r: Tensor, cfg: LossConfig) -> Tensor:
    """From correlation to softness (Eq. 4, Table X), element by element."""
    if cfg.kernel == "exp":
        return 1 - (-cfg.smoothing * r).exp()
    if cfg.kernel == "gau":
        return (-r.square() / 2).exp() / math.sqrt(2 * math.pi)
    if cfg.kernel == "lap":
        return (-r.abs()).exp() / 2
    return r.sigmoid()


@torch.no_grad()
def soft_targets(codes: Tensor | None, cfg: LossConfig, *, tau: float, size: int) -> Tensor:
    r"""Targets of the contrast: 1 on the diagonal, softened by the reports' correlation elsewhere.

    .. math:: T_{ij} = 1 - \exp(-\lambda R_{ij}),\quad T_{ii} = 1

    Source: IMITATE Eq. 4; the released code clips R at 0, scales the soft part by tau and adds the
    kernel of 0 to the diagonal (ledger B2-B5). Rows are not normalised (B16).

    Args:
        codes: (B, C) text codes; None gives the identity.
        cfg: Kernel and its variants.
        tau: Of the term, used by `prior_scale=tau`.
        size: B.

    Returns:
        (B, B), no gradient.
    """
    if codes is None or cfg.kernel == "none":
        return torch.eye(size)
    r = correlation(codes)
    if cfg.negative_corr == "clip":
        r = r.clamp(min=0)
    one = torch.eye(size, dtype=r.dtype, device=r.device)
    soft = kernel(r * (1 - one), cfg)
    if not cfg.kernel_on_diagonal:
        soft = soft * (1 - one)
    return one + soft * (tau if cfg.prior_scale == "tau" else 1.0)


def similarity(x: Tensor, y: Tensor, cfg: LossConfig) -> Tensor:
    """(B, D) and (B, D) to (B, B) cosines, or inner products."""
    if cfg.similarity == "cosine":
        x, y = F.normalize(x, dim=-1), F.normalize(y, dim=-1)
    return x @ y.mT


def cicl(x: Tensor, y: Tensor, targets: Tensor, cfg: LossConfig, *, tau: float) -> Tensor:
    r"""Cross entropy of the contrast against soft targets.

    .. math:: -\overline{\sum_j T_{ij} \log \mathrm{softmax}_j(s_{ij} / \tau)}

    Source: IMITATE Sec. III-D, read as a cross entropy over the row (ledger B7-B9); with
    `symmetric` the columns' is added.

    Args:
        x: (B, D).
        y: (B, D); row i belongs to row i of x.
        targets: (B, B) of `soft_targets`.
        cfg: Similarity and direction.
        tau: Temperature.

    Returns:
        Scalar, nats, mean over B; 2 log B when all embeddings coincide and targets are hard.

    Raises:
        ValueError: If the shapes differ.
    """
    if x.shape != y.shape or targets.shape != (len(x), len(x)):
        raise ValueError(f"need pairs and their targets: {x.shape}, {y.shape}, {targets.shape}")
    logits = similarity(x, y, cfg) / tau
    rows = -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()
    if not cfg.symmetric:
        return rows
    return rows - (targets * logits.log_softmax(dim=0)).sum(dim=0).mean()


class Softness(NamedTuple):
    """How soft the targets are: mean sum of a row, and the diagonal's share of it."""

    row_mass: Tensor
    diagonal_share: Tensor


def softness(targets: Tensor) -> Softness:
    """Both numbers of a (B, B) target matrix."""
    mass = targets.sum(dim=1)
    return Softness(mass.mean(), (targets.diagonal() / mass).mean())


def multi_weight(epoch: int, cfg: LossConfig) -> float:
    """Weight of the multi-level terms: 1, or the released schedule with its jump (ledger B13)."""
    if not cfg.multi_weight_schedule or epoch <= 30:
        return 1.0
    return 1.3 - (epoch - 30) / 20 if epoch < 50 else 0.3


def sections(out: Output, cfg: LossConfig) -> tuple[Section, Section]:
    """What the global and what the multi-level feature is aligned with (Table IX)."""
    return {
        "hierarchical": (out.impression, out.findings),
        "reversed": (out.findings, out.impression),
        "imp": (out.impression, out.impression),
        "find_imp": (out.findings, out.findings),
    }[cfg.report_mode]


def pretrain_losses(out: Output, cfg: LossConfig, *, epoch: int = 0) -> dict[str, Tensor]:
    """The terms asked for, weighted; their sum is the loss (Sec. III-E).

    Studies whose section is missing leave the terms that need it, as rows and as columns (ledger
    B14). Everything is computed in float32 or better.
    """
    level = multi_weight(epoch, cfg)
    with torch.autocast(out.high.first.device.type, enabled=False):
        out = _widened(_gathered(out) if cfg.gather else out)
        high, multi = sections(out, cfg)
        softens = cfg.kernel != "none"
        high_prior = high if softens else None
        multi_prior = multi if softens and cfg.vvm_prior == "findings" else None
        losses: dict[str, Tensor] = {}
        if "vlh" in cfg.terms:
            losses["vlh"] = vision_language(out.high, high, cfg)
        if "vlm" in cfg.terms:
            texts = (multi, high) if cfg.vlm_targets == "both" and multi is not high else (multi,)
            pairs = [vision_language(out.multi, text, cfg) for text in texts]
            losses["vlm"] = level * torch.stack(pairs).sum()
        if "vvh" in cfg.terms:
            losses["vvh"] = cfg.vv_weight * vision_vision(out.high, high_prior, cfg)
        if "vvm" in cfg.terms:
            pair = vision_vision(out.multi_vv, multi_prior, cfg)
            losses["vvm"] = level * cfg.vv_weight * pair
    return losses


def vision_language(views: Views, text: Section, cfg: LossConfig) -> Tensor:
    """Both views (B, D) against one section; 0 where fewer than two studies have it."""
    keep = text.present
    if int(keep.sum()) < 2:
        return 0.0 * (views.first.sum() + views.second.sum() + text.emb.sum())
    emb, tau = text.emb[keep], cfg.tau_vl
    targets = soft_targets(text.code[keep], cfg, tau=tau, size=len(emb)).to(emb)
    terms = [cicl(view[keep], emb, targets, cfg, tau=tau) for view in views]
    return torch.stack(terms).sum()


def vision_vision(views: Views, text: Section | None, cfg: LossConfig) -> Tensor:
    """The views (B, D) against each other, softened by a section's codes.

    Without a section all rows count, against hard targets; with one those that have it, and the
    term is 0 where fewer than two do.
    """
    x, y = views
    codes = None
    if text is not None:
        keep = text.present
        if int(keep.sum()) < 2:
            return 0.0 * (x.sum() + y.sum())
        x, y, codes = x[keep], y[keep], text.code[keep]
    targets = soft_targets(codes, cfg, tau=cfg.tau_vv, size=len(x)).to(x)
    return cicl(x, y, targets, cfg, tau=cfg.tau_vv)


def _gathered(out: Output) -> Output:
    """Every process's batch, with gradients where there are some."""
    high, multi, multi_vv = (
        Views(*(gather_with_grad(view) for view in views))
        for views in (out.high, out.multi, out.multi_vv)
    )
    find, imp = (
        Section(
            gather_with_grad(part.emb),
            gather_with_grad(part.code),
            gather_with_grad(part.present.float()) > 0,
        )
        for part in (out.findings, out.impression)
    )
    return Output(high, multi, multi_vv, find, imp)


def _widened(out: Output) -> Output:
    """Every embedding in float32 or better."""

    def wide(tensor: Tensor) -> Tensor:
        return tensor.to(torch.promote_types(tensor.dtype, torch.float32))

    high, multi, multi_vv = (
        Views(*map(wide, views)) for views in (out.high, out.multi, out.multi_vv)
    )
    find, imp = (s._replace(emb=wide(s.emb)) for s in (out.findings, out.impression))
    return Output(high, multi, multi_vv, find, imp)
