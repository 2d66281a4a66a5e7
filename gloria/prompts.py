"""Prompts of zero-shot classification: severity, sub-type and location, combined (Sec. 3.3.2).

`RELEASED` is the authors' vocabulary with their spelling, duplicates and slot order (ledger G33);
`CLEAN` repairs spelling and order. The authors did not release RSNA prompts (G34): `RSNA` is ours.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence

Slots = tuple[tuple[str, ...], ...]

_LUNG_BASES = (
    "at the mid lung zone",
    "at the upper lung zone",
    "at the right lung zone",
    "at the left lung zone",
    "at the lung bases",
    "at the right lung base",
    "at the left lung base",
    "at the bilateral lung bases",
    "at the left lower lobe",
    "at the right lower lobe",
)
_CARDIOMEGALY = (
    "cardiac silhouette size is upper limits of normal",
    "cardiomegaly which is unchanged",
    "mildly prominent cardiac silhouette",
    "portable view of the chest demonstrates stable cardiomegaly",
    "portable view of the chest demonstrates mild cardiomegaly",
    "persistent severe cardiomegaly",
    "heart size is borderline enlarged",
    "cardiomegaly unchanged",
    "heart size is at the upper limits of normal",
    "redemonstration of cardiomegaly",
    "ap erect chest radiograph demonstrates the heart size is the upper limits of normal",
    "cardiac silhouette size is mildly enlarged",
    "mildly enlarged cardiac silhouette, likely left ventricular enlargement. other chambers are "
    "less prominent",
    "heart size remains at mildly enlarged",
    "persistent cardiomegaly with prominent upper lobe vessels",
)
_ATELECTASIS = (
    "subsegmental atelectasis",
    "linear atelectasis",
    "trace atelectasis",
    "bibasilar atelectasis",
    "retrocardiac atelectasis",
    "bandlike atelectasis",
    "residual atelectasis",
)
_CONSOLIDATION = (
    "bilateral consolidation",
    "reticular consolidation",
    "retrocardiac consolidation",
    "patchy consolidation",
    "airspace consolidation",
    "partial consolidation",
)
_EDEMA = ("pulmonary edema", "trace interstitial edema", "pulmonary interstitial edema")
_ZONES = (
    "at the lower lung zone",
    "at the upper lung zone",
    "at the left lower lobe",
    "at the right lower lobe",
    "at the left upper lobe",
    "at the right uppper lobe",
    "at the right lung base",
    "at the left lung base",
)

RELEASED: Mapping[str, Slots] = {
    "Atelectasis": (("", "mild", "minimal"), _ATELECTASIS, _LUNG_BASES),
    "Cardiomegaly": (("",), _CARDIOMEGALY, ("",)),
    "Consolidation": (("", "increased", "improved", "apperance of"), _CONSOLIDATION, _ZONES),
    "Edema": (
        ("", "mild", "improvement in", "presistent", "moderate", "decreased"),
        _EDEMA,
        ("",),
    ),
    "Pleural Effusion": (
        ("", "small", "stable", "large", "decreased", "increased"),
        ("left", "right", "tiny"),
        (
            "bilateral pleural effusion",
            "subpulmonic pleural effusion",
            "bilateral pleural effusion",
        ),
    ),
}
CLEAN: Mapping[str, Slots] = {
    **RELEASED,
    "Consolidation": (
        ("", "increased", "improved", "appearance of"),
        _CONSOLIDATION,
        tuple(zone.replace("uppper", "upper") for zone in _ZONES),
    ),
    "Edema": (
        ("", "mild", "improvement in", "persistent", "moderate", "decreased"),
        _EDEMA,
        ("",),
    ),
    "Pleural Effusion": (
        ("", "small", "stable", "large", "decreased", "increased", "tiny"),
        ("left", "right", "bilateral"),
        ("pleural effusion", "subpulmonic pleural effusion"),
    ),
}
RSNA: Mapping[str, Slots] = {
    "Pneumonia": (
        ("", "patchy", "focal", "multifocal"),
        ("consolidation", "pneumonia", "airspace opacity"),
        ("", *(zone.replace("uppper", "upper") for zone in _ZONES)),
    ),
    "No Pneumonia": (
        ("",),
        ("no acute cardiopulmonary process", "no focal consolidation", "the lungs are clear"),
        ("",),
    ),
}
VOCABULARIES = {"released": RELEASED, "clean": CLEAN, "rsna": RSNA}


def combinations(slots: Sequence[Sequence[str]]) -> list[str]:
    """Every combination in dictionary order, joined by single spaces; empty slots leave theirs."""
    return [" ".join(words) for words in itertools.product(*slots)]


def draw_prompts(
    vocabulary: Mapping[str, Slots], *, n: int = 5, seed: int = 6
) -> dict[str, list[str]]:
    """`n` prompts a class, drawn without replacement, classes in order; fewer if a class has fewer.

    Source: Sec. 3.3.2 ("randomly combining"); the released code draws 5 with Python's generator,
    which it seeds with 6 when imported (ledger G32).
    """
    generator = random.Random(seed)
    drawn = {}
    for name, slots in vocabulary.items():
        texts = combinations(slots)
        drawn[name] = generator.sample(texts, min(n, len(texts)))
    return drawn
