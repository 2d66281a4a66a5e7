"""IMITATE (Liu et al., TMI 2024): findings and impressions aligned at two levels of the image."""

from typing import Any

__all__ = ["IMITATE"]


def __getattr__(name: str) -> Any:
    """Load the model when it is used: settings must not cost an import of torch."""
    if name == "IMITATE":
        from imitate.model import IMITATE

        return IMITATE
    raise AttributeError(f"imitate has no {name!r}")
