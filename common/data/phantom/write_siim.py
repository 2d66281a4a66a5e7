"""The phantom in the layout of the SIIM-ACR pneumothorax challenge, stage 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from common.data.phantom.disk import (
    Picture,
    Result,
    stable_int,
    write_notice,
    write_sums,
    write_table,
)
from common.data.phantom.world import draw_study

ROOT = "siim-acr-pneumothorax-segmentation"
TABLE = "train-rle.csv"
COLUMNS = ("ImageId", " EncodedPixels")
NEGATIVE = " -1"
TWICE = 5
"""One positive in so many has its annotation twice: masks are unions."""


def plan(seed: int, train: int, valid: int) -> list[Picture]:
    """`train + valid` labelled images, and a few whose label is unknown."""
    labelled, unlabelled = train + valid, max(3, valid // 50)
    pictures = []
    for index in range(labelled + unlabelled):
        name = ".".join(["1.2.276.0.7230010.3.1.4", *_numbers("image", seed, index)])
        study, series = (".".join(_numbers(kind, seed, index)) for kind in ("study", "series"))
        part = "train" if index < labelled else "test"
        pictures.append(
            Picture(
                name,
                f"{ROOT}/dicom-images-{part}/{study}/{series}/{name}.dcm",
                draw_study(seed, index, site="siim"),
                encoding="dicom" if index % 8 == 3 else "dicom_jpeg",
                extra={"part": part},
            )
        )
    return pictures


def _numbers(*parts: object) -> list[str]:
    """Two components of a made-up UID."""
    number = stable_int("siim", *parts)
    return [str(1 + number % 10**7), str(1 + number // 10**7 % 10**9)]


def finish(out: Path, pictures: Sequence[Picture], results: Mapping[str, Result]) -> None:
    """The table: a row a pneumothorax, some twice; ` -1` for the others."""
    root, rows, positives = out / ROOT, [], 0
    for picture in pictures:
        if picture.extra["part"] == "test":
            continue
        rles = results[picture.image_id]["rles"].get("Pneumothorax", [NEGATIVE])
        positives += rles != [NEGATIVE]
        if rles != [NEGATIVE] and positives % TWICE == 0:
            rles = [*rles, rles[0]]
            rles[0] = shorter(rles[0])
        rows += [[picture.image_id, f" {rle.strip()}"] for rle in rles]
    table = write_table(root / TABLE, COLUMNS, rows)
    write_notice(root)
    write_sums(root, [table])


def shorter(rle: str) -> str:
    """The first half of the runs: an annotation that another one contains."""
    numbers = rle.split()
    return " ".join(numbers[: 2 * max(1, len(numbers) // 4)])
