"""Average precision of detections over several overlaps (pycocotools)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

IOUS = tuple(round(0.4 + 0.05 * k, 2) for k in range(8))
"""0.40 to 0.75 (ledger D34: the paper prints .65 for .55)."""


def mean_precision(
    detections: Sequence[Tensor],
    boxes: Sequence[Tensor],
    *,
    ious: Sequence[float] = IOUS,
    skip: str = "none",
) -> float:
    """COCO's 101-point precision, mean over overlaps (pycocotools); at most 100 boxes an image.

    Args:
        detections: Of each image, (k, 6) of `suppressed`.
        boxes: Of each image, (n, 4) left, top, right, bottom in pixels.
        ious: Overlaps from which a detection counts.
        skip: `released` leaves out images without box or without detection (ledger D35).

    Returns:
        In [0, 1]; NaN without any box.
    """
    pairs = list(zip(detections, boxes, strict=True))
    if skip == "released":
        pairs = [(found, truth) for found, truth in pairs if len(found) and len(truth)]
    truth = [
        {"id": 0, "image_id": k, "category_id": 1, "iscrowd": 0, **_coco(row)}
        for k, (_, rows) in enumerate(pairs)
        for row in rows.tolist()
    ]
    for number, entry in enumerate(truth, start=1):
        entry["id"] = number
    found = [
        {"image_id": k, "category_id": 1, "score": row[4], **_coco(row)}
        for k, (rows, _) in enumerate(pairs)
        for row in rows.tolist()
    ]
    if not truth:
        return float("nan")
    if not found:
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        images = [{"id": k} for k in range(len(pairs))]
        coco.dataset = {"images": images, "annotations": truth, "categories": [{"id": 1}]}
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(found), "bbox")
        judge.params.iouThrs = np.array(ious)
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][:, :, 0, 0, -1]
    return float(precision[precision > -1].mean())


def _coco(box: Sequence[float]) -> dict[str, Any]:
    left, top, right, bottom = box[:4]
    width, height = right - left, bottom - top
    return {"bbox": [left, top, width, height], "area": width * height}
