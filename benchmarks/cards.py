"""The generated parts of every paper card: `python -m benchmarks.cards [--check]`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import ensemble
from benchmarks.core import HERE
from benchmarks.protocols.detection import ImitateDetection, MgcaDetection
from benchmarks.protocols.finetune import ImitateFinetune, MacoFinetune
from benchmarks.protocols.grounding import GroundingConfig
from benchmarks.protocols.linear_probe import (
    GloriaProbeConfig,
    ImitateProbeConfig,
    MgcaProbeConfig,
)
from benchmarks.protocols.prompt_pairs import PairConfig
from benchmarks.protocols.segmentation import (
    GloriaSegmentation,
    ImitateSegmentation,
    MgcaSegmentation,
)
from benchmarks.protocols.upernet import MacoSegmentation
from benchmarks.protocols.zero_shot import ZeroShotConfig
from common.config import hyperparameter_table, ledger_table
from convirt import config as convirt
from gloria import config as gloria
from imitate import config as imitate
from lrclr import config as lrclr
from maco import config as maco
from mgca import config as mgca


@dataclass(frozen=True)
class Card:
    """What a card's tables are made from."""

    presets: Mapping[str, Any]
    decisions: Mapping[str, str]
    protocols: Mapping[str, Any]
    measured: Mapping[str, Callable[[], str]] = field(default_factory=dict)
    """Tables of committed results, by the name of their place."""


CARDS = {
    "convirt": Card(convirt.PRESETS, convirt.DECISIONS, {}),
    "gloria": Card(
        gloria.PRESETS,
        gloria.DECISIONS,
        {
            "zero_shot": ZeroShotConfig(),
            "linear/gloria": GloriaProbeConfig(),
            "segmentation/gloria": GloriaSegmentation(),
        },
    ),
    "imitate": Card(
        imitate.PRESETS,
        imitate.DECISIONS,
        {
            "linear/imitate": ImitateProbeConfig(),
            "finetune/imitate": ImitateFinetune(),
            "segmentation/imitate": ImitateSegmentation(),
            "detection/imitate": ImitateDetection(),
            "zero_shot/pairs": PairConfig(),
        },
    ),
    "lrclr": Card(
        lrclr.PRESETS,
        lrclr.DECISIONS,
        {},
        {"ensembles": partial(ensemble.table, HERE / "results" / "phantom", (0, 1, 2))},
    ),
    "maco": Card(
        maco.PRESETS,
        maco.DECISIONS,
        {
            "finetune/maco": MacoFinetune(),
            "segmentation/maco": MacoSegmentation(),
            "grounding/maco": GroundingConfig(),
        },
    ),
    "mgca": Card(
        mgca.PRESETS,
        mgca.DECISIONS,
        {
            "linear/mgca": MgcaProbeConfig(),
            "segmentation/mgca": MgcaSegmentation(),
            "detection/mgca": MgcaDetection(),
        },
    ),
}


def generated(card: Card) -> dict[str, str]:
    """The tables by the name of their place."""
    first = next(iter(card.presets.values()))
    return {
        "hyperparameters": hyperparameter_table(card.presets),
        "ledger": ledger_table({"": first, **card.protocols}, card.decisions),
        **{name: make().rstrip() for name, make in card.measured.items()},
    }


def filled(text: str, tables: Mapping[str, str]) -> str:
    """`text` with everything between `<!-- name -->` and `<!-- /name -->` replaced.

    Raises:
        ValueError: If a place is missing.
    """
    for name, table in tables.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text, places = pattern.subn(partial(_between, table), text)
        if places != 1:
            raise ValueError(f"a card needs one place <!-- {name} -->, found {places}")
    return text


def _between(table: str, place: re.Match[str]) -> str:
    return f"{place[1]}{table}\n{place[2]}"


def main() -> None:
    """Rewrite the cards, or with `--check` fail when one differs."""
    for paper, card in CARDS.items():
        path: Path = HERE.parent / paper / "README.md"
        text = path.read_text()
        new = filled(text, generated(card))
        if "--check" in sys.argv[1:] and new != text:
            sys.exit(f"{paper}/README.md differs from its settings; run make tables")
        path.write_text(new)


if __name__ == "__main__":
    main()
