"""CheXzero's and LRCLR's ensembles: `python -m benchmarks.ensemble --results R --seeds 0,1,2`.

CheXzero's authors average probabilities over ten checkpoints before they rank images; LRCLR names
no ensemble, so its Table 1 has single models. Here the members are the seeds' models, from results
of `zero_shot/findings` that exist.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from numpy.typing import NDArray
from tqdm.auto import tqdm

from benchmarks.compare import Scores, paired, scores_of
from benchmarks.core import Column, Row, evaluation, load_results, parse_seeds
from benchmarks.models import CHEXZERO, LRCLR
from common.data.phantom import NAMED
from common.metrics import (
    Interval,
    bootstrap_auroc,
    interval,
    mean_std,
    paired_test,
    rank_auroc,
)

BASE, ADDED = Row("CheXzero", model=CHEXZERO), Row("CheXzero + LRCLR", model=LRCLR)
COLUMN = Column("AUROC", "chexpert-test", "zero_shot", "auroc", on="chexpert14")


@dataclass(frozen=True)
class Args:
    """Which results are joined."""

    results: Path = Path("runs/phantom/results")
    """Folder of results."""
    seeds: str = "0,1,2"
    """Comma-separated seeds: the members."""
    resamples: int = 1000
    """Of bootstrap and permutation test."""


def findings(results: Path, seeds: Sequence[int]) -> tuple[str, list[str]]:
    """Corpus and judged findings of the results, in the order of their scores."""
    assert BASE.model is not None
    record: dict[str, Any] = load_results(results, evaluation(BASE.model, COLUMN), seeds)[0]
    return record["corpus"], list(record["details"]["positives"])


def joined(found: Scores) -> NDArray[Any]:
    """(N, L) mean of the members' probabilities (CheXzero's notebook)."""
    return found.scores.astype(np.float64).mean(axis=1)


def ensemble_auroc(found: Scores, *, resamples: int) -> Interval:
    """Macro AUROC of the averaged probabilities, with its bootstrap interval."""
    scores = joined(found)
    drawn = bootstrap_auroc(found.targets, scores, resamples=resamples).mean(axis=1)
    return interval(rank_auroc(found.targets, scores), drawn)


class Judged(NamedTuple):
    """One group of findings.

    Attributes:
        title: Its name.
        base: CheXzero, (N, S, L).
        added: With LRCLR, alike.
    """

    title: str
    base: Scores
    added: Scores


def groups(results: Path, seeds: Sequence[int]) -> list[Judged]:
    """Both models over all findings and, on the phantom, over those that its reports name.

    Empty where a seed of either model has no result.
    """
    base, added = (scores_of(row, COLUMN, results, seeds) for row in (BASE, ADDED))
    if base is None or added is None:
        return []
    corpus, names = findings(results, seeds)
    chosen = {f"{len(names)} findings": names}
    if corpus == "phantom":
        chosen = {f"{len(NAMED)} named findings": [n for n in names if n in NAMED], **chosen}
    columns = {title: [names.index(n) for n in kept] for title, kept in chosen.items()}
    return [
        Judged(title, *(_over(found, kept) for found in (base, added)))
        for title, kept in columns.items()
    ]


def _over(found: Scores, kept: list[int]) -> Scores:
    return found._replace(targets=found.targets[:, kept], scores=found.scores[:, :, kept])


def table(results: Path, seeds: Sequence[int], *, resamples: int = 1000) -> str:
    """Single models and ensembles as Markdown; "" without results.

    Differences come with paired permutation tests on the same images, those of single models as
    the mean over seeds.
    """
    judged = groups(results, seeds)
    if not judged:
        return ""
    lines = [
        "| macro AUROC, % | single, mean ± deviation | ensemble [95 % interval] |",
        "|---|---|---|",
    ]
    for group in tqdm(judged, desc="ensembles", unit="group", leave=False):
        for row, found in ((BASE, group.base), (ADDED, group.added)):
            single = [rank_auroc(found.targets, scores) for scores in found.scores.swapaxes(0, 1)]
            mean, deviation = (100 * value for value in mean_std(single))
            whole = [100 * value for value in ensemble_auroc(found, resamples=resamples)[:3]]
            lines.append(
                f"| {row.name}, {group.title} | {mean:.1f} ± {deviation:.1f} "
                f"| {whole[0]:.1f} [{whole[1]:.1f}, {whole[2]:.1f}] |"
            )
        alone = paired(group.added, group.base, resamples=resamples)
        both = paired_test(
            rank_auroc,
            group.base.targets,
            joined(group.added),
            joined(group.base),
            resamples=resamples,
        )
        cells = (f"{100 * test.difference:+.1f} (p = {test.p_value:.3f})" for test in (alone, both))
        lines.append(f"| difference, {group.title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table."""
    args = tyro.cli(Args, description=__doc__)
    seeds = parse_seeds(args.seeds)
    if len(seeds) < 2:
        sys.exit("error: an ensemble has at least two members; give --seeds 0,1")
    text = table(args.results, seeds, resamples=args.resamples)
    if not text:
        sys.exit(
            f"error: {args.results} lacks zero_shot__chexpert14 of chexzero or lrclr for seeds "
            f"{args.seeds}; run make reproduce-lrclr-table1 SEEDS={args.seeds}"
        )
    print(text)


if __name__ == "__main__":
    main()
