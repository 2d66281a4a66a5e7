"""Grounding protocol: golden maps and metrics, hand-made cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.job import Args
from benchmarks.localise import ground
from benchmarks.models import RANDOM_MACO
from benchmarks.protocols.grounding import (
    TAUS,
    GroundingConfig,
    boxes_at,
    centre_prior,
    evaluate,
    heat_map,
    judge,
    phrase_mask,
    position_shares,
    rescaled,
    summarise,
    weights_by_place,
)
from benchmarks.weights import ready
from common.data.images import resize_and_pad
from common.data.ms_cxr import Phrase
from common.data.phantom.writers import write_corpus
from common.data.records import Box
from common.data.tables import DataError

G = np.load(Path(__file__).parents[1] / "golden" / "maco" / "grounding.npz")
CONFIG = GroundingConfig(side=32)


def phrase(*boxes: tuple[float, float, float, float], category: str = "Edema") -> Phrase:
    found = tuple(Box(*box, category) for box in boxes)
    return Phrase("a", Path("a.jpg"), "edema", category, found, 32, 32)


@pytest.mark.parametrize("tau", [None, 0.02, 0.1, 1.0])
def test_golden_heat_maps(tau: float | None) -> None:
    name = "none" if tau is None else str(tau).replace(".", "p")
    plain = np.einsum("ijd,d->ij", G["patches"], G["text"][0])
    weights = None if tau is None else position_shares(G["pos_weight"].reshape(14, 14), tau)
    small = heat_map(plain, weights, sigma=1.5, side=14)
    np.testing.assert_allclose(small, G[f"similarity_tau_{name}"], rtol=1e-5, atol=1e-6)
    large = heat_map(plain, weights, sigma=1.5, side=28)
    np.testing.assert_allclose(large, G[f"upsampled_tau_{name}"], rtol=1e-5, atol=1e-6)


def test_golden_metrics_of_summed_boxes() -> None:
    masks = G["gt_masks_sum_of_boxes"].astype(np.int64)
    for heat, mask, wanted in zip(
        G["heatmaps"], masks, G["iou_at_0p1_to_0p5_then_cnr_then_pointing"], strict=True
    ):
        scaled = rescaled(heat)
        assert scaled is not None
        found = judge(scaled, mask, (0.1, 0.2, 0.3, 0.4, 0.5))
        np.testing.assert_allclose(found.ious, wanted[:5], rtol=1e-5)
        assert found.cnr == pytest.approx(wanted[5], rel=1e-5)
        assert found.pointing == wanted[6]


def test_golden_boxes_and_padding() -> None:
    for size, box, at_224, at_512 in zip(
        G["box_sizes_w_h"],
        G["boxes_xywh"],
        G["boxes_xywh_at_224"],
        G["boxes_xywh_at_512"],
        strict=True,
    ):
        for side, wanted in ((224, at_224), (512, at_512)):
            found = boxes_at(box[None].astype(float), int(size[0]), int(size[1]), side)[0]
            np.testing.assert_array_equal(found, wanted)
    image = G["resize_pad_in"]
    np.testing.assert_array_equal(resize_and_pad(image, 16), G["resize_pad_to_16"])
    np.testing.assert_array_equal(resize_and_pad(image.T, 16), G["resize_pad_to_16_of_transpose"])


def test_a_perfect_map_scores_one_and_an_inverted_one_is_negative() -> None:
    target = phrase((8, 8, 8, 8))
    mask = phrase_mask(target, CONFIG)
    heat = 2 * mask.astype(np.float32) - 1
    noisy = heat + np.random.default_rng(0).normal(0, 0.01, heat.shape).astype(np.float32)
    found = judge(noisy, mask, (0.1, 0.5))
    assert found.ious == (1.0, 1.0)
    assert found.pointing == 1.0
    assert found.cnr > 50
    assert judge(-noisy, mask, (0.1,)).cnr < -50


def test_overlapping_boxes_are_a_union_unless_summed() -> None:
    target = phrase((0, 0, 8, 8), (4, 4, 8, 8))
    assert phrase_mask(target, CONFIG).max() == 1
    assert phrase_mask(target, replace(CONFIG, union="sum")).max() == 2


def test_flat_maps_score_zero_and_vanishing_boxes_are_counted() -> None:
    assert rescaled(np.ones((4, 4), np.float32)) is None
    flat, gone = np.ones((4, 4), np.float32), phrase((1, 1, 0.2, 0.2))
    report = evaluate([flat, flat], [gone, phrase((8, 8, 8, 8))], None, CONFIG)
    assert report.kept == [1]
    assert report.counts == {"Edema": 1, "left_out": 1}
    assert report.overall["miou"] == report.overall["cnr"] == 0.0
    with pytest.raises(DataError, match="none of 1 phrases"):
        evaluate([flat], [gone], None, CONFIG)


def test_tied_maxima_count_any_or_their_share() -> None:
    heat = rescaled(centre_prior(8))
    assert heat is not None
    corner = np.zeros((8, 8), np.int64)
    corner[:4, :4] = 1  # one of the four middle patches
    assert judge(heat, corner, (0.1,)).pointing == 1.0
    assert judge(heat, corner, (0.1,), ties="share").pointing == 0.25


def test_categories_weigh_alike_in_their_mean() -> None:
    good, bad = judge(centre_prior(8), np.eye(8, dtype=np.int64), (0.1,)), (0.0,)
    rows = [replace(good, ious=(1.0,)), replace(good, ious=(1.0,)), replace(good, ious=bad)]
    report = summarise(["a", "a", "b"], rows, [0, 1, 2], 0)
    assert report.overall["miou"] == pytest.approx(2 / 3)
    assert report.overall["miou_category"] == pytest.approx(0.5)


def test_position_weights_draw_the_map_to_where_they_are_large() -> None:
    weights = np.zeros((4, 4), np.float32)
    weights[0, 0] = 1.0
    even = np.ones((4, 4), np.float32)
    heat = heat_map(even, position_shares(weights, 0.1), sigma=0.5, side=32)
    row, column = (int(k) for k in np.unravel_index(heat.argmax(), heat.shape))
    assert max(row, column) < 8
    assert position_shares(weights, 0.1).sum() == pytest.approx(1)


def test_position_weights_by_place() -> None:
    """A box over the right half of a 4 x 4 grid: its weights 3 and 4, the ring's mean by hand."""
    weights = np.tile(np.arange(1, 5, dtype=np.float32), (4, 1))
    inside, border = weights_by_place(weights, [phrase((16, 0, 16, 32))], CONFIG)
    assert inside == pytest.approx(3.5)
    assert border == pytest.approx((10 + 10 + 1 + 1 + 4 + 4) / 12)


def test_an_evaluation_stands_beside_the_centre_prior(tmp_path: Path) -> None:
    write_corpus(tmp_path, size="ci", datasets=["mimic", "ms_cxr"], workers=1)
    args = Args("grounding", model=RANDOM_MACO.id, dataset="ms_cxr", data_root=tmp_path)
    model: Any = ready(RANDOM_MACO, "phantom", 0, tmp_path)
    untrained = ground(args, model)
    assert not [cell.metric for cell in untrained.cells if "alone" in cell.metric]
    assert "tau" not in untrained.details
    model.importance.weight.data[0, 0] = 1e-6  # as good as none
    out = ground(args, model)
    cells = {cell.metric: cell for cell in out.cells}
    for metric in ("miou", "cnr", "pointing_game"):
        beyond = cells[f"{metric}_over_centre_prior"]
        apart = cells[metric].value - cells[f"{metric}_centre_prior"].value
        assert beyond.value == pytest.approx(apart)
        assert beyond.interval is not None
        assert beyond.interval[0] < beyond.value < beyond.interval[1]
        alone = cells[f"{metric}_similarity_alone"].value
        assert alone == pytest.approx(cells[metric].value, abs=1e-3)
    corner = pytest.approx(1e-6 / 44)  # on the ring of 12 x 12
    assert cells["position_weight_border"].value == corner
    for kept in out.predictions.values():
        assert len(kept) == out.cells[0].n
    assert set(out.details["tau"]) == {f"{tau:g}" for tau in TAUS}
