"""The small interface that protocols and users rely on; every paper's model is a `Predictor`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn


class ImageFeatures(NamedTuple):
    """What a bare image encoder returns.

    Attributes:
        pooled: (B, C) global feature.
        local: (B, C', h, w) feature map, or (B, P, C') tokens.
    """

    pooled: Tensor
    local: Tensor


class Encoder(Protocol):
    """An image encoder with its preprocessing: 8-bit pixels to features."""

    @property
    def size(self) -> int:
        """Side in pixels of the square images of `prepare` and `resize_and_pad`."""
        ...

    @property
    def backbone(self) -> nn.Module:
        """The bare image encoder, a timm network, for segmentation and detection."""
        ...

    def normalise(
        self, images: NDArray[np.uint8], *, generator: np.random.Generator | None
    ) -> Tensor:
        """(B, size, size) pixels to network input; with a generator, the paper's training crop."""
        ...

    def image_features(self, images: Tensor) -> ImageFeatures:
        """Network input to features of the bare encoder."""
        ...


@runtime_checkable
class Predictor(Encoder, Protocol):
    """A pre-trained model with its preprocessing: 8-bit pixels and raw text to similarities."""

    def embed_images(self, images: Tensor) -> NamedTuple:
        """Network input to the joint space, as the paper's model gives it."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> NamedTuple:
        """Raw texts to the joint space."""
        ...

    def similarity(self, images: NamedTuple, texts: NamedTuple) -> Tensor:
        """(N, T) image-text similarity as the paper defines it for inference."""
        ...
