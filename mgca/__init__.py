"""MGCA (Wang et al., NeurIPS 2022): instance, token and prototype alignment."""

from typing import Any

__all__ = ["MGCA"]


def __getattr__(name: str) -> Any:
    """Load the model when it is used: settings must not cost an import of torch."""
    if name == "MGCA":
        from mgca.model import MGCA

        return MGCA
    raise AttributeError(f"mgca has no {name!r}")
