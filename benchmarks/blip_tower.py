"""BLIP's vision tower as an image encoder that protocols can evaluate."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import BlipVisionModel

from benchmarks.blip import ImageConfig
from benchmarks.downstream import device_of
from common.checkpoint import CheckpointError
from common.interface import ImageFeatures

MEAN, DEVIATION = 0.4578, 0.2686
"""Of CLIP's and BLIP's three channels on average: a radiograph is grey."""


class BlipTower(nn.Module):
    """A ViT of transformers: [CLS] after the final norm is the image's feature.

    Args:
        vit: The tower.
        config: Sizes.
    """

    def __init__(self, vit: BlipVisionModel, config: ImageConfig) -> None:
        super().__init__()
        self.vit, self.config = vit, config

    @classmethod
    def from_hub(cls, config: ImageConfig) -> BlipTower:
        """The tower of a BLIP model on the hub or in a folder.

        Raises:
            CheckpointError: If neither the hub nor a cached copy is reachable.
        """
        try:
            vit = BlipVisionModel.from_pretrained(config.weights)
        except Exception as error:
            raise CheckpointError(
                f"BLIP's weights {config.weights} cannot be loaded: neither the model hub nor a "
                "cached copy is reachable. Download them once with network access, or point "
                "--model.image.weights to a local copy"
            ) from error
        return cls(vit, config).eval()

    @property
    def size(self) -> int:
        """Side of the prepared images, pixels."""
        return self.config.size

    @property
    def backbone(self) -> nn.Module:
        """The bare tower; no timm ResNet, so neither segmentation nor detection takes it."""
        return cast(nn.Module, self.vit)

    def normalise(
        self, images: NDArray[np.uint8], *, generator: np.random.Generator | None = None
    ) -> Tensor:
        """(B, size, size) pixels to (B, 3, crop, crop) in [-1, 1]: centre or random crops."""
        crop = self.config.crop
        room = images.shape[1] - crop
        corners = np.full((len(images), 2), round(room / 2))
        if generator is not None:
            corners = generator.integers(0, room + 1, size=corners.shape)
        cuts = zip(images, corners, strict=True)
        pixels = np.stack([i[y : y + crop, x : x + crop] for i, (y, x) in cuts])
        grey = torch.from_numpy(pixels)[:, None].float().div(127.5).sub(1)
        return grey.to(device_of(self)).expand(-1, 3, -1, -1)

    def image_features(self, images: Tensor) -> ImageFeatures:
        """Network input, standardised here as BLIP was trained, to [CLS] and patches."""
        images = ((images + 1) / 2 - MEAN) / DEVIATION  # augmentations before it need [-1, 1]
        tokens = self.vit(images, interpolate_pos_encoding=True).last_hidden_state
        return ImageFeatures(tokens[:, 0], tokens[:, 1:])
