"""What tables print beside results: sizes of splits, and of models."""

from __future__ import annotations

import torch

from benchmarks.core import Cell, NotRunnable
from benchmarks.downstream import describe_split
from benchmarks.job import DENSE, Args, Outcome
from benchmarks.models import MODELS, settings
from benchmarks.tasks import TASKS
from common.data import load_tables, splits
from imitate.model import IMITATE

BERT_VOCABULARY = 28_996
"""Word pieces of BioClinicalBERT; its frozen embeddings are not counted."""


def split_sizes(args: Args) -> Outcome:
    """Images in every part of a data set's split: `n_train`, `n_valid`, `n_test`."""
    task = TASKS.get(args.dataset)
    dataset, name = (task.dataset, task.split) if task else (args.dataset, DENSE[args.dataset])
    table = load_tables(dataset, args.data_root)
    split = splits.build(args.split or name, table)
    cells = [
        Cell(args.dataset, f"n_{part}", float(len(ids)), len(ids))
        for part, ids in split.parts.items()
    ]
    return Outcome("splits", cells, {}, {split.id: describe_split(split, table)})


def parameters(args: Args) -> Outcome:
    """Trainable parameters of the paper's preset with the model's flags, phantom or not."""
    spec = MODELS[args.model]
    if spec.paper != "imitate":
        raise NotRunnable("only IMITATE's Table XI counts parameters")
    cfg = settings(spec, "real", args.seed).model
    with torch.device("meta"):
        model = IMITATE(cfg, [""] * BERT_VOCABULARY)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    cell = Cell(args.dataset, "trainable_parameters", float(count), count)
    return Outcome("parameters", [cell], {}, {})
