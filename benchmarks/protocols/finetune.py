"""Fine-tuned classification, end to end (MaCo Tables 1, 2 and 5, IMITATE Table IV).

MaCo: SGD with warm-up and a cosine; the learning rate is searched on the validation part (`search`,
the paper) or taken from the released table (`released`; ledger C1-C10). IMITATE: AdamW at a
constant rate with KAD's augmentation and early stopping.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2
from tqdm.auto import tqdm

from benchmarks.downstream import Downstream, device_of
from benchmarks.protocols.resume import Resumable, Saved
from common.config import cite
from common.data.tables import DataError
from common.interface import Encoder
from common.metrics import auroc
from common.training import channels_last

RELEASED_TABLE = {
    ("nih", 0.01): (8.5e-3, 2_000, 50),
    ("nih", 0.1): (3e-3, 30_000, 500),
    ("nih", 1.0): (3e-3, 200_000, 5_000),
    ("chexpert", 0.01): (8e-4, 2_000, 50),
    ("chexpert", 0.1): (1e-4, 60_000, 1_500),
    ("chexpert", 1.0): (1e-5, 200_000, 15_000),
    ("rsna", 0.01): (6.5e-3, 2_000, 50),
    ("rsna", 0.1): (6e-4, 10_000, 200),
    ("rsna", 1.0): (5e-4, 50_000, 2_000),
}
"""Learning rate, steps and warm-up steps of the released commands."""


@dataclass(frozen=True)
class MacoFinetune:
    """Recipe of `finetune/maco`."""

    recipe: Literal["search", "released"] = cite(
        "search", paper="Sec. 3.5", code="fine-tuning commands", released="released", ledger="C1"
    )
    """Choose the rate on the validation part, or take the released one."""
    rates: tuple[float, ...] = cite(
        (8e-3, 4e-3, 2e-3, 1e-3, 5e-4, 2.5e-4, 1e-4), paper="Sec. 3.5: 8e-3 to 1e-4", ledger="C1"
    )
    """Rates that are searched."""
    steps: int | None = cite(None, code="fine-tuning commands", ledger="C2")
    """Updates; none: the released table's."""
    batch: int = cite(96, code="fine-tuning commands", ledger="C2")
    """Images of an update."""
    momentum: float = cite(0.9, paper="Sec. 3.5", code="fine-tuning script")
    """Of SGD."""
    clip_norm: float | None = cite(1.0, code="fine-tuning script")
    """Largest gradient norm."""
    evaluations: int = cite(10, note="the code: every 10 epochs", ledger="C3")
    """Looks at the validation part; the best mean AUROC is tested."""
    drop_path: float = cite(0.1, code="fine-tuning script", ledger="C10")
    """Stochastic depth of the last block of a ViT; grows from 0."""
    optimizer: Literal["sgd", "adamw"] = cite("sgd", paper="Sec. 3.5")
    weight_decay: float = cite(0.0, code="fine-tuning script")
    schedule: Literal["cosine", "constant"] = cite("cosine", paper="Sec. 3.5")
    """Linear warm-up and half a cosine, or the same rate throughout."""
    epochs: int | None = cite(None, code="fine-tuning commands count steps")
    """Passes over the training images; set, they give the steps, with a look after each."""
    patience: int | None = cite(None, code="no early stopping")
    """Looks at the validation part without a better one before training stops."""
    augment: Literal["model", "kad"] = cite("model", code="fine-tuning transforms")
    """What the model's `normalise` draws (MaCo: its fine-tuning crops, others: those of their
    pre-training), or KAD's augmentation of whole images."""


@dataclass(frozen=True)
class ImitateFinetune(MacoFinetune):
    """Recipe of `finetune/imitate`."""

    recipe: Literal["search", "released"] = cite("search", note="one rate, nothing to search")
    steps: int | None = cite(None, note="as many as the epochs have")
    evaluations: int = cite(10, note="one an epoch")
    rates: tuple[float, ...] = cite((1e-4,), paper="IMITATE Sec. IV-B")
    batch: int = cite(64, paper="IMITATE Sec. IV-B")
    clip_norm: float | None = cite(None, note="silent")
    drop_path: float = cite(0.0, note="silent")
    optimizer: Literal["sgd", "adamw"] = cite("adamw", paper="IMITATE Sec. IV-B")
    weight_decay: float = cite(0.01, note="silent; AdamW's default")
    schedule: Literal["cosine", "constant"] = cite("constant", note="silent")
    epochs: int | None = cite(50, paper="IMITATE Sec. IV-B")
    patience: int | None = cite(10, note="silent; MGCA's number, here on mean AUROC", ledger="E9")
    augment: Literal["model", "kad"] = cite("kad", paper='IMITATE Sec. IV-B: "as in KAD"')


@dataclass(frozen=True)
class ImitatePhantomFinetune(ImitateFinetune):
    """Recipe of `finetune/imitate-phantom`."""

    rates: tuple[float, ...] = cite((1e-3,), note="small nets take larger steps")
    steps: int | None = cite(60, note="minutes, not hours")
    batch: int = cite(32, note="small")
    evaluations: int = cite(3, note="small")
    epochs: int | None = cite(None, note="steps instead")
    patience: int | None = cite(None, note="three looks")
    augment: Literal["model", "kad"] = cite("model", note="few steps cannot afford strong crops")


@dataclass(frozen=True)
class PhantomFinetune(MacoFinetune):
    """Recipe of `finetune/phantom`."""

    rates: tuple[float, ...] = cite((5e-2, 1e-2), note="small nets take larger steps")
    steps: int | None = cite(60, note="minutes, not hours")
    batch: int = cite(32, note="small")
    evaluations: int = cite(3, note="small")


RECIPES = {
    "finetune/maco": MacoFinetune(),
    "finetune/maco-released": MacoFinetune(recipe="released"),
    "finetune/phantom": PhantomFinetune(),
    "finetune/imitate": ImitateFinetune(),
    "finetune/imitate-phantom": ImitatePhantomFinetune(),
}


def lr_factor(step: int, *, steps: int, warmup: int) -> float:
    """Factor of the rate of update `step`, counted from 1: linear from 0, half a cosine to 0.

    Source: released schedule, set before each update (ledger C9).
    """
    if step < warmup:
        return step / max(warmup, 1)
    return max(0.0, (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))) / 2)


def with_drop_path(vit: Any, most: float) -> None:
    """Give a timm ViT's blocks stochastic depth, growing from 0 to `most`."""
    rates = np.linspace(0, most, len(vit.blocks)).tolist()
    for block, rate in zip(vit.blocks, rates, strict=True):
        block.drop_path1, block.drop_path2 = DropPath(rate), DropPath(rate)


class Classifier(nn.Module):
    """An encoder with a linear head.

    A ViT is read by the mean of its last block's patch tokens and a fresh norm, without the
    encoder's own; any other encoder by its pooled feature.

    Args:
        model: Whose bare image encoder is copied.
        labels: Outputs.
        drop_path: See `MacoFinetune`.
    """

    def __init__(self, model: Encoder, labels: int, *, drop_path: float) -> None:
        super().__init__()
        source: Any = model.backbone
        self.backbone: Any = copy.deepcopy(source)
        self.backbone.requires_grad_(True)
        self.is_vit = isinstance(source, VisionTransformer)
        width = int(source.num_features)
        if self.is_vit:
            self.backbone.pos_embed.requires_grad_(source.pos_embed.requires_grad)
            self.backbone.norm = nn.Identity()
            with_drop_path(self.backbone, drop_path)
        self.fc_norm = nn.LayerNorm(width, eps=1e-6) if self.is_vit else nn.Identity()
        self.head = nn.Linear(width, labels)
        nn.init.trunc_normal_(self.head.weight, std=2e-5)
        nn.init.zeros_(self.head.bias)

    def features(self, images: Tensor) -> Tensor:
        """(B, 1 or 3, H, W) network input to (B, C)."""
        images = images.expand(-1, 3, -1, -1)
        if self.is_vit:
            tokens = self.backbone.forward_features(images)
            return self.fc_norm(tokens[:, self.backbone.num_prefix_tokens :].mean(dim=1))
        return self.backbone.forward_features(images).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Network input to logits (B, L)."""
        return self.head(self.features(images))


class KadOperations(v2.RandAugment):
    """Two of KAD's ten operations at level 7 of 10 (IMITATE Sec. IV-B)."""

    def __init__(self) -> None:
        super().__init__(num_ops=2, magnitude=7, num_magnitude_bins=11)
        left_out = ("Color", "Contrast", "Posterize", "Solarize")
        every = v2.RandAugment._AUGMENTATION_SPACE.items()
        self._AUGMENTATION_SPACE = {name: how for name, how in every if name not in left_out}


def kad_input(pixels: NDArray[np.uint8], *, train: bool, side: int = 0) -> Tensor:
    """(B, S, S) whole images to (B, 3, side, side) with ImageNet's statistics.

    Augmented in training: crops of 20 to 100 % (bicubic), flips, `KadOperations`; drawn with
    torch's generator. Without `side` the images keep theirs.
    """
    images = torch.from_numpy(pixels)[:, None].expand(-1, 3, -1, -1)
    side, cubic = side or images.shape[-1], v2.InterpolationMode.BICUBIC
    if not train and side != images.shape[-1]:
        images = v2.functional.resize(images, [side, side], interpolation=cubic, antialias=True)
    if train:
        steps = v2.Compose(
            [
                v2.RandomResizedCrop(side, scale=(0.2, 1.0), interpolation=cubic, antialias=True),
                v2.RandomHorizontalFlip(),
                KadOperations(),
            ]
        )
        images = torch.stack([steps(image) for image in images])
    return v2.functional.normalize(
        images.float() / 255, mean=list(IMAGENET_DEFAULT_MEAN), std=list(IMAGENET_DEFAULT_STD)
    )


def input_of(
    model: Encoder,
    pixels: NDArray[np.uint8],
    recipe: MacoFinetune,
    generator: np.random.Generator | None = None,
) -> Tensor:
    """Network input of the recipe; with a generator, for training."""
    if recipe.augment == "kad":
        patches = getattr(model.backbone, "patch_embed", None)  # a ViT knows one size alone
        side = patches.img_size[0] if patches else 0
        images = kad_input(pixels, train=generator is not None, side=side)
        return images.to(device_of(model.backbone))
    return model.normalise(pixels, generator=generator)


@torch.no_grad()
def scores_of(
    net: Classifier, model: Encoder, data: Downstream, ids: Sequence[str], recipe: MacoFinetune
) -> NDArray[np.float32]:
    """(n, L) logits of the recipe's input without augmentation."""
    net.eval()
    parts = [
        net(input_of(model, data.images.read(ids[k : k + 64]), recipe)).cpu().numpy()
        for k in range(0, len(ids), 64)
    ]
    return np.concatenate(parts)


def judged_labels(targets: NDArray[np.float32]) -> list[int]:
    """Columns of (n, L) targets that hold both classes: the others have no AUROC."""
    return [k for k, column in enumerate(targets.T) if len(np.unique(column)) == 2]


@dataclass
class Fitted:
    """A fine-tuned classifier, and how it was chosen."""

    net: Classifier
    rate: float
    valid_auroc: float
    searched: dict[str, float]


def fit(
    model: Encoder,
    data: Downstream,
    train: Sequence[str],
    valid: Sequence[str],
    recipe: MacoFinetune,
    *,
    share: float,
    seed: int,
    path: Path | None = None,
) -> Fitted:
    """Fine-tune at each rate of the recipe; the best on the validation part is kept.

    Interrupted, the same call goes on with what `path` holds, to the same weights.

    A rate whose logits stop being finite counts by its best look before, by -1 if there was none,
    and leaves the others alone.

    Raises:
        DataError: If the recipe needs a row of `RELEASED_TABLE` that there is not, or no rate
            trains.
    """
    row = RELEASED_TABLE.get((data.task.dataset, share))
    if row is None and (recipe.recipe == "released" or not (recipe.steps or recipe.epochs)):
        raise DataError(
            f"the released commands know no rate and steps for {data.name} at {share:.0%} of the "
            "labels; choose another --finetune"
        )
    table = row or (0.0, 2_000, 50)  # their usual share of warm-up
    rates = (table[0],) if recipe.recipe == "released" else recipe.rates
    passes = (recipe.epochs or 0) * max(1, len(train) // recipe.batch)
    steps = recipe.steps or passes or table[1]
    warmup = round(steps * table[2] / table[1])
    made_of = {"recipe": recipe, "share": share, "seed": seed, "train": train, "valid": valid}
    saved = Saved(path, model.backbone, **made_of)
    best: dict[str, Any] = saved.state.get("best", {"value": -2.0})
    found: dict[str, float] = saved.state.get("found", {})
    for rate in (rate for rate in rates if f"{rate:g}" not in found):
        title = f"finetune, {len(train)} images, rate {rate:g}"
        with tqdm(total=steps, desc=title, unit="step") as bar:
            value, state = _train(
                model,
                data,
                train,
                valid,
                recipe,
                rate=rate,
                steps=steps,
                warmup=warmup,
                seed=seed,
                bar=bar,
                saved=saved,
            )
        found[f"{rate:g}"] = value
        if value > best["value"]:
            best = {"rate": rate, "value": value, "state": state}
        saved.save(found=found, best=best, run=None)
    if best["value"] < 0:
        raise DataError(f"{data.name}: no rate of {sorted(found)} trains, all logits diverge")
    net = classifier_of(model, len(data.task.labels), recipe)
    net.load_state_dict(best["state"])
    return Fitted(net.eval(), best["rate"], best["value"], found)


def classifier_of(model: Encoder, labels: int, recipe: MacoFinetune) -> Classifier:
    """Before fine-tuning, where the model is."""
    net = Classifier(model, labels, drop_path=recipe.drop_path)
    return channels_last(net.to(device_of(model.backbone)))


def _train(
    model: Encoder,
    data: Downstream,
    train: Sequence[str],
    valid: Sequence[str],
    recipe: MacoFinetune,
    *,
    rate: float,
    steps: int,
    warmup: int,
    seed: int,
    bar: Any,
    saved: Saved,
) -> tuple[float, dict[str, Tensor]]:
    """The best look at the validation part, and its weights."""
    torch.manual_seed(seed)
    targets, judged = torch.tensor(data.targets(train)), data.targets(valid)
    both = judged_labels(judged)
    net = classifier_of(model, targets.shape[1], recipe)
    device, trained = device_of(net), [p for p in net.parameters() if p.requires_grad]
    optimizer: torch.optim.Optimizer = (
        torch.optim.SGD(
            trained, lr=rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
        if recipe.optimizer == "sgd"
        else torch.optim.AdamW(trained, lr=rate, weight_decay=recipe.weight_decay)
    )
    run = Resumable(net, optimizer, np.random.default_rng(seed), saved)
    size = min(recipe.batch, len(train))
    every = max(1, steps // (recipe.epochs or recipe.evaluations))
    bar.update(run.step)
    while run.step < steps and (recipe.patience is None or run.waited < recipe.patience):
        rows = run.rows(len(train), size)
        net.train()
        pixels = data.images.read([train[k] for k in rows])
        logits = net(input_of(model, pixels, recipe, run.generator))
        F.binary_cross_entropy_with_logits(logits, targets[rows].to(device)).backward()
        if recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(trained, recipe.clip_norm)
        if recipe.schedule == "cosine":
            factor = lr_factor(run.step + 1, steps=steps, warmup=warmup)
            optimizer.param_groups[0]["lr"] = rate * factor
        optimizer.step()
        optimizer.zero_grad()
        run.updated()
        bar.update()
        if run.step % every == 0 or run.step == steps:
            found = scores_of(net, model, data, valid, recipe)
            if not np.isfinite(found).all():
                break
            run.looked(auroc(judged[:, both], found[:, both]))
    return run.best, run.best_state
