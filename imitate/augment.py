"""Pixels to network input: extraction, two random views, normalisation (ledger C1-C6)."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.data.tables import DataError
from imitate.config import DataConfig

NORMS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "unit": ((0.0,), (1.0,)),
    "half": ((0.5,), (0.5,)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and deviation of pixels in [0, 1], of one grey channel or of three."""


def content_box(image: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Top, left, bottom, right around what is not black; the whole image if all is."""
    rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
    if not len(rows):
        return 0, 0, *image.shape
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def stretched(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """What is not black, stretched to the full range of grey and to (size, size).

    Source: released extraction, with 255 instead of 256 levels, which wrap (ledger C4), and a
    constant image passed through (C5). The aspect ratio is not kept (C6).
    """
    top, left, bottom, right = content_box(image)
    inside = image[top:bottom, left:right].astype(np.float32)
    low, high = float(inside.min()), float(inside.max())
    if high > low:
        inside = (inside - low) / (high - low) * 255
    resized = cv2.resize(inside, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized.round().clip(0, 255), np.uint8)


def cropped(
    images: NDArray[np.uint8], crop: int, generator: np.random.Generator | None = None
) -> NDArray[np.uint8]:
    """Crops of (B, S, S): the middle, or with a generator a random place of each.

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
    return np.stack([image[y : y + crop, x : x + crop] for image, (y, x) in cuts])


def view(
    image: NDArray[np.uint8], crop: int, cfg: DataConfig, generator: np.random.Generator
) -> NDArray[np.uint8]:
    """One random view: crop, flips, turn and warp (black outside), contrast stretched."""
    cut = cropped(image[None], crop, generator)[0]
    if generator.random() < cfg.flip:
        cut = cut[:, ::-1]
    if generator.random() < cfg.vertical_flip:
        cut = cut[::-1]
    centre = ((crop - 1) / 2, (crop - 1) / 2)
    matrix = cv2.getRotationMatrix2D(centre, float(generator.uniform(*cfg.rotation)), 1.0)
    turned = cv2.warpAffine(
        np.ascontiguousarray(cut), matrix, (crop, crop), flags=cv2.INTER_NEAREST
    )
    if generator.random() < cfg.perspective:
        turned = warped(np.asarray(turned, np.uint8), generator)
    if generator.random() < cfg.autocontrast:
        turned = cv2.normalize(turned, None, 0, 255, cv2.NORM_MINMAX)  # type: ignore[call-overload]
    return np.asarray(turned, np.uint8)


def warped(image: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    """A perspective view: each corner moves inwards by up to a quarter of the side, bicubic.

    Source: released transforms, torchvision's `RandomPerspective` with distortion 0.5.
    """
    side = len(image) - 1
    corners = np.array([[0, 0], [side, 0], [side, side], [0, side]], np.float32)
    inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]], np.float32)
    moved = corners + inwards * generator.uniform(0, side / 4, size=(4, 2)).astype(np.float32)
    matrix = cv2.getPerspectiveTransform(corners, moved)
    return np.asarray(
        cv2.warpPerspective(image, matrix, image.shape[::-1], flags=cv2.INTER_CUBIC), np.uint8
    )


def to_input(images: NDArray[np.uint8], norm: str) -> Tensor:
    """(..., H, W) grey to (..., 1 or 3, H, W) float32; the encoder repeats a single channel."""
    mean, deviation = (torch.tensor(values).view(-1, 1, 1) for values in NORMS[norm])
    pixels = torch.from_numpy(np.ascontiguousarray(images)).unsqueeze(-3).float()
    return (pixels / 255 - mean) / deviation
