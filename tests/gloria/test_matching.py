"""Matching and losses against plain loops, and their limits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.oracles import gloria as oracles
from gloria.config import PAPER, LossConfig
from gloria.losses import contrastive_loss, global_logits, local_logits
from gloria.matching import Words, attention_maps, best_word, match_reports, match_words, ragged

TAUS: dict[str, Any] = {"tau2": 0.25, "tau3": 0.2}


def batch(lengths: tuple[int, ...] = (3, 1, 5, 2)) -> tuple[Tensor, Tensor, Tensor]:
    """Regions (B, R, D), padded words (B, T, D) and their mask, float64."""
    generator = torch.Generator().manual_seed(0)
    regions = torch.randn(len(lengths), 9, 6, generator=generator, dtype=torch.float64)
    words = torch.randn(len(lengths), max(lengths), 6, generator=generator, dtype=torch.float64)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return regions.requires_grad_(), words.requires_grad_(), mask


@pytest.mark.parametrize("max_scores", [2**27, 1], ids=["kept", "recomputed"])
def test_match_reports_equals_loops(max_scores: int) -> None:
    """Every image-text pair by Eq. 3-6 in a double loop, and the gradients of a weighted sum."""
    regions, padded, mask = batch()
    weights = torch.randn(4, 4, dtype=torch.float64)
    ours = match_reports(regions, ragged(padded, mask), max_scores=max_scores, **TAUS)
    grads = torch.autograd.grad((ours * weights).sum(), (regions, padded))
    loop = oracles.matches(regions, [t[m] for t, m in zip(padded, mask, strict=True)], **TAUS)
    expected = torch.autograd.grad((loop * weights).sum(), (regions, padded))
    torch.testing.assert_close(ours, loop)
    torch.testing.assert_close(grads, expected)


def test_padding_takes_no_part() -> None:
    regions, padded, mask = batch()
    noisy = torch.where(mask.unsqueeze(-1), padded, torch.full_like(padded, 1e6))
    kept = [match_reports(regions, ragged(words, mask), **TAUS) for words in (padded, noisy)]
    torch.testing.assert_close(*kept)


def test_one_word_attends_uniformly() -> None:
    """Then p is 1 for every region, so alpha is 1 / R whatever the scores are."""
    regions, padded, _ = batch()
    maps = attention_maps(regions[0], padded[0, :1], tau2=0.25)
    torch.testing.assert_close(maps, torch.full_like(maps, 1 / 9))


def test_attention_differs_at_most_by_exp_of_inverse_temperature() -> None:
    regions, padded, _ = batch()
    maps = attention_maps(100 * regions[0], padded[0], tau2=0.25)
    assert float((maps.amax(1) / maps.amin(1)).max().detach()) <= math.exp(4) + 1e-9


def test_without_word_softmax_scores_feed_the_regions() -> None:
    regions, padded, _ = batch()
    maps = attention_maps(regions[0], padded[0], tau2=0.25, word_softmax=False)
    torch.testing.assert_close(maps, ((padded[0] @ regions[0].T) / 0.25).softmax(dim=1))


def test_length_norm_takes_the_bonus_of_long_texts() -> None:
    regions, padded, mask = batch()
    words = ragged(padded, mask)
    plain = match_reports(regions, words, **TAUS)
    normed = match_reports(regions, words, length_norm=True, **TAUS)
    torch.testing.assert_close(plain - normed, words.counts.double().log().expand(4, 4))


def test_best_word_is_the_maximum_cosine() -> None:
    regions, padded, mask = batch()
    words = ragged(padded, mask)
    cosines = match_words(regions, words, tau2=0.25)
    expected = torch.stack([cosines[:, words.text == i].amax(1) for i in range(4)], dim=1)
    torch.testing.assert_close(best_word(regions, words, tau2=0.25), expected)


def test_permuting_studies_permutes_the_matches() -> None:
    regions, padded, mask = batch()
    order = torch.tensor([2, 0, 3, 1])
    plain = match_reports(regions, ragged(padded, mask), **TAUS)
    moved = match_reports(regions[order], ragged(padded[order], mask[order]), **TAUS)
    torch.testing.assert_close(moved, plain[order][:, order])


def test_a_text_without_words_is_refused() -> None:
    _, padded, mask = batch()
    mask[1] = False
    with pytest.raises(ValueError, match=r"texts \[1\]"):
        ragged(padded, mask)


def test_gradient_of_the_attention() -> None:
    """The hand-written backward pass against finite differences."""
    text = torch.tensor([0, 0, 1, 1, 1])
    emb = torch.randn(5, 3, dtype=torch.float64)
    regions = torch.randn(2, 4, 3, dtype=torch.float64)
    counts = torch.tensor([2, 3])

    def function(e: Tensor, r: Tensor) -> Tensor:
        return match_reports(r, Words(e, text, counts), **TAUS)

    assert torch.autograd.gradcheck(function, (emb.requires_grad_(), regions.requires_grad_()))


def test_equal_logits_give_two_log_b() -> None:
    assert float(contrastive_loss(torch.zeros(8, 8))) == pytest.approx(2 * math.log(8))
    assert float(contrastive_loss(torch.zeros(1, 1))) == 0.0


def test_sum_is_batch_times_mean() -> None:
    logits = torch.randn(5, 5)
    torch.testing.assert_close(
        contrastive_loss(logits, reduction="sum"), 5 * contrastive_loss(logits)
    )


def test_swapping_modalities_swaps_the_weights() -> None:
    logits = torch.randn(5, 5)
    one = contrastive_loss(logits, image_to_text=0.75, text_to_image=0.25)
    torch.testing.assert_close(
        one, contrastive_loss(logits.T, image_to_text=0.25, text_to_image=0.75)
    )


def test_unpaired_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="one report per image"):
        contrastive_loss(torch.zeros(3, 4))


def test_global_logits_are_cosines_over_tau() -> None:
    image, report = torch.randn(3, 4), torch.randn(3, 4)
    loop = [[torch.cosine_similarity(i, r, dim=0) / 0.1 for r in report] for i in image]
    torch.testing.assert_close(global_logits(image, report, tau1=0.1), torch.tensor(loop))


def test_literal_tau2_is_flatter() -> None:
    """Ledger G24: dividing the paper's Z by tau2, not by 0.02, gives logits 12.5 times smaller."""
    regions, padded, mask = batch()
    words = ragged(padded, mask)
    default = local_logits(regions, words, PAPER.loss, PAPER.model)
    literal = local_logits(regions, words, LossConfig(tau_local=0.25), PAPER.model)
    torch.testing.assert_close(default, 12.5 * literal)
