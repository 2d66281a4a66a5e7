"""MIMIC-CXR: 377,110 chest radiographs of 65,379 patients with 227,835 free-text reports.

Origin: Beth Israel Deaconess Medical Center, 2011 to 2016, released on PhysioNet; images and labels
come from MIMIC-CXR-JPG, reports from MIMIC-CXR. Access: PhysioNet credentialing, training and the
data use agreement; derived text and images must not be shared. Citation: Johnson et al.,
"MIMIC-CXR, a de-identified publicly available database of chest radiographs with free-text
reports", Scientific Data 2019; Johnson et al., "MIMIC-CXR-JPG", 2019.

Releases 2.0.0 and 2.1.0 are read; tables keep "2.0.0" in their names in both, packed or not. The
JPEGs are histogram-equalised and already inverted where they had to be, whatever the
documentation's words on air being white.
"""

from __future__ import annotations

import csv
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from common.data.labels import CHEXPERT_14
from common.data.mimic_sections import MAINTAINERS, SECTIONS, CustomSections, sections_of
from common.data.records import RecordTable, assemble
from common.data.tables import (
    DataError,
    find_table,
    first_home,
    has_table,
    read_labels,
    read_table,
    table_sha256,
)

_RELEASES = ("2.0.0", "2.1.0")
ROOTS: tuple[str, ...] = (
    *(f"mimic-cxr-jpg/{release}" for release in _RELEASES),
    *(f"physionet.org/files/mimic-cxr-jpg/{release}" for release in _RELEASES),
    "mimic-cxr-jpg",
    "MIMIC-CXR-JPG",
    "mimic_cxr_jpg",
    ".",
)
REPORT_ROOTS: tuple[str, ...] = (
    *(f"mimic-cxr/{release}" for release in _RELEASES),
    *(f"physionet.org/files/mimic-cxr/{release}" for release in _RELEASES),
    "mimic-cxr",
    "MIMIC-CXR",
    "mimic_cxr",
    *ROOTS,
)
METADATA = "mimic-cxr-2.0.0-metadata.csv"
SPLIT = "mimic-cxr-2.0.0-split.csv"
LABEL_TABLES = {
    "chexpert": "mimic-cxr-2.0.0-chexpert.csv",
    "negbio": "mimic-cxr-2.0.0-negbio.csv",
    "radiologist": "mimic-cxr-2.1.0-test-set-labeled.csv",
}
REPORTS_ZIP = "mimic-cxr-reports.zip"
SECTIONED = "mimic_cxr_sectioned.csv"
USED_TEXT = "mimic_cxr_sections.csv"
SUFFIXES = (".jpg",)
SPLITS = ("train", "validate", "test")
LABELS = tuple(sorted(CHEXPERT_14))
VIEW_POSITIONS = {"PA": "frontal", "AP": "frontal", "LATERAL": "lateral", "LL": "lateral"}
"""The papers' filter. About 10,000 frontal images have a blank or odd position: view `other`."""

_ID_FORMS = {"dicom_id": r"[0-9A-Za-z-]+", "subject_id": r"\d{8}", "study_id": r"\d{8}"}
_STUDY_FILE = re.compile(r"(?:^|/)s(\d{8})\.txt$")


def find_home(data_root: Path) -> Path:
    """The first of `ROOTS` that holds the metadata table.

    Raises:
        DataError: If none does; lists the places looked in.
    """
    return first_home(
        data_root, ROOTS, lambda f: has_table(f, METADATA), dataset="mimic", wanted=METADATA
    )


def load(
    data_root: Path,
    labeler: str = "chexpert",
    *,
    with_reports: bool = True,
    custom: CustomSections = MAINTAINERS,
    check_files: bool = True,
) -> RecordTable:
    """All images with labels and report sections.

    `image_id` is the DICOM id; `source_split` is `train`, `validate` or `test`; extra columns are
    `view_position` and the `SECTIONS`. Images of a study without a report are counted under
    `no_report`. The 8 studies that no labeler covered have blank labels.

    Args:
        data_root: Folder that holds one of `ROOTS`, and one of `REPORT_ROOTS`.
        labeler: `chexpert`, `negbio`, or `radiologist` (687 test studies of release 2.1.0; images
            of other studies are counted under `unlabelled`).
        with_reports: Read the reports; needs the report files.
        custom: Studies whose text is picked by hand.
        check_files: Look for the image files; false loads the tables alone.

    Raises:
        DataError: If a table or all reports are absent, or something is malformed.
    """
    home = find_home(data_root)
    if labeler not in LABEL_TABLES:
        raise DataError(f"unknown labeler {labeler!r}; choose one of {', '.join(LABEL_TABLES)}")
    frame = read_rows(home)
    label_path = find_table(home, LABEL_TABLES[labeler])
    by_study = read_label_table(label_path)
    if not frame["study_id"].isin(by_study.index).any():
        raise DataError(f"{label_path}: no study of {find_table(home, METADATA)} has a row there")
    labels = by_study.reindex(frame["study_id"]).reset_index(drop=True)
    if with_reports:
        reports = read_reports(data_root, custom=custom)
        for name in SECTIONS:
            text = reports[name].to_dict()
            frame[f"section_{name}"] = [text.get(study, "") for study in frame["study_id"]]
    table = assemble(
        frame,
        labels,
        dataset="mimic",
        root=home,
        table_sha256=table_sha256(find_table(home, METADATA), find_table(home, SPLIT), label_path),
        suffixes=SUFFIXES if check_files else (),
    )
    if with_reports:
        table = table.where(table.frame["study_id"].isin(reports.index), "no_report")
    if labeler == "radiologist":
        table = table.where(table.frame["study_id"].isin(by_study.index), "unlabelled")
    unsplit = table.frame["source_split"] == ""
    return table.where(~unsplit, "no_split") if unsplit.any() else table


def read_rows(home: Path) -> pd.DataFrame:
    """Every row of the metadata table with its official split, repeated rows included."""
    path, split_path = find_table(home, METADATA), find_table(home, SPLIT)
    table = read_table(path, [*_ID_FORMS, "ViewPosition"])
    for name, form in _ID_FORMS.items():
        bad = ~table[name].str.fullmatch(form)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise DataError(f"{path}: {name} {table[name].iloc[row]!r} in data row {row + 1}")
    split = read_table(split_path, ["dicom_id", "split"])
    unknown = sorted(set(split["split"]) - set(SPLITS))
    if unknown:
        raise DataError(f"{split_path}: split {unknown[0]!r}; expected one of {', '.join(SPLITS)}")
    by_image = dict(zip(split["dicom_id"], split["split"], strict=True))
    position = table["ViewPosition"].str.strip()
    subject, study, image = table["subject_id"], table["study_id"], table["dicom_id"]
    return pd.DataFrame(
        {
            "image_id": image,
            "study_id": study,
            "patient_id": subject,
            "path": _folder(subject) + "/s" + study + "/" + image + ".jpg",
            "view": [VIEW_POSITIONS.get(name, "other") for name in position],
            "source_split": [by_image.get(name, "") for name in image],
            "view_position": position,
        }
    )


def _folder(subject: pd.Series) -> pd.Series:
    return "files/p" + subject.str[:2] + "/p" + subject


def read_label_table(path: Path) -> pd.DataFrame:
    """Labels by study id; the radiologists' table calls Lung Opacity otherwise."""
    table = read_table(path, ["study_id", *LABELS], alias={"Airspace Opacity": "Lung Opacity"})
    labels = read_labels(table, LABELS, path=path)
    labels.index = pd.Index(table["study_id"].str.strip())
    labels = labels[~labels.reset_index().duplicated().to_numpy()]
    if labels.index.has_duplicates:
        twice = labels.index[labels.index.duplicated()][0]
        raise DataError(f"{path}: study {twice} has two different rows; restore the original table")
    return labels


def read_reports(data_root: Path, *, custom: CustomSections = MAINTAINERS) -> pd.DataFrame:
    """Sections by study id, from the first source found below `REPORT_ROOTS`.

    In each root, in this order: the reports zip (read without unpacking), the text files, the
    maintainers' `mimic_cxr_sectioned.csv`. The latter lacks the studies treated by hand; their text
    is taken from `mimic_cxr_sections.csv` beside it, as the impression.

    Raises:
        DataError: If there is none; lists the places looked in.
    """
    source = find_reports(data_root)
    if source.name == REPORTS_ZIP:
        return _parse(_zip_texts(source), custom)
    if source.is_dir():
        return _parse(_file_texts(source), custom)
    return _read_sectioned(source)


def raw_reports(data_root: Path) -> dict[str, str]:
    """Whole reports by study id, from the zip or the text files.

    Raises:
        DataError: If only a table of sections is there, or nothing.
    """
    source = find_reports(data_root)
    if source.name == REPORTS_ZIP:
        return dict(_zip_texts(source))
    if source.is_dir():
        return dict(_file_texts(source))
    raise DataError(f"{source} holds sections alone; whole reports need {REPORTS_ZIP} or files/")


def find_reports(data_root: Path) -> Path:
    """The reports zip, the folder of text files, or the table of sections.

    Raises:
        DataError: If there is none; lists the places looked in.
    """
    for name in REPORT_ROOTS:
        root = data_root / name
        if (root / REPORTS_ZIP).is_file():
            return root / REPORTS_ZIP
        if any(root.glob("files/p??/p*/s*.txt")):
            return root / "files"
        for table in (SECTIONED, f"{SECTIONED}.gz"):
            if (root / table).is_file():
                return root / table
    looked = "".join(f"\n  {data_root / name}" for name in REPORT_ROOTS)
    raise DataError(
        f"mimic has no reports; looked for {REPORTS_ZIP}, files/p*/p*/s*.txt and {SECTIONED} in:"
        f"{looked}\nget them from MIMIC-CXR (not -JPG), or load with with_reports=False"
    )


def _parse(texts: Iterator[tuple[str, str]], custom: CustomSections) -> pd.DataFrame:
    rows = {study: sections_of(text, study, custom=custom) for study, text in texts}
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(SECTIONS))


def _file_texts(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob("p??/p*/s*.txt")):
        match = _STUDY_FILE.search(path.name)
        if match:
            try:
                yield match[1], _decode(path.read_bytes(), str(path))
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _zip_texts(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.startswith("/") or ".." in name.split("/"):
                    raise DataError(f"{path}: member {name!r} points outside; not the original")
                match = _STUDY_FILE.search(name)
                if match:
                    yield match[1], _decode(archive.read(name), f"{path}/{name}")
    except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not a readable zip archive ({error})") from error


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8 text ({error})") from error


def _read_sectioned(path: Path) -> pd.DataFrame:
    table = read_table(path, ["study", *SECTIONS])
    table.index = pd.Index(table["study"].str.removeprefix("s"))
    sections = table[list(SECTIONS)]
    by_hand = path.with_name(USED_TEXT)
    if not by_hand.is_file():
        return sections
    with by_hand.open(newline="", encoding="utf-8") as file:  # written without a header
        rows = [row for row in csv.reader(file) if len(row) == 2 and row[0][1:].isdigit()]
    extra = pd.DataFrame(
        "", index=[row[0].removeprefix("s") for row in rows], columns=list(SECTIONS)
    )
    extra["impression"] = [row[1] for row in rows]
    return pd.concat([sections, extra[~extra.index.isin(sections.index)]])
