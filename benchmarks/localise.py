"""Segmentation, detection and phrase grounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer

from benchmarks.core import FRACTIONS, Cell, NotRunnable
from benchmarks.downstream import describe_split
from benchmarks.job import DENSE, Args, Outcome, share_of
from benchmarks.models import MODELS
from benchmarks.protocols import detection, grounding, regions, segmentation, upernet
from benchmarks.protocols.frozen import maps_of
from common.config import to_dict
from common.data import load, load_tables, ms_cxr, object_cxr, splits
from common.data.prepare import DecodedImages, Images, open_prepared
from common.data.records import RecordTable
from common.data.tables import DataError
from common.interface import Encoder
from common.metrics import bootstrap_mean
from common.training import channels_last
from lrclr.model import LRCLR

UPERNET = {"siim": "siim/maco-v1"}
"""Splits of UPerNet's protocol where they differ from `DENSE`."""


class Dense(NamedTuple):
    """What a dense task finds on disk.

    Attributes:
        table: Records whose images are there and, where they were prepared, readable.
        images: Where pixels come from.
        parts: Ids of the training, validation and test part; absent ones are warned of.
        described: The split, for the result.
    """

    table: RecordTable
    images: Images
    parts: tuple[tuple[str, ...], ...]
    described: dict[str, Any]


def dense_data(args: Args, table: RecordTable, *, size: int, split_id: str = "") -> Dense:
    """The images of a dense task at `size`, in the parts of its split."""
    name = args.dataset
    tables = load_tables(name, args.data_root)
    prepared = open_prepared(args.data_root, name, size, table_sha256=tables.table_sha256)
    if prepared:
        table = table.where(table.frame["image_id"].isin(prepared.row.keys()), "not_prepared")
    split = splits.build(args.split or split_id or DENSE[name], tables)
    parts = (split.select(part, table).frame["image_id"] for part in ("train", "valid", "test"))
    return Dense(
        table,
        prepared or DecodedImages(table, size),
        tuple(map(tuple, parts)),
        {split.id: describe_split(split, table)},
    )


SCALES = 5
"""Of a ResNet's stem and stages."""


def require_scales(model: Encoder) -> None:
    """Refuse an image encoder whose maps are all of one scale, as a ViT's are.

    Raises:
        NotRunnable: If U-Net and YOLOv3 cannot stand on it.
    """
    maps = getattr(model.backbone, "feature_info", [])
    if len({info["reduction"] for info in maps}) < SCALES:
        raise NotRunnable("its image encoder gives maps of one scale, this net needs a ResNet's")


def segment(args: Args, model: Encoder) -> Outcome:
    """U-Net segmentation at every label fraction, and Dice of the test images."""
    protocol, name = f"segmentation/{args.recipe}", args.dataset
    if protocol in upernet.RECIPES:
        return segment_upernet(args, model, upernet.RECIPES[protocol], protocol)
    require_scales(model)
    recipe = segmentation.RECIPES[protocol]
    data = dense_data(args, load(name, args.data_root), size=recipe.size)
    scans = segmentation.Scans(name, data.table, data.images, pixels=recipe.pixels)
    train, valid, test = data.parts
    if name == "siim":
        train = segmentation.balanced(scans, train, seed=args.seed)
    kept: dict[str, np.ndarray] = {"test_ids": np.array(test)}
    out = Outcome(protocol, [], kept, data.described)
    positive = positives_of(scans, test)
    backbone, maps = channels_last(model.backbone), None
    if segmentation.is_frozen(recipe):
        maps = maps_of(backbone, scans.inputs, segmentation.STAGES, keep=True)
    for share in MODELS[args.model].fractions:
        chosen, facts = share_of(args, train, data.table, share)
        net = segmentation.fit(backbone, scans, chosen, valid, recipe, seed=args.seed, maps=maps)
        size = recipe.batch_siim if name == "siim" else recipe.batch_rsna
        scores = segmentation.evaluate(net, scans, test, batch=size, maps=maps)
        kept[f"dice_{share:g}"] = scores.dice
        out.cells += dice_cells(name, scores.dice, positive, share)
        out.cells.append(Cell(name, "dice_batch_mean", scores.batch_mean, len(test), share))
        out.details[f"{share:g}"] = {
            **facts,
            "positives": int(positive.sum()),
        }
    return out


def positives_of(scans: segmentation.Scans, ids: Sequence[str]) -> NDArray[np.bool_]:
    """(n,) which images have a mask.

    Raises:
        DataError: If none has.
    """
    positive = np.array([scans.positive(i) for i in ids], bool)
    if not positive.any():
        raise DataError(f"{scans.dataset}: none of {len(ids)} test images has a mask to be found")
    return positive


def dice_cells(
    name: str, dice: NDArray[np.float32], positive: NDArray[np.bool_], share: float
) -> list[Cell]:
    """Mean Dice over the test images and over those with a mask, with bootstrap intervals."""
    cells = []
    for metric, values in (("dice", dice), ("dice_positives", dice[positive])):
        found = bootstrap_mean(values)
        ends = (found.low, found.high)
        cells.append(Cell(name, metric, found.value, len(values), share, ends))
    return cells


def segment_upernet(
    args: Args, model: Encoder, recipe: upernet.MacoSegmentation, protocol: str
) -> Outcome:
    """UPerNet at every label fraction, and the four kinds of Dice of the test images."""
    name = args.dataset
    if not isinstance(model.backbone, VisionTransformer):
        raise NotRunnable("UPerNet reads a vision transformer's blocks")
    table, own = load(name, args.data_root), UPERNET.get(name, "")
    data = dense_data(args, table, size=recipe.size, split_id=own)
    scans = segmentation.Scans(name, data.table, data.images)
    train, valid, test = data.parts
    if recipe.sampler == "balanced":
        train = segmentation.balanced(scans, train, seed=args.seed)
    kept: dict[str, np.ndarray] = {"test_ids": np.array(test)}
    out = Outcome(protocol, [], kept, data.described)
    positive = positives_of(scans, test)
    for share in MODELS[args.model].fractions:
        chosen, facts = share_of(args, train, data.table, share)
        stage = FRACTIONS.index(share)
        net = upernet.fit(
            model.backbone,
            scans,
            chosen,
            valid,
            recipe,
            stage=stage,
            seed=args.seed,
            path=args.unfinished(share),
        )
        found = upernet.evaluate(net, scans, test, batch=16)
        kept[f"dice_{share:g}"] = found.images
        out.cells += dice_cells(name, found.images, positive, share)
        values = {"dice_pooled": found.pooled, "dice_pooled_front": found.pooled_front}
        out.cells += [Cell(name, metric, v, len(test), share) for metric, v in values.items()]
        out.details[f"{share:g}"] = facts
    return out


def ground(args: Args, model: Encoder) -> Outcome:
    """Zero-shot phrase grounding on MS-CXR, beside a centre prior, and over a grid of tau."""
    if not isinstance(model, grounding.Grounder):
        raise DataError(f"{args.model} has no map of a phrase over an image: nothing to ground")
    cfg, table = args.phrases, ms_cxr.load(args.data_root)
    everything = ms_cxr.phrases(args.data_root)
    there = set(table.frame["image_id"])
    phrases = [phrase for phrase in everything if phrase.image_id in there]
    if not phrases:
        raise DataError(f"none of {len(everything)} phrases of MS-CXR has its image")
    images = DecodedImages(table, model.size)
    maps = grounding.similarities(model, images, phrases, cosine=cfg.similarity == "cosine")
    weights = model.position_weights().cpu().numpy() if hasattr(model, "position_weights") else None
    if weights is not None and not np.ptp(weights):
        weights = None  # no loss has trained them: all places weigh alike
    found = grounding.evaluate(maps, phrases, weights, cfg)
    prior = [grounding.centre_prior(len(maps[0]))] * len(maps)
    others = {"centre_prior": grounding.evaluate(prior, phrases, None, cfg, ties="share")}
    if weights is not None:  # what the image says of the place, and what the weights alone do
        flat = [np.ones_like(weights)] * len(maps)
        others["similarity_alone"] = grounding.evaluate(maps, phrases, None, cfg)
        others["weights_alone"] = grounding.evaluate(flat, phrases, weights, cfg)
    values = dict(found.overall)
    for name, other in others.items():
        values |= {f"{metric}_{name}": value for metric, value in other.overall.items()}
    if weights is not None:
        places = grounding.weights_by_place(weights, phrases, cfg)
        values |= dict(
            zip(("position_weight_in_boxes", "position_weight_border"), places, strict=True)
        )
    test_ids = np.array([phrases[k].image_id for k in found.kept])
    intervals = {}
    beyond = found.values - others["centre_prior"].values  # of the same phrases
    for columns, end in ((found.values, ""), (beyond, "_over_centre_prior")):
        for name, column in zip(("miou", "cnr", "pointing_game"), columns.T, strict=True):
            mean = bootstrap_mean(column, groups=test_ids)
            values[f"{name}{end}"], intervals[f"{name}{end}"] = mean.value, (mean.low, mean.high)
    out = Outcome(
        "grounding/maco",
        [
            Cell(args.dataset, metric, value, len(found.kept), None, intervals.get(metric))
            for metric, value in values.items()
        ],
        {
            "test_ids": test_ids,
            "miou_cnr_pointing": found.values,
        },
        {},
        {
            "counts": {
                **found.counts,
                "on_absent_images": len(everything) - len(phrases),
                "boxes": sum(len(phrase.boxes) for phrase in phrases),
                **ms_cxr.left_out(args.data_root),
            },
            "by_category": found.by_category,
            "settings": to_dict(cfg),
            "table_sha256": table.table_sha256,
            "images_by_mimic_part": ms_cxr.seen_in_pretraining(args.data_root),
        },
    )
    if weights is not None:
        out.details["tau"] = {
            f"{tau:g}": grounding.evaluate(maps, phrases, weights, replace(cfg, tau=tau)).overall
            for tau in grounding.TAUS
        }
    return out


def select_regions(args: Args, model: Encoder) -> Outcome:
    """Regions that LRCLR's selection picks, against the boxes of the test images."""
    if not isinstance(model, LRCLR):
        raise NotRunnable("it selects no regions")
    name = args.dataset
    data = dense_data(args, load(name, args.data_root), size=model.size)
    boxes = detection.Boxes(data.table, data.images, stretch=False)
    found = regions.overlap(model, boxes, data.images, data.parts[2])
    values = {"selected": found.selected, "chance": found.chance, "ratio": found.ratio}
    return Outcome(
        "regions",
        [Cell(name, metric, value, len(found.images)) for metric, value in values.items()],
        {"test_ids": np.array(found.ids), "selected": found.images},
        data.described,
        {"patches": len(regions.centres(model.config.image)), "heads": model.config.image.heads},
    )


def detect(args: Args, model: Encoder) -> Outcome:
    """YOLOv3 detection at every label fraction, and mAP on the test images."""
    protocol, name = f"detection/{args.recipe}", args.dataset
    require_scales(model)
    recipe = detection.RECIPES[protocol]
    table = (
        object_cxr.load(args.data_root, polygons=recipe.polygon_boxes)
        if name == "object_cxr"
        else load(name, args.data_root)
    )
    there = dense_data(args, table, size=recipe.size)
    stretch = recipe.aspect == "stretch"
    data = detection.Boxes(there.table, there.images, stretch=stretch, scale=recipe.pixels)
    train, valid, test = there.parts
    kept: dict[str, np.ndarray] = {"test_ids": np.array(test)}
    out = Outcome(protocol, [], kept, there.described)
    truth = [data.corners(i) for i in test]
    backbone, maps = channels_last(model.backbone), None
    if recipe.batchnorm == "eval":
        maps = maps_of(backbone, data.inputs, detection.STAGES, keep=True)
    for share in MODELS[args.model].fractions:
        chosen, facts = share_of(args, train, there.table, share)
        few = share == FRACTIONS[0]
        net = detection.fit(
            backbone, data, chosen, valid, recipe, few=few, seed=args.seed, maps=maps
        )
        found = detection.detections_of(net, data, test, recipe.size, maps)
        for metric, skip in (("map", "none"), ("map_released", "released")):
            value = detection.mean_precision(found, truth, ious=recipe.ious, skip=skip)
            out.cells.append(Cell(name, metric, value, len(test), share))
        rows = [np.c_[np.full(len(f), k), f.numpy()] for k, f in enumerate(found)]
        kept[f"detections_{share:g}"] = np.concatenate(rows).astype(np.float32)
        out.details[f"{share:g}"] = {
            **facts,
            "boxes": sum(map(len, truth)),
        }
    return out
