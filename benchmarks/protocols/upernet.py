"""Segmentation with UPerNet on a ViT, all of it trained (MaCo Table 3; ledger S1-S7).

The decoder and the auxiliary head are transformers' own. The released code runs mmsegmentation's
BEiT variant of the ViT, whose layer scale starts at 1 and relative positions at 0: at the start it
is the plain ViT that is trained here.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from accelerate.utils import send_to_device
from numpy.typing import NDArray
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import trange
from transformers import UperNetConfig
from transformers.models.upernet.modeling_upernet import UperNetFCNHead, UperNetHead

from benchmarks.downstream import device_of
from benchmarks.protocols.finetune import with_drop_path
from benchmarks.protocols.resume import Resumable, Saved
from benchmarks.protocols.segmentation import Scans, dice_per_image
from benchmarks.tasks import DENSE_SIZES as SIZES
from common.config import cite
from common.data.tables import DataError
from maco.model import DEVIATION, MEAN

CITED_BLOCKS = (4, 6, 8, 12)
"""Blocks of a twelve-block ViT whose tokens the decoder reads."""
FOCAL, DICE, AUXILIARY = 2.0, 1.0, 0.4
"""Weights of the loss; the auxiliary head's are this share of them."""


@dataclass(frozen=True)
class MacoSegmentation:
    """Recipe of `segmentation/maco`."""

    recipe: Literal["paper", "released"] = cite(
        "paper", paper="Sec. 3.5", code="segmentation configs", released="released", ledger="S1"
    )
    """Rate 5e-6 for every share of the labels, or the released ones."""
    size: int = cite(SIZES["segmentation/maco"], code="segmentation configs", ledger="S6")
    """Side of images and masks, pixels."""
    width: int = cite(768, code="segmentation configs", ledger="S6")
    """Of the decoder; a third of it in the auxiliary head."""
    dropout: float = cite(0.1, code="segmentation configs", ledger="S6")
    """Before both classifiers."""
    lr: float = cite(5e-6, paper="Sec. 3.5", code="segmentation configs", ledger="S1")
    """Highest learning rate of AdamW."""
    lr_released: tuple[float, float, float] = cite(
        (5e-6, 2e-5, 1.5e-5), code="segmentation configs", ledger="S1"
    )
    """Rates at 1, 10 and 100 % of the labels."""
    iterations: tuple[int, int, int] = cite((1_000, 5_000, 160_000), code="segmentation configs")
    """Updates at 1, 10 and 100 %."""
    warmup: tuple[int, int, int] = cite((100, 100, 1_500), code="segmentation configs")
    """Updates with a growing rate, from a millionth of it."""
    check_every: tuple[int, int, int] = cite((50, 50, 500), code="segmentation configs")
    """Updates between two looks at the validation part."""
    batch: int = cite(8, code="segmentation configs: 2 x 4")
    betas: tuple[float, float] = cite((0.9, 0.999), paper="Sec. 3.5")
    weight_decay: float = cite(0.05, paper="Sec. 3.5")
    layer_decay: float = cite(0.65, code="segmentation configs")
    """Factor of the rate from a block to the one before."""
    drop_path: float = cite(0.1, code="segmentation configs")
    """Stochastic depth of the last block; grows from 0."""
    flip: float = cite(0.5, code="segmentation configs")
    """Share of images mirrored."""
    sampler: Literal["plain", "balanced"] = cite("plain", code="segmentation configs", ledger="S5")
    """All training images, or all positives and as many negatives."""

    def rate(self, stage: int) -> float:
        """Highest rate at 1, 10 or 100 % of the labels (stages 0, 1, 2)."""
        return self.lr_released[stage] if self.recipe == "released" else self.lr


@dataclass(frozen=True)
class PhantomUPerNet(MacoSegmentation):
    """Recipe of `segmentation/maco-phantom`."""

    size: int = cite(SIZES["segmentation/maco-phantom"], note="small")
    width: int = cite(48, note="small")
    lr: float = cite(2e-3, note="small")
    iterations: tuple[int, int, int] = cite((80, 80, 160), note="small")
    warmup: tuple[int, int, int] = cite((10, 10, 10), note="small")
    check_every: tuple[int, int, int] = cite((40, 40, 40), note="small")
    sampler: Literal["plain", "balanced"] = cite(
        "balanced", note="few steps: of every image, most empty, an empty mask learns best"
    )


RECIPES = {
    "segmentation/maco": MacoSegmentation(),
    "segmentation/maco-released": MacoSegmentation(recipe="released"),
    "segmentation/maco-phantom": PhantomUPerNet(),
}


class UPerNet(nn.Module):
    """A timm ViT read at four depths, a pyramid, UPerNet's head and an auxiliary one.

    Args:
        vit: The encoder; copied, its positions resized to the recipe's side.
        recipe: Sizes.
    """

    def __init__(self, vit: Any, recipe: MacoSegmentation) -> None:
        super().__init__()
        self.vit = copy.deepcopy(vit)
        self.vit.reset_classifier(0)
        self.vit.set_input_size(img_size=recipe.size)
        self.vit.requires_grad_(True)
        with_drop_path(self.vit, recipe.drop_path)
        depth, width = len(self.vit.blocks), int(self.vit.embed_dim)
        self.blocks = [max(1, round(depth * k / CITED_BLOCKS[-1])) - 1 for k in CITED_BLOCKS]
        self.pyramid = nn.ModuleList(
            [
                nn.Sequential(_up(width), nn.BatchNorm2d(width), nn.GELU(), _up(width)),
                _up(width),
                nn.Identity(),
                nn.MaxPool2d(2),
            ]
        )
        config: Any = UperNetConfig(  # of two classes, transformers' default
            hidden_size=recipe.width, auxiliary_channels=max(1, recipe.width // 3)
        )
        self.drop = nn.Dropout2d(recipe.dropout)
        self.head = UperNetHead(config, [width] * 4)
        self.auxiliary = UperNetFCNHead(config, [width] * 4)
        for head in (self.head, self.auxiliary):
            head.classifier = nn.Sequential(self.drop, head.classifier)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, S, S) standardised to logits (B, 2, S, S) of both heads."""
        blocks = sorted(set(self.blocks))  # a shallow encoder's are read more than once
        found = self.vit.forward_intermediates(
            images.expand(-1, 3, -1, -1), indices=blocks, norm=False, intermediates_only=True
        )
        after = dict(zip(blocks, found, strict=True))
        maps = [scale(after[block]) for scale, block in zip(self.pyramid, self.blocks, strict=True)]
        size = images.shape[2:]
        main, side = (
            F.interpolate(head(maps), size=size, mode="bilinear")
            for head in (self.head, self.auxiliary)
        )
        return main, side


def _up(width: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)


def focal_loss(
    logits: Tensor, classes: Tensor, *, gamma: float = 2.0, alpha: float = 0.5
) -> Tensor:
    """Sigmoid focal loss of both classes, mean over pixels and classes (mmsegmentation's).

    Args:
        logits: (B, 2, H, W).
        classes: (B, H, W) 0 or 1.
        gamma: Power of how wrong a pixel is.
        alpha: Weight of a class where it is; 1 - alpha where it is not.
    """
    truth = F.one_hot(classes, 2).movedim(-1, 1).to(logits)
    wrong = (1 - logits.sigmoid()) * truth + logits.sigmoid() * (1 - truth)
    weight = (alpha * truth + (1 - alpha) * (1 - truth)) * wrong**gamma
    return (F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * weight).mean()


def dice_loss(logits: Tensor, classes: Tensor) -> Tensor:
    r"""Half of one minus the front class's Dice, mean over images; 0 is perfect.

    .. math:: \tfrac12 \left(1 - \frac{2 \sum pt + 1}{\sum p^2 + \sum t^2 + 1}\right)

    Source: released segmentation config: class weights 0 and 1, divided by two classes.

    Args:
        logits: (B, 2, H, W).
        classes: (B, H, W) 0 or 1.
    """
    front, truth = logits.softmax(dim=1)[:, 1].flatten(1), classes.flatten(1).to(logits)
    overlap = 2 * (front * truth).sum(dim=1) + 1
    return (1 - overlap / (front.square().sum(dim=1) + truth.square().sum(dim=1) + 1)).mean() / 2


def segmentation_loss(logits: tuple[Tensor, Tensor], classes: Tensor) -> Tensor:
    """Both losses of both heads."""

    def one(logits: Tensor) -> Tensor:
        return FOCAL * focal_loss(logits, classes) + DICE * dice_loss(logits, classes)

    main, side = logits
    return one(main) + AUXILIARY * one(side)


@dataclass(frozen=True)
class DiceKinds:
    """Three of the numbers that are all called Dice (ledger S4).

    The fourth, over the images with a mask, comes from `images` and the masks at full size.

    Attributes:
        per_image: Mean over images; an empty truth gives 1 where nothing is predicted, else 0.
        pooled: Pixels of the data set pooled, mean of background and front.
        pooled_front: Pixels pooled, front alone.
        images: Dice of every image.
    """

    per_image: float
    pooled: float
    pooled_front: float
    images: NDArray[np.float32]


class Counts(NamedTuple):
    """What a batch of masks adds to all three.

    Attributes:
        images: (n,) Dice of each image.
        pixels: Numbers of pixels: all, predicted, true, and both.
    """

    images: NDArray[np.float32]
    pixels: NDArray[np.int64]


def counts_of(predicted: Tensor, truth: Tensor) -> Counts:
    """Counts of (n, H, W) bool masks."""
    both = predicted & truth
    pixels = [truth.numel(), int(predicted.sum()), int(truth.sum()), int(both.sum())]
    each = dice_per_image(predicted.float(), truth.float())
    return Counts(each.cpu().numpy(), np.array(pixels))


def dice_kinds(batches: Sequence[Counts]) -> DiceKinds:
    """All three from the counts of a data set's batches."""
    images = np.concatenate([b.images for b in batches])
    total, guessed, true, both = (int(n) for n in np.sum([b.pixels for b in batches], axis=0))

    def pooled(shared: int, sizes: int) -> float:
        return 2 * shared / sizes if sizes else 1.0

    front = pooled(both, guessed + true)
    back = pooled(total - guessed - true + both, 2 * total - guessed - true)
    return DiceKinds(float(images.mean()), (front + back) / 2, front, images)


def lr_at(step: int, *, lr: float, steps: int, warmup: int) -> float:
    """Rate of update `step` from 0: linear to 0, times a warm-up that is linear from a millionth.

    Source: mmcv's `poly` of power 1, whose warm-up multiplies the decaying rate.
    """
    left = lr * max(0.0, 1 - step / steps)
    return left * (1 - (1 - step / warmup) * (1 - 1e-6)) if step < warmup else left


def parameter_groups(net: UPerNet, recipe: MacoSegmentation) -> list[dict[str, Any]]:
    """Layer-wise rates: the decoder 1, the last block `layer_decay`, each before it less.

    Vectors, the class token and positions are not decayed.
    """
    groups: list[dict[str, Any]] = param_groups_layer_decay(
        net.vit,
        weight_decay=recipe.weight_decay,
        no_weight_decay_list=tuple(net.vit.no_weight_decay()),
        layer_decay=recipe.layer_decay,
    )
    for group in groups:  # timm gives the last block 1
        group["lr_scale"] *= recipe.layer_decay
    decoder = [p for name, p in net.named_parameters() if not name.startswith("vit.")]
    for flat in (False, True):
        part = [p for p in decoder if (p.ndim <= 1) == flat]
        decay = 0.0 if flat else recipe.weight_decay
        groups.append({"params": part, "lr_scale": 1.0, "weight_decay": decay})
    return groups


def batch_of(
    scans: Scans, ids: Sequence[str], generator: np.random.Generator | None, flip: float
) -> tuple[Tensor, Tensor]:
    """Standardised images (B, 1, S, S) and classes (B, S, S), some mirrored."""
    images, masks = scans.batch(ids)
    images = ((images + 1) / 2 - MEAN) / DEVIATION
    classes = (masks > 0.5).long()
    if generator is not None:
        turned = torch.from_numpy(generator.random(len(ids)) < flip)
        images[turned], classes[turned] = images[turned].flip(-1), classes[turned].flip(-1)
    return images, classes


@torch.no_grad()
def evaluate(net: UPerNet, scans: Scans, ids: Sequence[str], *, batch: int) -> DiceKinds:
    """The kinds of Dice over whole images, by the larger of the two classes.

    Raises:
        FloatingPointError: If a logit is not finite: it would pass for an empty mask.
    """
    net.eval()
    counts = []
    for start in range(0, len(ids), batch):
        images, classes = batch_of(scans, ids[start : start + batch], None, 0.0)
        logits = net(images.to(device_of(net)))[0]
        if not logits.isfinite().all():
            raise FloatingPointError("UPerNet's logits are not finite")
        guess = logits.argmax(dim=1).bool()
        counts.append(counts_of(guess, classes.bool().to(guess.device)))
    return dice_kinds(counts)


def fit(
    vit: Any,
    scans: Scans,
    train: Sequence[str],
    valid: Sequence[str],
    recipe: MacoSegmentation,
    *,
    stage: int,
    seed: int,
    path: Path | None = None,
) -> UPerNet:
    """Train encoder and decoder; the best per-image Dice on the validation part is kept.

    Args:
        vit: Encoder, copied.
        scans: Images and masks.
        train: Image ids.
        valid: Image ids.
        recipe: Settings.
        stage: 0, 1 or 2: the settings for 1, 10 or 100 % of the labels.
        seed: Of the new weights and of the order.
        path: Where an interrupted call goes on, to the same weights.

    Raises:
        DataError: If there is one training image alone, which its batch norms cannot take, or it
            diverges before its first look at the validation part.
    """
    size = min(recipe.batch, len(train))
    if size < 2:
        raise DataError(f"UPerNet needs two training images or more, found {len(train)}")
    torch.manual_seed(seed)
    device = device_of(vit)
    net = UPerNet(vit, recipe).to(device)
    steps, warmup = recipe.iterations[stage], recipe.warmup[stage]
    lr = recipe.rate(stage)
    optimizer = torch.optim.AdamW(parameter_groups(net, recipe), lr=lr, betas=recipe.betas)
    made_of = {"recipe": recipe, "stage": stage, "seed": seed, "train": train, "valid": valid}
    run = Resumable(net, optimizer, np.random.default_rng(seed), Saved(path, vit, **made_of))
    title = f"upernet, {len(train)} images"
    for step in trange(run.step, steps, initial=run.step, total=steps, desc=title, unit="step"):
        net.train()
        ids = [train[k] for k in run.rows(len(train), size)]
        images, classes = send_to_device(batch_of(scans, ids, run.generator, recipe.flip), device)
        segmentation_loss(net(images), classes).backward()
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, lr=lr, steps=steps, warmup=warmup) * group["lr_scale"]
        optimizer.step()
        optimizer.zero_grad()
        run.updated()
        if run.step % recipe.check_every[stage] == 0 or run.step == steps:
            try:
                run.looked(evaluate(net, scans, valid, batch=16).per_image)
            except FloatingPointError:
                break
    if run.best < 0:
        raise DataError(f"UPerNet diverges at rate {lr:g}: lower that of its recipe")
    net.load_state_dict(run.best_state)
    return net.eval()
