"""Segmentation with a U-Net on a ResNet (MGCA Table 3, GLoRIA Table 4, IMITATE Table V).

`segmentation/mgca`, `segmentation/gloria` and `segmentation/imitate` are the papers' recipes,
`segmentation/mgca-released` what MGCA's code does, those of phantom the same code, small. The
decoder is the usual one: five times {nearest x 2, skip, two convolutions}. Images are resized to
the recipe's size before they are turned and scaled, the papers do it after; masks keep their soft
edges in the loss and are cut at 0.5 for the metric.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import torch
from accelerate.utils import send_to_device
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from benchmarks.downstream import device_of
from benchmarks.protocols.frozen import FrozenMaps, maps_of, stages
from benchmarks.tasks import DENSE_SIZES as SIZES
from common.config import cite, released
from common.data import rsna, siim
from common.data.prepare import Images
from common.data.records import RecordTable
from common.data.tables import DataError
from common.training import channels_last

Mask = NDArray[np.float32]
STAGES = (0, 1, 2, 3, 4)
"""Of the ResNet, its stem among them."""
FOCAL_WEIGHT = 10.0
"""Of the focal term beside -log(dice), in GLoRIA's and MGCA's code."""


@dataclass(frozen=True)
class MgcaSegmentation:
    """Recipe of `segmentation/mgca`."""

    size: int = cite(SIZES["segmentation/mgca"], code="segmentation data module", ledger="D41")
    """Side of images and masks, pixels."""
    decoder: tuple[int, ...] = cite((256, 128, 64, 32, 16), code="segmentation module")
    """Widths of the decoder."""
    train: Literal["decoder", "all"] = cite("decoder", paper="Sec. 4.2: frozen encoder")
    """What is trained."""
    batchnorm: Literal["eval", "train"] = cite(
        "eval", paper="Sec. 4.2: frozen", code="segmentation module", released="train", ledger="D36"
    )
    """Mode of the frozen encoder's batch normalisation."""
    optimizer: Literal["adam", "adamw"] = cite("adamw", code="segmentation module")
    lr: float = cite(5e-4, code="segmentation script")
    betas: tuple[float, float] = cite((0.9, 0.999), code="segmentation module")
    weight_decay: float = cite(0.05, code="segmentation script")
    batch_siim: int = cite(8, code="segmentation script")
    batch_rsna: int = cite(16, code="segmentation script")
    epochs: int = cite(50, code="segmentation script")
    epoch_steps: int | None = cite(None, code="segmentation script")
    """Batches of an epoch; none: those of one pass over the training images."""
    patience: int = cite(10, code="segmentation module")
    monitor: Literal["loss", "dice"] = cite("loss", code="segmentation module")
    """What chooses the best epoch on the validation part."""
    augment: float = cite(0.5, code="segmentation data module")
    """Share of training images scaled by 0.9 to 1.1 and turned by up to 10 degrees."""
    dice_term: Literal["log", "linear"] = cite("log", code="loss functions")
    """-log(dice) or 1 - dice beside the focal term."""
    pixels: Literal["half", "unit"] = cite("half", code="segmentation data module")
    """Input in [-1, 1] or in [0, 1], as the encoder was pre-trained."""


@dataclass(frozen=True)
class GloriaSegmentation(MgcaSegmentation):
    """Recipe of `segmentation/gloria`."""

    size: int = cite(SIZES["segmentation/gloria"], code="segmentation config")
    decoder: tuple[int, ...] = cite(
        (256, 128, 64, 32, 16), code="segmentation module: the library's own", ledger="G69"
    )
    train: Literal["decoder", "all"] = cite("all", code="segmentation module")
    batchnorm: Literal["eval", "train"] = cite("eval", note="of no effect: the encoder is trained")
    optimizer: Literal["adam", "adamw"] = cite("adam", code="optimiser builder", ledger="G55")
    lr: float = cite(5e-4, code="segmentation config", ledger="G55")
    batch_siim: int = cite(8, code="segmentation config", ledger="G55")
    betas: tuple[float, float] = cite((0.5, 0.999), code="optimiser builder", ledger="G55")
    weight_decay: float = cite(1e-6, code="segmentation config", ledger="G55")
    epochs: int = cite(100, code="segmentation config", ledger="G55")
    patience: int = cite(20, code="segmentation config")
    monitor: Literal["loss", "dice"] = cite("dice", code="segmentation config")


@dataclass(frozen=True)
class ImitateSegmentation(MgcaSegmentation):
    """Recipe of `segmentation/imitate`: MGCA's, larger."""

    size: int = cite(SIZES["segmentation/imitate"], paper="Sec. IV-B", ledger="E2")
    decoder: tuple[int, ...] = cite((256, 128, 64, 32, 16), note="silent; as MGCA")
    optimizer: Literal["adam", "adamw"] = cite("adamw", paper="Sec. IV-B")
    lr: float = cite(5e-4, paper="Sec. IV-B")
    weight_decay: float = cite(1e-6, paper="Sec. IV-B")
    batch_siim: int = cite(8, paper="Sec. IV-B")
    batch_rsna: int = cite(16, paper="Sec. IV-B")
    epochs: int = cite(50, paper="Sec. IV-B")
    patience: int = cite(10, paper="Sec. IV-B")
    monitor: Literal["loss", "dice"] = cite("loss", paper="Sec. IV-B")
    batchnorm: Literal["eval", "train"] = cite("eval", paper="Sec. IV-B: frozen", ledger="E8")
    dice_term: Literal["log", "linear"] = cite("log", note="printed: Dice loss", ledger="E3")
    pixels: Literal["half", "unit"] = cite("unit", paper="Sec. IV-A: [0, 1]", ledger="C1")


@dataclass(frozen=True)
class PhantomSegmentation(MgcaSegmentation):
    """Recipe of `segmentation/phantom`."""

    size: int = cite(SIZES["segmentation/phantom"], note="what encoders of the phantom have seen")
    decoder: tuple[int, ...] = cite((64, 32, 16, 8, 8), note="small")
    batch_siim: int = cite(8, note="as published")
    batch_rsna: int = cite(16, note="as published")
    lr: float = cite(1e-3, note="small")
    epochs: int = cite(5, note="small")
    epoch_steps: int | None = cite(40, note="a pass over 1 % is one to three batches")
    patience: int = cite(5, note="none")


RECIPES = {
    "segmentation/imitate": ImitateSegmentation(),
    # as many steps as the phantom's, fewer looks: twenty-odd ablations are judged by it
    "segmentation/imitate-phantom": PhantomSegmentation(pixels="unit", epochs=2, epoch_steps=100),
    "segmentation/mgca": MgcaSegmentation(),
    "segmentation/mgca-released": released(MgcaSegmentation()),
    "segmentation/gloria": GloriaSegmentation(),
    "segmentation/phantom": PhantomSegmentation(),
}


def focal_loss(logits: Tensor, targets: Tensor, *, gamma: float = 2.0) -> Tensor:
    r"""Cross-entropy weighted by how wrong a pixel is.

    .. math:: \overline{\sigma(-x(2t - 1))^\gamma\,\mathrm{BCE}(x, t)}

    Source: released `FocalLoss` of GLoRIA and MGCA; targets may lie between 0 and 1.

    Returns:
        Scalar, nats, mean over pixels; 0.25 log 2 for zero logits, hard targets and gamma 2.
    """
    bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    weight = (gamma * F.logsigmoid(-logits * (2 * targets - 1))).exp()
    return (weight * bce).mean()


def soft_dice(probabilities: Tensor, targets: Tensor) -> Tensor:
    r"""Dice of a whole batch, :math:`(2 \sum pt + 1) / (\sum p + \sum t + 1)`; 1 is perfect."""
    overlap = 2 * (probabilities * targets).sum() + 1
    return overlap / (probabilities.sum() + targets.sum() + 1)


def mixed_loss(logits: Tensor, targets: Tensor, dice_term: str = "log") -> Tensor:
    """10 x focal - log dice (ledger D43), or + 1 - dice with `linear`."""
    dice = soft_dice(logits.sigmoid(), targets)
    missed = -dice.log() if dice_term == "log" else 1 - dice
    return FOCAL_WEIGHT * focal_loss(logits, targets) + missed


def to_input(pixels: NDArray[np.uint8], scale: str) -> Tensor:
    """(B, S, S) grey to (B, 1, S, S) in [-1, 1] (`half`) or [0, 1] (`unit`)."""
    images = torch.from_numpy(pixels)[:, None].float()
    return images.div(127.5).sub(1.0) if scale == "half" else images.div(255)


def dice_per_image(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Dice of each image at 0.5; without truth 1 if nothing is predicted, else 0.

    Args:
        probabilities: (B, H, W).
        targets: (B, H, W) in [0, 1], cut at 0.5.

    Returns:
        (B,).
    """
    guess, truth = (probabilities > 0.5).flatten(1), (targets > 0.5).flatten(1)
    size = (guess.sum(1) + truth.sum(1)).float()
    return torch.where(size == 0, 1.0, 2 * (guess & truth).sum(1) / size.clamp(min=1))


class UNet(nn.Module):
    """A decoder on a timm ResNet: five times {nearest x 2, skip, 2 x [conv 3 x 3, BN, ReLU]}.

    Args:
        backbone: The encoder; its stem and four stages give maps at 1/2 to 1/32.
        widths: Of the decoder's five steps.
    """

    def __init__(self, backbone: Any, widths: Sequence[int]) -> None:
        super().__init__()
        self.backbone = backbone
        maps = [int(info["num_chs"]) for info in backbone.feature_info]
        skips = [*maps[-2::-1], 0]
        steps, width = [], maps[-1]
        for skip, out in zip(skips, widths, strict=True):
            steps.append(nn.Sequential(*_block(width + skip, out), *_block(out, out)))
            width = out
        self.steps = nn.ModuleList(steps)
        self.head = nn.Conv2d(width, 1, kernel_size=3, padding=1)

    def encode(self, images: Tensor) -> list[Tensor]:
        """(B, 1, H, W) to maps, the finest first."""
        return stages(self.backbone, images, STAGES)

    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps to logits (B, H, W)."""
        *skips, x = maps
        for step, skip in zip(self.steps, [*skips[::-1], None], strict=True):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = step(x if skip is None else torch.cat([x, skip], dim=1))
        return self.head(x)[:, 0]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, H, W), sides divisible by 32, to logits (B, H, W)."""
        return self.decode(self.encode(images))


def _block(width: int, out: int) -> list[nn.Module]:
    convolution = nn.Conv2d(width, out, kernel_size=3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(out), nn.ReLU(inplace=True)]


class Scans:
    """Images with masks, at one size.

    Args:
        dataset: `siim` (run lengths) or `rsna` (boxes, filled).
        table: Records with files.
        images: Where pixels come from, at the recipe's size.
        pixels: See `MgcaSegmentation.pixels`.
    """

    def __init__(
        self, dataset: str, table: RecordTable, images: Images, *, pixels: str = "half"
    ) -> None:
        self.dataset, self.table, self.images, self.pixels = dataset, table, images, pixels
        self.masks: dict[str, NDArray[np.uint8]] = {}
        self.side = siim.side_of(table)
        if dataset == "siim":
            self.rles = dict(zip(table.frame["image_id"], table.frame["rles"], strict=True))

    def mask(self, image_id: str) -> Mask:
        """(size, size) in [0, 1], edges soft from the resize; positives are drawn once and kept."""
        size = (self.images.size, self.images.size)
        if not self.positive(image_id):
            return np.zeros(size, np.float32)
        if image_id not in self.masks:
            small = cv2.resize(self._full(image_id), size, interpolation=cv2.INTER_AREA)
            self.masks[image_id] = (small * 255).round().astype(np.uint8)
        return np.asarray(self.masks[image_id], np.float32) / np.float32(255)

    def _full(self, image_id: str) -> Mask:
        if self.dataset == "siim":
            full = self._union(image_id)
        else:
            full = rsna.box_mask(self.table.boxes.get(image_id, ()), side=self.side)
        return np.asarray(full, np.float32)

    def _union(self, image_id: str) -> NDArray[np.bool_]:
        try:
            return siim.union(self.rles[image_id].split(";"), side=self.side)
        except DataError as error:
            raise DataError(f"siim: image {image_id}: {error}") from error

    def positive(self, image_id: str) -> bool:
        """Whether the image has any mask."""
        row = self.rles[image_id] if self.dataset == "siim" else self.table.boxes.get(image_id)
        return bool(row)

    def inputs(self, ids: Sequence[str]) -> Tensor:
        """Images (B, 1, S, S) as network input."""
        return to_input(self.images.read(ids), self.pixels)

    def masks_of(self, ids: Sequence[str]) -> Tensor:
        """Masks (B, S, S)."""
        return torch.from_numpy(np.stack([self.mask(i) for i in ids]))

    def batch(
        self, ids: Sequence[str], generator: np.random.Generator | None = None, share: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Images (B, 1, S, S) as network input and masks (B, S, S), a `share` of them turned."""
        pixels, masks = self.images.read(ids), self.masks_of(ids).numpy()
        if generator is not None and share:
            for k in range(len(ids)):
                if generator.random() < share:
                    pixels[k], masks[k] = _turned(pixels[k], masks[k], generator)
        return to_input(pixels, self.pixels), torch.from_numpy(masks)


def _turned(
    image: NDArray[np.uint8], mask: Mask, generator: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both scaled by 0.9 to 1.1 and turned by up to 10 degrees, black outside."""
    size = len(image)
    centre = ((size - 1) / 2, (size - 1) / 2)
    matrix = cv2.getRotationMatrix2D(
        centre, float(generator.uniform(-10, 10)), float(generator.uniform(0.9, 1.1))
    )
    return cv2.warpAffine(image, matrix, (size, size)), cv2.warpAffine(mask, matrix, (size, size))


def balanced(scans: Scans, ids: Sequence[str], *, seed: int) -> tuple[str, ...]:
    """All positives and as many random negatives (SIIM's training part; ledger G52)."""
    positive = [i for i in ids if scans.positive(i)]
    negative = [i for i in ids if not scans.positive(i)]
    generator = np.random.default_rng(seed)
    drawn = generator.permutation(len(negative))[: len(positive)]
    kept = {*positive, *(negative[k] for k in drawn)}
    return tuple(i for i in ids if i in kept)


@dataclass
class Scores:
    """Per-image Dice over a part, and the mean loss."""

    dice: NDArray[np.float32]
    batch_mean: float
    loss: float


def fit(
    backbone: Any,
    scans: Scans,
    train: Sequence[str],
    valid: Sequence[str],
    recipe: MgcaSegmentation,
    *,
    seed: int,
    maps: FrozenMaps | None = None,
) -> UNet:
    """Train the decoder (or all of it); the best epoch on the validation part is kept.

    `maps` are the frozen encoder's of unturned images, where several fits share them.
    """
    torch.manual_seed(seed)
    device, generator = device_of(backbone), np.random.default_rng(seed)
    net = channels_last(UNet(copy.deepcopy(backbone), recipe.decoder).to(device))
    whole = recipe.train == "all"
    net.backbone.requires_grad_(whole)
    parameters = net.parameters() if whole else [*net.steps.parameters(), *net.head.parameters()]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    optimizer = kind(parameters, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay)
    size = recipe.batch_siim if scans.dataset == "siim" else recipe.batch_rsna
    maps = maps or maps_of(net.backbone, scans.inputs, STAGES, keep=is_frozen(recipe))
    best, best_state, waited = float("inf"), net.state_dict(), 0
    for _ in tqdm(range(recipe.epochs), desc=f"segmentation, {len(train)} images", unit="epoch"):
        net.train()
        net.backbone.train(whole or recipe.batchnorm == "train")
        for ids in shuffled_batches(train, size, generator, recipe.epoch_steps):
            images, masks = send_to_device(scans.batch(ids, generator, recipe.augment), device)
            mixed_loss(net(images), masks, recipe.dice_term).backward()
            optimizer.step()
            optimizer.zero_grad()
        scores = evaluate(net, scans, valid, batch=size, dice_term=recipe.dice_term, maps=maps)
        value = scores.loss if recipe.monitor == "loss" else -float(scores.dice.mean())
        best, best_state, waited = (
            (value, copy.deepcopy(net.state_dict()), 0)
            if value < best
            else (best, best_state, waited + 1)
        )
        if waited >= recipe.patience:
            break
    net.load_state_dict(best_state)
    return net.eval()


def is_frozen(recipe: MgcaSegmentation) -> bool:
    """Whether the encoder gives an image the same maps before and after training."""
    return recipe.train == "decoder" and recipe.batchnorm == "eval"


@torch.no_grad()
def evaluate(
    net: UNet,
    scans: Scans,
    ids: Sequence[str],
    *,
    batch: int,
    dice_term: str = "log",
    maps: FrozenMaps | None = None,
) -> Scores:
    """Dice of each image, the mean over batches of their means (released), and the loss."""
    net.eval()
    maps = maps or maps_of(net.backbone, scans.inputs, STAGES, keep=False)
    dice, means, losses = [], [], []
    for start in range(0, len(ids), batch):
        chosen = ids[start : start + batch]
        masks = scans.masks_of(chosen).to(device_of(net))
        logits = net.decode(maps(chosen))
        dice.append(dice_per_image(logits.sigmoid(), masks))
        means.append(float(dice[-1].mean()))
        losses.append(float(mixed_loss(logits, masks, dice_term)))
    return Scores(torch.cat(dice).cpu().numpy(), float(np.mean(means)), float(np.mean(losses)))


def shuffled_batches(
    ids: Sequence[str], size: int, generator: np.random.Generator, steps: int | None = None
) -> Iterator[Sequence[str]]:
    """Batches of one shuffled pass, or of as many passes as `steps` batches need.

    An incomplete last batch of a pass is dropped unless it is alone.
    """
    whole = max(len(ids) // size, 1)
    for step in range(steps or whole):
        if step % whole == 0:
            order = [ids[k] for k in generator.permutation(len(ids))]
        start = step % whole * size
        yield order[start : start + size]
