"""The phantom in CheXpert's layouts: small, full, AIMI batches, test set, CheXpert Plus reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from common.data.labels import CHEXPERT_14
from common.data.phantom.disk import (
    NOTICE,
    Picture,
    Result,
    state,
    write_notice,
    write_sums,
    write_table,
)
from common.data.phantom.world import PATIENT_BLOCK, Study, another_view, draw_study

COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_14)
PLUS_COLUMNS = (
    *("path_to_image", "path_to_dcm", "frontal_lateral", "ap_pa", "deid_patient_id"),
    *("patient_report_date_order", "report", "section_narrative", "section_clinical_history"),
    *("section_history", "section_comparison", "section_technique", "section_procedure_comments"),
    *("section_findings", "section_impression", "section_end_of_impression", "section_summary"),
    *("section_accession_number", "age", "sex", "race", "ethnicity", "interpreter_needed"),
    *("insurance_type", "recent_bmi", "deceased", "split"),
)
PLUS_TABLE = "df_chexpert_plus_240401.csv"
STARTS = {"train": 0, "valid": 1_000_000, "test": 2_000_000}
"""First study index of each part; patients never meet because blocks of studies never do."""
FIRST_PATIENT = {"train": 1, "valid": 64541, "test": 64741}
BATCHES = {
    "valid": "CheXpert-v1.0 batch 1 (validate & csv)/valid",
    2: "CheXpert-v1.0 batch 2 (train 1)",
    3: "CheXpert-v1.0 batch 3 (train 2)",
    4: "CheXpert-v1.0 batch 4 (train 3)",
}
BATCH_STARTS = (21514, 43018)
AIMI_STEP = 9000
"""Patient numbers of the batch layout are spread by this step, to reach every batch."""
MISSING_IMPRESSION, MISSING_FINDINGS = 0.03, 0.40


def plan_small(seed: int, train: int, valid: int) -> list[Picture]:
    """`CheXpert-v1.0-small`, `train` and `valid` frontal images and some laterals."""
    return _plan("CheXpert-v1.0-small", seed, {"train": train, "valid": valid})


def plan_full(seed: int, train: int, valid: int) -> list[Picture]:
    """`CheXpert-v1.0`, a quarter of the size: it is there to be found, not to train on."""
    return _plan("CheXpert-v1.0", seed, {"train": train // 4, "valid": valid // 4})


def plan_aimi(seed: int, train: int, valid: int) -> list[Picture]:
    """The batches of the AIMI download; its tables still say `CheXpert-v1.0/train/...`.

    A quarter of the size, as `plan_full`.
    """
    pictures = []
    for part, count in (("train", train // 4), ("valid", valid // 4)):
        for study, view, name in _views(seed, part, count):
            number = FIRST_PATIENT[part] + _local(study, part)
            if part == "train":
                number = 1 + (number * AIMI_STEP) % 64540
            batch = 2 + int(np.searchsorted(BATCH_STARTS, number, side="right"))
            folder = BATCHES["valid"] if part == "valid" else BATCHES[batch]
            pictures.append(_picture(study, view, f"patient{number:05d}", name, part, folder))
    return pictures


def plan_test(seed: int, train: int, valid: int) -> list[Picture]:
    """The 500-study test set, here `valid` studies of new patients, one each."""
    del train
    pictures = []
    start = STARTS["test"]
    for n in range(valid):
        index = start + (n // 7) * PATIENT_BLOCK + n % 7  # patients with one study only
        study = draw_study(seed, index, site="chexpert")
        patient = f"patient{FIRST_PATIENT['test'] + n:05d}"
        names = [("", "view1_frontal")] + ([("LATERAL", "view2_lateral")] if n % 3 == 0 else [])
        for view, name in names:
            pictures.append(_picture(study, view, patient, name, "test", "CheXpert/test"))
    return pictures


def _plan(root: str, seed: int, counts: Mapping[str, int]) -> list[Picture]:
    pictures = []
    for part, count in counts.items():
        for study, view, name in _views(seed, part, count):
            patient = f"patient{FIRST_PATIENT[part] + _local(study, part):05d}"
            pictures.append(_picture(study, view, patient, name, part, f"{root}/{part}"))
    return pictures


def _local(study: Study, part: str) -> int:
    """Patient number within the part, from 0."""
    first = draw_patient(STARTS[part])
    return study.patient - first


def draw_patient(index: int) -> int:
    """Patient of the first study of a block."""
    return index // PATIENT_BLOCK * 8


def _views(seed: int, part: str, frontals: int) -> Iterator[tuple[Study, str, str]]:
    """Studies with view and file name until `frontals` frontal images are out."""
    index, done = STARTS[part], 0
    while done < frontals:
        study = draw_study(seed, index, site="chexpert")
        n = index - STARTS[part]
        kinds = ["frontal"]
        if n % 50 == 7 and done + 1 < frontals:
            kinds.append("frontal")
        if n % 14 == 5:
            kinds.append("lateral")
        if n % 400 == 41:
            kinds = ["lateral", "frontal"]
        if n % 700 == 23:
            kinds = ["lateral"]
        for k, kind in enumerate(kinds, 1):
            yield study, "LATERAL" if kind == "lateral" else "", f"view{k}_{kind}"
            done += kind == "frontal"
        index += 1


def _picture(study: Study, view: str, patient: str, name: str, part: str, folder: str) -> Picture:
    take = int(name[4])
    if view or take > 1:
        study = another_view(study, view or study.view, take=take)
    below = f"{patient}/study{study.number}/{name}"
    return Picture(f"{part}/{below}", f"{folder}/{below}.jpg", study, extra={"part": part})


def finish_small(out: Path, pictures: Sequence[Picture], results: Mapping[str, Result]) -> None:
    """Tables of the small layout and CheXpert Plus."""
    del results
    _finish(out / "CheXpert-v1.0-small", "CheXpert-v1.0-small", pictures)
    _plus(out / "chexpertplus", pictures)


def finish_full(out: Path, pictures: Sequence[Picture], results: Mapping[str, Result]) -> None:
    """Tables of the full layout."""
    del results
    _finish(out / "CheXpert-v1.0", "CheXpert-v1.0", pictures)


def finish_aimi(out: Path, pictures: Sequence[Picture], results: Mapping[str, Result]) -> None:
    """Tables of the batches lie in batch 1."""
    del results
    home = out / BATCHES["valid"]
    _finish(home.parent, "CheXpert-v1.0", pictures)
    write_notice(out)


def finish_test(out: Path, pictures: Sequence[Picture], results: Mapping[str, Result]) -> None:
    """`test_labels.csv` (an image a row) and `groundtruth.csv` (a study a row)."""
    del results
    root = out / "CheXpert"
    rows = [[f"CheXpert-v1.0/{p.image_id}.jpg", *_truth(p.study)] for p in pictures]
    labels = write_table(root / "test_labels.csv", ["Path", *CHEXPERT_14], rows)
    studies = {p.image_id.rsplit("/", 1)[0]: p.study for p in pictures}
    rows = [[f"CheXpert-v1.0/{name}", *_truth(study)] for name, study in studies.items()]
    ground = write_table(root / "groundtruth.csv", ["Study", *CHEXPERT_14], rows)
    write_notice(root)
    write_sums(root, [labels, ground])


def _finish(root: Path, prefix: str, pictures: Sequence[Picture]) -> None:
    tables = []
    for part in ("train", "valid"):
        rows = [_row(prefix, p) for p in pictures if p.extra["part"] == part]
        tables.append(write_table(root / f"{part}.csv", COLUMNS, rows))
    write_notice(root)
    write_sums(root, tables)


def _row(prefix: str, picture: Picture) -> list[object]:
    study, part = picture.study, picture.extra["part"]
    lateral = study.view == "LATERAL"
    n = study.index - STARTS[part]
    sex = "Unknown" if part == "train" and n == 13 else study.sex
    age = 0 if part == "train" and n == 19 else min(study.age, 90)
    position = "" if lateral else study.view
    if part == "train" and not lateral and n in (31, 2031):
        position = "LL" if n == 31 else "RL"
    labels = [state(study.mentions[name]) for name in CHEXPERT_14]
    if part == "valid":
        labels = _truth(study)
    view = "Lateral" if lateral else "Frontal"
    return [f"{prefix}/{picture.image_id}.jpg", sex, age, view, position, *labels]


def _truth(study: Study) -> list[str]:
    return [state(float(study.truth[name])) for name in CHEXPERT_14]


def _plus(root: Path, pictures: Sequence[Picture]) -> None:
    """The report table; a few images have no row."""
    rows = [_plus_row(p) for p in pictures if p.study.index % 211 != 9]
    table = write_table(root / PLUS_TABLE, PLUS_COLUMNS, rows)
    write_notice(root)
    write_sums(root, [table])


def _plus_row(picture: Picture) -> list[object]:
    study = picture.study
    rng = np.random.default_rng([study.seed, study.index, 77])
    sections = dict(study.sections)
    impression = "" if rng.random() < MISSING_IMPRESSION else sections["impression"]
    findings = "" if rng.random() < MISSING_FINDINGS else sections["findings"]
    spoken = {"CLINICAL HISTORY": sections["indication"], "COMPARISON": sections["comparison"]}
    spoken |= {"FINDINGS": findings, "IMPRESSION": impression}
    report = "\n\n".join([NOTICE, *(f"{name}: {text}" for name, text in spoken.items() if text)])
    lateral = study.view == "LATERAL"
    values = {
        "path_to_image": f"{picture.image_id}.jpg",
        "path_to_dcm": f"{picture.image_id}.dcm",
        "frontal_lateral": "Lateral" if lateral else "Frontal",
        "ap_pa": "" if lateral else study.view,
        "deid_patient_id": picture.image_id.split("/")[1],
        "patient_report_date_order": study.number,
        "report": report,
        "section_narrative": NOTICE,
        "section_clinical_history": sections["indication"],
        "section_comparison": sections["comparison"],
        "section_technique": sections["technique"],
        "section_findings": findings,
        "section_impression": impression,
        "age": study.age,
        "sex": study.sex,
        "race": "Unknown",
        "ethnicity": "Unknown",
        "deceased": "No",
        "split": picture.extra["part"],
    }
    return [values.get(name, "") for name in PLUS_COLUMNS]
