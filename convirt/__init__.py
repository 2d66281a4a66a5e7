"""ConVIRT (Zhang et al., MLHC 2022): contrast of whole images and sentences, a baseline of four."""

from typing import Any

__all__ = ["ConVIRT"]


def __getattr__(name: str) -> Any:
    """Load the model when it is used: settings must not cost an import of torch."""
    if name == "ConVIRT":
        from convirt.model import ConVIRT

        return ConVIRT
    raise AttributeError(f"convirt has no {name!r}")
