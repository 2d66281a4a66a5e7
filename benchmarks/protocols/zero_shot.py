"""Zero-shot classification by prompts (GLoRIA Sec. 3.3.2, Table 3; ledger G30-G34, G64)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.downstream import Downstream, batches
from common.config import cite
from common.interface import Predictor
from common.metrics import binary_rates, threshold


@dataclass(frozen=True)
class ZeroShotConfig:
    """How prompts become class scores."""

    n: int = cite(5, code="inference functions", ledger="G32")
    """Prompts drawn for each class."""
    seed: int = cite(6, code="seeded at import", ledger="G32")
    """Of that draw."""
    vocabulary: Literal["released", "clean"] = cite(
        "released", code="prompt constants", ledger="G33"
    )
    """Word lists."""
    prompt_pool: Literal["max", "mean"] = cite(
        "max", paper="Sec. 3.3.2", code="inference functions", ledger="G30"
    )
    """Over the prompts of a class."""
    normalize: Literal["none", "zscore_images"] = cite(
        "none",
        paper="Sec. 3.3.2",
        code="inference functions",
        released="zscore_images",
        ledger="G31",
    )
    """z-scores over the images given make a score depend on the other images."""
    threshold: Literal["youden", "f1", "argmax"] = cite(
        "youden", note="open in the paper", ledger="G64"
    )
    """Cut of the one-vs-rest rates: chosen on the validation part, or the best class alone."""


def class_scores(
    model: Predictor,
    data: Downstream,
    ids: Sequence[str],
    prompts: Mapping[str, Sequence[str]],
    cfg: ZeroShotConfig,
) -> NDArray[np.float32]:
    """(n, classes) scores in the order of `prompts`; images and prompts are encoded once each."""
    texts = model.embed_texts([text for group in prompts.values() for text in group])
    groups = np.cumsum([len(group) for group in prompts.values()])[:-1].tolist()
    rows = []
    for pixels in batches(data.images, ids, "zero-shot"):
        images = model.embed_images(model.normalise(pixels, generator=None))
        parts = model.similarity(images, texts).tensor_split(groups, dim=1)
        pooled = [p.amax(dim=1) if cfg.prompt_pool == "max" else p.mean(dim=1) for p in parts]
        rows.append(torch.stack(pooled, dim=1))
    scores = torch.cat(rows)
    if cfg.normalize == "zscore_images" and len(scores) > 1:
        scores = (scores - scores.mean(0)) / scores.std(0, unbiased=False)
    return scores.float().cpu().numpy()


def single_label_rates(
    classes: NDArray[np.int64], scores: NDArray[np.float32], cuts: Sequence[float] | None
) -> dict[str, float]:
    """Table 3 on CheXpert 5x200: argmax accuracy, and one-vs-rest rates at `cuts`, macro-averaged.

    Args:
        classes: (n,).
        scores: (n, L).
        cuts: (L,) thresholds from other images; None: the best class is positive, no other.
    """
    best = scores.argmax(axis=1)
    labels = range(scores.shape[1])
    chosen = [best == k if cuts is None else scores[:, k] >= cuts[k] for k in labels]
    rates = [binary_rates(classes == k, chosen[k]) for k in labels]
    macro = {name: float(np.mean([r[name] for r in rates])) for name in rates[0]}
    return {**macro, "accuracy": float(np.mean(best == classes))}


def cuts_on(targets: NDArray[np.float32], scores: NDArray[np.float32], rule: str) -> list[float]:
    """The threshold of each label that is best on these images."""
    return [threshold(t, s, rule) for t, s in zip(targets.T, scores.T, strict=True)]
