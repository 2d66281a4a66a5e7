"""Pixels: what is read, and what is refused with which words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from common.data.images import (
    read_dicom,
    read_grey,
    resize_and_pad,
    scale_to_uint8,
    unpadded,
)
from common.data.tables import DataError

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def write_dicom(
    path: Path,
    pixels: NDArray[Any],
    *,
    photometric: str = "MONOCHROME2",
    bits: int = 8,
    slope: float | None = None,
    intercept: float = 0,
) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    image = Dataset()
    image.file_meta = meta
    image.SOPClassUID, image.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    image.Rows, image.Columns = pixels.shape
    image.SamplesPerPixel = 1
    image.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    image.PhotometricInterpretation = photometric
    image.BitsAllocated = 8 * pixels.dtype.itemsize
    image.BitsStored, image.HighBit = bits, bits - 1
    if slope is not None:
        image.RescaleSlope, image.RescaleIntercept = slope, intercept
    image.PixelData = pixels.tobytes()
    image.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA"])
def test_every_mode_gives_the_same_grey(tmp_path: Path, mode: str) -> None:
    Image.fromarray(RAMP).convert(mode).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_grey(tmp_path / "a.png"), RAMP, atol=1)


def test_a_picture_is_known_by_its_bytes_not_its_name(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_grey(tmp_path / "a.jpg"), RAMP)


def test_sixteen_bit_png_is_scaled_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(RAMP.astype(np.uint16) * 100).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_grey(tmp_path / "a.png"), RAMP * (255 / RAMP.max()), atol=0.5)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "zero bytes"),
        (b"<html>please log in</html>", "not an image; it starts with '<html>please"),
        (b"version https://git-lfs", "not an image"),
        (b"\x89PNG\r\n\x1a\n broken", "truncated or damaged"),
    ],
)
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_what_is_no_picture_is_named(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_grey(tmp_path / name)


def test_a_truncated_jpeg_fails_and_names_the_file(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a\.jpg: truncated or damaged"):
        read_grey(tmp_path / "a.jpg")


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_grey(tmp_path / "none.png")


@pytest.mark.parametrize("content", [b"", b"DICM", b"\0" * 128 + b"DICM" + b"junk"])
def test_a_broken_dicom(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.dcm").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.dcm"):
        read_grey(tmp_path / "a.dcm")


def test_dicom_is_scaled_by_its_maximum(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", RAMP)
    np.testing.assert_array_equal(read_grey(tmp_path / "a.dcm"), np.rint(RAMP * (255 / RAMP.max())))


def test_monochrome1_is_inverted_once_against_the_stored_range(tmp_path: Path) -> None:
    deep = RAMP.astype(np.uint16) * 10
    write_dicom(tmp_path / "a.dcm", deep, photometric="MONOCHROME1", bits=12)
    np.testing.assert_array_equal(read_dicom(tmp_path / "a.dcm"), 4095 - deep.astype(np.float32))


def test_rescale_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", RAMP, slope=2, intercept=-10)
    np.testing.assert_array_equal(read_dicom(tmp_path / "a.dcm"), RAMP.astype(np.float32) * 2 - 10)


def test_an_all_zero_picture_stays_zero() -> None:
    assert scale_to_uint8(np.zeros((2, 2), dtype=np.float32)).max() == 0


def test_padding_puts_the_smaller_half_before() -> None:
    wide = np.full((3, 8), 200, dtype=np.uint8)  # to 4 x 1.5: one row of four is filled
    padded = resize_and_pad(wide, 4)
    assert padded.shape == (4, 4)
    assert (padded.max(axis=1) > 0).tolist() == [False, True, False, False]
    with pytest.raises(ValueError, match="expected one plane"):
        resize_and_pad(np.zeros((2, 2, 3)), 4)


@pytest.mark.parametrize(("height", "width"), [(309, 206), (206, 309), (300, 300), (400, 1)])
def test_what_was_padded_is_cut_out_whole(height: int, width: int) -> None:
    """206 of 309 rows become 127 of 192: 206 * (192 / 309) falls just short of 128."""
    white = np.full((height, width), 255, np.uint8)
    padded = resize_and_pad(white, 192)
    assert (padded > 0).sum() == 192 * max(1, int(min(height, width) * (192 / max(height, width))))
    assert (unpadded(padded, width, height) == 255).all()


def test_signed_monochrome1_is_turned_round_its_own_range(tmp_path: Path) -> None:
    pixels = np.array([[-2048, -1], [100, 2047]], np.int16)
    write_dicom(tmp_path / "a.dcm", pixels, photometric="MONOCHROME1", bits=12)
    np.testing.assert_array_equal(read_dicom(tmp_path / "a.dcm"), [[2047, 0], [-101, -2048]])


def test_a_png_with_a_damaged_header_is_one_line(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[:11] + bytes([1]) + data[12:])
    with pytest.raises(DataError, match="truncated or damaged"):
        read_grey(tmp_path / "a.png")
