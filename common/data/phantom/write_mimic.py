"""The phantom in the layouts of MIMIC-CXR-JPG (images, labels) and MIMIC-CXR (reports), 2.0.0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from common.data.labels import CHEXPERT_14
from common.data.phantom.disk import (
    Picture,
    Result,
    stable_int,
    state,
    write_notice,
    write_sums,
    write_table,
    write_whole,
)
from common.data.phantom.reports import study_text
from common.data.phantom.world import Study, another_view, draw_study

IMAGES = "mimic-cxr-jpg/2.0.0"
REPORTS = "mimic-cxr/2.0.0"
METADATA_COLUMNS = (
    *("dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition"),
    *("Rows", "Columns", "StudyDate", "StudyTime", "ProcedureCodeSequence_CodeMeaning"),
    *("ViewCodeSequence_CodeMeaning", "PatientOrientationCodeSequence_CodeMeaning"),
)
SORTED_LABELS = tuple(sorted(CHEXPERT_14))
STARTS = {"train": 0, "validate": 1_000_000, "test": 2_000_000}
VIEW_CODES = {"PA": "postero-anterior", "AP": "antero-posterior", "LATERAL": "lateral"}
SPREAD = 9_999_999
"""Identifiers run through this many numbers, by steps that share no factor with it."""


def plan(seed: int, train: int, valid: int) -> list[Picture]:
    """`train` studies for training, a thirtieth of that for validation, `valid` for testing."""
    counts = {"train": train, "validate": max(4, train // 30), "test": valid}
    pictures = []
    for split, count in counts.items():
        for n in range(count):
            study = draw_study(seed, STARTS[split] + n, site="mimic")
            pictures += list(_pictures(study, n, split))
    return pictures


def _pictures(study: Study, n: int, split: str) -> Iterator[Picture]:
    """The images of one study: mostly frontal, PA with lateral, sometimes two of a kind."""
    views = [study.view]
    if study.view == "PA" and n % 5 < 3:
        views.append("LATERAL")
    if n % 60 == 7:
        views.append(study.view)
    if n % 97 == 11:
        views = ["LATERAL"]
    subject, number = _ids(study)
    for take, view in enumerate(views):
        shown = (
            study if take == 0 and view == study.view else another_view(study, view, take=take + 1)
        )
        digits = f"{stable_int('mimic', study.seed, study.index, take) % 16**40:040x}"
        name = "-".join(digits[i : i + 8] for i in range(0, 40, 8))
        path = f"{IMAGES}/files/{study_folder(subject, number)}/{name}.jpg"
        extra = {"split": split, "subject_id": subject, "study_id": number}
        yield Picture(name, path, shown, quality=95, equalise=True, extra=extra)


def _ids(study: Study) -> tuple[str, str]:
    """Subject and study number, eight digits each."""
    subject = 10_000_000 + (study.patient * 7919 + 32) % SPREAD
    return str(subject), str(50_000_000 + (study.index * 104_729 + 414_267) % SPREAD)


def study_folder(subject: str, study: str) -> str:
    """`p10/p10000032/s50414267`."""
    return f"p{subject[:2]}/p{subject}/s{study}"


def finish(out: Path, pictures: Sequence[Picture], results: Mapping[str, Result]) -> None:
    """Tables of images and reports, and the report files."""
    studies: dict[str, Picture] = {}
    for picture in pictures:
        studies.setdefault(picture.extra["study_id"], picture)
    _image_tables(out / IMAGES, pictures, studies, results)
    root = out / REPORTS
    rows, records = [], []
    for number, picture in studies.items():
        subject = picture.extra["subject_id"]
        path = f"files/{study_folder(subject, number)}.txt"
        write_whole(root / path, study_text(picture.study).encode())
        rows.append([subject, number, path])
    for p in pictures:
        subject, number = p.extra["subject_id"], p.extra["study_id"]
        path = f"files/{study_folder(subject, number)}/{p.image_id}.dcm"
        records.append([subject, number, p.image_id, path])
    columns = ["subject_id", "study_id"]
    tables = [
        write_table(root / "cxr-study-list.csv.gz", [*columns, "path"], rows),
        write_table(root / "cxr-record-list.csv.gz", [*columns, "dicom_id", "path"], records),
    ]
    write_notice(root)
    write_sums(root, tables)


def _image_tables(
    root: Path,
    pictures: Sequence[Picture],
    studies: Mapping[str, Picture],
    results: Mapping[str, Result],
) -> None:
    metadata = [_metadata(p, n, results[p.image_id]) for n, p in enumerate(pictures)]
    split = [
        [p.image_id, p.extra["study_id"], p.extra["subject_id"], p.extra["split"]] for p in pictures
    ]
    labels = [
        [p.extra["subject_id"], number, *_labels(p.study)]
        for number, p in studies.items()
        if p.study.index % 301 != 17
    ]
    columns = ["subject_id", "study_id", *SORTED_LABELS]
    tables = [
        write_table(root / "mimic-cxr-2.0.0-metadata.csv.gz", METADATA_COLUMNS, metadata),
        write_table(
            root / "mimic-cxr-2.0.0-split.csv.gz",
            ["dicom_id", "study_id", "subject_id", "split"],
            split,
        ),
        write_table(root / "mimic-cxr-2.0.0-chexpert.csv.gz", columns, labels),
        write_table(root / "mimic-cxr-2.0.0-negbio.csv.gz", columns, labels),
    ]
    names = "".join(f"{Path(p.path).relative_to(IMAGES).as_posix()}\n" for p in pictures)
    write_whole(root / "IMAGE_FILENAMES", names.encode())
    write_notice(root)
    write_sums(root, [*tables, root / "IMAGE_FILENAMES"])


def _labels(study: Study) -> list[str]:
    """What the labeller read; nothing where the report is blank."""
    blank = study.quirk == "blank"
    return ["" if blank else state(study.mentions[name]) for name in SORTED_LABELS]


def _metadata(picture: Picture, n: int, result: Result) -> list[object]:
    """View position is blank on some rows; times are numbers that lost their leading zeros."""
    study = picture.study
    rng = np.random.default_rng([study.seed, study.index, 78])
    date = 21_000_101 + 10_000 * int(study.patient % 90 + study.number) + int(rng.integers(28))
    time = f"{float(rng.integers(1, 23) * 10000 + rng.integers(59) * 100)}"
    frontal = study.view in ("AP", "PA")
    procedure = study.sections["examination"]
    position = "" if frontal and n % 40 == 3 else study.view
    return [
        picture.image_id,
        picture.extra["subject_id"],
        picture.extra["study_id"],
        procedure,
        position,
        result["height"],
        result["width"],
        date,
        time,
        procedure,
        VIEW_CODES[study.view] if position else "",
        "Erect" if study.view != "AP" else "Recumbent",
    ]
