"""Metrics against values one can check by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from common import metrics

TARGETS = np.array([0, 0, 1, 1, 0, 1])
SCORES = np.array([0.1, 0.4, 0.35, 0.8, 0.2, 0.9])


def test_auroc_is_the_share_of_ordered_pairs() -> None:
    """Nine pairs of a positive and a negative; only (0.35, 0.4) is in the wrong order."""
    assert metrics.auroc(TARGETS, SCORES) == pytest.approx(8 / 9)
    assert metrics.auroc(TARGETS, np.zeros(6)) == 0.5


def test_auroc_is_the_mean_over_labels_and_skips_unknown_targets() -> None:
    two = np.stack([TARGETS, 1 - TARGETS], axis=1).astype(float)
    scores = np.stack([SCORES, SCORES], axis=1)
    assert metrics.auroc(two, scores) == pytest.approx((8 / 9 + 1 / 9) / 2)
    two[1, 0] = np.nan  # the misordered negative becomes unknown
    assert metrics.auroc(two[:, 0], scores[:, 0]) == 1.0


def test_a_label_with_one_class_is_an_error() -> None:
    with pytest.raises(ValueError, match="label 0 has one class"):
        metrics.auroc(np.ones(6), SCORES)


def test_auprc_of_constant_scores_is_the_prevalence() -> None:
    assert metrics.auprc(TARGETS, np.zeros(6)) == pytest.approx(0.5)


def test_youden_threshold() -> None:
    """Sensitivity 3/3, specificity 2/3 at 0.35; 2/3 and 3/3 at 0.8: as good, 0.8 comes first."""
    cut = metrics.threshold(TARGETS, SCORES, "youden")
    rates = metrics.binary_rates(TARGETS, cut <= SCORES)
    assert rates["sensitivity"] + rates["specificity"] == pytest.approx(5 / 3)


def test_f1_threshold() -> None:
    """At 0.35: precision 3/4, recall 1, F1 6/7."""
    cut = metrics.threshold(TARGETS, SCORES, "f1")
    assert cut == pytest.approx(0.35)
    assert metrics.binary_rates(TARGETS, cut <= SCORES)["f1"] == pytest.approx(6 / 7)


def test_unknown_threshold_rule() -> None:
    with pytest.raises(ValueError, match="youden"):
        metrics.threshold(TARGETS, SCORES, "best")


def test_binary_rates_from_a_confusion_matrix() -> None:
    """2 true positives, 1 false negative, 1 false positive, 2 true negatives."""
    rates = metrics.binary_rates([1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 0, 0])
    expected = dict.fromkeys(("accuracy", "sensitivity", "specificity", "ppv", "npv", "f1"), 2 / 3)
    assert rates == pytest.approx(expected)


def test_precision_at_k() -> None:
    similarity = np.array([[0.9, 0.8, 0.1, 0.0], [0.0, 0.9, 0.8, 0.1]])
    assert metrics.precision_at_k(similarity, [0, 1], [0, 1, 1, 0], 2) == pytest.approx(3 / 4)
    similarity[0, 0] = -np.inf
    assert metrics.precision_at_k(similarity, [0, 1], [0, 1, 1, 0], 1) == pytest.approx(1 / 2)
    with pytest.raises(ValueError, match="candidates"):
        metrics.precision_at_k(similarity, [0, 1], [0, 1, 1, 0], 4)


def test_mean_std() -> None:
    assert metrics.mean_std([1.0, 3.0]) == (2.0, pytest.approx(math.sqrt(2)))
    assert math.isnan(metrics.mean_std([1.0])[1])


def samples(noise: float, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 2, n)
    return targets, targets + noise * generator.normal(size=n)


def test_bootstrap_interval_holds_the_value() -> None:
    targets, scores = samples(1.0)
    found = metrics.bootstrap(metrics.auroc, targets, scores, resamples=200)
    assert found.low < found.value < found.high
    assert found.value == metrics.auroc(targets, scores)
    assert found.high - found.low < 0.2


def test_intervals_by_ranks_are_those_by_the_library() -> None:
    generator = np.random.default_rng(0)
    targets = (generator.random((80, 3)) < [0.5, 0.3, 0]).astype(float)
    targets[3, 2] = 1  # not in every resample
    targets[::7, 1] = np.nan  # unknown
    scores = generator.random((80, 3)).round(1)  # ties
    fast, slow = (
        metrics.bootstrap(metric, targets, scores, resamples=60, seed=3)
        for metric in (metrics.rank_auroc, metrics.auroc)
    )
    assert fast == pytest.approx(slow, abs=1e-12)
    assert 0 < fast.skipped < 60


def test_paired_test_sees_a_difference_and_no_difference() -> None:
    targets, good = samples(0.5)
    _, bad = samples(5.0)
    found = metrics.paired_test(metrics.auroc, targets, good, bad, resamples=200)
    assert found.difference > 0.1
    assert found.p_value < 0.05
    same = metrics.paired_test(metrics.auroc, targets, good, 3 * good + 1, resamples=50)
    assert same.difference == 0
    assert same.p_value == 1


def test_resampled_auroc_equals_the_library_s_on_every_draw() -> None:
    generator = np.random.default_rng(0)
    targets = (generator.random((60, 3)) < [0.5, 0.3, 0.02]).astype(float)
    scores = generator.random((60, 3)).round(1)  # ties
    found = metrics.bootstrap_auroc(targets, scores, resamples=30, seed=4)
    generator = np.random.default_rng(4)
    for row in found:
        rows = generator.integers(60, size=60)
        for k, value in enumerate(row):
            if len(np.unique(targets[rows, k])) < 2:
                assert np.isnan(value)
            else:
                wanted = metrics.auroc(targets[rows, k], scores[rows, k])
                assert value == pytest.approx(wanted, abs=1e-12)
    assert np.isnan(found[:, 2]).any()
    ends = metrics.interval(0.5, found[:, 2])
    assert ends.skipped == int(np.isnan(found[:, 2]).sum())


def test_a_mean_over_groups_draws_whole_groups() -> None:
    values, groups = [1.0] * 50 + [0.0] * 50, ["a"] * 50 + ["b"] * 50
    found = metrics.bootstrap_mean(values, groups=groups)
    alone = metrics.bootstrap_mean(values)
    assert found.value == alone.value == 0.5
    assert (found.low, found.high) == (0.0, 1.0)  # two groups: often both draws are the same
    assert 0.35 < alone.low < alone.high < 0.65
