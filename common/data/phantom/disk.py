"""Bytes on disk: pictures marked as synthetic, tables, hash lists; no file is ever half there."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from common.data.phantom.world import Study

NOTICE = "SYNTHETIC PHANTOM: drawn by a program, shows no patient"
NOTICE_FILE = "SYNTHETIC_DATA.txt"
SUMS = "SHA256SUMS.txt"

EQUALISED = 0.25
"""Share of the equalised picture in one of `Picture.equalise`."""

Grey = NDArray[np.uint8]
Result = dict[str, Any]
"""What drawing a picture told: `boxes` by label, `width`, `height`."""


@dataclass(frozen=True)
class Picture:
    """One image to write.

    Attributes:
        image_id: The data set's own id.
        path: Below the corpus root.
        study: What to draw, from its view.
        encoding: `jpeg`, `png`, `dicom` or `dicom_jpeg`.
        quality: Of JPEG.
        equalise: Flatten the histogram part of the way, for MIMIC-CXR-JPG, which does so fully:
            these smooth pictures would come out as those of another organ.
        extra: What the data set's tables need beside the study.
    """

    image_id: str
    path: str
    study: Study
    encoding: str = "jpeg"
    quality: int = 90
    equalise: bool = False
    extra: Mapping[str, str] = field(default_factory=dict)


def encode(picture: Picture, image: Grey) -> bytes:
    """The file's bytes; the same picture gives the same bytes."""
    if picture.equalise:
        flat = cv2.equalizeHist(image)
        image = np.asarray(cv2.addWeighted(flat, EQUALISED, image, 1 - EQUALISED, 0), np.uint8)
    if picture.encoding == "jpeg":
        return _jpeg(image, picture.quality)
    if picture.encoding == "png":
        return _png(image)
    with disable_value_validation():  # ages are bare numbers in the challenge's headers
        return dicom_bytes(_dicom(picture, image))


def _jpeg(image: Grey, quality: int) -> bytes:
    """Baseline JPEG with a comment segment behind the start marker."""
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    text = NOTICE.encode()
    return data[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + data[2:]


def _png(image: Grey) -> bytes:
    info, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    info.add_text("Comment", NOTICE)
    Image.fromarray(image).save(buffer, "PNG", compress_level=3, pnginfo=info)
    return buffer.getvalue()


def _dicom(picture: Picture, image: Grey) -> Dataset:
    """A computed radiograph with the headers of the RSNA challenge."""
    study, packed = picture.study, picture.encoding == "dicom_jpeg"
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 100"
    data.SOPClassUID = ComputedRadiographyImageStorage
    data.SOPInstanceUID = _uid(picture.image_id, "image")
    data.StudyInstanceUID = _uid(picture.image_id, "study")
    data.SeriesInstanceUID = _uid(picture.image_id, "series")
    data.Modality, data.ConversionType, data.BodyPartExamined = "CR", "WSD", "CHEST"
    data.Manufacturer, data.SeriesDescription = "SYNTHETIC", f"view: {study.view}"
    data.PatientName, data.PatientID = f"PHANTOM^{study.patient}", picture.image_id
    data.PatientSex, data.PatientAge = study.sex[0], str(study.age)
    data.ViewPosition, data.ImageComments = study.view, NOTICE
    data.PixelSpacing = [0.571, 0.571]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = image.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    if packed:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=picture.quality)
        data.LossyImageCompression = "01"
        data.PixelData = encapsulate([buffer.getvalue()])
    else:
        data.PixelData = image.tobytes() + b"\0" * (image.size % 2)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if packed else ExplicitVRLittleEndian
    return data


def dicom_bytes(data: Dataset) -> bytes:
    """A DICOM file's bytes."""
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _uid(*parts: object) -> str:
    return f"2.25.{stable_int(*parts) % 10**36}"


def stable_int(*parts: object) -> int:
    """A large number that depends on `parts` alone."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")


def stable_uuid(*parts: object) -> str:
    """A random-looking UUID that depends on `parts` alone."""
    return str(uuid.UUID(int=stable_int(*parts) % (1 << 128), version=4))


def write_whole(path: Path, data: bytes) -> None:
    """Write through a neighbour and rename, so that a killed run leaves no half file.

    Processes may write the same file at once: each has a neighbour of its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    unfinished.write_bytes(data)
    unfinished.replace(path)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """A CSV, compressed where the name ends in `.gz`; None becomes an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    data = text.getvalue().encode()
    write_whole(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def run_lengths(mask: NDArray[np.bool_]) -> list[str]:
    """A mask as the SIIM challenge writes it: a string for each connected part.

    Pairs of start and length, down the columns; a start counts from the end of the run before.
    """
    found = []
    count, parts = cv2.connectedComponents(mask.astype(np.uint8))
    for part in range(1, count):
        flat = np.concatenate([[0], (parts == part).T.ravel().astype(np.int8), [0]])
        edges = np.flatnonzero(np.diff(flat))
        starts, ends = edges[::2], edges[1::2]
        gaps = starts - np.concatenate([[0], ends[:-1]])
        pairs = np.stack([gaps, ends - starts], axis=1)
        found.append(" ".join(map(str, pairs.ravel().tolist())))
    return found


def state(value: float) -> str:
    """A label as the tables print it: 1.0, 0.0, -1.0 or blank."""
    return "" if value != value else f"{value:.1f}"


def write_sums(root: Path, tables: Iterable[Path]) -> None:
    """`SHA256SUMS.txt` of `tables`, in the format of `sha256sum`."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(root).as_posix()}\n"
        for path in sorted(tables)
    ]
    write_whole(root / SUMS, "".join(lines).encode())


def write_notice(root: Path) -> None:
    """Say in the folder itself that nothing in it is real."""
    text = (
        f"{NOTICE}.\n\nEvery image, report, label and identifier below this folder was made\n"
        "up by common.data.phantom in the layout of a real data set. Results obtained with it say\n"
        "nothing about patients and stand beside no published number.\n"
    )
    write_whole(root / NOTICE_FILE, text.encode())


def is_root() -> bool:
    """Whether file permissions are ignored for this process."""
    return hasattr(os, "geteuid") and os.geteuid() == 0
