"""Pixels to network input: crop, scale to [-1, 1]; MGCA pre-trains without other augmentation."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.data.tables import DataError


def crop_and_normalise(
    images: NDArray[np.uint8], crop: int, generators: list[np.random.Generator] | None = None
) -> Tensor:
    """Crop and map 0 ... 255 to -1 ... 1.

    Source: MGCA Sec. 4.1; released transforms (mean and deviation 0.5).

    Args:
        images: (B, S, S) grey, already resized and padded.
        crop: Side of the result, at most S, pixels.
        generators: One per image for random crops; None crops the centre.

    Returns:
        (B, 1, crop, crop) float32; the encoder repeats the channel.

    Raises:
        DataError: If the crop is larger than the image.
    """
    room = images.shape[1] - crop
    if room < 0:
        raise DataError(f"cannot crop {crop} pixels from images of {images.shape[1]}")
    if generators is None:
        corners = np.full((len(images), 2), round(room / 2))
    else:
        corners = np.array([g.integers(0, room + 1, size=2) for g in generators])
    cut = np.stack(
        [image[y : y + crop, x : x + crop] for image, (y, x) in zip(images, corners, strict=True)]
    )
    return torch.from_numpy(cut)[:, None].float().div_(127.5).sub_(1.0)
