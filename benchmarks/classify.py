"""Classification and retrieval: linear, fine-tuned, zero-shot, image to report."""

from __future__ import annotations

import numpy as np

from benchmarks.core import Cell, NotRunnable
from benchmarks.downstream import Downstream
from benchmarks.findings import zero_shot_findings
from benchmarks.job import Args, Outcome, share_of, splits_of
from benchmarks.models import MODELS
from benchmarks.protocols import finetune, prompt_pairs, retrieval, zero_shot
from benchmarks.protocols.linear_probe import PROBES
from benchmarks.tasks import TASKS
from common import config
from common.data.tables import DataError
from common.interface import Encoder, Predictor
from common.metrics import auprc, auroc, binary_rates, bootstrap, precision_at_k, rank_auroc
from gloria.prompts import RSNA, VOCABULARIES, draw_prompts

LARGEST_K = 100
FIVE_OF = {"chexpert/mgca-released": "chexpert5x200/mgca-seed0"}
"""The 5x200 images that a training split leaves out, where they are not GLoRIA's."""
RATES = ("accuracy", "sensitivity", "specificity", "ppv", "npv", "f1")


def linear(args: Args, model: Encoder) -> Outcome:
    """Linear classification at every label fraction; CheXpert's classifier also meets 5x200."""
    data = Downstream(args.dataset, args.data_root, size=model.size, split=args.split)
    five = None
    if args.dataset == "chexpert":
        other = FIVE_OF.get(args.split or "", "")
        five = Downstream("chexpert5x200", args.data_root, size=model.size, split=other)
    train, valid, test = (data.ids(part) for part in ("train", "valid", "test"))
    extra = five.ids("test") if five else ()
    if shared := len({*train, *valid} & set(extra)):
        raise DataError(
            f"{shared} of the 5x200 test images belong to the training or validation part of "
            f"{args.split}; judge with another --split"
        )
    targets, valid_targets = both_classes(data, "test", test), both_classes(data, "valid", valid)
    probe = PROBES[args.probe](model, data, train, [*valid, *test, *extra])
    out = Outcome(args.probe, [], {"test_ids": np.array(test)}, splits_of(data, five))
    out.predictions |= {"test_targets": targets, "extra_ids": np.array(extra)}
    for share in MODELS[args.model].fractions:
        chosen, facts = share_of(args, train, data.table, share)
        classify = probe.fit(data, chosen, valid, args.seed)
        scores = classify(probe.of(test))
        out.predictions[f"test_scores_{share:g}"] = scores
        out.cells += _ranking(args.dataset, targets, scores, share)
        out.details[f"{share:g}"] = facts
        if data.task.exclusive:
            hits = scores.argmax(axis=1) == data.classes(test)
            out.cells.append(Cell(args.dataset, "accuracy", float(hits.mean()), len(test), share))
            continue
        cuts = zero_shot.cuts_on(valid_targets, classify(probe.of(valid)), "youden")
        if five:
            rates = zero_shot.single_label_rates(
                five.classes(extra), classify(probe.of(extra)), cuts
            )
            out.cells += _rates("chexpert5x200", rates, len(extra), share)
        else:
            rates = binary_rates(targets[:, 0], scores[:, 0] >= cuts[0])
            out.cells += _rates(args.dataset, rates, len(test), share)
        out.details[f"{share:g}"]["thresholds"] = cuts
    return out


def both_classes(data: Downstream, part: str, ids: tuple[str, ...]) -> np.ndarray:
    """Targets of a part in which every label is there and is absent.

    Raises:
        DataError: If one is not: it has no AUROC and no cut.
    """
    targets = data.targets(ids)
    flat = set(range(targets.shape[1])) - set(finetune.judged_labels(targets))
    if flat:
        names = ", ".join(data.task.labels[k] for k in sorted(flat))
        raise DataError(
            f"{data.split.id}: the {len(ids)} images of its {part} part are all alike in {names}; "
            "without both classes there is no AUROC and no cut"
        )
    return targets


def with_auroc(data: Downstream, part: str, ids: tuple[str, ...]) -> list[str]:
    """Labels that are there and are absent in a part.

    Raises:
        DataError: If none is: nothing can be judged.
    """
    names = [data.task.labels[k] for k in finetune.judged_labels(data.targets(ids))]
    if not names:
        raise DataError(
            f"{data.split.id}: in its {part} part ({len(ids)} images) no label is both there and "
            "absent; without both classes there is no AUROC"
        )
    return names


def finetuned(args: Args, model: Encoder) -> Outcome:
    """Fine-tuning at every label fraction: mean AUROC, and that of each label."""
    if not hasattr(model.backbone, "num_features"):
        raise NotRunnable("its image encoder is none of timm's, whose features are fine-tuned")
    protocol = f"finetune/{args.finetune}"
    data, recipe = (
        Downstream(args.dataset, args.data_root, size=model.size, split=args.split),
        finetune.RECIPES[protocol],
    )
    train, valid, test = (data.ids(part) for part in ("train", "valid", "test"))
    names = {part: with_auroc(data, part, ids) for part, ids in (("valid", valid), ("test", test))}
    targets = data.targets(test)
    out = Outcome(protocol, [], {"test_ids": np.array(test)}, splits_of(data))
    out.predictions["test_targets"] = targets
    both = [data.task.labels.index(name) for name in names["test"]]
    for part, key in (("test", "labels_without_auroc"), ("valid", "labels_not_validated")):
        out.details[key] = sorted(set(data.task.labels) - set(names[part]))
    for share in MODELS[args.model].fractions:
        chosen, facts = share_of(args, train, data.table, share)
        fitted = finetune.fit(
            model,
            data,
            chosen,
            valid,
            recipe,
            share=share,
            seed=args.seed,
            path=args.unfinished(share),
        )
        scores = finetune.scores_of(fitted.net, model, data, test, recipe)
        out.predictions[f"test_scores_{share:g}"] = scores
        out.cells += _ranking(args.dataset, targets[:, both], scores[:, both], share)
        if len(data.task.labels) > 1:
            columns = zip(names["test"], targets.T[both], scores.T[both], strict=True)
            out.cells += [
                Cell(args.dataset, f"auroc:{label}", auroc(truth, found), len(test), share)
                for label, truth, found in columns
            ]
        out.details[f"{share:g}"] = {
            **facts,
            "rate": fitted.rate,
            "valid_auroc": fitted.searched,
        }
    return out


def zero_shot_classification(args: Args, model: Predictor) -> Outcome:
    """Prompted classification; thresholds come from the validation part."""
    if TASKS[args.dataset].prompts == "pair":
        return zero_shot_pairs(args, model)
    if TASKS[args.dataset].prompts == "findings":
        return zero_shot_findings(args, model)
    cfg = args.prompts
    data = Downstream(args.dataset, args.data_root, size=model.size, split=args.split)
    calibration = (
        Downstream("chexpert", args.data_root, size=model.size)
        if args.dataset == "chexpert5x200"
        else data
    )
    words = RSNA if args.dataset == "rsna" else VOCABULARIES[cfg.vocabulary]
    prompts = draw_prompts(words, n=cfg.n, seed=cfg.seed)
    test = data.ids("test")
    tested = set(test)  # another draw of 5x200 meets the validation part
    valid = tuple(i for i in calibration.ids("valid") if i not in tested)

    def scores_of(part: Downstream, ids: tuple[str, ...]) -> np.ndarray:
        scores = zero_shot.class_scores(model, part, ids, prompts, cfg)
        return scores[:, :1] - scores[:, 1:2] if args.dataset == "rsna" else scores

    targets = both_classes(data, "test", test)
    scores = scores_of(data, test)
    cuts = None
    if cfg.threshold != "argmax":
        found = scores_of(calibration, valid)
        cuts = zero_shot.cuts_on(both_classes(calibration, "valid", valid), found, cfg.threshold)
    cells = _ranking(args.dataset, targets, scores, None)
    if args.dataset == "chexpert5x200":
        rates = zero_shot.single_label_rates(data.classes(test), scores, cuts)
        cells += _rates(args.dataset, rates, len(test), None)
    elif args.dataset == "rsna":
        cut = cuts[0] if cuts else 0.0  # the score is positive where pneumonia's prompts are best
        rates = binary_rates(targets[:, 0], scores[:, 0] >= cut)
        cells += _rates(args.dataset, rates, len(test), None)
    kept = {"test_ids": np.array(test), "test_targets": targets, "test_scores": scores}
    details = {
        "thresholds": cuts,
        "calibration_images": len(valid),
        "prompts": prompts,
        "settings": config.to_dict(cfg),
    }
    return Outcome("zero_shot/gloria", cells, kept, splits_of(data, calibration), details)


def zero_shot_pairs(args: Args, model: Predictor) -> Outcome:
    """Presence against absence: AUROC, and rates at the test part's and the validation's cuts.

    `f1` and `accuracy` are at the test part's own best cut, as printed in IMITATE Table VI;
    `f1_valid_cut` and `accuracy_valid_cut` at that of the validation part.
    """
    cfg = args.pairs
    data = Downstream(args.dataset, args.data_root, size=model.size, split=args.split)
    valid, test = data.ids("valid"), data.ids("test")
    names = [name.lower() for name in data.task.labels]
    targets, valid_targets = both_classes(data, "test", test), both_classes(data, "valid", valid)
    scores = prompt_pairs.probabilities(model, data, test, names, cfg)
    out = Outcome("zero_shot/pairs", _ranking(args.dataset, targets, scores, None), {}, {})
    calibration = prompt_pairs.probabilities(model, data, valid, names, cfg)
    sources = {"": (targets, scores), "_valid_cut": (valid_targets, calibration)}
    for suffix, chosen_on in sources.items():
        cuts = zero_shot.cuts_on(*chosen_on, cfg.threshold)
        rates = prompt_pairs.rates_at(targets, scores, cuts)
        for metric in ("f1", "accuracy"):
            value = float(np.mean([r[metric] for r in rates]))
            out.cells.append(Cell(args.dataset, metric + suffix, value, len(test)))
        out.details[f"cuts{suffix}"] = cuts
    out.predictions = {"test_ids": np.array(test), "test_targets": targets, "test_scores": scores}
    out.splits, out.details["settings"] = splits_of(data), config.to_dict(cfg)
    return out


def image_to_report(args: Args, model: Predictor) -> Outcome:
    """Precision@K with the query's own report among the candidates, and without it."""
    data = Downstream(args.dataset, args.data_root, size=model.size, split=args.split)
    ids, reports = data.reports(data.ids("test"), args.data_root)
    if len(ids) <= LARGEST_K:
        raise DataError(
            f"{data.split.id}: precision at {LARGEST_K} needs more reports than {len(ids)}"
        )
    classes = data.classes(ids)
    similarity = retrieval.similarity_matrix(model, data, ids, reports)
    cells = []
    for name, matrix in (("", similarity), ("_without_self", retrieval.without_self(similarity))):
        for k in (5, 10, LARGEST_K):
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
        splits_of(data),
        {"without_report": len(data.ids("test")) - len(ids)},
    )


def _ranking(
    dataset: str, targets: np.ndarray, scores: np.ndarray, share: float | None
) -> list[Cell]:
    """AUROC with a bootstrap interval, and AUPRC."""
    value = auroc(targets, scores)
    drawn = bootstrap(rank_auroc, targets, scores, resamples=200)
    first = Cell(dataset, "auroc", value, len(targets), share, (drawn.low, drawn.high))
    return [first, Cell(dataset, "auprc", auprc(targets, scores), len(targets), share)]


def _rates(dataset: str, rates: dict[str, float], n: int, share: float | None) -> list[Cell]:
    return [Cell(dataset, name, rates[name], n, share) for name in RATES]
