"""Metrics by library definition, with intervals and a paired test over per-image predictions.

Scores are arrays (N,) or (N, L): N images, L labels. Values lie in [0, 1].
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn import metrics as sk
from tqdm.auto import tqdm

Array = NDArray[np.float64]
THRESHOLD_RULES = ("youden", "f1", "mcc")


class Interval(NamedTuple):
    """An estimate with a bootstrap confidence interval.

    Attributes:
        value: On all images.
        low: Lower end.
        high: Upper end.
        skipped: Resamples without a value, a label having lost a class.
    """

    value: float
    low: float
    high: float
    skipped: int = 0


def auroc(targets: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve, macro mean over labels (scikit-learn).

    Returns:
        0.5 for constant scores.

    Raises:
        ValueError: If a label has only one class in `targets`: name the labels to leave out.
    """
    return _macro(sk.roc_auc_score, targets, scores)


def auprc(targets: ArrayLike, scores: ArrayLike) -> float:
    """Average precision (scikit-learn), macro mean over labels; constant scores give prevalence."""
    return _macro(sk.average_precision_score, targets, scores)


def _macro(
    function: Callable[[Array, Array], float], targets: ArrayLike, scores: ArrayLike
) -> float:
    truth, score = _columns(targets), _columns(scores)
    if truth.shape != score.shape:
        raise ValueError(f"targets {truth.shape} and scores {score.shape} differ in shape")
    values = []
    for label, (t, s) in enumerate(zip(truth.T, score.T, strict=True)):
        known = ~np.isnan(t)
        if len(np.unique(t[known])) < 2:
            raise ValueError(
                f"label {label} has one class only among {known.sum()} images; leave it out"
            )
        values.append(function(t[known], s[known]))
    return float(np.mean(values))


def _columns(values: ArrayLike) -> Array:
    array = np.asarray(values, dtype=np.float64)
    return array[:, None] if array.ndim == 1 else array


def accuracy(targets: ArrayLike, predictions: ArrayLike) -> float:
    """Share of images whose class is the predicted one."""
    return float(sk.accuracy_score(targets, predictions))


def threshold(targets: ArrayLike, scores: ArrayLike, rule: str) -> float:
    """The cut that is best on these images: `score >= threshold` means positive.

    Args:
        targets: (N,) in {0, 1}.
        scores: (N,).
        rule: `youden` maximises sensitivity + specificity, the highest of equal cuts; `f1` the F1
            score and `mcc` Matthews' correlation, the lowest.

    Raises:
        ValueError: If the rule is unknown.
    """
    if rule == "youden":
        false, true, cuts = sk.roc_curve(targets, scores)
        best = int(np.argmax((true - false)[1:])) + 1  # the first cut, infinity, predicts nothing
        return float(cuts[best])
    if rule == "f1":
        precision, recall, cuts = sk.precision_recall_curve(targets, scores)
        total = precision[:-1] + recall[:-1]
        f1 = 2 * precision[:-1] * recall[:-1] / np.where(total > 0, total, 1)
        return float(cuts[int(np.argmax(f1))])
    if rule == "mcc":
        false, true, cuts = sk.roc_curve(targets, scores, drop_intermediate=False)
        positives = float(np.sum(np.asarray(targets)))
        negatives = len(np.asarray(targets)) - positives
        tp, fp = true * positives, false * negatives
        fn, tn = positives - tp, negatives - fp
        spread = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
        found = (tp * tn - fp * fn) / np.where(spread > 0, spread, 1)
        ascending = found[:0:-1]  # without the first cut, infinity
        return float(cuts[:0:-1][int(np.argmax(ascending))])
    raise ValueError(f"unknown threshold rule {rule!r}; choose one of {', '.join(THRESHOLD_RULES)}")


def binary_rates(targets: ArrayLike, predictions: ArrayLike) -> dict[str, float]:
    """Accuracy, sensitivity, specificity, PPV, NPV and F1 of 0/1 predictions (N,).

    A rate without a denominator (no positive prediction, say) is 0, as in scikit-learn.
    """
    truth, guess = np.asarray(targets).astype(int), np.asarray(predictions).astype(int)
    rate = {"zero_division": 0}
    return {
        "accuracy": float(sk.accuracy_score(truth, guess)),
        "sensitivity": float(sk.recall_score(truth, guess, **rate)),
        "specificity": float(sk.recall_score(truth, guess, pos_label=0, **rate)),
        "ppv": float(sk.precision_score(truth, guess, **rate)),
        "npv": float(sk.precision_score(truth, guess, pos_label=0, **rate)),
        "f1": float(sk.f1_score(truth, guess, **rate)),
    }


def precision_at_k(
    similarity: NDArray[np.floating], query_classes: ArrayLike, target_classes: ArrayLike, k: int
) -> float:
    """Share of the k most similar targets that have the query's class, mean over queries.

    Args:
        similarity: (Q, T); -inf takes a target out of the candidates.
        query_classes: (Q,).
        target_classes: (T,).
        k: At most T.

    Returns:
        1 for a perfect order; the share of the class among the targets for a random one.

    Raises:
        ValueError: If there are fewer than k candidates.
    """
    similarity = np.asarray(similarity)
    candidates = int(np.isfinite(similarity).sum(axis=1).min())
    if k > candidates:
        raise ValueError(f"precision at {k} needs {k} candidates, there are {candidates}")
    best = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    hits = np.asarray(target_classes)[best] == np.asarray(query_classes)[:, None]
    return float(hits.mean())


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation over seeds; NaN deviation for one seed."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float(
        "nan"
    )


def bootstrap(
    metric: Callable[[Array, Array], float],
    targets: ArrayLike,
    scores: ArrayLike,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a metric over resampled images (SciPy).

    Resamples in which a label loses a class are left out of the percentiles and counted.
    """
    truth, score = np.asarray(targets, dtype=np.float64), np.asarray(scores, dtype=np.float64)

    def statistic(rows: NDArray[np.int64]) -> float:
        try:
            return metric(truth[rows], score[rows])
        except ValueError:
            return float("nan")

    with warnings.catch_warnings():  # of resamples without a value: they are counted here
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        drawn = stats.bootstrap(
            (np.arange(len(truth)),),
            statistic,
            n_resamples=resamples,
            vectorized=False,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution
    return interval(metric(truth, score), drawn, confidence=confidence)


def rank_aurocs(truth: Array, score: Array) -> Array:
    """AUROC of every label by ranks (SciPy): equal to `auroc` label by label, and fast.

    Args:
        truth: (N, L) in {0, 1}, or NaN where unknown.
        score: (N, L).

    Returns:
        (L,); NaN where a label has one class only.
    """
    known = ~np.isnan(truth)
    if not known.all():
        columns = zip(truth.T, score.T, known.T, strict=True)
        return np.concatenate([rank_aurocs(t[k, None], s[k, None]) for t, s, k in columns])
    positive = truth.sum(axis=0)
    pairs = positive * (len(truth) - positive)
    wins = (stats.rankdata(score, axis=0) * truth).sum(axis=0) - positive * (positive + 1) / 2
    return np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def rank_auroc(targets: ArrayLike, scores: ArrayLike) -> float:
    """Macro mean of `rank_aurocs`, for resamples; NaN where `auroc` raises."""
    return float(rank_aurocs(_columns(targets), _columns(scores)).mean())


def bootstrap_auroc(
    targets: ArrayLike, scores: ArrayLike, *, resamples: int = 1000, seed: int = 0
) -> Array:
    """AUROC of every label over resampled images, all labels on the same draws.

    Args:
        targets: (N, L) in {0, 1}.
        scores: (N, L).
        resamples: R.
        seed: Of the draws.

    Returns:
        (R, L); NaN where a label has one class only among the images drawn.
    """
    truth, score = _columns(targets), _columns(scores)
    generator = np.random.default_rng(seed)
    found = np.full((resamples, truth.shape[1]), np.nan)
    for k in tqdm(range(resamples), desc="bootstrap", unit="resample", leave=False):
        rows = generator.integers(len(truth), size=len(truth))
        found[k] = rank_aurocs(truth[rows], score[rows])
    return found


def interval(value: float, drawn: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Percentile interval of resampled values; those that are NaN are skipped and counted."""
    values, tail = np.asarray(drawn, dtype=np.float64), (1 - confidence) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return Interval(value, float(low), float(high), int(np.isnan(values).sum()))


def bootstrap_mean(
    values: ArrayLike, *, groups: ArrayLike | None = None, resamples: int = 1000
) -> Interval:
    """Mean of the values with its interval.

    Args:
        values: (N,).
        groups: (N,) what is drawn, for instance the image of each value; None: every value alone.
        resamples: Draws.
    """
    numbers = np.asarray(values, dtype=np.float64)
    names = np.arange(len(numbers)) if groups is None else np.asarray(groups)
    group = np.unique(names, return_inverse=True)[1]
    sums, counts = np.bincount(group, weights=numbers), np.bincount(group)
    return bootstrap(
        lambda count, total: float(total.sum() / count.sum()), counts, sums, resamples=resamples
    )


class PairedTest(NamedTuple):
    """Difference of a metric between two models on the same images, with a two-sided p-value."""

    difference: float
    p_value: float


def paired_test(
    metric: Callable[[Array, Array], float],
    targets: ArrayLike,
    scores: ArrayLike,
    other: ArrayLike,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> PairedTest:
    """Permutation test: swap the two models' predictions image by image (SciPy).

    Both models' scores are first replaced by their ranks within each label, so that scales
    do not matter.

    Args:
        metric: Of targets and scores.
        targets: (N, L).
        scores: (N, ...) of one model; whatever belongs to an image is swapped together.
        other: Of the other model, alike.
        resamples: Permutations.
        seed: Of the permutations.

    Returns:
        metric(scores) - metric(other), and how often swapped predictions differ at least as much.
    """
    truth, shape = np.asarray(targets, dtype=np.float64), np.shape(scores)
    first, second = (
        stats.rankdata(np.reshape(s, (len(truth), -1)), axis=0) for s in (scores, other)
    )

    def statistic(swap: NDArray[np.float64], stay: NDArray[np.float64]) -> float:
        keep = (stay > swap)[:, None]
        mixed, rest = np.where(keep, first, second), np.where(keep, second, first)
        return metric(truth, mixed.reshape(shape)) - metric(truth, rest.reshape(shape))

    found = stats.permutation_test(
        (np.zeros(len(truth)), np.ones(len(truth))),
        statistic,
        permutation_type="samples",
        vectorized=False,
        n_resamples=resamples,
        rng=np.random.default_rng(seed),
    )
    return PairedTest(float(found.statistic), float(found.pvalue))
