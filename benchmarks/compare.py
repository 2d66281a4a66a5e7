"""Five papers side by side, with paired tests: `python -m benchmarks.compare`.

Prints the table `compare` from results that exist, then tests every model against one of them on
the same test images (`make compare` makes the results first).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import tyro
from numpy.typing import NDArray
from tqdm.auto import tqdm

from benchmarks.core import Column, Row, evaluation, evaluations, load_results, result_path
from benchmarks.protocols.finetune import judged_labels
from benchmarks.render import render
from benchmarks.tables.compare import TABLE
from common.metrics import PairedTest, paired_test, rank_aurocs

Array = NDArray[np.float32]


class Scores(NamedTuple):
    """A model's predictions: (n, L) targets and scores, and whose they are."""

    ids: tuple[str, ...]
    targets: Array
    scores: Array


@dataclass(frozen=True)
class Args:
    """What to compare."""

    results: Path = Path("runs/phantom/results")
    """Folder of results."""
    seeds: str = "0"
    """Comma-separated seeds; tests join their images."""
    against: str = "ConVIRT"
    """Row that the others are tested against."""
    resamples: int = 1000
    """Permutations of a test."""
    corpus: Literal["phantom", "real"] = "phantom"
    """Named in the output."""


def scores_of(row: Row, column: Column, results: Path, seeds: Sequence[int]) -> Scores | None:
    """Predictions behind a cell over all seeds; None where a seed has no result."""
    model = row.model_for(column)
    if model is None:
        return None
    name = "test_scores" + (f"_{column.label_fraction:g}" if column.label_fraction else "")
    ids: list[str] = []
    targets, scores = [], []
    for seed in seeds:
        path = result_path(results, evaluation(model, column).name, seed).with_suffix(".npz")
        if not path.is_file():
            return None
        with np.load(path) as file:
            if name not in file.files:
                return None
            ids += [f"{seed} {i}" for i in file["test_ids"].tolist()]
            targets.append(file["test_targets"])
            scores.append(file[name])
    return Scores(tuple(ids), np.concatenate(targets), np.concatenate(scores))


def paired(first: Scores, second: Scores, *, resamples: int) -> PairedTest:
    """Difference of macro AUROC on the same images.

    Raises:
        ValueError: If the two were tested on other images.
    """
    if first.ids != second.ids:
        raise ValueError("these models were tested on different images")
    both = judged_labels(first.targets)
    return paired_test(
        lambda truth, scores: float(rank_aurocs(truth, scores).mean()),
        first.targets[:, both],
        first.scores[:, both],
        second.scores[:, both],
        resamples=resamples,
    )


def tests(args: Args) -> list[str]:
    """A line for every model and AUROC column: difference in points, and p."""
    seeds = [int(seed) for seed in args.seeds.split(",")]
    reference = next((row for row in TABLE.rows if row.name == args.against), None)
    if reference is None:
        names = ", ".join(row.name for row in TABLE.rows)
        sys.exit(f"error: no row {args.against!r}; choose one of: {names}")
    lines = [f"| against {reference.name} | cell | difference, points | p |", "|---|---|---|---|"]
    ranked = [c for c in TABLE.columns if c.metric == "auroc"]
    for column in tqdm(ranked, desc="paired tests", unit="cell", leave=False):
        base = scores_of(reference, column, args.results, seeds)
        for row in TABLE.rows:
            found = scores_of(row, column, args.results, seeds) if base else None
            if found is None or base is None or row is reference:
                continue
            test = paired(found, base, resamples=args.resamples)
            points = f"{100 * test.difference:+.1f}"
            lines.append(f"| {row.name} | {column.title} | {points} | {test.p_value:.3f} |")
    return lines


def main() -> None:
    """Print the table and the tests."""
    args = tyro.cli(Args, description=__doc__)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    if not any(load_results(args.results, job, seeds) for job in evaluations(TABLE)):
        sys.exit(f"error: {args.results} holds no result of seeds {args.seeds}; run make compare")
    print(render(TABLE, args.results, seeds))
    print(f"Paired permutation tests ({args.resamples}) on the same {args.corpus} test images:\n")
    print("\n".join(tests(args)))


if __name__ == "__main__":
    main()
