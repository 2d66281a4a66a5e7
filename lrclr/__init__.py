"""LRCLR: local contrast on selected regions, an add-on to CheXzero (AMIA 2023).

`LRCLR` holds both: with `loss.weight` 0 it is CheXzero. `attach` adds the module to another host.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["LRCLR", "attach"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that planning and `--help` stay light."""
    homes = {"LRCLR": "lrclr.model", "attach": "lrclr.hosts"}
    if name in homes:
        return getattr(import_module(homes[name]), name)
    raise AttributeError(f"module 'lrclr' has no attribute {name!r}")
