"""Run one evaluation: `python -m benchmarks.evaluate linear --model gloria --dataset rsna ...`.

Writes `<results>/<model>/<task>__<dataset>__seed<k>.json` with every cell it fills and the
provenance, and the per-image predictions beside it as `.npz`.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks.core import SCHEMA, Cell, Evaluation, result_path
from benchmarks.downstream import Downstream, describe_split
from benchmarks.models import MODELS, PRESET, settings
from benchmarks.protocols import detection, retrieval, segmentation, zero_shot
from benchmarks.protocols.linear_probe import PROBES
from benchmarks.weights import NotRunnable, ready
from common import config
from common.checkpoint import CheckpointError
from common.data import load, load_tables, object_cxr, splits
from common.data.prepare import DecodedImages, open_prepared
from common.data.records import RecordTable
from common.data.splits import fraction
from common.data.tables import DataError
from common.interface import Predictor
from common.metrics import auprc, auroc, binary_rates, bootstrap, precision_at_k
from common.provenance import file_sha256, provenance
from gloria.prompts import RSNA, VOCABULARIES, draw_prompts

FRACTIONS = (0.01, 0.1, 1.0)
DATASETS_OF = {
    "linear": ("chexpert", "rsna", "covidx"),
    "zero_shot": ("chexpert", "rsna", "chexpert5x200"),
    "retrieval": ("chexpert5x200",),
    "segmentation": ("siim", "rsna"),
    "detection": ("rsna", "object_cxr"),
}
"""Data sets that each task knows; linear on CheXpert also meets 5x200."""
DENSE = {
    "siim": "siim/gloria-v1",
    "rsna": "rsna/mgca-dense-v1",
    "object_cxr": "object_cxr/mgca-v1",
}
"""Splits of segmentation and detection."""
RATES = ("accuracy", "sensitivity", "specificity", "ppv", "npv", "f1")


@dataclass(frozen=True)
class Args:
    """What to evaluate, and where its parts lie."""

    task: tyro.conf.Positional[
        Literal["linear", "zero_shot", "retrieval", "segmentation", "detection"]
    ]
    """Kind of evaluation."""
    model: str
    """Id of benchmarks/models.py."""
    dataset: Literal["chexpert", "rsna", "covidx", "chexpert5x200", "siim", "object_cxr"]
    """Test set."""
    corpus: Literal["phantom", "real"] = "phantom"
    """What lies below the data root."""
    data_root: Path = Path("data/phantom-small")
    """Folder of the corpora."""
    run: Path = Path("runs/gloria")
    """Run folder of a pre-trained model."""
    results: Path = Path("runs/results")
    """Where the results go."""
    seed: int = 0
    """Of pre-training, of the label fraction and of the classifier."""
    probe: Literal["linear/cached-features", "linear/gloria", "linear/mgca"] = (
        "linear/cached-features"
    )
    """Protocol of `linear`."""
    recipe: Literal["phantom", "mgca", "gloria"] = "phantom"
    """Recipe of `segmentation` and `detection`."""
    fraction_rule: Literal["nested", "sample"] = "nested"
    """How 1 % and 10 % are drawn (ledger G46)."""
    prompts: zero_shot.ZeroShotConfig = field(default_factory=zero_shot.ZeroShotConfig)
    """How prompts become class scores."""


@dataclass
class Outcome:
    """What a protocol measured.

    Attributes:
        protocol: Its id.
        cells: The numbers.
        predictions: Arrays to keep.
        splits: Split id to `downstream.describe_split`.
        details: Thresholds, prompts, sizes.
    """

    protocol: str
    cells: list[Cell]
    predictions: dict[str, np.ndarray]
    splits: dict[str, Any]
    details: dict[str, Any] = field(default_factory=dict)


def linear(args: Args, model: Predictor) -> Outcome:
    """Linear classification at every label fraction; CheXpert's classifier also meets 5x200."""
    data = Downstream(args.dataset, args.data_root, size=model.size)
    five = _five_by_200(args, model) if args.dataset == "chexpert" else None
    train, valid, test = (data.ids(part) for part in ("train", "valid", "test"))
    extra = five.ids("test") if five else ()
    probe = PROBES[args.probe](model, data, [*dict.fromkeys([*train, *valid, *test, *extra])])
    out = Outcome(args.probe, [], {"test_ids": np.array(test)}, _splits(data, five))
    out.predictions["test_targets"] = data.targets(test)
    for share in FRACTIONS:
        chosen, notes = _share(args, train, data.table, share)
        classify = probe.fit(data, chosen, valid, args.seed)
        scores = classify(probe.of(test))
        out.predictions[f"test_scores_{share:g}"] = scores
        out.cells += _ranking(args.dataset, data.targets(test), scores, share)
        out.details[f"{share:g}"] = {"images": len(chosen), "warnings": notes}
        if data.task.exclusive:
            hits = scores.argmax(axis=1) == data.classes(test)
            out.cells.append(Cell(args.dataset, "accuracy", float(hits.mean()), len(test), share))
            continue
        cuts = zero_shot.cuts_on(data.targets(valid), classify(probe.of(valid)), "youden")
        if five:
            rates = zero_shot.single_label_rates(
                five.classes(extra), classify(probe.of(extra)), cuts
            )
            out.cells += _rates("chexpert5x200", rates, len(extra), share)
        else:
            rates = binary_rates(data.targets(test)[:, 0], scores[:, 0] >= cuts[0])
            out.cells += _rates(args.dataset, rates, len(test), share)
        out.details[f"{share:g}"]["thresholds"] = cuts
    return out


def _share(
    args: Args, train: Sequence[str], table: RecordTable, share: float
) -> tuple[tuple[str, ...], list[str]]:
    """A share of the training images, and what is to be said of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        chosen = fraction(train, table, share, seed=args.seed, rule=args.fraction_rule)
    return chosen, [str(w.message) for w in caught]


def zero_shot_classification(args: Args, model: Predictor) -> Outcome:
    """Prompted classification; thresholds come from the validation part."""
    cfg = args.prompts
    data = Downstream(args.dataset, args.data_root, size=model.size)
    calibration = (
        Downstream("chexpert", args.data_root, size=model.size)
        if args.dataset == "chexpert5x200"
        else data
    )
    words = RSNA if args.dataset == "rsna" else VOCABULARIES[cfg.vocabulary]
    prompts = draw_prompts(words, n=cfg.n, seed=cfg.seed)
    valid, test = calibration.ids("valid"), data.ids("test")

    def scores_of(part: Downstream, ids: tuple[str, ...]) -> np.ndarray:
        scores = zero_shot.class_scores(model, part, ids, prompts, cfg)
        return scores[:, :1] - scores[:, 1:2] if args.dataset == "rsna" else scores

    scores, targets = scores_of(data, test), data.targets(test)
    cuts = None
    if cfg.threshold != "argmax":
        found = scores_of(calibration, valid)
        cuts = zero_shot.cuts_on(calibration.targets(valid), found, cfg.threshold)
    cells = _ranking(args.dataset, targets, scores, None)
    if args.dataset == "chexpert5x200":
        rates = zero_shot.single_label_rates(data.classes(test), scores, cuts)
        cells += _rates(args.dataset, rates, len(test), None)
    elif args.dataset == "rsna":
        cut = cuts[0] if cuts else 0.0  # the score is positive where pneumonia's prompts are best
        rates = binary_rates(targets[:, 0], scores[:, 0] >= cut)
        cells += _rates(args.dataset, rates, len(test), None)
    kept = {"test_ids": np.array(test), "test_targets": targets, "test_scores": scores}
    details = {"thresholds": cuts, "prompts": prompts, "settings": config.to_dict(cfg)}
    return Outcome("zero_shot/gloria", cells, kept, _splits(data, calibration), details)


def image_to_report(args: Args, model: Predictor) -> Outcome:
    """Precision@K with the query's own report among the candidates, and without it."""
    data = _five_by_200(args, model)
    ids, reports = data.reports(data.ids("test"), args.data_root)
    classes = data.classes(ids)
    similarity = retrieval.similarity_matrix(model, data, ids, reports)
    cells = []
    for name, matrix in (("", similarity), ("_without_self", retrieval.without_self(similarity))):
        for k in (5, 10, 100):
            value = precision_at_k(matrix, classes, classes, k)
            cells.append(Cell("chexpert5x200", f"precision_at_{k}{name}", value, len(ids)))
    kept = {
        "test_ids": np.array(ids),
        "classes": classes,
        "similarity": similarity.astype(np.float16),
    }
    return Outcome(
        "retrieval/gloria",
        cells,
        kept,
        _splits(data),
        {"without_report": len(data.ids("test")) - len(ids)},
    )


def segment(args: Args, model: Predictor) -> Outcome:
    """U-Net segmentation at every label fraction, and Dice of the test images."""
    protocol, name = f"segmentation/{args.recipe}", args.dataset
    recipe = segmentation.RECIPES[protocol]
    table = load(name, args.data_root)
    split = splits.build(DENSE[name], load_tables(name, args.data_root))
    images = open_prepared(args.data_root, name, recipe.size) or DecodedImages(table, recipe.size)
    scans = segmentation.Scans(name, table, images)
    train, valid, test = (split.parts[part] for part in ("train", "valid", "test"))
    if name == "siim":
        train = segmentation.balanced(scans, train, seed=args.seed)
    kept: dict[str, np.ndarray] = {"test_ids": np.array(test)}
    out = Outcome(protocol, [], kept, {split.id: describe_split(split, table)})
    positive = np.array([scans.positive(i) for i in test])
    for share in FRACTIONS:
        chosen, notes = _share(args, train, table, share)
        net = segmentation.fit(model.backbone, scans, chosen, valid, recipe, seed=args.seed)
        scores = segmentation.evaluate(net, scans, test, batch=recipe.batch_rsna)
        kept[f"dice_{share:g}"] = scores.dice
        found = {
            "dice": float(scores.dice.mean()),
            "dice_positives": float(scores.dice[positive].mean()),
            "dice_batch_mean": scores.batch_mean,
        }
        out.cells += [Cell(name, metric, v, len(test), share) for metric, v in found.items()]
        out.details[f"{share:g}"] = {
            "images": len(chosen),
            "positives": int(positive.sum()),
            "warnings": notes,
        }
    return out


def detect(args: Args, model: Predictor) -> Outcome:
    """YOLOv3 detection at every label fraction, and mAP on the test images."""
    protocol, name = f"detection/{args.recipe}", args.dataset
    recipe = detection.RECIPES[protocol]
    table = (
        object_cxr.load(args.data_root, polygons=recipe.polygon_boxes)
        if name == "object_cxr"
        else load(name, args.data_root)
    )
    split = splits.build(DENSE[name], load_tables(name, args.data_root))
    images = open_prepared(args.data_root, name, recipe.size) or DecodedImages(table, recipe.size)
    data = detection.Boxes(table, images, stretch=recipe.aspect == "stretch")
    train, valid, test = (split.parts[part] for part in ("train", "valid", "test"))
    kept: dict[str, np.ndarray] = {"test_ids": np.array(test)}
    out = Outcome(protocol, [], kept, {split.id: describe_split(split, table)})
    truth = [data.corners(i) for i in test]
    for share in FRACTIONS:
        chosen, notes = _share(args, train, table, share)
        few = share == FRACTIONS[0]
        net = detection.fit(model.backbone, data, chosen, valid, recipe, few=few, seed=args.seed)
        found = detection.detections_of(net, data, test, recipe.size)
        for metric, skip in (("map", "none"), ("map_released", "released")):
            value = detection.mean_precision(found, truth, ious=recipe.ious, skip=skip)
            out.cells.append(Cell(name, metric, value, len(test), share))
        rows = [np.c_[np.full(len(f), k), f.numpy()] for k, f in enumerate(found)]
        kept[f"detections_{share:g}"] = np.concatenate(rows).astype(np.float32)
        out.details[f"{share:g}"] = {
            "images": len(chosen),
            "boxes": sum(map(len, truth)),
            "warnings": notes,
        }
    return out


def _splits(*used: Downstream | None) -> dict[str, Any]:
    return {data.split.id: describe_split(data.split, data.table) for data in used if data}


def _five_by_200(args: Args, model: Predictor) -> Downstream:
    return Downstream("chexpert5x200", args.data_root, size=model.size)


def _ranking(
    dataset: str, targets: np.ndarray, scores: np.ndarray, share: float | None
) -> list[Cell]:
    """AUROC with a bootstrap interval, and AUPRC."""
    area = bootstrap(auroc, targets, scores, resamples=200)
    first = Cell(dataset, "auroc", area.value, len(targets), share, (area.low, area.high))
    return [first, Cell(dataset, "auprc", auprc(targets, scores), len(targets), share)]


def _rates(dataset: str, rates: dict[str, float], n: int, share: float | None) -> list[Cell]:
    return [Cell(dataset, name, rates[name], n, share) for name in RATES]


PROTOCOLS: dict[str, Callable[[Args, Predictor], Outcome]] = {
    "linear": linear,
    "zero_shot": zero_shot_classification,
    "retrieval": image_to_report,
    "segmentation": segment,
    "detection": detect,
}


def run(args: Args) -> Path:
    """Evaluate and write the result; a row that cannot run leaves its reason instead."""
    started, spec = time.monotonic(), MODELS[args.model]
    path = result_path(args.results, Evaluation(spec, args.task, args.dataset).name, args.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
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
        model = ready(spec, args.corpus, args.seed, args.run)
    except NotRunnable as reason:
        record["not_run"] = str(reason)
    else:
        outcome = PROTOCOLS[args.task](args, model)
        record |= {
            "protocol": outcome.protocol,
            "cells": [asdict(cell) for cell in outcome.cells],
            "splits": outcome.splits,
            "details": outcome.details,
            "pretraining": _pretraining(args.run, outcome) if spec.pretrained else None,
        }
        np.savez_compressed(path.with_suffix(".npz"), allow_pickle=False, **outcome.predictions)
    record["seconds"] = round(time.monotonic() - started, 1)
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


def _pretraining(folder: Path, outcome: Outcome) -> dict[str, Any]:
    """Provenance of the run, its weights' hash, and how many test images it was trained on."""
    record: dict[str, Any] = json.loads((folder / "provenance.json").read_text())
    seen = set(json.loads((folder / "split.json").read_text())["parts"]["train"])
    return {
        **record,
        "checkpoint_sha256": file_sha256(folder / "best" / "model.safetensors"),
        "test_images_seen": len(seen & set(outcome.predictions["test_ids"].tolist())),
    }


def main() -> None:
    """Command line."""
    args = tyro.cli(Args, description=__doc__)
    if args.model not in MODELS:
        raise SystemExit(f"error: unknown model {args.model!r}; choose one of: {', '.join(MODELS)}")
    if args.dataset not in DATASETS_OF[args.task]:
        raise SystemExit(f"error: {args.task} runs on {', '.join(DATASETS_OF[args.task])}")
    try:
        print(run(args))
    except (CheckpointError, DataError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
