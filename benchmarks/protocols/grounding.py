"""Zero-shot phrase grounding on boxes (MaCo Sec. 2.3 and 2.6, Tables 4 and 5; ledger G1-G12).

Deterministic: phrases keep their order, nothing is drawn. A heat map is the similarity of every
patch with the phrase, smoothed and scaled up; its position weights (MaCo) multiply a stored small
map, so a grid of tau costs one pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor
from tqdm.auto import tqdm

from common.config import cite
from common.data.ms_cxr import Phrase
from common.data.prepare import Images
from common.data.tables import DataError

Map = NDArray[np.float32]
PATCH_BATCH = 64
"""Phrases encoded at once."""
GRID = 14
"""Patches along a side of the paper's maps."""
TAUS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 10.0)
"""Grid of Fig. 5; only its best point, 0.1, can be read there."""


@dataclass(frozen=True)
class GroundingConfig:
    """Protocol `grounding/maco`."""

    tau: float = cite(
        0.1, paper="Fig. 5", code="grounding script: 0.02", released=0.02, ledger="G1"
    )
    """Softmax temperature of the position weights; models without them ignore it."""
    similarity: Literal["dot", "cosine"] = cite("dot", code="grounding script", ledger="G2")
    """Of patch and phrase."""
    smooth_sigma: float = cite(1.5, code="grounding script", ledger="G3")
    """Deviation of the Gaussian, patches of the paper's 14 x 14; other grids in proportion."""
    side: int = cite(224, code="grounding script")
    """Side of the maps that are judged, pixels."""
    thresholds: tuple[float, ...] = cite(
        (0.1, 0.2, 0.3, 0.4, 0.5), code="grounding script", ledger="G4"
    )
    """On maps scaled to [-1, 1]; IoU is averaged over them."""
    union: Literal["boolean", "sum"] = cite(
        "boolean", note="bug", code="grounding script", released="sum", ledger="G7"
    )
    """Overlapping boxes: a union, or counted twice and dropped from CNR."""


@runtime_checkable
class Grounder(Protocol):
    """A model that can say where a text is in an image."""

    def ground(self, images: NDArray[np.uint8], texts: Sequence[str], *, cosine: bool) -> Tensor:
        """(B, S, S) prepared pixels and B texts to (B, g, g) similarities."""
        ...


def boxes_at(boxes: NDArray[np.float64], width: int, height: int, side: int) -> NDArray[np.int64]:
    """(n, 4) x, y, width, height of the original to the padded square of `side`, rounded down."""
    scale = side / max(width, height)
    left, top = (int((side - int(size * scale)) / 2) for size in (width, height))
    return np.floor(boxes * scale).astype(np.int64) + np.array([left, top, 0, 0])


def phrase_mask(phrase: Phrase, cfg: GroundingConfig) -> NDArray[np.int64]:
    """(side, side) counts of boxes over each pixel; 0 or 1 for unions."""
    mask = np.zeros((cfg.side, cfg.side), np.int64)
    boxes = np.array([(b.x, b.y, b.width, b.height) for b in phrase.boxes], np.float64)
    for x, y, width, height in boxes_at(boxes, phrase.width, phrase.height, cfg.side):
        mask[y : y + height, x : x + width] += 1
    return np.minimum(mask, 1) if cfg.union == "boolean" else mask


def position_shares(weights: Map, tau: float) -> Map:
    """Softmax of (g, g) position weights over tau; sums to 1."""
    scaled = weights.astype(np.float64) / tau
    shares = np.exp(scaled - scaled.max())
    return np.asarray(shares / shares.sum(), np.float32)


def heat_map(similarity: Map, weights: Map | None, *, sigma: float, side: int) -> Map:
    """(g, g) similarities, weighted by position, smoothed and scaled up to (side, side).

    Args:
        similarity: (g, g) of each patch with the phrase.
        weights: (g, g) shares of `position_shares`; None weighs all alike.
        sigma: Of the Gaussian, patches.
        side: Of the result, pixels.
    """
    weighted = similarity if weights is None else similarity * weights
    smooth = gaussian_filter(weighted, sigma=sigma, mode="reflect")
    return np.asarray(cv2.resize(smooth, (side, side), interpolation=cv2.INTER_LINEAR), np.float32)


def rescaled(heat: Map) -> Map | None:
    """To [-1, 1]; None where all is alike."""
    low, high = float(heat.min()), float(heat.max())
    if high - low <= 1e-12 * max(abs(high), abs(low), 1e-30):
        return None
    return np.asarray(2 * (heat - low) / (high - low) - 1, np.float32)


@dataclass(frozen=True)
class Judgement:
    """How one map fits its boxes.

    Attributes:
        ious: Overlap at each threshold.
        cnr: Contrast-to-noise ratio, signed.
        pointing: Whether a maximum lies in a box.
    """

    ious: tuple[float, ...]
    cnr: float
    pointing: float


def judge(
    heat: Map,
    mask: NDArray[np.int64],
    thresholds: Sequence[float],
    *,
    ties: Literal["any", "share"] = "any",
) -> Judgement:
    r"""IoU at each threshold, CNR and pointing game of one map.

    .. math:: \mathrm{CNR} = (\mu_{in} - \mu_{out}) / \sqrt{\sigma^2_{in} + \sigma^2_{out}}

    Source: released grounding script; population variances. With overlapping boxes counted twice
    (`sum`) a count of 2 is neither inside nor outside.

    Args:
        heat: (S, S) in [-1, 1].
        mask: (S, S) counts of boxes.
        thresholds: Of the map.
        ties: The pointing game of several maxima: any of them in a box (released), or their share.
    """
    ious = []
    for cut in thresholds:
        guess, truth = heat > cut, mask > 0
        ious.append(int((guess & truth).sum()) / max(int((guess | truth).sum()), 1))
    inside, outside = heat[mask == 1].astype(np.float64), heat[mask == 0].astype(np.float64)
    noise = np.sqrt(inside.var() + outside.var()) if len(inside) and len(outside) else 0.0
    cnr = float((inside.mean() - outside.mean()) / noise) if noise else 0.0
    hits = mask[heat == heat.max()] > 0
    return Judgement(tuple(ious), cnr, float(hits.any() if ties == "any" else hits.mean()))


@dataclass(frozen=True)
class Report:
    """Judgements of all phrases.

    Attributes:
        overall: miou, cnr, cnr_absolute, pointing_game: means over phrases; with `_category` means
            over the categories' means.
        by_category: The same by category.
        counts: Phrases by category, and those left out.
        values: (n, 3) mean IoU, CNR and pointing of every phrase that was judged, in order.
        kept: Positions of those phrases among all.
    """

    overall: Mapping[str, float]
    by_category: Mapping[str, Mapping[str, float]]
    counts: Mapping[str, int]
    values: NDArray[np.float64]
    kept: list[int]


FLAT = Judgement((), 0.0, 0.0)


def summarise(
    categories: Sequence[str], judged: Sequence[Judgement], kept: Sequence[int], left_out: int
) -> Report:
    """Means over phrases and over categories."""
    values = np.array([[np.mean(j.ious) if j.ious else 0.0, j.cnr, j.pointing] for j in judged])
    names = np.array(categories)
    groups = {name: _means(values[names == name]) for name in sorted(set(categories))}
    overall = _means(values)
    for key in list(overall):
        overall[f"{key}_category"] = float(np.mean([group[key] for group in groups.values()]))
    counts = {name: int((names == name).sum()) for name in groups}
    return Report(overall, groups, {**counts, "left_out": left_out}, values, list(kept))


def _means(values: NDArray[np.float64]) -> dict[str, float]:
    miou, cnr, pointing = (float(column) for column in values.mean(axis=0))
    absolute = float(np.abs(values[:, 1]).mean())
    return {"miou": miou, "cnr": cnr, "cnr_absolute": absolute, "pointing_game": pointing}


def similarities(
    model: Grounder, images: Images, phrases: Sequence[Phrase], *, cosine: bool = False
) -> list[Map]:
    """(g, g) similarity of every phrase with its image's patches, one pass."""
    maps: list[Map] = []
    for start in tqdm(range(0, len(phrases), PATCH_BATCH), desc="grounding", unit="batch"):
        part = phrases[start : start + PATCH_BATCH]
        pixels = images.read([phrase.image_id for phrase in part])
        maps += list(model.ground(pixels, [t.text for t in part], cosine=cosine).cpu().numpy())
    return maps


def evaluate(
    maps: Sequence[Map],
    phrases: Sequence[Phrase],
    weights: Map | None,
    cfg: GroundingConfig,
    *,
    ties: Literal["any", "share"] = "any",
) -> Report:
    """Judge stored similarity maps under one weighting.

    Args:
        maps: (g, g) similarities by phrase.
        phrases: The phrases.
        weights: (g, g) position weights before the softmax; None for models without.
        cfg: Protocol.
        ties: See `judge`.

    Raises:
        DataError: If no phrase is left.
    """
    shares = None if weights is None else position_shares(weights, cfg.tau)
    categories, judged, kept = [], [], []
    for k, (similarity, phrase) in enumerate(zip(maps, phrases, strict=True)):
        mask = phrase_mask(phrase, cfg)
        if not mask.any():
            continue
        kept.append(k)
        sigma = cfg.smooth_sigma * len(similarity) / GRID
        heat = rescaled(heat_map(similarity, shares, sigma=sigma, side=cfg.side))
        categories.append(phrase.category)
        judged.append(FLAT if heat is None else judge(heat, mask, cfg.thresholds, ties=ties))
    if not judged:
        raise DataError(f"none of {len(phrases)} phrases has a box of a pixel at {cfg.side}")
    return summarise(categories, judged, kept, len(phrases) - len(kept))


def weights_by_place(
    weights: Map, phrases: Sequence[Phrase], cfg: GroundingConfig
) -> tuple[float, float]:
    """Mean position weight where the boxes lie, and on the outermost ring of patches (Fig. 4).

    Args:
        weights: (g, g) before any softmax.
        phrases: Their boxes say how much each patch counts in the first mean.
        cfg: Side of the boxes' frame.
    """
    grid = len(weights)
    covered = np.zeros((grid, grid))
    for phrase in phrases:
        mask = np.minimum(phrase_mask(phrase, cfg), 1).astype(np.float32)
        covered += cv2.resize(mask, (grid, grid), interpolation=cv2.INTER_AREA)
    ring = np.ones((grid, grid), bool)
    ring[1:-1, 1:-1] = False
    return float((weights * covered).sum() / covered.sum()), float(weights[ring].mean())


def centre_prior(grid: int) -> Map:
    """(g, g) map that falls off with the distance from the centre: what knowing nothing scores.

    On an even grid its middle patches tie: judge it with `ties="share"`.
    """
    axis = np.arange(grid) - (grid - 1) / 2
    return np.asarray(-np.hypot(axis[:, None], axis[None]), np.float32)
