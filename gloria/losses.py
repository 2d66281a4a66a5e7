"""GLoRIA's losses (Sec. 3.2.2 and 3.2.4): a global and a local contrast, each in two directions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from common.distributed import gather_with_grad, largest
from gloria.config import LossConfig, ModelConfig
from gloria.matching import Words, cosine, match_reports, ragged
from gloria.model import Output


def contrastive_loss(
    logits: Tensor,
    *,
    image_to_text: float = 1.0,
    text_to_image: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    r"""Cross-entropy of the diagonal against its row and its column.

    .. math:: \lambda_{v \to t}\,\mathrm{CE}(S, i) + \lambda_{t \to v}\,\mathrm{CE}(S^\top, i)

    Source: GLoRIA Eq. 1 + 2 and Eq. 7 + 8, which sum over the batch; the released code averages
    (ledger G18). ConVIRT weights the directions 0.75 and 0.25.

    Args:
        logits: (B, B); row = image, column = text, pairs on the diagonal.
        image_to_text: Weight of choosing a text for each image.
        text_to_image: Weight of choosing an image for each text.
        reduction: `mean` or `sum` over the batch.

    Returns:
        Scalar, nats; 2 log B for equal logits, mean and unit weights; 0 for B = 1.

    Raises:
        ValueError: If the logits are not square.
    """
    if logits.ndim != 2 or logits.shape[0] != logits.shape[1]:
        raise ValueError(f"need one report per image: logits of shape {tuple(logits.shape)}")
    pairs = torch.arange(len(logits), device=logits.device)
    rows = F.cross_entropy(logits, pairs, reduction=reduction)
    columns = F.cross_entropy(logits.mT, pairs, reduction=reduction)
    return image_to_text * rows + text_to_image * columns


def global_logits(image_emb: Tensor, report_emb: Tensor, *, tau1: float) -> Tensor:
    """Cosines of all images (B, D) with all reports (B, D), over tau1. Source: GLoRIA Eq. 1.

    Returns:
        (B, B) in [-1 / tau1, 1 / tau1].
    """
    return cosine(image_emb, report_emb) / tau1


def local_logits(region_emb: Tensor, words: Words, cfg: LossConfig, model: ModelConfig) -> Tensor:
    r"""Matching function of all images with all reports, over the local temperature.

    .. math:: Z_{ki} / \tau_l,\quad Z = \tau_3 \log \sum_w \exp(m_w / \tau_3)

    Source: GLoRIA Eq. 6-8. The released code leaves the factor tau3 out and multiplies by 1 / tau1
    (ledger G23, G24): `match=released, tau_local=0.1`, the same logits as `match=paper` at 0.02.

    Args:
        region_emb: (N, R, D).
        words: Words of B reports.
        cfg: Matching form, temperature, memory bound.
        model: Temperatures of attention and matching.

    Returns:
        (N, B).
    """
    matches = match_reports(
        region_emb,
        words,
        tau2=model.tau2,
        tau3=model.tau3,
        word_softmax=model.word_softmax,
        max_scores=cfg.max_scores,
    )
    return matches * (model.tau3 if cfg.match == "paper" else 1.0) / cfg.tau_local


def pretrain_losses(out: Output, cfg: LossConfig, model: ModelConfig) -> dict[str, Tensor]:
    """The terms of Eq. 9, weighted; their sum is the loss. Terms of weight 0 are not computed.

    Everything is computed in float32 or better: in half precision the contrastive softmaxes drift.
    With `negatives=global` every process contrasts the joined batch (see `gather_with_grad`).
    """
    directions = {
        "image_to_text": cfg.image_to_text,
        "text_to_image": cfg.text_to_image,
        "reduction": cfg.reduction,
    }
    gather = gather_with_grad if cfg.negatives == "global" else _as_is
    losses: dict[str, Tensor] = {}
    with torch.autocast(out.image.emb.device.type, enabled=False):
        if cfg.global_weight:
            image_emb = gather(_at_least_float32(out.image.emb))
            report_emb = gather(_at_least_float32(out.text.report_emb))
            logits = global_logits(image_emb, report_emb, tau1=cfg.tau1)
            losses["global"] = cfg.global_weight * contrastive_loss(logits, **directions)  # type: ignore[arg-type]
        if cfg.local_weight:
            word_emb, word_mask = _at_least_float32(out.text.word_emb), out.text.word_mask
            if cfg.negatives == "global":
                word_emb, word_mask = _gather_words(word_emb, word_mask)
            region_emb = _at_least_float32(out.image.region_emb)
            logits = local_logits(region_emb, ragged(word_emb, word_mask), cfg, model)
            # only the scores of this process's images are computed here; their rows are gathered
            losses["local"] = cfg.local_weight * contrastive_loss(gather(logits), **directions)  # type: ignore[arg-type]
    return losses


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _as_is(tensor: Tensor) -> Tensor:
    return tensor


def _gather_words(word_emb: Tensor, word_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Words of all processes, padded to the longest text of any."""
    pad = largest(word_mask.shape[1], word_mask.device) - word_mask.shape[1]
    word_emb = F.pad(word_emb, (0, 0, 0, pad))
    word_mask = F.pad(word_mask, (0, pad))
    return gather_with_grad(word_emb), gather_with_grad(word_mask.to(word_emb.dtype)).bool()
