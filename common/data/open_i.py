"""Open-I, the Indiana University chest X-ray collection: 3,955 reports with 7,470 images.

Origin: Indiana Network for Patient Care, collected by M. Kohli and M. Rosenman, served by the US
National Library of Medicine. Access: free download; CC BY-NC-ND 4.0, stated in every report.
Citation: Demner-Fushman et al., "Preparing a collection of radiology examinations for distribution
and retrieval", JAMIA 2016.

Read: the XML reports, unpacked or inside `NLMCXR_reports.tgz`, or Kaggle's `indiana_reports.csv`
with `indiana_projections.csv`. The XML has no view; where Kaggle's projections lie beside it they
give it. Patients are unknown: each report counts as one. `XXXX` marks removed words.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd

from common.data.records import RecordTable, assemble, drop_absent
from common.data.tables import DataError, files_below, first_home, read_table, table_sha256

ROOTS: tuple[str, ...] = (
    "open_i",
    "openi",
    "Open-I",
    "OpenI",
    "open-i",
    "NLMCXR",
    "indiana",
    "chest-xrays-indiana-university",
    ".",
)
REPORTS_ARCHIVE = "NLMCXR_reports.tgz"
XML_FOLDERS = ("ecgen-radiology", "NLMCXR_reports/ecgen-radiology", "reports/ecgen-radiology")
IMAGE_FOLDER = "NLMCXR_png"
KAGGLE_REPORTS = "indiana_reports.csv"
KAGGLE_PROJECTIONS = "indiana_projections.csv"
SUFFIXES = (".png",)
SECTIONS = ("comparison", "indication", "findings", "impression")
COLUMNS = ("uid", "xml_file", "MeSH", "mesh_automatic", "image", *SECTIONS, "image_ids")

_XML_LIMIT = 1 << 20
"""Bytes; the largest real report has 12 kB."""


def find_home(data_root: Path) -> Path:
    """The first of `ROOTS` that holds reports in any form.

    Raises:
        DataError: If none does; lists the places looked in.
    """

    def holds(folder: Path) -> bool:
        files = (REPORTS_ARCHIVE, KAGGLE_REPORTS)
        return any((folder / file).is_file() for file in files) or _xml_folder(folder) is not None

    wanted = f"{XML_FOLDERS[0]}/*.xml, {REPORTS_ARCHIVE} and {KAGGLE_REPORTS}"
    return first_home(data_root, ROOTS, holds, dataset="open_i", wanted=wanted)


def load(data_root: Path, *, check_files: bool = True) -> RecordTable:
    """All images with the four sections of their report and the label `Normal`.

    `image_id` is the name without extension, `study_id` and `patient_id` are `CXR<uid>`; the extra
    column `mesh` holds the indexers' terms. A report without an image counts as `no_image`.

    Args:
        data_root: Folder that holds one of `ROOTS`.
        check_files: Look for the image files; false loads the reports alone.

    Raises:
        DataError: If the reports are absent or malformed, or no image is found.
    """
    home = find_home(data_root)
    frame = read_rows(home)
    normal = frame["mesh"].str.split(";").apply(lambda terms: "normal" in terms)
    labels = pd.DataFrame({"Normal": normal.astype("float32")})
    table = assemble(
        frame, labels, dataset="open_i", root=home, table_sha256=table_sha256(*tables(home))
    )
    imageless = table.frame["path"] == ""
    if imageless.any():
        table = table.where(~imageless, "no_image")
    return drop_absent(table, SUFFIXES) if check_files else table


def tables(home: Path) -> list[Path]:
    """The files the reports come from."""
    folder = _xml_folder(home)
    if folder is not None:
        return sorted(folder.glob("*.xml"))
    if (home / REPORTS_ARCHIVE).is_file():
        return [home / REPORTS_ARCHIVE]
    return [home / name for name in (KAGGLE_REPORTS, KAGGLE_PROJECTIONS)]


def read_rows(home: Path) -> pd.DataFrame:
    """One row an image, and one with empty `path` for a report without any."""
    reports = read_reports(home)
    projections = _projections(home)
    rows = reports.assign(image_id=reports["image_ids"].str.split(";")).explode("image_id")
    rows = rows.reset_index(drop=True)
    study = "CXR" + rows["uid"]
    key = rows["image_id"].map(kaggle_name)
    imageless = rows["image_id"] == ""
    where = {Path(name).stem: name for name in sorted(files_below(home, SUFFIXES))}
    expected = IMAGE_FOLDER + "/" + rows["image_id"] + ".png"
    frame = pd.DataFrame(
        {
            "image_id": rows["image_id"].mask(imageless, study),
            "study_id": study,
            "patient_id": study,
            "path": pd.Series(
                [where.get(i, e) for i, e in zip(rows["image_id"], expected, strict=True)]
            ).mask(imageless, ""),
            "view": [projections.get(name, "other") for name in key],
            "source_split": "",
            "mesh": rows["MeSH"],
        }
    )
    for name in SECTIONS:
        frame[f"section_{name}"] = rows[name]
    return frame


def read_reports(home: Path) -> pd.DataFrame:
    """One row a report, columns `COLUMNS`, by number; several values are joined by `;`.

    Raises:
        DataError: If a report is not the expected XML.
    """
    if _xml_folder(home) is None and not (home / REPORTS_ARCHIVE).is_file():
        return _read_kaggle(home)
    rows = [parse_report(data, name) for name, data in _xml_files(home)]
    if not rows:
        raise DataError(f"{home / REPORTS_ARCHIVE}: no XML report inside; download it again")
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.sort_values("uid", key=lambda uid: uid.astype(int)).reset_index(drop=True)


def parse_report(data: bytes, name: str) -> dict[str, str]:
    """One report's XML.

    Args:
        data: The file's bytes.
        name: For messages, and the value of `xml_file`.

    Raises:
        DataError: If it declares a document type or entities (none of the originals does), is no
            XML, or has no id.
    """
    upper = data[:_XML_LIMIT].upper()
    if len(data) > _XML_LIMIT or b"<!DOCTYPE" in upper or b"<!ENTITY" in upper or b"\0" in data:
        raise DataError(f"{name}: not an Open-I report (document type, entity, NUL or huge)")
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise DataError(f"{name}: not well-formed XML ({error})") from error
    uid = root.find("uId")
    number = re.fullmatch(r"CXR(\d+)", uid.get("id", "") if uid is not None else "")
    if number is None:
        raise DataError(f'{name}: expected <uId id="CXR<number>"/>, found none')
    sections = {
        str(node.get("Label")).lower(): "".join(node.itertext())
        for node in root.iter("AbstractText")
    }
    missing = [section for section in SECTIONS if section not in sections]
    if missing:
        raise DataError(f"{name}: no AbstractText labelled {missing}")
    images = root.findall("parentImage")
    ids = [image.get("id", "") for image in images]
    if any(not re.fullmatch(r"[\w.-]+", image) for image in ids):
        raise DataError(f"{name}: parentImage ids {ids} are not file names")
    captions = [caption.text or "" for image in images for caption in image.findall("caption")]
    return {
        "uid": number[1],
        "xml_file": Path(name).name,
        "MeSH": ";".join(node.text or "" for node in root.findall("MeSH/major")),
        "mesh_automatic": ";".join(node.text or "" for node in root.findall("MeSH/automatic")),
        "image": captions[0] if captions else "",
        **{section: sections[section] for section in SECTIONS},
        "image_ids": ";".join(ids),
    }


def _xml_folder(root: Path) -> Path | None:
    return next((root / name for name in XML_FOLDERS if any((root / name).glob("*.xml"))), None)


def _xml_files(home: Path) -> Iterator[tuple[str, bytes]]:
    folder = _xml_folder(home)
    if folder is not None:
        for path in sorted(folder.glob("*.xml")):
            try:
                yield str(path), path.read_bytes()
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        return
    archive = home / REPORTS_ARCHIVE
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.name.startswith("/") or ".." in member.name.split("/"):
                    raise DataError(f"{archive}: member {member.name!r} points outside")
                file = tar.extractfile(member) if member.isreg() else None
                if file is not None and member.name.endswith(".xml"):
                    yield f"{archive}/{member.name}", file.read(_XML_LIMIT + 1)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise DataError(f"{archive}: not a readable tar archive ({error})") from error


def _read_kaggle(home: Path) -> pd.DataFrame:
    """Kaggle's tables. Its file names end in `.dcm.png`; the image id keeps the `.dcm`."""
    reports = read_table(home / KAGGLE_REPORTS, ["uid", "MeSH", "image", *SECTIONS])
    projections = read_table(home / KAGGLE_PROJECTIONS, ["uid", "filename", "projection"])
    if not projections["filename"].str.fullmatch(r"[\w.-]+\.png").all():
        raise DataError(f"{home / KAGGLE_PROJECTIONS}: a filename is not <name>.png")
    names = projections["filename"].str.removesuffix(".png")
    by_report = names.groupby(projections["uid"]).agg(";".join)
    reports["image_ids"] = [by_report.get(uid, "") for uid in reports["uid"]]
    return reports.assign(xml_file="", mesh_automatic="")[list(COLUMNS)]


def _projections(home: Path) -> dict[str, str]:
    """View by Kaggle's image name, where its table is present."""
    if not (home / KAGGLE_PROJECTIONS).is_file():
        return {}
    table = read_table(home / KAGGLE_PROJECTIONS, ["filename", "projection"])
    names = table["filename"].map(kaggle_name)
    return dict(zip(names, table["projection"].str.strip().str.lower(), strict=True))


def kaggle_name(name: str) -> str:
    """What Kaggle's file name and the XML's image id share.

    `1_IM-0001-3001.dcm.png` is `CXR1_1_IM-0001-3001`, `2_IM-0652-1001.dcm.png` is
    `CXR2_IM-0652-1001`.
    """
    stem = name.removesuffix(".png").removesuffix(".dcm")
    return re.sub(r"^(?:CXR)?(\d+)_(?:\d+_)?", r"\1_", stem)
