"""The phantom in the layouts of NIH ChestX-ray14.

Flat with the labels of 2020, or in the twelve folders of the archives with those of 2017.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from common.data.nih import BOX_TABLE, LISTS, NO_FINDING, TABLES
from common.data.phantom.disk import (
    Picture,
    Result,
    write_notice,
    write_sums,
    write_table,
    write_whole,
)
from common.data.phantom.world import Finding, Study, another_view, draw_study

ROOT = "ChestX-ray14"
FOLDERS_ROOT = "nih-chest-xrays"
ARCHIVES = 12
STARTS = {"train": 0, "test": 1_000_000}
TWICE = 5
"""One study in so many has a second exposure: 1.5 images a patient with the patients of `world`."""
BOXED = 10
"""One test image in so many has boxes."""
MASS = 2 / 3
"""Severity from which the report calls a lesion a mass; its radius grows with it."""
FAINT = 1 / 3
"""Severity below which a consolidation counts as infiltration."""
SAME = ("Atelectasis", "Cardiomegaly", "Edema", "Pneumothorax")
NAMES = {**{name: name for name in SAME}, "Pleural Effusion": "Effusion"}
NAMES["Pleural Other"] = "Pleural_Thickening"
BOX_NAMES = {"Infiltration": "Infiltrate", "Pneumonia": "Pneumonia", "Nodule": "Nodule"}
BOX_NAMES |= {name: name for name in ("Atelectasis", "Cardiomegaly", "Effusion", "Mass")}
BOX_NAMES["Pneumothorax"] = "Pneumothorax"
"""The eight labels that the box table has, as it spells them."""
COLUMNS = (
    *("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age"),
    *("Patient Gender", "View Position", "OriginalImage[Width", "Height]"),
    *("OriginalImagePixelSpacing[x", "y]"),
)


def plan(seed: int, train: int, valid: int) -> list[Picture]:
    """`train` studies for the training and validation list, `valid` for the test list."""
    return _plan(seed, train, valid, ROOT, archives=1)


def plan_folders(seed: int, train: int, valid: int) -> list[Picture]:
    """A quarter of the size, spread over the folders of the archives."""
    return _plan(seed, train // 4, valid // 4, FOLDERS_ROOT, archives=ARCHIVES)


def _plan(seed: int, train: int, valid: int, root: str, *, archives: int) -> list[Picture]:
    exposures = list(_exposures(seed, {"train": train, "test": valid}))
    patients: dict[int, int] = {}
    seen: Counter[int] = Counter()
    pictures = []
    for number, (part, study) in enumerate(exposures):
        patient = patients.setdefault(study.patient, len(patients) + 1)
        name = f"{patient:08d}_{seen[patient]:03d}.png"
        seen[patient] += 1
        folder = "images"
        if archives > 1:
            folder = f"images_{1 + number * archives // len(exposures):03d}/images"
        extra = {"list": part, "patient_id": str(patient)}
        path = f"{root}/{folder}/{name}"
        pictures.append(Picture(name, path, study, encoding="png", extra=extra))
    return pictures


def _exposures(seed: int, counts: Mapping[str, int]) -> Iterator[tuple[str, Study]]:
    for part, count in counts.items():
        for n in range(count):
            study = draw_study(seed, STARTS[part] + n, site="nih")
            yield part, study
            if n % TWICE == 1:
                yield part, another_view(study, study.view, take=2)


def labels_of(finding: Finding) -> list[str]:
    """What the label table calls a finding; [] for devices and fractures.

    Emphysema, fibrosis and hernia are never drawn: their labels are 0 throughout.
    """
    if finding.label == "Lung Lesion":
        return ["Mass" if finding.severity >= MASS else "Nodule"]
    if finding.label == "Consolidation":
        dense = ["Infiltration" if finding.severity < FAINT else "Consolidation"]
        return [*dense, "Pneumonia"] if finding.kind == "pneumonia" else dense
    return [NAMES[finding.label]] if finding.label in NAMES else []


def finding_labels(study: Study) -> str:
    """The cell `Finding Labels`."""
    present = {name for finding in study.findings for name in labels_of(finding)}
    return "|".join(sorted(present)) or NO_FINDING


def finish(out: Path, pictures: Sequence[Picture], results: Mapping[str, Result]) -> None:
    """The labels of 2020, boxes and lists."""
    columns = [name.replace("Gender", "Sex") for name in COLUMNS]
    rows = [_row(picture) for picture in pictures]
    table = write_table(out / ROOT / TABLES["2020"], columns, rows)
    _write_lists(out / ROOT, table, pictures, results)


def finish_folders(out: Path, pictures: Sequence[Picture], results: Mapping[str, Result]) -> None:
    """The labels of 2017, with their empty twelfth column, boxes and lists."""
    rows = [[*_row(picture), ""] for picture in pictures]
    table = write_table(out / FOLDERS_ROOT / TABLES["2017"], [*COLUMNS, ""], rows)
    _write_lists(out / FOLDERS_ROOT, table, pictures, results)


def _row(picture: Picture) -> list[object]:
    """Width, height and spacing are of a film that was never shrunk, as in the real table."""
    study, name = picture.study, picture.image_id
    follow_up, patient = int(name[9:12]), picture.extra["patient_id"]
    person = [study.age, study.sex[0], study.view]
    return [name, finding_labels(study), follow_up, patient, *person, 2500, 2500, 0.168, 0.168]


def _write_lists(
    root: Path, table: Path, pictures: Sequence[Picture], results: Mapping[str, Result]
) -> None:
    tables = [table]
    for part, name in LISTS.items():
        lines = [f"{p.image_id}\n" for p in pictures if p.extra["list"] == part]
        write_whole(root / name, "".join(lines).encode())
        tables.append(root / name)
    test = [picture for picture in pictures if picture.extra["list"] == "test"]
    boxes = [rows for p in test if (rows := _boxes(p, results[p.image_id]))]
    header = ["Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", "", "", ""]
    rows = [row for found in boxes[: -(-len(test) // BOXED)] for row in found]
    tables.append(write_table(root / BOX_TABLE, header, rows))
    write_notice(root)
    write_sums(root, tables)


def _boxes(picture: Picture, result: Result) -> list[list[object]]:
    """A row a box; a consolidation has those of one label at most, pneumonia first."""
    rows: list[list[object]] = []
    for finding in picture.study.findings:
        names = [BOX_NAMES[name] for name in labels_of(finding) if name in BOX_NAMES]
        for box in result["boxes"].get(finding.label, []) if names else []:
            rows.append([picture.image_id, names[-1], *map(float, box), "", "", ""])
    return rows
