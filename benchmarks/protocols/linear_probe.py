"""Linear classification on frozen image features (GLoRIA Sec. 4.4, Tables 2 and 3).

`linear/gloria` trains the layer as the authors' code does: random crops, Adam, early stopping.
`linear/cached-features` extracts centre-crop features once and fits an L2-penalised logistic
regression, its strength chosen on the validation part: minutes become seconds. In both the
encoder's batch normalisation is in evaluation mode (ledger G59) and the best validation weights are
tested (G57).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from benchmarks.downstream import Downstream, pooled_features
from common.config import cite
from common.interface import Predictor
from common.metrics import auroc

Array = NDArray[np.float32]
Classifier = Callable[[Array], Array]
PENALTIES = tuple(10.0**k for k in range(-4, 3))
"""Inverse L2 strengths tried by `linear/cached-features`."""


@dataclass(frozen=True)
class ProbeConfig:
    """Recipe of `linear/gloria`; the learning rate is the task's."""

    betas: tuple[float, float] = cite((0.5, 0.999), code="optimiser builder", ledger="G55")
    weight_decay: float = cite(1e-6, code="classification config", ledger="G55")
    batch_size: int = cite(64, code="classification config", ledger="G55")
    epochs: int = cite(50, code="classification config", ledger="G55")
    patience: int = cite(10, code="classification config")


def fit_cached(train: Array, targets: Array, valid: Array, valid_targets: Array) -> Classifier:
    """One logistic regression a label; the strength with the best validation AUROC over all labels.

    A label with one class only among the training images scores 0 everywhere.

    Args:
        train: (n, C) features.
        targets: (n, L) in {0, 1}.
        valid: (m, C).
        valid_targets: (m, L).

    Returns:
        A function from features (k, C) to scores (k, L).
    """
    judged = [k for k, column in enumerate(valid_targets.T) if len(np.unique(column)) == 2]

    def fitted(strength: float) -> Classifier:
        models = [_logistic(train, column, strength) for column in targets.T]
        return lambda features: np.stack([model(features) for model in models], axis=1)

    candidates = [fitted(strength) for strength in PENALTIES]
    scores = [auroc(valid_targets[:, judged], c(valid)[:, judged]) for c in candidates]
    return candidates[int(np.argmax(scores))]


def _logistic(features: Array, target: Array, strength: float) -> Classifier:
    if len(np.unique(target)) < 2:
        return lambda rows: np.zeros(len(rows), np.float32)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
    model.fit(features, target)
    return model.decision_function


class CachedProbe:
    """`linear/cached-features`: every image is encoded once for all fractions and test sets."""

    protocol = "linear/cached-features"

    def __init__(self, model: Predictor, data: Downstream, ids: Sequence[str]) -> None:
        self.row = {image_id: i for i, image_id in enumerate(ids)}
        self.features = pooled_features(model, data, ids)

    def of(self, ids: Sequence[str]) -> Array:
        """Features of `ids`."""
        return self.features[[self.row[i] for i in ids]]

    def fit(
        self, data: Downstream, train: Sequence[str], valid: Sequence[str], seed: int
    ) -> Classifier:
        """Fit on `train`; the classifier takes features."""
        return fit_cached(self.of(train), data.targets(train), self.of(valid), data.targets(valid))


class PaperProbe(CachedProbe):
    """`linear/gloria`: the authors' recipe, a pass through the encoder every epoch."""

    protocol = "linear/gloria"

    def __init__(self, model: Predictor, data: Downstream, ids: Sequence[str]) -> None:
        super().__init__(
            model, data, ids
        )  # validation and test crops are central: encode them once
        self.model = model

    def fit(
        self, data: Downstream, train: Sequence[str], valid: Sequence[str], seed: int
    ) -> Classifier:
        """Train one linear layer; early stopping and best weights by validation loss."""
        cfg, generator = ProbeConfig(), np.random.default_rng(seed)
        targets = torch.tensor(data.targets(train))
        valid_x, valid_y = torch.tensor(self.of(valid)), torch.tensor(data.targets(valid))
        torch.manual_seed(seed)
        layer = nn.Linear(valid_x.shape[1], targets.shape[1])
        optimizer = torch.optim.Adam(
            layer.parameters(), lr=data.task.lr, betas=cfg.betas, weight_decay=cfg.weight_decay
        )
        best, best_layer, waited = float("inf"), layer, 0
        for _ in tqdm(range(cfg.epochs), desc=f"linear/gloria, {len(train)} images", unit="epoch"):
            for rows in _shuffled(len(train), cfg.batch_size, generator):
                crops = data.images.read([train[i] for i in rows])
                with torch.no_grad():
                    feat = self.model.image_features(
                        self.model.normalise(crops, generator=generator)
                    )
                logits = layer(feat.pooled.float().cpu())
                F.binary_cross_entropy_with_logits(logits, targets[rows]).backward()
                if data.task.clip_norm is not None:
                    nn.utils.clip_grad_norm_(layer.parameters(), data.task.clip_norm)
                optimizer.step()
                optimizer.zero_grad()
            with torch.no_grad():
                loss = float(F.binary_cross_entropy_with_logits(layer(valid_x), valid_y))
            best, best_layer, waited = (
                (loss, copy.deepcopy(layer), 0) if loss < best else (best, best_layer, waited + 1)
            )
            if waited >= cfg.patience:
                break
        final = best_layer.requires_grad_(False)
        return lambda features: final(torch.tensor(features)).numpy()


def _shuffled(n: int, batch_size: int, generator: np.random.Generator) -> list[NDArray[np.int64]]:
    """Shuffled batches; an incomplete last one is dropped, as in released loaders, unless alone."""
    order = generator.permutation(n)
    whole = [order[i : i + batch_size] for i in range(0, n - batch_size + 1, batch_size)]
    return whole or [order]


PROBES = {probe.protocol: probe for probe in (CachedProbe, PaperProbe)}
