"""Zero-shot classification by a pair of prompts a finding: presence against absence.

IMITATE Table VI on RSNA and SIIM. A finding's probability is the softmax over the similarities of
the image to both prompts.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.downstream import Downstream
from benchmarks.protocols.zero_shot import ZeroShotConfig, class_scores
from common.config import cite
from common.interface import Predictor
from common.metrics import binary_rates
from gloria.model import GLoRIA

Array = NDArray[np.float32]


@dataclass(frozen=True)
class PairConfig:
    """How a pair of prompts becomes a decision."""

    present: str = cite("{}", paper="IMITATE Sec. IV-B")
    """Prompt of presence; {} is the finding."""
    absent: str = cite("No {}", paper="IMITATE Sec. IV-B")
    """Prompt of absence."""
    threshold: Literal["f1", "youden"] = cite(
        "f1", note="IMITATE is silent; MedKLIP takes the largest F1 of the test set", ledger="E7"
    )
    """Cut of F1 and accuracy; chosen on the test part as printed, and on the validation part."""


def by_cosine(model: Predictor) -> Predictor:
    """The model, compared by its global embeddings alone (LRCLR's ledger L23).

    GLoRIA's own similarity adds the words', which grows with the length of the prompt.
    """
    if not isinstance(model, GLoRIA):
        return model
    twin = copy.copy(model)
    twin.config = replace(model.config, similarity=replace(model.config.similarity, use="global"))
    return twin


def probabilities(
    model: Predictor, data: Downstream, ids: Sequence[str], names: Sequence[str], cfg: PairConfig
) -> Array:
    """(n, L) probability of each finding; images and prompts are encoded once each.

    Args:
        model: Whose cosines are used, without a temperature.
        data: Where pixels come from.
        ids: n images.
        names: L findings, as they stand in the prompts.
        cfg: The prompts.
    """
    prompts = {
        f"{sign} {name}": [template.format(name)]
        for sign, template in (("present", cfg.present), ("absent", cfg.absent))
        for name in names
    }
    scores = class_scores(by_cosine(model), data, ids, prompts, ZeroShotConfig())
    present, absent = np.split(scores, 2, axis=1)
    return 1 / (1 + np.exp(absent - present))


def rates_at(targets: Array, scores: Array, cuts: Sequence[float]) -> list[dict[str, float]]:
    """`common.metrics.binary_rates` of every finding at its cut."""
    columns = zip(targets.T, scores.T, cuts, strict=True)
    return [binary_rates(truth, found >= cut) for truth, found, cut in columns]
