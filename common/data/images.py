"""Pixels: files to 8-bit grey, and the geometry that papers share."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_modality_lut

from common.data.tables import DataError

MAGIC = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg"}
CHANNEL_TOLERANCE = 2
"""Grey levels by which the channels of a grey picture stored as RGB may differ."""

Grey = NDArray[np.uint8]


def read_grey(path: Path) -> Grey:
    """An image file as (H, W) uint8: PNG or JPEG of any mode, or DICOM.

    Colour is converted to luma. DICOM goes through `read_dicom` and is scaled by 255 / max, as
    GLoRIA and MGCA do.

    Raises:
        DataError: If the file is absent, empty, truncated or not an image; says which.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if not data:
        raise DataError(f"{path}: zero bytes; the download was interrupted")
    if data[:4] in MAGIC or data[:3] in MAGIC:
        return _decode_picture(data, path)
    if data[128:132] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom"):
        return scale_to_uint8(read_dicom(path))
    start = data[:16].decode("ascii", "replace").strip()
    raise DataError(f"{path}: this is not an image; it starts with {start!r} ({len(data)} bytes)")


@cache
def dimensions(path: Path) -> tuple[int, int]:
    """Width and height of an image file, from its header.

    Raises:
        DataError: If it has none.
    """
    try:
        if path.suffix.lower() in (".dcm", ".dicom"):
            header = pydicom.dcmread(path, stop_before_pixels=True)
            return int(header.Columns), int(header.Rows)
        with Image.open(path) as picture:
            return picture.size
    except (OSError, SyntaxError, ValueError, AttributeError, InvalidDicomError) as error:
        raise DataError(f"{path}: no width and height to be read: {error}") from error


def _decode_picture(data: bytes, path: Path) -> Grey:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            if picture.mode.startswith("I"):  # 16-bit grey: Pillow would clip, not scale
                return scale_to_uint8(np.asarray(picture, dtype=np.float32))
            grey = picture if picture.mode == "L" else picture.convert("RGB").convert("L")
            return np.asarray(grey, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: truncated or damaged ({len(data)} bytes): {error}") from error


def read_dicom(path: Path) -> NDArray[np.float32]:
    """A DICOM's pixels as (H, W) float32, brighter = denser, full dynamic range kept.

    MONOCHROME1 is inverted once, against the stored bit range; then the modality LUT (rescale slope
    and intercept) is applied.

    Raises:
        DataError: If the file is damaged, has no pixels, or needs a codec that is not installed.
    """
    try:
        dataset = pydicom.dcmread(path)
        pixels = dataset.pixel_array
    except RuntimeError as error:
        raise DataError(f"{path}: needs a decoder: {error}") from error
    except Exception as error:  # pydicom raises whatever the parser met
        raise DataError(
            f"{path}: not a readable DICOM image ({type(error).__name__}: {error})"
        ) from error
    if pixels.ndim != 2:
        raise DataError(f"{path}: expected one grey frame, found an array of shape {pixels.shape}")
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        signed = dataset.PixelRepresentation == 1
        both_ends = -1 if signed else 2 ** int(dataset.BitsStored) - 1  # their sum
        pixels = both_ends - pixels.astype(np.int64)
    return np.asarray(apply_modality_lut(pixels, dataset), dtype=np.float32)


def scale_to_uint8(pixels: NDArray[np.float32]) -> Grey:
    """Scale by 255 / max and round, negative values to 0; an all-zero picture stays zero.

    Source: GLoRIA's released DICOM reading, less its failure on all-zero pictures.
    """
    top = float(pixels.max())
    scaled = np.clip(pixels, 0, None) * (255.0 / top if top > 0 else 0.0)
    return np.rint(scaled).astype(np.uint8)


def resize_and_pad(image: NDArray[Any], size: int) -> NDArray[Any]:
    """Long side to `size` by area interpolation, short side zero-padded, floor(half) before.

    Source: GLoRIA and MGCA released `resize_img`; the short side is int(side * (size / long side)).

    Args:
        image: (H, W), uint8 or float32.
        size: Side of the square result, pixels.

    Returns:
        (size, size), the input's dtype.

    Raises:
        ValueError: If the image has no pixels or is not a plane.
    """
    if image.ndim != 2 or 0 in image.shape:
        raise ValueError(f"expected one plane of pixels, found shape {image.shape}")
    height, width = image.shape
    top, left, rows, columns = _place(height, width, size)
    resized = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    padded = np.zeros((size, size), dtype=image.dtype)
    padded[top : top + rows, left : left + columns] = resized
    return padded


def _place(height: int, width: int, size: int) -> tuple[int, int, int, int]:
    """Top, left, rows and columns of a picture inside its padded square."""
    ratio = size / max(height, width)
    rows = size if height >= width else max(1, int(height * ratio))
    columns = size if width >= height else max(1, int(width * ratio))
    return (size - rows) // 2, (size - columns) // 2, rows, columns


def unpadded(pixels: Grey, width: int, height: int) -> Grey:
    """The picture inside a padded square, stretched over all of it.

    Args:
        pixels: (S, S) as `resize_and_pad` gives it.
        width: Of the original, pixels.
        height: Of the original, pixels.
    """
    size = len(pixels)
    if width == height:
        return pixels
    top, left, rows, columns = _place(height, width, size)
    inside = pixels[top : top + rows, left : left + columns]
    return np.asarray(cv2.resize(inside, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)
