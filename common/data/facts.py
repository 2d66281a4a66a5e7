"""Sizes of the real data sets, counted from the public tables or stated by their maintainers."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def facts(dataset: str) -> dict[str, Any]:
    """What is known of a data set by registry id; label counts are ordered 1, 0, -1, blank."""
    known: dict[str, dict[str, Any]] = json.loads(
        files("common.data").joinpath("facts.json").read_text(encoding="utf-8")
    )
    return known.get(dataset, {})


def counts(dataset: str) -> dict[str, int]:
    """Expected counts by name, as `verify` measures them."""
    expected: dict[str, int] = facts(dataset).get("counts", {})
    return expected
