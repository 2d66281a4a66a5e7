"""ConVIRT's loss (Sec. 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from common.distributed import gather_with_grad
from convirt.config import LossConfig
from convirt.model import Output


def contrastive_loss(
    image_emb: Tensor, text_emb: Tensor, *, tau: float, image_to_text: float
) -> Tensor:
    r"""Weighted InfoNCE in both directions.

    .. math:: \lambda\,\mathrm{CE}(S, i) + (1 - \lambda)\,\mathrm{CE}(S^\top, i),\quad
              S_{ij} = \cos(v_i, u_j) / \tau

    Source: ConVIRT Eq. 2-4.

    Args:
        image_emb: (B, D) of any length.
        text_emb: (B, D) of any length; row i belongs to image i.
        tau: Temperature.
        image_to_text: lambda, in [0, 1].

    Returns:
        Scalar, nats, mean over B; log B when all embeddings coincide.

    Raises:
        ValueError: If the shapes differ.
    """
    if image_emb.shape != text_emb.shape:
        raise ValueError(f"need one text per image: {image_emb.shape} and {text_emb.shape}")
    logits = F.normalize(image_emb, dim=-1) @ F.normalize(text_emb, dim=-1).mT / tau
    pairs = torch.arange(len(logits), device=logits.device)
    rows, columns = F.cross_entropy(logits, pairs), F.cross_entropy(logits.mT, pairs)
    return image_to_text * rows + (1 - image_to_text) * columns


def pretrain_losses(out: Output, cfg: LossConfig) -> dict[str, Tensor]:
    """The one term, in float32; across processes with `gather` (see `gather_with_grad`)."""
    with torch.autocast(out.image_emb.device.type, enabled=False):
        image_emb, text_emb = out.image_emb.float(), out.text_emb.float()
        if cfg.gather:
            image_emb, text_emb = gather_with_grad(image_emb), gather_with_grad(text_emb)
        loss = contrastive_loss(image_emb, text_emb, tau=cfg.tau, image_to_text=cfg.image_to_text)
    return {"contrast": loss}
