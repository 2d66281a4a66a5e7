"""Image-text similarity at inference (GLoRIA Sec. 3.3): global, local, and their mean."""

from __future__ import annotations

import torch
from torch import Tensor

from gloria.config import ModelConfig
from gloria.matching import Words, best_word, cosine, match_reports, ragged

RETRIEVAL_TEMPERATURE = 0.1
"""What the released retrieval class divides its log-sum-exp by (1 / temp3)."""


def inference_words(word_emb: Tensor, n_words: Tensor, *, skip_first: bool = False) -> Words:
    """The words that are matched at inference: positions 1 to n, [CLS] never.

    Args:
        word_emb: (T, W, D) aggregated positions, [CLS] first.
        n_words: (T,) words of each text.
        skip_first: Positions 2 to n + 1, as the released retrieval class does (ledger G37).
    """
    position = torch.arange(word_emb.shape[1], device=word_emb.device)
    shift = int(skip_first)
    mask = (position > shift) & (position <= n_words[:, None] + shift)
    return ragged(word_emb, mask)


def local_similarity(region_emb: Tensor, words: Words, model: ModelConfig) -> Tensor:
    r"""Matching function of every image with every text.

    Source: GLoRIA Eq. 6 (`paper`); released zero-shot code :math:`\max_w m_w / \tau_3` (`max`) and
    retrieval code :math:`10 \log\sum_w \exp(m_w / \tau_3)` (`lse`); ledger G27, G29.

    Args:
        region_emb: (N, R, D).
        words: Words of T texts.
        model: Temperatures and the form to use.

    Returns:
        (N, T); `paper`: at most 1 + tau3 log W.
    """
    attend = {"tau2": model.tau2, "word_softmax": model.word_softmax}
    form = model.similarity
    if form.local == "max":
        return best_word(region_emb, words, **attend) / model.tau3  # type: ignore[arg-type]
    matches = match_reports(
        region_emb,
        words,
        tau3=model.tau3,
        length_norm=form.length_norm,
        **attend,  # type: ignore[arg-type]
    )
    return matches * model.tau3 if form.local == "paper" else matches / RETRIEVAL_TEMPERATURE


def global_similarity(image_emb: Tensor, report_emb: Tensor) -> Tensor:
    """Cosine of every image (N, D) with every text (T, D): (N, T) in [-1, 1]."""
    return cosine(image_emb, report_emb)


def hybrid(local: Tensor, global_: Tensor, combine: str) -> Tensor:
    """Mean of both similarities (N, T) (Sec. 3.3.2), or of their z-scores over the texts (G28).

    One text alone has no z-score: then the mean is of the similarities themselves.
    """
    if combine == "zscore" and local.shape[1] > 1:
        local, global_ = zscore(local, dim=1), zscore(global_, dim=1)
    return (local + global_) / 2


def zscore(values: Tensor, *, dim: int) -> Tensor:
    """Subtract the mean and divide by the population standard deviation along `dim`."""
    return (values - values.mean(dim, keepdim=True)) / values.std(dim, keepdim=True, unbiased=False)
