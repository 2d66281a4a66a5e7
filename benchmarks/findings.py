"""Zero-shot classification of CheXpert's fourteen findings (LRCLR Table 1 and Fig. 3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.core import Cell
from benchmarks.downstream import Downstream
from benchmarks.job import Args, Outcome, splits_of
from benchmarks.protocols import prompt_pairs, zero_shot
from common.data.phantom import NAMED
from common.data.tables import DataError
from common.interface import Predictor
from common.metrics import Interval, auroc, bootstrap_auroc, interval

RATES = ("specificity", "ppv", "sensitivity", "f1")
"""Columns of Table 1 beside the AUROC; the paper calls them precision and recall."""
NO_FINDING = "No Finding"
INVERTED = 0.3
"""An AUROC below this says that a pair of prompts asks for the opposite."""
CUTS = ("f1", "youden", "mcc", "half")
"""Threshold rules, the table's first; all but `half` are chosen on the test part: oracles."""

Array = NDArray[np.float32]


def zero_shot_findings(args: Args, model: Predictor) -> Outcome:
    """AUROC of every finding with bootstrap intervals, and macro rates at several cuts.

    "No Finding" is judged twice: with the published pair, which inverts it, in every metric, and
    with a repaired pair in `auroc_repaired`. Findings with one class only are left out and named.
    """
    cfg, name = args.pairs, args.dataset
    data = Downstream(name, args.data_root, size=model.size, split=args.split)
    test = data.ids("test")
    targets = data.targets(test)
    judged = [k for k, column in enumerate(targets.T) if 0 < column.sum() < len(column)]
    names = [data.task.labels[k] for k in judged]
    truth, scores = targets[:, judged], scores_of(model, data, test, names, args)
    mended = 1 - prompt_pairs.probabilities(model, data, test, ["finding"], cfg)[:, 0]
    found = rankings(names, truth, scores, mended, args)
    cells = [
        Cell(name, metric, value.value, len(test), None, (value.low, value.high))
        for metric, value in found.items()
    ]
    for rule in CUTS:
        cuts = [0.5] * len(names) if rule == "half" else zero_shot.cuts_on(truth, scores, rule)
        cells += _macro(name, truth, scores, cuts, "" if rule == CUTS[0] else f"_{rule}")
    details: dict[str, object] = {
        "positives": {label: int(t.sum()) for label, t in zip(names, truth.T, strict=True)},
        "resamples_skipped": {metric: value.skipped for metric, value in found.items()},
        "inverted": [label for label in names if found[f"auroc:{label}"].value < INVERTED],
        "left_out": sorted(set(data.task.labels) - set(names)),
        "threshold": f"{CUTS[0]} on the test part (oracle); others by suffix",
        "prompts": [cfg.present, cfg.absent],
    }
    cells += _honest(args, model, names, truth, scores, details)
    kept = {"test_ids": np.array(test), "test_targets": truth, "test_scores": scores}
    return Outcome("zero_shot/findings", cells, kept, splits_of(data), details)


def rankings(
    names: list[str], truth: Array, scores: Array, mended: Array, args: Args
) -> dict[str, Interval]:
    """AUROC of every finding, and macro means of several groups of them, with intervals.

    Args:
        names: L findings.
        truth: (n, L).
        scores: (n, L) by the published pairs.
        mended: (n,) No Finding as the absence of "finding".
        args: Resamples and corpus.
    """
    groups = {"auroc": list(range(len(names)))}
    groups |= {f"auroc:{label}": [k] for k, label in enumerate(names)}
    if NO_FINDING in names:
        others = [k for k, label in enumerate(names) if label != NO_FINDING]
        truth = np.c_[truth, truth[:, names.index(NO_FINDING)]]
        scores = np.c_[scores, mended]
        groups["auroc_repaired"] = [*others, len(names)]
        groups[f"auroc_repaired:{NO_FINDING}"] = [len(names)]
        groups["auroc_without_no_finding"] = others
    if args.corpus == "phantom":
        groups["auroc_named"] = [k for k, label in enumerate(names) if label in NAMED]
    drawn = bootstrap_auroc(truth, scores, resamples=args.resamples)
    return {
        metric: interval(auroc(truth[:, group], scores[:, group]), drawn[:, group].mean(axis=1))
        for metric, group in groups.items()
    }


def scores_of(
    model: Predictor, data: Downstream, ids: tuple[str, ...], names: list[str], args: Args
) -> Array:
    """(n, L) probabilities by the published pairs."""
    lower = [label.lower() for label in names]
    return prompt_pairs.probabilities(model, data, ids, lower, args.pairs)


def _honest(
    args: Args,
    model: Predictor,
    names: list[str],
    truth: Array,
    scores: Array,
    details: dict[str, object],
) -> list[Cell]:
    """Macro rates at cuts of CheXpert's validation images, over the findings that both know."""
    try:
        valid = Downstream("chexpert", args.data_root, size=model.size)
    except DataError as error:
        details["without_validation"] = str(error)
        return []
    ids = valid.ids("test")  # valid.csv, the test part of the other protocols
    labels = valid.table.select(ids).labels[names].fillna(0).clip(lower=0).to_numpy(np.float32)
    both = [k for k, column in enumerate(labels.T) if 0 < column.sum() < len(column)]
    known = [names[k] for k in both]
    found = scores_of(model, valid, ids, known, args)
    cuts = zero_shot.cuts_on(labels[:, both], found, "mcc")
    details["validation_findings"] = known
    return _macro(args.dataset, truth[:, both], scores[:, both], cuts, "_mcc_of_valid")


def _macro(name: str, truth: Array, scores: Array, cuts: list[float], suffix: str) -> list[Cell]:
    rates = prompt_pairs.rates_at(truth, scores, cuts)
    return [
        Cell(name, metric + suffix, float(np.mean([r[metric] for r in rates])), len(truth))
        for metric in RATES
    ]
