"""Maps of a frozen encoder: every image is encoded once, as far as memory allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.downstream import device_of

LIMIT = 2 * 2**30
"""Bytes of maps that are kept; images beyond are encoded each time."""


class FrozenMaps:
    """An encoder's maps by image id.

    Args:
        encode: Image ids to maps (B, C, H, W), one a scale.
        keep: Whether the encoder gives an image the same maps at any time.
        limit: Bytes to keep.
    """

    def __init__(
        self, encode: Callable[[Sequence[str]], Sequence[Tensor]], *, keep: bool, limit: int = LIMIT
    ) -> None:
        self.encode, self.free = encode, limit if keep else 0
        self.kept: dict[str, tuple[Tensor, ...]] = {}

    @torch.no_grad()
    def __call__(self, ids: Sequence[str]) -> list[Tensor]:
        """Maps (B, C, H, W) of images, without gradient."""
        new = [i for i in ids if i not in self.kept]
        if len(new) == len(ids) and not self.free:
            return list(self.encode(ids))
        fresh = {}
        if new:
            maps = self.encode(new)
            rows = zip(*(scale.split(1) for scale in maps), strict=True)
            fresh = dict(zip(new, rows, strict=True))
            size = sum(scale.nbytes for scale in maps)
            if size <= self.free:
                self.free -= size
                self.kept |= fresh
        found = [self.kept[i] if i in self.kept else fresh[i] for i in ids]
        return [torch.cat(scale) for scale in zip(*found, strict=True)]


def stages(backbone: Any, images: Tensor, numbers: Sequence[int]) -> list[Tensor]:
    """A timm ResNet's maps of some stages, the finest first.

    Args:
        backbone: The encoder.
        images: (B, 1, H, W).
        numbers: 0, the stem, to 4, at strides of 2 to 32.
    """
    found = backbone.forward_intermediates(
        images.expand(-1, 3, -1, -1), indices=list(numbers), intermediates_only=True
    )
    return list(found)


def maps_of(
    backbone: Any, inputs: Callable[[Sequence[str]], Tensor], numbers: Sequence[int], *, keep: bool
) -> FrozenMaps:
    """A ResNet's maps of images as `inputs` gives them; `keep` where they stay the same."""
    device = device_of(backbone)
    return FrozenMaps(lambda ids: stages(backbone, inputs(ids).to(device), numbers), keep=keep)
