"""The phantom in the layout of the RSNA Pneumonia Detection Challenge, stage 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from common.data.phantom.disk import (
    Picture,
    Result,
    stable_uuid,
    write_notice,
    write_sums,
    write_table,
)
from common.data.phantom.world import draw_study

ROOT = "rsna-pneumonia-detection-challenge"
LABEL_TABLE = "stage_2_train_labels.csv"
CLASS_TABLE = "stage_2_detailed_class_info.csv"
SAMPLE = "stage_2_sample_submission.csv"
LABEL_COLUMNS = ("patientId", "x", "y", "width", "height", "Target")


def plan(seed: int, train: int, valid: int) -> list[Picture]:
    """`train + valid` annotated images and a few without annotation.

    One in eight is stored uncompressed, the others as JPEG Baseline.
    """
    annotated, unlabelled = train + valid, max(3, valid // 50)
    pictures = []
    for index in range(annotated + unlabelled):
        part = "train" if index < annotated else "test"
        name = stable_uuid("rsna", seed, index)
        pictures.append(
            Picture(
                name,
                f"{ROOT}/stage_2_{part}_images/{name}.dcm",
                draw_study(seed, index, site="rsna"),
                encoding="dicom" if index % 8 == 3 else "dicom_jpeg",
                extra={"part": part},
            )
        )
    return pictures


def finish(out: Path, pictures: Sequence[Picture], results: Mapping[str, Result]) -> None:
    """Label table (a row a box), class table (aligned with it), sample submission."""
    root = out / ROOT
    labels: list[list[object]] = []
    classes: list[list[object]] = []
    for picture in pictures:
        if picture.extra["part"] == "test":
            continue
        boxes = results[picture.image_id]["boxes"].get("Consolidation", [])
        name, truth = picture.image_id, picture.study.truth
        kind = "Normal" if truth["No Finding"] else "No Lung Opacity / Not Normal"
        for box in boxes:
            labels.append([name, *(f"{float(value):.1f}" for value in box), 1])
            classes.append([name, "Lung Opacity"])
        if not boxes:
            labels.append([name, "", "", "", "", 0])
            classes.append([name, kind])
    test = [p.image_id for p in pictures if p.extra["part"] == "test"]
    tables = [
        write_table(root / LABEL_TABLE, LABEL_COLUMNS, labels),
        write_table(root / CLASS_TABLE, ["patientId", "class"], classes),
        write_table(
            root / SAMPLE,
            ["patientId", "PredictionString"],
            [[name, "0.5 0 0 100 100"] for name in test],
        ),
    ]
    write_notice(root)
    write_sums(root, tables)
