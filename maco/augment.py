"""The image augmentation of pre-training: one warp of 8-bit pixels (released; ledger D6)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from maco.config import DataConfig


def warped(
    images: NDArray[np.uint8], cfg: DataConfig, generators: Sequence[np.random.Generator]
) -> NDArray[np.uint8]:
    """Each image mirrored, turned and scaled about its centre, nearest pixels, black outside.

    Args:
        images: (B, S, S) grey.
        cfg: Ranges.
        generators: One per image.

    Returns:
        (B, S, S).
    """
    size = images.shape[1]
    centre = ((size - 1) / 2, (size - 1) / 2)
    views = np.empty_like(images)
    for k, (image, generator) in enumerate(zip(images, generators, strict=True)):
        angle, scale = generator.uniform(-cfg.rotate, cfg.rotate), generator.uniform(*cfg.scale)
        matrix = cv2.getRotationMatrix2D(centre, float(angle), float(scale))
        if generator.random() < cfg.flip:
            image = image[:, ::-1]
        views[k] = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_NEAREST)
    return views
