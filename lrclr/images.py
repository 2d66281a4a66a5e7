"""Pixels as CheXzero prepares them (ledger L13, L32)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from lrclr.config import ImageConfig

MEAN, STD = 101.48761, 83.43944
"""Of pixels on the scale of 0 to 255."""


def padded(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Long side to `size` (Lanczos), centred on black.

    Source: CheXzero's preprocessing; both sides are `int(side * ratio)`, which gives 319 instead of
    320 for 97 lengths between 200 and 4999.

    Args:
        image: (H, W).
        size: Of the square result, pixels.
    """
    ratio = float(size) / max(image.shape)
    height, width = (max(1, int(side * ratio)) for side in image.shape)
    small = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
    canvas = Image.new("L", (size, size))
    canvas.paste(small, ((size - width) // 2, (size - height) // 2))
    return np.array(canvas, np.uint8)


def normalised(images: NDArray[np.uint8]) -> Tensor:
    """(B, S, S) to (B, 1, S, S) float32 with CheXzero's mean and deviation."""
    return (torch.from_numpy(images)[:, None].float() - MEAN) / STD


def cut(
    image: NDArray[np.uint8], config: ImageConfig, generator: np.random.Generator | None
) -> NDArray[np.uint8]:
    """(S, S) to (input, input): the middle, or at random a turned, resized and shifted part.

    Nothing is turned or resized where the settings say 0. What lies outside repeats the border.
    """
    size, room = config.input, len(image) - config.input
    if generator is None:
        y = x = room // 2
        return image[y : y + size, x : x + size]
    y, x = generator.integers(0, room + 1, size=2).tolist()
    if not (config.rotate or config.zoom):
        return image[y : y + size, x : x + size]
    middle = (len(image) - 1) / 2
    angle = generator.uniform(-config.rotate, config.rotate)
    scale = generator.uniform(1 - config.zoom, 1 + config.zoom)
    matrix = cv2.getRotationMatrix2D((middle, middle), angle, scale)
    matrix[:, 2] -= (x, y)
    turned = cv2.warpAffine(image, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(turned, np.uint8)


def to_input(
    images: NDArray[np.uint8],
    config: ImageConfig,
    generators: Sequence[np.random.Generator] | None = None,
) -> Tensor:
    """(B, S, S) to network input (B, 1, input, input); the encoder repeats the channel.

    Args:
        images: Stored squares.
        config: Bicubic resize or crop, and its size.
        generators: One an image, for random cuts in training.
    """
    size = config.input
    if config.fit == "crop":
        draws = [None] * len(images) if generators is None else generators
        images = np.stack([cut(i, config, g) for i, g in zip(images, draws, strict=True)])
    pixels = normalised(images)
    if pixels.shape[-1] == size:
        return pixels
    return F.resize(
        pixels,
        [size, size],
        interpolation=F.InterpolationMode.BICUBIC,
        antialias=config.antialias,
    )
