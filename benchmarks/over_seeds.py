"""One model against another, seed by seed: `python -m benchmarks.over_seeds mgca-vit mgca-ita-vit`.

Reads the results that both have of the same seeds, tasks, splits and labelled images. A difference
counts draws of the labelled images and of the weights, which tests on one seed's test images
(`python -m benchmarks.compare`) do not.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tyro
from scipy.stats import ttest_rel

from benchmarks.compare import differing, made_of
from common.metrics import mean_std

METRICS = (
    *("auroc", "auroc_named", "accuracy", "map", "dice", "dice_positives"),
    *("precision_at_10", "miou", "cnr", "pointing_game"),
)
"""What the tables print most."""


@dataclass(frozen=True)
class Args:
    """Which two, and where their results lie."""

    first: tyro.conf.Positional[str]
    """Id of benchmarks/models.py."""
    second: tyro.conf.Positional[str]
    """What is taken away from it."""
    results: Path = Path("runs/phantom/results")
    """Folder of results."""
    metrics: tuple[str, ...] = METRICS
    """Metrics to print, by the names in the results."""


class Key(NamedTuple):
    """One cell: what was judged, and from which share of the labels (0 where none are used)."""

    task: str
    dataset: str
    metric: str
    share: float


Pairs = dict[Key, list[tuple[float, float]]]
"""Both models' numbers of every seed, by cell."""


def shared(args: Args) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Task and both records of every evaluation that both models have.

    Raises:
        SystemExit: If a model has no results at all.
    """
    for model in (args.first, args.second):
        if not (args.results / model).is_dir():
            known = sorted(p.name for p in args.results.glob("*") if p.is_dir())
            sys.exit(
                f"error: {args.results} has no results of {model!r}; it has: "
                + (", ".join(known) or "nothing")
            )
    for path in sorted((args.results / args.first).glob("*__seed*.json")):
        other = args.results / args.second / path.name
        if other.is_file():
            first, second = (json.loads(p.read_text()) for p in (path, other))
            if "cells" in first and "cells" in second:  # what could not run has none
                yield path.name.split("__")[0], first, second


def pairs_of(args: Args) -> Pairs:
    """What can be compared; what is no pair is named on standard error."""
    found: Pairs = defaultdict(list)
    left: set[str] = set()
    for task, first, second in shared(args):
        values = {
            Key(task, c["dataset"], c["metric"], c["label_fraction"] or 0.0): c["value"]
            for c in second["cells"]
        }
        for cell in first["cells"]:
            share = cell["label_fraction"] or 0.0
            key = Key(task, cell["dataset"], cell["metric"], share)
            if key.metric not in args.metrics or key not in values:
                continue
            name = f"{share:g}" if share else ""
            if reason := differing(made_of(first, name), made_of(second, name)):
                left.add(f"{task} on {key.dataset}, seed {first['seed']}: {reason}, left out")
                continue
            found[key].append((cell["value"], values[key]))
    sys.stderr.writelines(f"{line}\n" for line in sorted(left))
    return found


def lines(found: Pairs) -> list[str]:
    """A table, in hundredths: both means, their difference, and p of a paired t test over seeds."""
    table = [
        "| task | data set | metric | labels | seeds | first | second | difference | p |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for key, both in sorted(found.items()):
        sides = [[100 * value for value in side] for side in zip(*both, strict=True)]
        gaps = [100 * (a - b) for a, b in both]
        texts = [*map(_spread, sides), _spread(gaps, "+")]
        p = f"{ttest_rel(*sides).pvalue:.2f}" if len(set(gaps)) > 1 else "–"
        share = f"{key.share:.0%}" if key.share else "–"
        row = (*key[:3], share, str(len(both)), *texts, p)
        table.append("| " + " | ".join(row) + " |")
    return table


def _spread(numbers: list[float], sign: str = "") -> str:
    mean, deviation = mean_std(numbers)
    return f"{mean:{sign}.1f}" + (f" ± {deviation:.1f}" if len(numbers) > 1 else "")


def main() -> None:
    """Print the table."""
    args = tyro.cli(Args, description=__doc__)
    found = pairs_of(args)
    if not found:
        sys.exit(
            f"error: {args.first} and {args.second} share no result of {', '.join(args.metrics)} "
            f"in {args.results}"
        )
    print("\n".join(lines(found)))


if __name__ == "__main__":
    main()
