"""Linear classification on frozen image features (GLoRIA Sec. 4.4, MGCA Sec. 4.2, IMITATE IV-B).

`linear/gloria`, `linear/mgca` and `linear/imitate` train the layer as the papers do: random crops,
Adam or AdamW, early stopping.
`linear/cached-features` extracts centre-crop features once and fits an L2-penalised logistic
regression, its strength chosen on the validation part: minutes become seconds. In all the
encoder's batch normalisation is in evaluation mode (ledger G59) and the best validation weights are
tested (G57).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2
from tqdm.auto import tqdm

from benchmarks.downstream import Downstream, pooled_features
from common.config import cite
from common.interface import Encoder
from common.metrics import auroc

Array = NDArray[np.float32]
Classifier = Callable[[Array], Array]
PENALTIES = tuple(10.0**k for k in range(-4, 3))
"""Inverse L2 strengths tried by `linear/cached-features`."""


@dataclass(frozen=True)
class GloriaProbeConfig:
    """Recipe of `linear/gloria`."""

    optimizer: Literal["adam", "adamw"] = cite("adam", code="optimiser builder", ledger="G55")
    lr_chexpert: float = cite(1e-4, code="classification config", ledger="G55")
    lr_rsna: float = cite(5e-4, code="classification config", ledger="G55")
    lr_covidx: float = cite(5e-4, note="not in the paper; RSNA's")
    betas: tuple[float, float] = cite((0.5, 0.999), code="optimiser builder", ledger="G55")
    weight_decay: float = cite(1e-6, code="classification config", ledger="G55")
    clip_norm_chexpert: float | None = cite(0.25, code="classification config", ledger="G65")
    batch_size: int = cite(64, code="classification config", ledger="G55")
    epochs: int = cite(50, code="classification config", ledger="G55")
    patience: int = cite(10, code="classification config")
    augment_chexpert: Literal["crop", "moco"] = cite("crop", code="pre-training transforms")


@dataclass(frozen=True)
class MgcaProbeConfig:
    """Recipe of `linear/mgca`."""

    optimizer: Literal["adam", "adamw"] = cite("adamw", code="fine-tuning module")
    lr_chexpert: float = cite(5e-4, code="fine-tuning command line")
    lr_rsna: float = cite(5e-4, code="fine-tuning command line")
    lr_covidx: float = cite(5e-4, code="fine-tuning command line")
    betas: tuple[float, float] = cite((0.9, 0.999), code="fine-tuning module")
    weight_decay: float = cite(1e-6, code="fine-tuning command line")
    clip_norm_chexpert: float | None = cite(None, code="fine-tuning module")
    batch_size: int = cite(48, code="fine-tuning command line")
    epochs: int = cite(50, code="fine-tuning command line")
    patience: int = cite(10, code="fine-tuning module")
    augment_chexpert: Literal["crop", "moco"] = cite(
        "moco", note="unsaid in the paper", code="fine-tuning data module", ledger="D33"
    )
    """`moco`: brightness and contrast jitter, blur and flips beside the crop."""


@dataclass(frozen=True)
class ImitateProbeConfig(MgcaProbeConfig):
    """Recipe of `linear/imitate`: MGCA's with small batches."""

    optimizer: Literal["adam", "adamw"] = cite("adamw", paper="Sec. IV-B")
    lr_chexpert: float = cite(5e-4, paper="Sec. IV-B")
    lr_rsna: float = cite(5e-4, paper="Sec. IV-B")
    lr_covidx: float = cite(5e-4, paper="Sec. IV-B")
    betas: tuple[float, float] = cite((0.9, 0.999), paper="Sec. IV-B")
    weight_decay: float = cite(1e-6, note="silent; as MGCA")
    batch_size: int = cite(8, paper="Sec. IV-B")
    epochs: int = cite(50, paper="Sec. IV-B")
    patience: int = cite(10, note="silent; as MGCA", ledger="E9")
    augment_chexpert: Literal["crop", "moco"] = cite("moco", note="silent; as MGCA's code")


ProbeConfig = GloriaProbeConfig | MgcaProbeConfig


def fit_cached(
    train: Array, targets: Array, valid: Array, valid_targets: Array, *, exclusive: bool = False
) -> Classifier:
    """Logistic regression, one a label or one of all; its strength chosen on the validation part.

    By AUROC over all labels, or by accuracy where labels exclude each other.

    A label with one class only among the training images scores 0 everywhere.

    Args:
        train: (n, C) features.
        targets: (n, L) in {0, 1}.
        valid: (m, C).
        valid_targets: (m, L).
        exclusive: Each image has exactly one label: multinomial instead of one-vs-rest.

    Returns:
        A function from features (k, C) to scores (k, L).
    """
    judged = [k for k, column in enumerate(valid_targets.T) if len(np.unique(column)) == 2]

    def fitted(strength: float) -> Classifier:
        if exclusive:
            return _multinomial(train, targets, strength)
        models = [_logistic(train, column, strength) for column in targets.T]
        return lambda features: np.stack([model(features) for model in models], axis=1)

    candidates = [fitted(strength) for strength in PENALTIES]
    found = [candidate(valid) for candidate in candidates]
    if exclusive:
        truth = valid_targets.argmax(axis=1)
        scores = [float(np.mean(f.argmax(axis=1) == truth)) for f in found]
    else:
        scores = [auroc(valid_targets[:, judged], f[:, judged]) for f in found]
    return candidates[int(np.argmax(scores))]


def _logistic(features: Array, target: Array, strength: float) -> Classifier:
    if len(np.unique(target)) < 2:
        return lambda rows: np.zeros(len(rows), np.float32)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
    model.fit(features, target)
    return model.decision_function


def _multinomial(features: Array, targets: Array, strength: float) -> Classifier:
    """Log-probabilities (k, L); a class without training image has the lowest score of all."""
    classes = targets.argmax(axis=1)
    if len(np.unique(classes)) < 2:
        return lambda rows: np.repeat(targets[:1], len(rows), axis=0)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
    model.fit(features, classes)

    def scores(rows: Array) -> Array:
        found = np.log(np.clip(model.predict_proba(rows), 1e-30, 1))
        table = np.full((len(rows), targets.shape[1]), found.min() - 1, np.float32)
        table[:, model.classes_] = found
        return table

    return scores


class CachedProbe:
    """`linear/cached-features`: every image is encoded once for all fractions and test sets."""

    protocol = "linear/cached-features"

    def __init__(
        self, model: Encoder, data: Downstream, train: Sequence[str], others: Sequence[str]
    ) -> None:
        ids = list(dict.fromkeys([*train, *others]))
        self.row = {image_id: i for i, image_id in enumerate(ids)}
        self.features = pooled_features(model, data, ids)

    def of(self, ids: Sequence[str]) -> Array:
        """Features of `ids`."""
        return self.features[[self.row[i] for i in ids]]

    def fit(
        self, data: Downstream, train: Sequence[str], valid: Sequence[str], seed: int
    ) -> Classifier:
        """Fit on `train`; the classifier takes features."""
        return fit_cached(
            *(self.of(train), data.targets(train), self.of(valid), data.targets(valid)),
            exclusive=data.task.exclusive,
        )


class PaperProbe(CachedProbe):
    """The authors' recipe, a pass through the encoder every epoch."""

    config: ProbeConfig

    def __init__(
        self, model: Encoder, data: Downstream, train: Sequence[str], others: Sequence[str]
    ) -> None:
        super().__init__(model, data, (), others)  # training crops are drawn anew each epoch
        self.model = model

    def fit(
        self, data: Downstream, train: Sequence[str], valid: Sequence[str], seed: int
    ) -> Classifier:
        """Train one linear layer; early stopping and best weights by validation loss."""
        cfg, generator = self.config, np.random.default_rng(seed)
        name = data.task.dataset
        clip = cfg.clip_norm_chexpert if name == "chexpert" else None
        jittered = name == "chexpert" and cfg.augment_chexpert == "moco"
        loss_of = _cross_entropy if data.task.exclusive else F.binary_cross_entropy_with_logits
        targets = torch.tensor(data.targets(train))
        valid_x, valid_y = torch.tensor(self.of(valid)), torch.tensor(data.targets(valid))
        torch.manual_seed(seed)
        layer = nn.Linear(valid_x.shape[1], targets.shape[1])
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[cfg.optimizer]
        lr = getattr(cfg, f"lr_{name}")
        optimizer = kind(layer.parameters(), lr=lr, betas=cfg.betas, weight_decay=cfg.weight_decay)
        ends = input_ends(self.model)
        best, best_layer, waited = float("inf"), layer, 0
        for _ in tqdm(range(cfg.epochs), desc=f"{self.protocol}, {len(train)}", unit="epoch"):
            for rows in _shuffled(len(train), cfg.batch_size, generator):
                crops = data.images.read([train[i] for i in rows])
                with torch.no_grad():
                    images = self.model.normalise(crops, generator=generator)
                    images = moco(images, *ends) if jittered else images
                    feat = self.model.image_features(images)
                loss_of(layer(feat.pooled.float().cpu()), targets[rows]).backward()
                if clip is not None:
                    nn.utils.clip_grad_norm_(layer.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
            with torch.no_grad():
                loss = float(loss_of(layer(valid_x), valid_y))
            best, best_layer, waited = (
                (loss, copy.deepcopy(layer), 0) if loss < best else (best, best_layer, waited + 1)
            )
            if waited >= cfg.patience:
                break
        final = best_layer.requires_grad_(False)
        return lambda features: final(torch.tensor(features)).numpy()


class GloriaProbe(PaperProbe):
    """GLoRIA's released recipe."""

    protocol = "linear/gloria"
    config = GloriaProbeConfig()


class MgcaProbe(PaperProbe):
    """MGCA's recipe."""

    protocol = "linear/mgca"
    config = MgcaProbeConfig()


class ImitateProbe(PaperProbe):
    """IMITATE's recipe."""

    protocol = "linear/imitate"
    config = ImitateProbeConfig()


def input_ends(model: Encoder) -> tuple[Tensor, Tensor]:
    """What black and white become as network input, (C, 1, 1) each."""
    flat = np.zeros((2, model.size, model.size), np.uint8)
    flat[1] = 255
    black, white = model.normalise(flat, generator=None)
    return black.amin(dim=(1, 2), keepdim=True), white.amax(dim=(1, 2), keepdim=True)


def moco(images: Tensor, black: Tensor, white: Tensor) -> Tensor:
    """MoCo's augmentation of grey images (B, C, H, W) as network input, each drawn on its own.

    Jitter of brightness and contrast by 0.4 with probability 0.8, blur of deviation 0.1 to 2 and
    flips with 0.5; jitter of saturation and hue, and greying, change nothing on grey.
    """
    jitter = v2.RandomApply([v2.ColorJitter(brightness=0.4, contrast=0.4)], p=0.8)
    blur = v2.RandomApply([v2.GaussianBlur(kernel_size=13, sigma=(0.1, 2.0))], p=0.5)
    steps = v2.Compose([jitter, blur, v2.RandomHorizontalFlip(0.5)])
    height = white - black
    return torch.stack([steps((image - black) / height) for image in images]) * height + black


def _cross_entropy(logits: Tensor, one_hot: Tensor) -> Tensor:
    return F.cross_entropy(logits, one_hot.argmax(dim=1))


def _shuffled(n: int, batch_size: int, generator: np.random.Generator) -> list[NDArray[np.int64]]:
    """Shuffled batches; an incomplete last one is dropped, as in released loaders, unless alone."""
    order = generator.permutation(n)
    whole = [order[i : i + batch_size] for i in range(0, n - batch_size + 1, batch_size)]
    return whole or [order]


PROBES = {probe.protocol: probe for probe in (CachedProbe, GloriaProbe, MgcaProbe, ImitateProbe)}
