"""Run one evaluation: `python -m benchmarks.evaluate linear --model gloria --dataset rsna ...`.

Writes `<results>/<model>/<task>__<dataset>__seed<k>.json` with every cell it fills and the
provenance, and the per-image predictions beside it as `.npz`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.classify import finetuned, image_to_report, linear, zero_shot_classification
from benchmarks.core import DENSE_TASKS, SCHEMA, NotRunnable
from benchmarks.facts import parameters, split_sizes
from benchmarks.job import DATASETS_OF, Args, Outcome
from benchmarks.localise import detect, ground, segment, select_regions
from benchmarks.models import MODELS, PRESET, settings
from benchmarks.tasks import DENSE_SIZES
from benchmarks.weights import from_authors, other_settings, ready
from common import config
from common.checkpoint import CheckpointError
from common.data.tables import DataError, sha256
from common.interface import Predictor
from common.provenance import provenance

WITHOUT_MODEL: dict[str, Callable[[Args], Outcome]] = {
    "splits": split_sizes,
    "parameters": parameters,
}
PROTOCOLS: dict[str, Callable[[Args, Any], Outcome]] = {
    "linear": linear,
    "zero_shot": zero_shot_classification,
    "retrieval": image_to_report,
    "finetune": finetuned,
    "segmentation": segment,
    "detection": detect,
    "grounding": ground,
    "regions": select_regions,
}
READS_TEXT = ("zero_shot", "retrieval")


def evaluate(args: Args) -> Outcome:
    """The outcome of one protocol.

    Raises:
        NotRunnable: If the model cannot be had, or has no text side and needs one.
    """
    if args.task in WITHOUT_MODEL:
        return WITHOUT_MODEL[args.task](args)
    spec = MODELS[args.model]
    facts: dict[str, Any] = {}
    reads_text = args.task in READS_TEXT
    if args.checkpoint:
        words = args.vocabulary
        model, facts = from_authors(spec, args.checkpoint, words, reads_text=reads_text)
    else:
        model = ready(
            spec,
            args.corpus,
            args.seed,
            args.run,
            any_settings=args.any_settings,
            reads_text=reads_text,
        )
    if reads_text and not isinstance(model, Predictor):
        raise NotRunnable(f"{args.model} is an image encoder without a text side")
    return replace(PROTOCOLS[args.task](args, model), authors=facts)


def run(args: Args) -> Path:
    """Evaluate and write the result; a row that cannot run leaves its reason instead."""
    started, spec = time.monotonic(), MODELS[args.model]
    path = args.path
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise DataError(f"{path.parent} cannot be written to; give another --results")
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "corpus": args.corpus,
        "data": "phantom-v1" if args.corpus == "phantom" else "real",
        "model": spec.id,
        "seed": args.seed,
        **provenance(),
        "model_settings": config.to_dict(settings(spec, args.corpus, args.seed).model),
        "preset": PRESET[args.corpus],
    }
    try:
        outcome = evaluate(args)
    except NotRunnable as reason:
        record["not_run"] = str(reason)
        path.with_suffix(".npz").unlink(missing_ok=True)
    else:
        trained = spec.pretrained and args.task not in WITHOUT_MODEL and not args.checkpoint
        record |= {
            "protocol": outcome.protocol,
            "cells": [asdict(cell) for cell in outcome.cells],
            "splits": outcome.splits,
            "details": outcome.details,
            "pretraining": _pretraining(args.run, outcome) if trained else None,
        }
        if trained and args.any_settings:
            wanted = config.to_dict(settings(spec, args.corpus, args.seed))
            record["other_settings"] = other_settings(args.run, wanted)
        record |= outcome.authors
        np.savez_compressed(path.with_suffix(".npz"), allow_pickle=False, **outcome.predictions)
    record["seconds"] = round(time.monotonic() - started, 1)
    path.write_text(json.dumps(record, indent=1) + "\n")
    for left in path.parent.glob(f"{args.unfinished('*').name}*"):
        left.unlink()
    return path


def _pretraining(folder: Path, outcome: Outcome) -> dict[str, Any]:
    """Provenance of the run, its weights' hash, and how many test images it was trained on."""
    record: dict[str, Any] = json.loads((folder / "provenance.json").read_text())
    seen = set(json.loads((folder / "split.json").read_text())["parts"]["train"])
    tested = [outcome.predictions.get(k, np.array([])) for k in ("test_ids", "extra_ids")]
    return {
        **record,
        "checkpoint_sha256": sha256(folder / "best" / "model.safetensors"),
        "test_images_seen": len(seen & set(np.concatenate(tested).tolist())),
    }


def main() -> None:
    """Command line."""
    args = tyro.cli(Args, description=__doc__)
    if args.model not in MODELS:
        raise SystemExit(f"error: unknown model {args.model!r}; choose one of: {', '.join(MODELS)}")
    if args.dataset not in DATASETS_OF[args.task]:
        raise SystemExit(f"error: {args.task} runs on {', '.join(DATASETS_OF[args.task])}")
    if args.task in DENSE_TASKS and f"{args.task}/{args.recipe}" not in DENSE_SIZES:
        known = [name.partition("/")[2] for name in DENSE_SIZES if name.startswith(args.task)]
        raise SystemExit(f"error: --recipe of {args.task} is one of {', '.join(known)}")
    if args.vocabulary and not args.checkpoint:
        raise SystemExit("error: --vocabulary goes with --checkpoint")
    if args.checkpoint and args.task in WITHOUT_MODEL:
        raise SystemExit(f"error: {args.task} reads no model, so no --checkpoint")
    if args.corpus == "phantom" and not (args.data_root / "phantom.json").is_file():
        raise SystemExit(
            f"error: {args.data_root} holds no phantom corpus; real data: --corpus real"
        )
    if args.corpus == "real" and (args.data_root / "phantom.json").is_file():
        raise SystemExit(f"error: {args.data_root} holds a phantom corpus, no real data")
    try:
        print(run(args))
    except (CheckpointError, DataError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
