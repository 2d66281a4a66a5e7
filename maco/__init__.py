"""MaCo (Huang et al., 2023): a masked autoencoder contrasted with reports, weighted by position."""

from typing import Any

__all__ = ["MaCo"]


def __getattr__(name: str) -> Any:
    """Load the model when it is used: settings must not cost an import of torch."""
    if name == "MaCo":
        from maco.model import MaCo

        return MaCo
    raise AttributeError(f"maco has no {name!r}")
