"""Zero-shot classification as the released code does it; in no table of the paper (ledger Z1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maco.model import Embeddings, MaCo

POSITIVE = ("There is {}.",)
NEGATIVE = ("Lung is clear.", "There is no {}.", "No {}.", "No evidence of {}.")
"""Prompts of presence and of absence; {} is the finding."""


def probabilities(images: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Softmax over the raw dot products with both prompts; neither side is normalised.

    Args:
        images: (N, D) pooled image vectors.
        positive: (L, D), one a finding.
        negative: (L, D).

    Returns:
        (N, L, 2): presence, absence.
    """
    return torch.stack([images @ positive.mT, images @ negative.mT], dim=-1).softmax(dim=-1)


def prompt_vectors(model: MaCo, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Mean text vector of each finding's prompts of presence and of absence, (L, D) each."""

    def mean(templates: Sequence[str]) -> Tensor:
        texts = [template.format(name) for name in names for template in templates]
        return model.embed_texts(texts).emb.unflatten(0, (len(names), -1)).mean(dim=1)

    return mean(POSITIVE), mean(NEGATIVE)


def scores(model: MaCo, images: Embeddings, names: Sequence[str]) -> Tensor:
    """(N, L) probability of presence of each finding."""
    return probabilities(images.emb, *prompt_vectors(model, names))[..., 0]
