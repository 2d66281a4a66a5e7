"""Pixels to network input: one random warp, light and blur (ConVIRT Appendix A)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.data.tables import DataError
from convirt.config import AugmentConfig


def augmented(
    images: NDArray[np.uint8],
    crop: int,
    cfg: AugmentConfig,
    generators: Sequence[np.random.Generator],
) -> Tensor:
    """Random crop, flip, affine map, brightness and contrast, and blur of each image.

    Args:
        images: (B, S, S) grey.
        crop: Side of the result, pixels.
        cfg: Ranges.
        generators: One per image.

    Returns:
        (B, 1, crop, crop) float32 in [-1, 1]; the encoder repeats the channel.
    """
    views = [_view(*pair, crop, cfg) for pair in zip(images, generators, strict=True)]
    return to_input(np.stack(views))


def _view(
    image: NDArray[np.uint8], generator: np.random.Generator, crop: int, cfg: AugmentConfig
) -> NDArray[np.uint8]:
    size, draw = len(image), generator.uniform
    side = size * np.sqrt(draw(*cfg.crop_area))
    left, top = draw(0, size - side, 2)
    middle = np.array([left + side / 2, top + side / 2]) + draw(-cfg.shift, cfg.shift, 2) * side
    zoom = crop / side * draw(*cfg.scale)
    matrix = cv2.getRotationMatrix2D((0.0, 0.0), float(draw(-cfg.rotate, cfg.rotate)), zoom)
    if generator.random() < cfg.flip:
        matrix = np.diag([-1.0, 1.0]) @ matrix
    matrix[:, 2] = crop / 2 - matrix[:, :2] @ middle
    view = cv2.warpAffine(image, matrix, (crop, crop)).astype(np.float32)
    view *= draw(*cfg.light)
    mean = view.mean()
    view = (view - mean) * draw(*cfg.light) + mean
    view = cv2.GaussianBlur(view, (0, 0), draw(*cfg.blur) * crop / 224)
    return np.asarray(view.clip(0, 255), np.uint8)


def cropped(
    images: NDArray[np.uint8], crop: int, generator: np.random.Generator | None = None
) -> Tensor:
    """Crops of (B, S, S) grey images as (B, 1, crop, crop) float32 in [-1, 1].

    The middle, or with a generator a random place of each.

    Raises:
        DataError: If the crop is larger than the image.
    """
    room = images.shape[1] - crop
    if room < 0:
        raise DataError(f"cannot crop {crop} pixels from images of {images.shape[1]}")
    corners = np.full((len(images), 2), round(room / 2))
    if generator is not None:
        corners = generator.integers(0, room + 1, size=corners.shape)
    cuts = zip(images, corners, strict=True)
    return to_input(np.stack([i[y : y + crop, x : x + crop] for i, (y, x) in cuts]))


def to_input(images: NDArray[np.uint8]) -> Tensor:
    """0 ... 255 to -1 ... 1."""
    return torch.from_numpy(np.ascontiguousarray(images))[:, None].float().div_(127.5).sub_(1.0)
