"""Detection with YOLOv3 on a frozen ResNet (MGCA Table 2, IMITATE Table V).

Three scales of three anchors look at the last three stages. Boxes are (centre x, centre y, width,
height) as shares of the image until they are decoded to pixels.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import nms
from tqdm.auto import tqdm

from benchmarks.downstream import device_of
from benchmarks.protocols.average_precision import IOUS, mean_precision
from benchmarks.protocols.frozen import FrozenMaps, maps_of, stages
from benchmarks.protocols.segmentation import shuffled_batches, to_input
from benchmarks.tasks import DENSE_SIZES as SIZES
from common.config import cite, released
from common.data.images import dimensions, unpadded
from common.data.prepare import Images
from common.data.records import Box, RecordTable
from common.data.tables import DataError
from common.training import channels_last

ANCHORS = (
    ((116, 90), (156, 198), (373, 326)),
    ((30, 61), (62, 45), (59, 119)),
    ((10, 13), (16, 30), (33, 23)),
)
"""YOLOv3's own, for images of `ANCHOR_SIZE`; coarsest scale first."""
ANCHOR_SIZE = 416
ATTRIBUTES = 6
"""Of a box: offset x, y, log size w, h, objectness, the one class."""
STAGES = (2, 3, 4)
"""Of the ResNet."""
NEAR = 0.5
"""Anchors that overlap a box more than this are no negatives."""
BOX_WEIGHT, NEGATIVE_WEIGHT = 2.5, 0.5
CONFIDENCE, OVERLAP = 0.5, 0.5
"""Least objectness of a detection, and the overlap above which the weaker one goes."""


@dataclass(frozen=True)
class MgcaDetection:
    """Recipe of `detection/mgca`."""

    size: int = cite(SIZES["detection/mgca"], code="detection data module")
    """Side of the images, pixels."""
    aspect: Literal["stretch", "pad"] = cite("stretch", code="detection data module")
    """How an oblong image becomes a square."""
    polygon_boxes: Literal["corners", "released"] = cite(
        "corners", note="the least box", code="detection preprocessing", released="released"
    )
    """Boxes of Object-CXR's polygons, see `common.data.object_cxr`."""
    width: int = cite(512, code="detection head")
    """Of the coarsest scale's 1 x 1 convolutions; halves twice."""
    batchnorm: Literal["eval", "train"] = cite(
        "eval", paper="Sec. 4.2: frozen", code="detection module", released="train", ledger="D36"
    )
    """Mode of the frozen encoder's batch normalisation."""
    lr: float = cite(5e-4, code="detection script")
    lr_few_rsna: float = cite(2e-4, code="detection script, 1 %")
    lr_few_object_cxr: float = cite(2.5e-4, code="detection script, 1 %")
    batch: int = cite(16, code="detection script")
    batch_few: int = cite(8, code="detection script, 1 %")
    betas: tuple[float, float] = cite((0.9, 0.999), code="detection module")
    weight_decay: float = cite(1e-6, code="detection script")
    epochs: int = cite(50, code="detection script")
    epoch_steps: int | None = cite(None, code="detection script")
    """Batches of an epoch; none: those of one pass over the training images."""
    patience: int = cite(10, code="detection module")
    ious: tuple[float, ...] = cite(
        IOUS, code="detection module", note="the paper prints .65 for .55", ledger="D34"
    )
    """Overlaps over which precision is averaged."""
    skip: Literal["none", "released"] = cite(
        "none", paper="Sec. 4.2: mAP", code="detection module", released="released", ledger="D35"
    )
    """`released` leaves out images without box or without detection."""
    monitor: Literal["map", "loss"] = cite("map", code="detection module")
    """What chooses the best epoch on the validation part."""
    pixels: Literal["half", "unit"] = cite("half", code="detection data module")
    """Input in [-1, 1] or in [0, 1], as the encoder was pre-trained."""


@dataclass(frozen=True)
class ImitateDetection(MgcaDetection):
    """Recipe of `detection/imitate`: one batch size and rate for every fraction."""

    size: int = cite(SIZES["detection/imitate"], paper="Sec. IV-B")
    lr: float = cite(5e-4, paper="Sec. IV-B")
    lr_few_rsna: float = cite(5e-4, paper="Sec. IV-B")
    lr_few_object_cxr: float = cite(5e-4, paper="Sec. IV-B")
    batch: int = cite(16, paper="Sec. IV-B")
    batch_few: int = cite(16, paper="Sec. IV-B")
    weight_decay: float = cite(1e-6, paper="Sec. IV-B")
    epochs: int = cite(50, paper="Sec. IV-B")
    patience: int = cite(10, paper="Sec. IV-B")
    batchnorm: Literal["eval", "train"] = cite("eval", paper="Sec. IV-B: frozen", ledger="E8")
    ious: tuple[float, ...] = cite(IOUS, paper="Sec. IV-B: .40 to .75")
    skip: Literal["none", "released"] = cite("none", note="silent")
    monitor: Literal["map", "loss"] = cite("loss", paper="Sec. IV-B", ledger="E6")
    pixels: Literal["half", "unit"] = cite("unit", paper="Sec. IV-B: [0, 1]")


@dataclass(frozen=True)
class PhantomDetection(MgcaDetection):
    """Recipe of `detection/phantom`."""

    size: int = cite(SIZES["detection/phantom"], note="small")
    width: int = cite(64, note="small")
    lr: float = cite(2e-3, note="small")
    lr_few_rsna: float = cite(2e-3, note="small")
    lr_few_object_cxr: float = cite(2e-3, note="small")
    epochs: int = cite(5, note="small")
    epoch_steps: int | None = cite(50, note="a pass over 1 % of the phantom is three batches")
    patience: int = cite(5, note="none: first epochs may find nothing, and all tie at 0")


RECIPES = {
    "detection/imitate": ImitateDetection(),
    # as many steps as the phantom's, fewer looks: twenty-odd ablations are judged by it
    "detection/imitate-phantom": PhantomDetection(
        monitor="loss", pixels="unit", epochs=2, epoch_steps=125
    ),
    "detection/mgca": MgcaDetection(),
    "detection/mgca-released": released(MgcaDetection()),
    "detection/phantom": PhantomDetection(),
}


def _unit(width: int, out: int, side: int) -> nn.Sequential:
    convolution = nn.Conv2d(width, out, side, padding=side // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.LeakyReLU(0.1))


class _Scale(nn.Module):
    """Six convolutions, the fifth of which goes on to the next scale, and the output."""

    def __init__(self, width: int, narrow: int) -> None:
        super().__init__()
        wide = 2 * narrow
        widths = [(width, narrow, 1), (narrow, wide, 3), (wide, narrow, 1), (narrow, wide, 3)]
        self.route = nn.Sequential(*(_unit(*w) for w in [*widths, (wide, narrow, 1)]))
        self.last = _unit(narrow, wide, 3)
        self.out = nn.Conv2d(wide, 3 * ATTRIBUTES, kernel_size=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps to the route and the output (B, 18, H, W)."""
        route = self.route(x)
        return route, self.out(self.last(route))


class YOLOv3(nn.Module):
    """Detection head on a timm ResNet's last three stages.

    Args:
        backbone: The encoder.
        width: See `MgcaDetection.width`.
    """

    def __init__(self, backbone: Any, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        fine, middle, coarse = (int(info["num_chs"]) for info in backbone.feature_info[-3:])
        half, quarter = width // 2, width // 4
        self.scales = nn.ModuleList(
            [_Scale(coarse, width), _Scale(middle + half, half), _Scale(fine + quarter, quarter)]
        )
        self.bridges = nn.ModuleList([_unit(width, half, 1), _unit(half, quarter, 1)])

    def encode(self, images: Tensor) -> list[Tensor]:
        """(B, 1, S, S) to the encoder's maps at strides 8, 16 and 32."""
        return stages(self.backbone, images, STAGES)

    def decode(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps to raw outputs (B, 18, H, W) at strides 32, 16 and 8."""
        x, found = maps[2], []
        for k, scale in enumerate(self.scales):
            route, out = scale(x)
            found.append(out)
            if k < 2:
                up = F.interpolate(self.bridges[k](route), scale_factor=2, mode="nearest")
                x = torch.cat([up, maps[1 - k]], dim=1)
        return found

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 1, S, S) to raw outputs (B, 18, H, W) at strides 32, 16 and 8."""
        return self.decode(self.encode(images))


def anchors_of(scale: int, size: int) -> Tensor:
    """(3, 2) anchor widths and heights of a scale, pixels of an image of side `size`."""
    return torch.tensor(ANCHORS[scale]) * size / ANCHOR_SIZE


class Targets(NamedTuple):
    """What a scale should say, each (B, 3, H, W): offsets, log sizes, where a box or none is."""

    x: Tensor
    y: Tensor
    w: Tensor
    h: Tensor
    box: Tensor
    empty: Tensor


def targets_of(boxes: Tensor, anchors: Tensor, grid: int, size: int) -> Targets:
    """Targets of one scale; every box belongs to the best anchor of the cell of its centre.

    Shapes are compared in cells, with 1 added to every width and height, as released.

    Args:
        boxes: (B, N, 4) shares of the image; rows of zeros are none.
        anchors: (3, 2) pixels.
        grid: Cells along a side.
        size: Side of the image, pixels.
    """
    sides = anchors.to(boxes) * grid / size
    shape = (len(boxes), 3, grid, grid)
    x, y, w, h, box = (boxes.new_zeros(shape) for _ in range(5))
    empty = boxes.new_ones(shape)
    batch, row = torch.nonzero(boxes.abs().sum(dim=2), as_tuple=True)
    cells = boxes[batch, row] * grid  # (n, 4)
    column, line = cells[:, 0].long(), cells[:, 1].long()
    small = torch.minimum(cells[:, None, 2:], sides[None])  # (n, 3, 2)
    overlap = (small + 1).prod(dim=2)
    area = (cells[:, None, 2:] + 1).prod(dim=2) + (sides + 1).prod(dim=1) - overlap
    shapes = overlap / area  # (n, 3)
    near = torch.nonzero(shapes > NEAR)
    empty[batch[near[:, 0]], near[:, 1], line[near[:, 0]], column[near[:, 0]]] = 0
    best = shapes.argmax(dim=1)
    place = (batch, best, line, column)
    box[place] = 1
    x[place], y[place] = cells[:, 0] - column, cells[:, 1] - line
    w[place] = (cells[:, 2] / sides[best, 0] + 1e-16).log()
    h[place] = (cells[:, 3] / sides[best, 1] + 1e-16).log()
    return Targets(x, y, w, h, box, empty)


def _attributes(out: Tensor) -> tuple[Tensor, ...]:
    """(B, 18, H, W) to six (B, 3, H, W); offsets, objectness and class as probabilities."""
    maps = out.unflatten(1, (3, ATTRIBUTES)).unbind(dim=2)
    return tuple(m if k in (2, 3) else m.sigmoid() for k, m in enumerate(maps))


def scale_loss(out: Tensor, boxes: Tensor, anchors: Tensor, size: int) -> dict[str, Tensor]:
    """The terms of one scale; each is a mean over all cells, masked ones counting as 0.

    Source: MGCA's released YOLO loss; their sum with `BOX_WEIGHT` on the first four is the loss.

    Args:
        out: (B, 18, H, W) raw.
        boxes: (B, N, 4) shares of the image; rows of zeros are none.
        anchors: (3, 2) pixels.
        size: Side of the image, pixels.
    """
    x, y, w, h, confidence, label = _attributes(out)
    aim = targets_of(boxes, anchors, out.shape[-1], size)
    found = F.binary_cross_entropy(confidence * aim.box, aim.box)
    free = F.binary_cross_entropy(confidence * aim.empty, torch.zeros_like(aim.empty))
    return {
        "x": F.binary_cross_entropy(x * aim.box, aim.x),
        "y": F.binary_cross_entropy(y * aim.box, aim.y),
        "w": F.mse_loss(w * aim.box, aim.w),
        "h": F.mse_loss(h * aim.box, aim.h),
        "confidence": found + NEGATIVE_WEIGHT * free,
        "class": F.binary_cross_entropy(label * aim.box, aim.box),
    }


def detection_loss(maps: Sequence[Tensor], boxes: Tensor, size: int) -> Tensor:
    """Sum over the three scales."""
    total = boxes.new_zeros(())
    for k, out in enumerate(maps):
        terms = scale_loss(out, boxes, anchors_of(k, size), size)
        for name, term in terms.items():
            total = total + (BOX_WEIGHT if name in "xywh" else 1.0) * term
    return total


def decode(out: Tensor, anchors: Tensor, size: int) -> Tensor:
    """(B, 18, H, W) to (B, 3HW, 6): centre x, y, width, height in pixels, objectness, class."""
    x, y, w, h, confidence, label = _attributes(out)
    grid = out.shape[-1]
    step = torch.arange(grid, device=out.device, dtype=out.dtype)
    sides = anchors.to(out)[:, :, None, None]
    stride = size / grid
    boxes = ((x + step) * stride, (y + step[:, None]) * stride, w.exp() * sides[:, 0])
    return torch.stack([*boxes, h.exp() * sides[:, 1], confidence, label], dim=-1).flatten(1, 3)


def suppressed(
    decoded: Tensor, *, confidence: float = CONFIDENCE, overlap: float = OVERLAP
) -> Tensor:
    """One image's detections after non-maximum suppression, the surest first.

    Args:
        decoded: (n, 6) of `decode`, all scales together.
        confidence: Least objectness.
        overlap: Detections that overlap a surer one by this or more go; areas count the pixel at
            their end (+1), as released.

    Returns:
        (k, 6): left, top, right, bottom in pixels, objectness, class.
    """
    kept = decoded[decoded[:, 4] >= confidence]
    half = kept[:, 2:4] / 2
    boxes = torch.cat([kept[:, :2] - half, kept[:, :2] + half, kept[:, 4:]], dim=1)
    ended = boxes[:, :4] + boxes.new_tensor([0, 0, 1, 1])
    return boxes[nms(ended, boxes[:, 4], overlap - 1e-6)]


class Boxes:
    """Images with boxes, square, at one size.

    Args:
        table: Records with files; their boxes are in pixels of the original.
        images: Where pixels come from, at the recipe's size, padded to squares.
        stretch: Stretch what is not padding over the whole square.
        scale: See `MgcaDetection.pixels`.
    """

    def __init__(
        self, table: RecordTable, images: Images, *, stretch: bool, scale: str = "half"
    ) -> None:
        self.table, self.images, self.stretch, self.scale = table, images, stretch, scale
        self.paths = dict(zip(table.frame["image_id"], table.frame["path"], strict=True))
        self.extents: dict[str, tuple[int, int]] = {}

    def extent(self, image_id: str) -> tuple[int, int]:
        """Width and height of the original, pixels; read once."""
        if image_id not in self.extents:
            self.extents[image_id] = dimensions(self.table.root / self.paths[image_id])
        return self.extents[image_id]

    def shares(self, image_id: str) -> NDArray[np.float32]:
        """(n, 4) centre and size of the image's boxes, as shares of the square.

        Raises:
            DataError: If a box has its centre outside the image.
        """
        found: Sequence[Box] = self.table.boxes.get(image_id, ())
        if not found:
            return np.zeros((0, 4), np.float32)
        size = np.array(self.extent(image_id), np.float32)
        rows = np.array(
            [(b.x + b.width / 2, b.y + b.height / 2, b.width, b.height) for b in found], np.float32
        )
        outside = ((rows[:, :2] < 0) | (rows[:, :2] >= size)).any(axis=1)
        if outside.any():
            box = found[int(outside.argmax())]
            raise DataError(
                f"{self.paths[image_id]}: {box} lies outside the image of {size[0]:.0f} x "
                f"{size[1]:.0f} pixels; its table and its file do not belong together"
            )
        square = size if self.stretch else np.repeat(size.max(), 2)
        rows[:, :2] += (square - size) / 2
        return rows / np.tile(square, 2)

    def boxes_of(self, ids: Sequence[str]) -> Tensor:
        """(B, N, 4) boxes as shares of the square, filled up with zeros."""
        shares = [self.shares(i) for i in ids]
        most = max(1, *(len(s) for s in shares))
        return torch.from_numpy(np.stack([np.pad(s, ((0, most - len(s)), (0, 0))) for s in shares]))

    def inputs(self, ids: Sequence[str]) -> Tensor:
        """Images (B, 1, S, S) as network input."""
        pixels = self.images.read(ids)
        if self.stretch:
            planes = zip(pixels, ids, strict=True)
            pixels = np.stack([unpadded(plane, *self.extent(i)) for plane, i in planes])
        return to_input(pixels, self.scale)

    def corners(self, image_id: str) -> Tensor:
        """(n, 4) left, top, right, bottom of the image's boxes, pixels at the recipe's size."""
        share = torch.from_numpy(self.shares(image_id)) * self.images.size
        return torch.cat([share[:, :2] - share[:, 2:] / 2, share[:, :2] + share[:, 2:] / 2], dim=1)


def fit(
    backbone: Any,
    data: Boxes,
    train: Sequence[str],
    valid: Sequence[str],
    recipe: MgcaDetection,
    *,
    few: bool,
    seed: int,
    maps: FrozenMaps | None = None,
) -> YOLOv3:
    """Train the head on the frozen encoder; the best epoch on the validation part is kept.

    `maps` are the encoder's, where several fits share them.
    """
    torch.manual_seed(seed)
    device, generator = device_of(backbone), np.random.default_rng(seed)
    net = channels_last(YOLOv3(copy.deepcopy(backbone), recipe.width).to(device))
    net.backbone.requires_grad_(False)
    lr = getattr(recipe, f"lr_few_{data.table.dataset}") if few else recipe.lr
    size = recipe.batch_few if few else recipe.batch
    optimizer = torch.optim.AdamW(
        (p for p in net.parameters() if p.requires_grad),
        lr=lr,
        betas=recipe.betas,
        weight_decay=recipe.weight_decay,
    )
    maps = maps or maps_of(net.backbone, data.inputs, STAGES, keep=recipe.batchnorm == "eval")
    best, best_state, waited = -math.inf, net.state_dict(), 0
    for _ in tqdm(range(recipe.epochs), desc=f"detection, {len(train)} images", unit="epoch"):
        net.train()
        net.backbone.train(recipe.batchnorm == "train")
        for ids in shuffled_batches(train, size, generator, recipe.epoch_steps):
            boxes = data.boxes_of(ids).to(device)
            detection_loss(net.decode(maps(ids)), boxes, recipe.size).backward()
            optimizer.step()
            optimizer.zero_grad()
        judge = evaluate if recipe.monitor == "map" else negative_loss
        value = judge(net, data, valid, recipe, maps)
        best, best_state, waited = (
            (value, copy.deepcopy(net.state_dict()), 0)
            if value > best
            else (best, best_state, waited + 1)
        )
        if waited >= recipe.patience:
            break
    net.load_state_dict(best_state)
    return net.eval()


@torch.no_grad()
def detections_of(
    net: YOLOv3, data: Boxes, ids: Sequence[str], size: int, maps: FrozenMaps | None = None
) -> list[Tensor]:
    """Detections of each image after suppression."""
    net.eval()
    maps = maps or maps_of(net.backbone, data.inputs, STAGES, keep=False)
    found: list[Tensor] = []
    for start in range(0, len(ids), 64):
        outputs = net.decode(maps(ids[start : start + 64]))
        decoded = torch.cat(
            [decode(out, anchors_of(k, size), size) for k, out in enumerate(outputs)], dim=1
        )
        found += [suppressed(rows).cpu() for rows in decoded]
    return found


def evaluate(
    net: YOLOv3,
    data: Boxes,
    ids: Sequence[str],
    recipe: MgcaDetection,
    maps: FrozenMaps | None = None,
) -> float:
    """Mean average precision over a part."""
    found = detections_of(net, data, ids, recipe.size, maps)
    truth = [data.corners(i) for i in ids]
    return mean_precision(found, truth, ious=recipe.ious, skip=recipe.skip)


@torch.no_grad()
def negative_loss(
    net: YOLOv3, data: Boxes, ids: Sequence[str], recipe: MgcaDetection, maps: FrozenMaps
) -> float:
    """Minus the mean loss over a part's batches, so that more is better."""
    net.eval()
    losses = []
    for start in range(0, len(ids), recipe.batch):
        chosen = ids[start : start + recipe.batch]
        boxes = data.boxes_of(chosen).to(device_of(net))
        losses.append(float(detection_loss(net.decode(maps(chosen)), boxes, recipe.size)))
    return -float(np.mean(losses))
