r"""Words looking at regions: the attention and matching of GLoRIA Sec. 3.2.3-3.2.4.

All words of all texts are handled at once and without padding: `words` (W, D) concatenates the
texts, `text` (W,) says which text each word belongs to. Nothing loops over images, texts or words.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

EPSILON = 1e-8
"""Smallest denominator of a cosine, as in the released code."""

CHUNK = 2**22
"""Word-region scores computed at once: 16 MiB of float32 stay near the processor's cache."""


class Words(NamedTuple):
    """The words of B texts, concatenated.

    Attributes:
        emb: (W, D) word embeddings.
        text: (W,) int64, the text of each word, ascending.
        counts: (B,) int64, words of each text; none may be 0.
    """

    emb: Tensor
    text: Tensor
    counts: Tensor


def ragged(word_emb: Tensor, word_mask: Tensor) -> Words:
    """Drop the padding.

    Args:
        word_emb: (B, T, D).
        word_mask: (B, T) bool, True = word; every text has one.

    Raises:
        ValueError: If a text has no word: nothing could be matched.
    """
    counts = word_mask.sum(dim=1)
    if not bool((counts > 0).all()):
        empty = torch.nonzero(counts == 0).flatten().tolist()
        raise ValueError(f"texts {empty[:5]} of the batch have no word; filter empty reports first")
    return Words(word_emb[word_mask], torch.nonzero(word_mask)[:, 0], counts)


class _Attention(torch.autograd.Function):
    """Softmax over each text's words, then over regions; keeps two arrays for the backward pass."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, text: Tensor, texts: int, tau2: float) -> Tensor:
        """`scores` (N, W, R) to weights of the same shape."""
        top = scores.new_full((scores.shape[0], texts, scores.shape[2]), -torch.inf)
        top.scatter_reduce_(1, text[None, :, None].expand_as(scores), scores, "amax")
        prob = (scores - top.index_select(1, text)).exp_()
        prob /= torch.zeros_like(top).index_add_(1, text, prob).index_select(1, text)
        alpha = (prob / tau2).softmax(dim=-1)
        ctx.save_for_backward(prob, alpha, text)
        ctx.texts, ctx.tau2 = texts, tau2
        return alpha

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """Both softmax Jacobians, the second one text by text."""
        prob, alpha, text = ctx.saved_tensors
        inner = grads[0] * alpha
        inner -= alpha * inner.sum(dim=-1, keepdim=True)
        inner *= prob / ctx.tau2
        total = inner.new_zeros(len(inner), ctx.texts, inner.shape[2]).index_add_(1, text, inner)
        return inner.sub_(total.index_select(1, text).mul_(prob)), None, None, None


def word_region_attention(
    scores: Tensor, words: Words, *, tau2: float, word_softmax: bool = True
) -> Tensor:
    r"""How each word spreads over the regions of each image.

    .. math:: \alpha_{wj} = \mathrm{softmax}_j(p_{jw} / \tau_2),\quad
              p_{jw} = \mathrm{softmax}_{w \in \mathrm{text}}(s_{jw})

    Source: GLoRIA Eq. 4 and the sentence before it (normalisation over words, no temperature);
    released `attention_fn`. With p in [0, 1] two regions differ by at most exp(1 / tau2), and a
    text of one word attends uniformly.

    Args:
        scores: (N, W, R) dot products of words and regions.
        words: The words' texts.
        tau2: Temperature of the attention.
        word_softmax: False feeds s instead of p.

    Returns:
        (N, W, R), rows sum to 1; 1 / R for a text of one word.
    """
    if word_softmax:
        return _Attention.apply(scores, words.text, len(words.counts), tau2)
    return (scores / tau2).softmax(dim=-1)


def match_words(
    region_emb: Tensor, words: Words, *, tau2: float, word_softmax: bool = True
) -> Tensor:
    r"""Cosine between every word and the image region vector it attends to, for every image.

    .. math:: m_w = \cos(c_w, t_w),\quad c_w = \sum_j \alpha_{wj} v_j

    Source: GLoRIA Eq. 3-5 and the cosine inside Eq. 6; released `local_loss`. The attended vectors
    are never built: :math:`c_w^\top t_w = \sum_j \alpha_{wj} s_{jw}` and
    :math:`|c_w|^2 = \alpha_w^\top G \alpha_w` with the Gram matrix G of the regions.

    Args:
        region_emb: (N, R, D).
        words: Words of any number of texts.
        tau2: Temperature of the attention.
        word_softmax: See `word_region_attention`.

    Returns:
        (N, W) in [-1, 1].
    """
    scores = torch.matmul(words.emb, region_emb.mT)  # (N, W, R)
    alpha = word_region_attention(scores, words, tau2=tau2, word_softmax=word_softmax)
    inner = (alpha * scores).sum(dim=-1)  # (N, W)
    gram = region_emb @ region_emb.mT  # (N, R, R)
    squared = ((alpha @ gram) * alpha).sum(dim=-1)  # (N, W)
    norms = squared.clamp(min=EPSILON**2).sqrt() * words.emb.norm(dim=-1)
    return inner / norms.clamp(min=EPSILON)


def match_reports(
    region_emb: Tensor,
    words: Words,
    *,
    tau2: float,
    tau3: float,
    word_softmax: bool = True,
    length_norm: bool = False,
    max_scores: int = 2**27,
) -> Tensor:
    r"""Matching function of every image with every text, without the factor tau3.

    .. math:: \log \sum_{w} \exp(m_w / \tau_3)

    Source: GLoRIA Eq. 6 is tau3 times this; the released loss uses this.

    Args:
        region_emb: (N, R, D).
        words: Words of B texts.
        tau2: Temperature of the attention.
        tau3: Temperature of the matching.
        word_softmax: See `word_region_attention`.
        length_norm: Divide the sum by the number of words ("mean" in the released code).
        max_scores: With more word-region scores than this, intermediate results are recomputed in
            the backward pass instead of kept, chunk by chunk.

    Returns:
        (N, B); log of the word count + 1 / tau3 when every word matches perfectly.
    """

    def pooled(regions: Tensor, emb: Tensor) -> Tensor:
        chunk = words._replace(emb=emb)
        return _log_sum_exp_over_words(
            match_words(regions, chunk, tau2=tau2, word_softmax=word_softmax) / tau3, chunk
        )

    per_image = len(words.emb) * region_emb.shape[1]
    chunks = region_emb.split(max(1, min(CHUNK, max_scores) // per_image))
    if per_image * len(region_emb) > max_scores:
        columns = [checkpoint(pooled, chunk, words.emb, use_reentrant=False) for chunk in chunks]
    else:
        columns = [pooled(chunk, words.emb) for chunk in chunks]
    matches = torch.cat(columns)
    return matches - words.counts.to(matches.dtype).log() if length_norm else matches


def _log_sum_exp_over_words(values: Tensor, words: Words) -> Tensor:
    """(N, W) to (N, B)."""
    top = _max_over_words(values.detach(), words)
    shifted = values - top.index_select(1, words.text)
    return top + torch.zeros_like(top).index_add(1, words.text, shifted.exp()).log()


def _max_over_words(values: Tensor, words: Words) -> Tensor:
    """(N, W) to (N, B)."""
    lowest = values.new_full((len(values), len(words.counts)), -torch.inf)
    return lowest.scatter_reduce(1, words.text.expand_as(values), values, "amax")


def best_word(
    region_emb: Tensor, words: Words, *, tau2: float, word_softmax: bool = True
) -> Tensor:
    r"""The best cosine of any word, :math:`\max_w m_w`, for every image and text.

    Source: released `get_local_similarities`, which multiplies it by 1 / tau3.

    Returns:
        (N, B) in [-1, 1].
    """
    chunks = region_emb.split(max(1, CHUNK // (len(words.emb) * region_emb.shape[1])))
    best = [
        _max_over_words(match_words(chunk, words, tau2=tau2, word_softmax=word_softmax), words)
        for chunk in chunks
    ]
    return torch.cat(best)


def attention_maps(
    region_emb: Tensor, word_emb: Tensor, *, tau2: float, word_softmax: bool = True
) -> Tensor:
    """Attention of one text's words over one image's regions (Eq. 4).

    Args:
        region_emb: (R, D).
        word_emb: (T, D), only real words.
        tau2: Temperature of the attention.
        word_softmax: See `word_region_attention`.

    Returns:
        (T, R), rows sum to 1.
    """
    text = torch.zeros(len(word_emb), dtype=torch.long, device=word_emb.device)
    words = Words(word_emb, text, torch.tensor([len(word_emb)], device=word_emb.device))
    scores = (word_emb @ region_emb.mT)[None]
    return word_region_attention(scores, words, tau2=tau2, word_softmax=word_softmax)[0]


def cosine(image_emb: Tensor, report_emb: Tensor) -> Tensor:
    """Cosine of every image with every report, (N, D) and (B, D) to (N, B)."""
    return (
        F.normalize(image_emb, dim=-1, eps=EPSILON)
        @ F.normalize(report_emb, dim=-1, eps=EPSILON).mT
    )
