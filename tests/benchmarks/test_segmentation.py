"""U-Net protocol: golden losses and Dice, frozen encoders, and that it learns."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from benchmarks.protocols.frozen import maps_of
from benchmarks.protocols.segmentation import (
    STAGES,
    MgcaSegmentation,
    PhantomSegmentation,
    Scans,
    UNet,
    balanced,
    dice_per_image,
    evaluate,
    fit,
    focal_loss,
    mixed_loss,
    shuffled_batches,
    soft_dice,
)
from common.data import load
from common.data.phantom.writers import write_corpus
from common.data.prepare import DecodedImages
from common.data.tables import DataError

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_golden_losses_of_gloria(dtype: torch.dtype, tolerance: float) -> None:
    g = np.load(GOLDEN / "gloria" / "segmentation.npz")
    logits = torch.tensor(g["logit"], dtype=dtype, requires_grad=True)
    masks = torch.tensor(g["mask"], dtype=dtype)
    close: dict[str, Any] = {"rtol": tolerance, "atol": tolerance}
    np.testing.assert_allclose(focal_loss(logits, masks).item(), g["focal"], **close)
    dice = soft_dice(logits.sigmoid(), masks)
    np.testing.assert_allclose(dice.item(), g["soft_dice"], **close)
    loss = mixed_loss(logits, masks)
    np.testing.assert_allclose(loss.item(), g["mixed"], **close)
    np.testing.assert_allclose(torch.autograd.grad(loss, logits)[0], g["grad"], **close)
    metric = dice_per_image(logits.detach().sigmoid(), masks).mean()
    np.testing.assert_allclose(metric, g["dice_metric"], rtol=1e-6)
    empty = dice_per_image(torch.tensor(g["prob_empty"], dtype=dtype), masks).mean()
    np.testing.assert_allclose(empty, g["dice_metric_empty"], rtol=1e-6)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_golden_losses_of_mgca(kind: str) -> None:
    g = np.load(GOLDEN / "mgca" / "segmentation.npz")
    logits = torch.tensor(g["logit"], requires_grad=True)
    masks = torch.tensor(g[kind], dtype=torch.float32)
    close: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(
        soft_dice(logits.sigmoid(), masks).item(), g[f"{kind}_dice_coefficient"], **close
    )
    np.testing.assert_allclose(focal_loss(logits, masks).item(), g[f"{kind}_focal"], **close)
    loss = mixed_loss(logits, masks)
    np.testing.assert_allclose(loss.item(), g[f"{kind}_mixed"], **close)
    grad = torch.autograd.grad(loss, logits)[0]
    np.testing.assert_allclose(grad, g[f"{kind}_mixed_grad"], rtol=1e-4, atol=1e-6)
    size = logits.shape[-1]
    metric = dice_per_image(
        logits.detach().sigmoid().reshape(-1, size, size), masks.reshape(-1, size, size)
    )
    np.testing.assert_allclose(metric.mean(), g[f"{kind}_batch_dice_metric"], rtol=1e-5)


def test_zero_logits_cost_a_quarter_of_log_2() -> None:
    loss = focal_loss(torch.zeros(2, 4, 4), torch.ones(2, 4, 4))
    assert loss.item() == pytest.approx(0.25 * np.log(2))


def test_published_decoder() -> None:
    """ResNet-50 at 224: one logit a pixel, 32.5 M parameters as the common library counts them."""
    with torch.device("meta"):
        net = UNet(
            timm.create_model("resnet50", num_classes=0, global_pool=""), MgcaSegmentation().decoder
        )
        assert net(torch.zeros(1, 1, 224, 224)).shape == (1, 224, 224)
    assert sum(p.numel() for p in net.parameters()) == 32_521_105


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scans]:
    root = tmp_path_factory.mktemp("phantom")
    write_corpus(root, size="ci", datasets=["siim", "rsna"], workers=1)
    tables = {name: load(name, root) for name in ("siim", "rsna")}
    return {name: Scans(name, table, DecodedImages(table, 96)) for name, table in tables.items()}


@pytest.mark.parametrize("name", ["siim", "rsna"])
def test_masks_lie_where_the_annotation_is(scans: dict[str, Scans], name: str) -> None:
    ids = scans[name].table.frame["image_id"].tolist()
    positive = [i for i in ids if scans[name].positive(i)]
    assert 0 < len(positive) < len(ids)
    images, masks = scans[name].batch(ids)
    assert images.shape == (len(ids), 1, 96, 96)
    filled = {i for i, mask in zip(ids, masks, strict=True) if mask.max() > 0}
    assert filled == set(positive)
    half = balanced(scans[name], ids, seed=0)
    assert sum(scans[name].positive(i) for i in half) == len(positive) == len(half) / 2


def test_turning_moves_image_and_mask_alike(scans: dict[str, Scans]) -> None:
    data = scans["siim"]
    ids = [i for i in data.table.frame["image_id"] if data.positive(i)][:4]
    plain, turned = data.batch(ids), data.batch(ids, np.random.default_rng(0), 1.0)
    assert not torch.equal(plain[0], turned[0])
    assert not torch.equal(plain[1], turned[1])
    assert (turned[1].sum((1, 2)) / plain[1].sum((1, 2)) - 1).abs().max() < 0.4


def test_a_mask_that_overruns_names_its_image(scans: dict[str, Scans]) -> None:
    data = copy.copy(scans["siim"])
    name = data.table.frame["image_id"][0]
    data.rles = {**data.rles, name: f"0 {data.side**2 + 1}"}
    with pytest.raises(DataError, match=rf"siim: image {name}: a run ends at"):
        data.mask(name)


def test_an_epoch_of_steps_repeats_passes_over_few_images() -> None:
    ids = ["a", "b", "c", "d", "e"]
    passes = list(shuffled_batches(ids, 2, np.random.default_rng(0)))
    assert [len(batch) for batch in passes] == [2, 2]
    steps = list(shuffled_batches(ids, 2, np.random.default_rng(0), 5))
    assert steps[:2] == passes
    assert len(steps) == 5
    assert all(len({*steps[k], *steps[k + 1]}) == 4 for k in (0, 2))  # no repeat inside a pass
    assert [len(batch) for batch in shuffled_batches(ids, 8, np.random.default_rng(0), 3)] == [
        5
    ] * 3


@pytest.mark.slow
def test_the_decoder_learns_on_a_frozen_encoder(scans: dict[str, Scans]) -> None:
    data = scans["rsna"]
    ids = [i for i in data.table.frame["image_id"] if data.positive(i)][:8]
    torch.manual_seed(0)
    backbone = timm.create_model(
        "resnet10t", num_classes=0, global_pool="", stem_width=8, channels=(16, 32, 64, 128)
    )
    recipe = replace(
        PhantomSegmentation(), batch_rsna=8, epochs=80, epoch_steps=1, patience=80, augment=0.0
    )
    net = fit(backbone, data, ids, ids, recipe, seed=0)
    for name, value in backbone.state_dict().items():
        torch.testing.assert_close(net.backbone.state_dict()[name], value)
    assert evaluate(net, data, ids, batch=8).dice.mean() > 0.5

    short, shared = (
        replace(recipe, epochs=3),
        maps_of(backbone.eval(), data.inputs, STAGES, keep=True),
    )
    own = fit(backbone, data, ids, ids, short, seed=0)
    for _ in range(2):  # the second finds its maps there
        other = fit(backbone, data, ids, ids, short, seed=0, maps=shared)
        torch.testing.assert_close(other.state_dict(), own.state_dict())
