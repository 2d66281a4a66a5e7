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
    results: Path = Path("benchmarks/results/phantom")
    """Folder of results."""
    metrics: tuple[str, ...] = METRICS
    """Metrics to print, by the names in the results."""


class Key(NamedTuple):
    """One cell: what was judged, and from which share of the labels (0 where none are used)."""

    task: str
    dataset: str
    metric: str
    share: float


def pairs(results: Path, first: str, second: str) -> Iterator[tuple[str, Any, Any]]:
    """Evaluations of one task, data set and seed that both models have, with their task."""
    for path in sorted((results / first).glob("*__seed*.json")):
        other = results / second / path.name
        if other.is_file():
            records = [json.loads(p.read_text()) for p in (path, other)]
            if all("cells" in record for record in records):  # one that could not run has none
                yield path.name.split("__")[0], *records


def unlike(first: dict[str, Any], second: dict[str, Any]) -> str:
    """What makes two evaluations no pair; "" if nothing does."""
    for name in ("corpus", "protocol", "splits"):
        if first[name] != second[name]:
            return f"other {name}"
    drawn = [
        {share: facts["sha256"] for share, facts in r["details"].items() if _is_draw(facts)}
        for r in (first, second)
    ]
    shared = drawn[0].keys() & drawn[1].keys()
    return "other labelled images" if any(drawn[0][k] != drawn[1][k] for k in shared) else ""


def _is_draw(facts: object) -> bool:
    return isinstance(facts, dict) and "sha256" in facts


def values(args: Args) -> dict[Key, list[tuple[float, float]]]:
    """Both models' numbers of every seed, by cell; what is no pair is named on standard error."""
    found: dict[Key, list[tuple[float, float]]] = defaultdict(list)
    for task, first, second in pairs(args.results, args.first, args.second):
        if reason := unlike(first, second):
            name = "-".join(first["splits"]) or task
            print(f"{task} on {name}, seed {first['seed']}: {reason}, left out", file=sys.stderr)
            continue
        sides = [
            {
                Key(task, c["dataset"], c["metric"], c["label_fraction"] or 0.0): c["value"]
                for c in record["cells"]
                if c["metric"] in args.metrics
            }
            for record in (first, second)
        ]
        for key in sides[0].keys() & sides[1].keys():
            found[key].append((sides[0][key], sides[1][key]))
    return found


def lines(found: dict[Key, list[tuple[float, float]]]) -> list[str]:
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
    found = values(args)
    if not found:
        sys.exit(
            f"error: {args.results} holds no results that {args.first} and {args.second} share"
        )
    print("\n".join(lines(found)))


if __name__ == "__main__":
    main()
