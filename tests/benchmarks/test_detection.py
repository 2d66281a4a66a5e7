"""YOLOv3 protocol: golden losses, boxes and precision, and that it learns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from benchmarks.protocols.detection import (
    BOX_WEIGHT,
    STAGES,
    Boxes,
    PhantomDetection,
    YOLOv3,
    anchors_of,
    decode,
    evaluate,
    fit,
    mean_precision,
    scale_loss,
    suppressed,
)
from benchmarks.protocols.frozen import maps_of
from common.data import load, object_cxr
from common.data.phantom.writers import write_corpus
from common.data.prepare import DecodedImages
from common.data.records import RecordTable
from common.data.tables import DataError

GOLDEN = Path(__file__).parents[1] / "golden" / "mgca"


@pytest.mark.parametrize("scale", [0, 1, 2])
def test_golden_losses_and_boxes(scale: int) -> None:
    g = np.load(GOLDEN / "yolo.npz")
    size = int(g["img_size"])
    anchors = torch.tensor(g["anchors"][scale])
    torch.testing.assert_close(anchors_of(scale, 224), anchors)  # kept for the small image too
    out = torch.tensor(g[f"out{scale}"], requires_grad=True)
    boxes = torch.tensor(g["targets_f64"][..., 1:], dtype=torch.float32)
    terms = scale_loss(out, boxes, anchors, size)
    total = sum((BOX_WEIGHT if k in "xywh" else 1.0) * v for k, v in terms.items())
    assert isinstance(total, torch.Tensor)
    ours = [total.item(), *(v.item() for v in terms.values())]
    np.testing.assert_allclose(ours, g[f"loss_total_x_y_w_h_conf_cls_{scale}"], rtol=1e-5)
    grad = torch.autograd.grad(total, out)[0]
    np.testing.assert_allclose(grad, g[f"grad{scale}"], rtol=1e-4, atol=1e-6)
    decoded = decode(out.detach(), anchors, size)
    np.testing.assert_allclose(decoded, g[f"decoded{scale}"], rtol=1e-5, atol=3e-4)


@pytest.mark.parametrize("image", [0, 1])
def test_golden_suppression(image: int) -> None:
    g = np.load(GOLDEN / "yolo.npz")
    confidence, overlap = (float(v) for v in g["nms_conf_iou"])
    decoded = torch.cat([torch.tensor(g[f"decoded{k}"][image]) for k in range(3)])
    ours = suppressed(decoded, confidence=confidence, overlap=overlap)
    np.testing.assert_allclose(ours, g[f"nms_kept_{image}"][:, :6], rtol=1e-5, atol=3e-4)


def test_golden_precision() -> None:
    g = np.load(GOLDEN / "detection_map.npz")
    size = 224
    decoded = torch.cat(
        [decode(torch.tensor(g[f"out{k}"]), anchors_of(k, size), size) for k in range(3)], dim=1
    )
    found = [suppressed(rows) for rows in decoded]
    for k, rows in enumerate(found):
        np.testing.assert_allclose(rows, g[f"kept_{k}"].reshape(-1, 7)[:, :6], rtol=1e-4, atol=1e-3)
    truth = []
    for rows in g["labels_f64"][..., 1:]:
        box = torch.tensor(rows[np.abs(rows).sum(axis=1) > 0] * size, dtype=torch.float32)
        truth.append(torch.cat([box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2], dim=1))
    ious = tuple(g["iou_thresholds"].astype(float).round(2))
    assert mean_precision(found, truth, ious=ious) == pytest.approx(g["map_all_images"], rel=1e-5)
    skipped = mean_precision(found, truth, ious=ious, skip="released")
    assert skipped == pytest.approx(float(g["map"]), rel=1e-5)


def test_published_head() -> None:
    """Every tensor of the released head has a counterpart of its shape."""
    layout = json.loads((GOLDEN / "yolo_head_layout.json").read_text())
    with torch.device("meta"):
        net = YOLOv3(timm.create_model("resnet50", num_classes=0, global_pool=""), 512)
        maps = net(torch.zeros(1, 1, 224, 224))
    assert [tuple(m.shape) for m in maps] == [(1, 18, 7, 7), (1, 18, 14, 14), (1, 18, 28, 28)]
    head = [v for k, v in net.state_dict().items() if not k.startswith("backbone")]
    assert sorted(tuple(v.shape) for v in head) == sorted(tuple(v) for v in layout.values())


def test_no_detection_is_no_precision() -> None:
    box = torch.tensor([[10.0, 10, 50, 50]])
    assert mean_precision([torch.zeros(0, 6)], [box]) == 0
    assert np.isnan(mean_precision([torch.zeros(0, 6)], [torch.zeros(0, 4)]))
    perfect = torch.tensor([[10.0, 10, 50, 50, 0.9, 1.0]])
    assert mean_precision([perfect], [box]) == pytest.approx(1)


def oblong(tmp_path: Path, annotation: str) -> RecordTable:
    """Object-CXR with one 60 x 40 image, its right half white."""
    for part in ("train", "dev"):
        (tmp_path / part).mkdir()
        picture = np.zeros((40, 60), np.uint8)
        picture[:, 30:] = 255
        Image.fromarray(picture).save(tmp_path / part / "1.jpg", quality=95)
        (tmp_path / f"{part}.csv").write_text(f"image_name,annotation\n1.jpg,{annotation}\n")
    return object_cxr.load(tmp_path)


@pytest.mark.parametrize(
    ("stretch", "share"), [(True, (0.75, 0.5, 0.5, 1)), (False, (0.75, 0.5, 0.5, 40 / 60))]
)
def test_boxes_follow_the_pixels_of_an_oblong_image(
    tmp_path: Path, stretch: bool, share: tuple[float, ...]
) -> None:
    table = oblong(tmp_path, "0 30 0 60 40")
    data = Boxes(table, DecodedImages(table, 30), stretch=stretch)
    images, boxes = data.inputs(["train/1.jpg"]), data.boxes_of(["train/1.jpg"])
    np.testing.assert_allclose(boxes[0, 0], share, rtol=1e-6)
    left, top, right, bottom = data.corners("train/1.jpg")[0].round().int().tolist()
    inside = torch.zeros(30, 30, dtype=torch.bool)
    inside[top:bottom, left:right] = True
    np.testing.assert_array_equal(images[0, 0] > 0, inside)


def test_a_box_outside_its_image_is_named(tmp_path: Path) -> None:
    table = oblong(tmp_path, "0 70 10 90 20")
    with pytest.raises(DataError, match=r"train/1\.jpg.*outside the image of 60 x 40"):
        Boxes(table, DecodedImages(table, 30), stretch=True).boxes_of(["train/1.jpg"])


@pytest.mark.slow
def test_the_head_learns_on_a_frozen_encoder(tmp_path: Path) -> None:
    write_corpus(tmp_path, size="ci", datasets=["rsna"], workers=1)
    table = load("rsna", tmp_path)
    recipe = replace(PhantomDetection(), size=96, batch=8, epochs=150, epoch_steps=1, patience=150)
    data = Boxes(table, DecodedImages(table, recipe.size), stretch=True)
    ids = [i for i in table.frame["image_id"] if table.boxes.get(i)][:8]
    torch.manual_seed(0)
    backbone = timm.create_model(
        "resnet10t", num_classes=0, global_pool="", stem_width=8, channels=(16, 32, 64, 128)
    )
    net = fit(backbone, data, ids, ids, recipe, few=False, seed=0)
    for name, value in backbone.state_dict().items():
        torch.testing.assert_close(net.backbone.state_dict()[name], value)
    assert evaluate(net, data, ids, recipe) > 0.3

    short, shared = (
        replace(recipe, epochs=3),
        maps_of(backbone.eval(), data.inputs, STAGES, keep=True),
    )
    own = fit(backbone, data, ids, ids, short, few=False, seed=0)
    for _ in range(2):  # the second finds its maps there
        other = fit(backbone, data, ids, ids, short, few=False, seed=0, maps=shared)
        for name, value in own.state_dict().items():
            apart = ~torch.isclose(other.state_dict()[name], value, rtol=1e-4, atol=1e-5)
            # AdamW makes a step of whatever rounding leaves of a gradient of 0
            assert apart.sum() <= 1e-3 * value.numel(), name
