"""One evaluation's settings and outcome, shared by every protocol."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks.core import Cell, Evaluation, result_path
from benchmarks.downstream import Downstream, describe_split
from benchmarks.models import MODELS
from benchmarks.protocols import grounding, prompt_pairs, zero_shot
from common.data.records import RecordTable
from common.data.splits import fraction, ids_sha256

DATASETS_OF = {
    "linear": ("chexpert", "rsna", "rsna_dense", "covidx", "covidx_80"),
    "finetune": ("chexpert", "rsna", "nih", "nih_kad"),
    "zero_shot": ("chexpert", "rsna", "chexpert5x200", "rsna_dense", "siim", "chexpert14"),
    "retrieval": ("chexpert5x200",),
    "segmentation": ("siim", "rsna"),
    "detection": ("rsna", "object_cxr"),
    "grounding": ("ms_cxr",),
    "regions": ("rsna",),
    "splits": (
        *("chexpert", "chexpert5x200", "rsna_dense", "covidx_80", "nih_kad", "siim"),
        "object_cxr",
    ),
    "parameters": ("architecture",),
}
"""Data sets that each task knows; linear on CheXpert also meets 5x200."""
DENSE = {
    "siim": "siim/gloria-v1",
    "rsna": "rsna/mgca-dense-v1",
    "object_cxr": "object_cxr/mgca-v1",
}
"""Splits of segmentation and detection."""


@dataclass(frozen=True)
class Args:
    """What to evaluate, and where its parts lie."""

    task: tyro.conf.Positional[
        Literal[
            "linear",
            "finetune",
            "zero_shot",
            "retrieval",
            "segmentation",
            "detection",
            "grounding",
            "regions",
            "splits",
            "parameters",
        ]
    ]
    """Kind of evaluation."""
    model: str
    """Id of benchmarks/models.py."""
    dataset: str
    """Test set, one of those that the task knows; a wrong one lists them."""
    corpus: Literal["phantom", "real"] = "phantom"
    """What lies below the data root."""
    data_root: Path = Path("data/phantom-small")
    """Folder of the corpora."""
    run: Path = Path("runs/gloria")
    """Run folder of a pre-trained model."""
    any_settings: bool = False
    """Evaluate a run of other settings than the model's own; the result lists them."""
    checkpoint: Path | None = None
    """A file that the paper's authors released, instead of a run; give it its own results folder.
    Which images it was trained on is not known here."""
    vocabulary: Path | None = None
    """Word pieces of `checkpoint`, one a line; by default those of the hub."""
    results: Path = Path("runs/results")
    """Where the results go."""
    seed: int = 0
    """Of pre-training, of the label fraction and of the classifier."""
    probe: Literal["linear/cached-features", "linear/gloria", "linear/mgca", "linear/imitate"] = (
        "linear/cached-features"
    )
    """Protocol of `linear`."""
    recipe: Literal[
        "phantom",
        "mgca",
        "mgca-released",
        "gloria",
        "maco",
        "maco-released",
        "maco-phantom",
        "imitate",
        "imitate-phantom",
    ] = "phantom"
    """Recipe of `segmentation` and `detection`; those of maco are a UPerNet's."""
    finetune: Literal["phantom", "maco", "maco-released", "imitate", "imitate-phantom"] = "phantom"
    """Recipe of `finetune`."""
    split: str = ""
    """Split id; empty: the task's own. `siim/maco-lists` and its like read the authors' lists."""
    fraction_rule: Literal["nested", "sample"] = "nested"
    """How 1 % and 10 % are drawn (ledger G46)."""
    prompts: zero_shot.ZeroShotConfig = field(default_factory=zero_shot.ZeroShotConfig)
    """How prompts become class scores."""
    pairs: prompt_pairs.PairConfig = field(default_factory=prompt_pairs.PairConfig)
    """How a pair of prompts becomes a probability, on the data sets of `prompt_pairs`."""
    resamples: int = 1000
    """Of bootstrap intervals over the fourteen findings (CheXzero's number)."""
    phrases: grounding.GroundingConfig = field(default_factory=grounding.GroundingConfig)
    """How phrases are grounded."""

    @property
    def path(self) -> Path:
        """The result's file."""
        job = Evaluation(MODELS[self.model], self.task, self.dataset)
        return result_path(self.results, job.name, self.seed)

    def unfinished(self, share: float | str) -> Path:
        """Where the fit to a share of the labels saves itself until there is a result."""
        return self.path.with_suffix(f".{share}.unfinished")


@dataclass
class Outcome:
    """What a protocol measured.

    Attributes:
        protocol: Its id.
        cells: The numbers.
        predictions: Arrays to keep.
        splits: Split id to `downstream.describe_split`.
        details: Thresholds, prompts, sizes.
        authors: What `benchmarks.weights.from_authors` says of a released checkpoint.
    """

    protocol: str
    cells: list[Cell]
    predictions: dict[str, np.ndarray]
    splits: dict[str, Any]
    details: dict[str, Any] = field(default_factory=dict)
    authors: dict[str, Any] = field(default_factory=dict)


def share_of(
    args: Args, train: Sequence[str], table: RecordTable, share: float
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """A share of the training images, and what a result says of it: size, hash, warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        chosen = fraction(train, table, share, seed=args.seed, rule=args.fraction_rule)
    facts = {
        "images": len(chosen),
        "sha256": ids_sha256(chosen),
        "warnings": [str(w.message) for w in caught],
    }
    return chosen, facts


def splits_of(*used: Downstream | None) -> dict[str, Any]:
    """The splits in use, described."""
    return {data.split.id: describe_split(data.split, data.table) for data in used if data}
