"""How often the regions that attention selects lie in a finding's box, against random patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.downstream import batches
from benchmarks.protocols.detection import Boxes
from common.data.prepare import Images
from common.data.tables import DataError
from lrclr.config import ImageConfig
from lrclr.model import LRCLR


class Overlap(NamedTuple):
    """Means over images with boxes.

    Attributes:
        selected: Share of selected patches whose centre lies in a box.
        chance: Share of all patches whose centre does.
        ratio: Of the two; 1 is chance.
        images: (n,) share of selected patches of each image.
        ids: The n images.
    """

    selected: float
    chance: float
    ratio: float
    images: NDArray[np.float64]
    ids: tuple[str, ...]


def centres(image: ImageConfig) -> NDArray[np.float64]:
    """(P, 2) x and y of every patch's centre, shares of the stored square."""
    grid = image.input // image.patch
    steps = (np.arange(grid) + 0.5) * image.patch
    y, x = np.meshgrid(steps, steps, indexing="ij")
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    if image.fit == "crop":
        return np.asarray((points + (image.size - image.input) // 2) / image.size)
    return np.asarray(points / image.input)


def inside(points: NDArray[np.float64], boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(P,) whether a point lies in any of the boxes (n, 4), centre and size as shares."""
    left, right = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    within = np.all((points[:, None] >= left) & (points[:, None] <= right), axis=2)
    return np.asarray(within.sum(axis=1) > 0)


@torch.no_grad()
def overlap(model: LRCLR, boxes: Boxes, images: Images, ids: Sequence[str]) -> Overlap:
    """Selected patches against boxes, over the images of `ids` that have one.

    Raises:
        DataError: If none has.
    """
    model.eval()
    positive = [i for i in ids if len(boxes.shares(i))]
    if not positive:
        raise DataError(f"none of {len(ids)} test images has a box that regions could meet")
    points = centres(model.config.image)
    hits, everywhere = [], []
    start = 0
    for pixels in batches(images, positive, "regions"):
        regions = model.select(model.normalise(pixels))
        for image_id, patches in zip(
            positive[start : start + len(pixels)], regions.patch.cpu().numpy(), strict=True
        ):
            covered = inside(points, boxes.shares(image_id))
            hits.append(float(covered[patches].mean()))
            everywhere.append(float(covered.mean()))
        start += len(pixels)
    if not any(everywhere):
        raise DataError(
            f"no patch's centre lies in a box of any of {len(positive)} images: boxes are smaller "
            "than patches, nothing can be compared"
        )
    selected, chance = float(np.mean(hits)), float(np.mean(everywhere))
    return Overlap(selected, chance, selected / chance, np.array(hits), tuple(positive))
