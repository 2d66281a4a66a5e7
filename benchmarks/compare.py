"""Five papers side by side, with paired tests: `python -m benchmarks.compare`.

Prints the table `compare` from results that exist, then tests every model against one of them on
the same test images (`make compare` makes the results first).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from numpy.typing import NDArray
from tqdm.auto import tqdm

from benchmarks.core import (
    Column,
    Row,
    evaluation,
    evaluations,
    load_results,
    parse_seeds,
    result_path,
)
from benchmarks.protocols.finetune import judged_labels
from benchmarks.render import render
from benchmarks.tables.compare import TABLE
from common.metrics import PairedTest, paired_test, rank_aurocs

Array = NDArray[np.float32]


class Scores(NamedTuple):
    """A model's predictions on the test images, of every seed.

    Attributes:
        ids: N test images.
        targets: (N, L).
        scores: (N, S, L), one seed after the other.
        made: `made_of` each seed's.
    """

    ids: tuple[str, ...]
    targets: Array
    scores: Array
    made: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Args:
    """What to compare."""

    results: Path = Path("runs/phantom/results")
    """Folder of results."""
    seeds: str = "0"
    """Comma-separated seeds; tests take the mean over them."""
    against: str = "ConVIRT"
    """Row that the others are tested against."""
    resamples: int = 1000
    """Permutations of a test."""


def made_of(record: dict[str, Any], share: str) -> dict[str, Any]:
    """What two evaluations must have in common to be a pair.

    Args:
        record: A result.
        share: Key of a label fraction in its details; "" where no labels are used.
    """
    return {
        "corpus": record.get("corpus"),
        "protocol": record["protocol"],
        "split": {name: split["sha256"] for name, split in record["splits"].items()},
        "labelled images": record["details"].get(share, {}).get("sha256"),
    }


def differing(first: dict[str, Any], second: dict[str, Any]) -> str:
    """What two of `made_of` differ in; "" if in nothing.

    Results of before hashes of the labelled images were kept pass.
    """
    for name, here in first.items():
        if here != second[name] and None not in (here, second[name]):
            return f"other {name}"
    return ""


def scores_of(row: Row, column: Column, results: Path, seeds: Sequence[int]) -> Scores | None:
    """Predictions behind a cell over all seeds; None where a seed has no result."""
    model = row.model_for(column)
    if model is None:
        return None
    share = f"{column.label_fraction:g}" if column.label_fraction else ""
    name = "test_scores" + (f"_{share}" if share else "")
    made, files = [], []
    for seed in seeds:
        path = result_path(results, evaluation(model, column).name, seed)
        record: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        if "protocol" not in record:  # there is none, or it could not run
            return None
        with np.load(path.with_suffix(".npz")) as file:
            if name not in file.files:
                return None
            files.append((file["test_ids"].tolist(), file["test_targets"], file[name]))
        made.append(made_of(record, share))
    ids, targets, _ = files[0]
    if any(other != ids for other, _, _ in files):
        sys.exit(f"error: seeds of {model.id} were tested on different images; evaluate them again")
    scores = np.stack([found for _, _, found in files], axis=1)
    return Scores(tuple(ids), targets, scores, tuple(made))


def unlike(first: Scores, second: Scores) -> str:
    """What makes two models' numbers no pair; "" if nothing does."""
    reasons = (differing(a, b) for a, b in zip(first.made, second.made, strict=True))
    images = "" if first.ids == second.ids else "other test images"
    return next(filter(None, reasons), images)


def paired(first: Scores, second: Scores, *, resamples: int) -> PairedTest:
    """Difference of macro AUROC, mean over seeds; an image is swapped in all seeds together.

    Raises:
        ValueError: If the two are no pair.
    """
    if reason := unlike(first, second):
        raise ValueError(reason)
    both = judged_labels(first.targets)

    def mean_auroc(truth: NDArray[Any], scores: NDArray[Any]) -> float:
        seeds = range(scores.shape[1])
        return float(np.mean([rank_aurocs(truth, scores[:, k]) for k in seeds]))

    return paired_test(
        mean_auroc,
        first.targets[:, both],
        first.scores[:, :, both],
        second.scores[:, :, both],
        resamples=resamples,
    )


def tests(args: Args) -> list[str]:
    """A line for every model and AUROC column: difference in points, and p."""
    seeds = parse_seeds(args.seeds)
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
            if reason := unlike(found, base):
                lines.append(f"| {row.name} | {column.title} | – | {reason} |")
                continue
            test = paired(found, base, resamples=args.resamples)
            points = f"{100 * test.difference:+.1f}"
            lines.append(f"| {row.name} | {column.title} | {points} | {test.p_value:.3f} |")
    return lines


def main() -> None:
    """Print the table and the tests."""
    args = tyro.cli(Args, description=__doc__)
    seeds = parse_seeds(args.seeds)
    records = [r for job in evaluations(TABLE) for r in load_results(args.results, job, seeds)]
    if not records:
        sys.exit(f"error: {args.results} holds no result of seeds {args.seeds}; run make compare")
    print(render(TABLE, args.results, seeds))
    corpus = records[0]["corpus"]
    print(f"Paired permutation tests ({args.resamples}) on the same {corpus} test images:\n")
    print("\n".join(tests(args)))


if __name__ == "__main__":
    main()
