"""GLoRIA (Huang et al., ICCV 2021): global and local image-report contrast."""

from typing import Any

__all__ = ["GLoRIA", "score"]


def __getattr__(name: str) -> Any:
    """Load the public names when they are used: settings must not cost an import of torch."""
    if name == "GLoRIA":
        from gloria.model import GLoRIA

        return GLoRIA
    if name == "score":
        from gloria.score import score

        return score
    raise AttributeError(f"gloria has no {name!r}")
