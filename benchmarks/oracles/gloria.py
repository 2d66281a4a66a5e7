"""GLoRIA's equations written as plain loops, one report and one image at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def attend(regions: Tensor, words: Tensor, tau2: float) -> tuple[Tensor, Tensor]:
    """Eq. 3-5 for one image (R, D) and one text (T, D): attended vectors (T, D), weights (T, R)."""
    scores = words @ regions.T  # (T, R)
    over_words = scores.softmax(dim=0)
    alpha = (over_words / tau2).softmax(dim=1)
    return alpha @ regions, alpha


def match(regions: Tensor, words: Tensor, *, tau2: float, tau3: float) -> Tensor:
    """Eq. 6 without its factor tau3: log sum exp of the cosines over tau3."""
    attended, _ = attend(regions, words, tau2)
    cosines = torch.nn.functional.cosine_similarity(attended, words, dim=1, eps=1e-8)
    return torch.logsumexp(cosines / tau3, dim=0)


def matches(region_emb: Tensor, texts: list[Tensor], *, tau2: float, tau3: float) -> Tensor:
    """(N, B), a loop over images and texts."""
    return torch.stack(
        [
            torch.stack([match(regions, words, tau2=tau2, tau3=tau3) for words in texts])
            for regions in region_emb
        ]
    )


def released_local_loss(
    region_map: Tensor, texts: list[Tensor], *, temp1: float, temp2: float, temp3: float
) -> Tensor:
    """A loop over reports, each against the whole batch at once, laid out as the released loss is.

    For every report the batch's local map is copied, transposed and attended; the attended vectors
    are built for a cosine.

    Args:
        region_map: (B, D, h, w).
        texts: The words (T_i, D) of each report.
        temp1: Attention multiplier.
        temp2: Matching multiplier.
        temp3: Contrast multiplier.
    """
    batch = len(region_map)
    columns = []
    for words in texts:
        query = words.T.unsqueeze(0).repeat(batch, 1, 1)  # (B, D, T)
        context = region_map.flatten(2)  # (B, D, R)
        context_t = context.transpose(1, 2).contiguous()  # (B, R, D)
        attention = torch.bmm(context_t, query).softmax(dim=2)  # over words
        attention = attention.transpose(1, 2).contiguous()  # (B, T, R)
        attention = (attention * temp1).softmax(dim=2)
        attended = torch.bmm(context, attention.transpose(1, 2).contiguous())  # (B, D, T)
        words_flat = query.transpose(1, 2).contiguous().view(-1, query.shape[1])
        attended_flat = attended.transpose(1, 2).contiguous().view(-1, query.shape[1])
        cosines = torch.nn.functional.cosine_similarity(words_flat, attended_flat, dim=1)
        columns.append((cosines.view(batch, -1) * temp2).exp().sum(dim=1).log())
    logits = torch.stack(columns, dim=1) * temp3
    pairs = torch.arange(batch)
    cross_entropy = torch.nn.functional.cross_entropy
    return cross_entropy(logits, pairs) + cross_entropy(logits.T, pairs)


def aggregate(feat: Tensor, pieces: list[str], pool: str) -> tuple[Tensor, list[str]]:
    """Word pieces of one text to words, left to right, as the released `aggregate_tokens` does."""
    groups: list[list[Tensor]] = []
    names: list[str] = []
    for vector, piece in zip(feat, pieces, strict=True):
        if piece == "[SEP]":
            groups.append([vector])
            names.append(piece)
            break
        if piece.startswith("##") and groups:
            groups[-1].append(vector)
            names[-1] += piece[2:]
        else:
            groups.append([vector])
            names.append(piece)
    else:
        groups.pop()
        names.pop()
    reduce = torch.sum if pool == "sum" else torch.mean
    return torch.stack([reduce(torch.stack(group), dim=0) for group in groups]), names
