"""MIMIC-CXR: tables of both releases, reports from every source, the maintainers' sections."""

import gzip
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.data import mimic_cxr
from common.data.mimic_sections import (
    MAINTAINERS,
    CustomSections,
    normalise,
    read_custom,
    sections_of,
    split_report,
    used_text,
)
from common.data.tables import DataError

GOLDEN = Path(__file__).parents[1] / "golden"

IMAGES = [  # subject, study, ViewPosition, split
    ("10000001", "50000001", "PA", "train"),
    ("10000001", "50000001", "LATERAL", "train"),
    ("10000002", "50000002", "AP", "validate"),
    ("11000003", "50000003", "", "test"),
]
REPORT = " FINAL REPORT\n EXAMINATION:  Chest.\n \n FINDINGS:  Clear ___.\n \n IMPRESSION:  {}\n"


def dicom_id(k: int) -> str:
    return "-".join([f"{k:08x}"] * 5)


def place(subject: str, study: str) -> str:
    return f"files/p{subject[:2]}/p{subject}/s{study}"


def write(root: Path, release: str = "2.0.0", packed: bool = True) -> Path:
    home = root / "mimic-cxr-jpg" / release
    home.mkdir(parents=True)
    end = ".csv.gz" if packed else ".csv"
    frame = pd.DataFrame(IMAGES, columns=["subject_id", "study_id", "ViewPosition", "split"])
    frame["dicom_id"] = [dicom_id(k) for k in range(len(frame))]
    frame.drop(columns="split").to_csv(home / f"mimic-cxr-2.0.0-metadata{end}", index=False)
    frame[["dicom_id", "study_id", "subject_id", "split"]][::-1].to_csv(
        home / f"mimic-cxr-2.0.0-split{end}", index=False
    )
    for labeler, value in (("chexpert", "1.0"), ("negbio", "-1.0")):
        labels = pd.DataFrame({"subject_id": ["10000001"], "study_id": ["50000001"]})
        labels[list(mimic_cxr.LABELS)] = ""
        labels["Edema"] = value
        labels.to_csv(home / f"mimic-cxr-2.0.0-{labeler}{end}", index=False)
    for k, (subject, study, _, _) in enumerate(IMAGES):
        path = home / place(subject, study) / f"{dicom_id(k)}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"pixels")
    return home


def write_texts(root: Path, prefix: str = "mimic-cxr/2.0.0") -> None:
    for subject, study, *_ in IMAGES:
        path = root / prefix / f"{place(subject, study)}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(REPORT.format(f"Study {study}."))


def write_zip(root: Path, names: Sequence[str] | None = None) -> None:
    (root / "mimic-cxr/2.0.0").mkdir(parents=True)
    with zipfile.ZipFile(root / "mimic-cxr/2.0.0" / mimic_cxr.REPORTS_ZIP, "w") as archive:
        for subject, study, *_ in IMAGES[1:]:
            archive.writestr(f"{place(subject, study)}.txt", REPORT.format(f"Study {study}."))
        for name in names or []:
            archive.writestr(name, "FINDINGS: x")


def write_sectioned(root: Path) -> None:
    (root / "mimic-cxr/2.0.0").mkdir(parents=True)
    rows = "".join(f"s{study},Study {study}.,Clear ___.,,\n" for _, study, *_ in IMAGES[1:])
    (root / "mimic-cxr/2.0.0" / mimic_cxr.SECTIONED).write_text(
        "study,impression,findings,last_paragraph,comparison\n" + rows
    )


@pytest.mark.parametrize(("release", "packed"), [("2.0.0", True), ("2.1.0", False)])
@pytest.mark.parametrize("source", [write_texts, write_zip, write_sectioned])
def test_releases_and_report_sources_agree(
    tmp_path: Path, release: str, packed: bool, source: Callable[[Path], None]
) -> None:
    write(tmp_path, release, packed)
    source(tmp_path)
    table = mimic_cxr.load(tmp_path)
    assert list(table.frame["image_id"]) == [dicom_id(k) for k in range(4)]
    assert list(table.frame["view"]) == ["frontal", "lateral", "frontal", "other"]
    assert list(table.frame["source_split"]) == ["train", "train", "validate", "test"]
    assert table[2].sections["impression"] == "Study 50000002."
    assert table[2].sections["findings"] == "Clear ___."
    assert all(record.path.is_file() for record in table)
    assert table.labels["Edema"][1] == 1
    assert np.isnan(table.labels["Edema"][2])  # a study that no labeler covered


def test_both_labelers(tmp_path: Path) -> None:
    write(tmp_path)
    table = mimic_cxr.load(tmp_path, "negbio", with_reports=False)
    assert table.labels["Edema"][0] == -1
    with pytest.raises(DataError, match="unknown labeler 'vicuna'"):
        mimic_cxr.load(tmp_path, "vicuna")


def test_radiologists_labels_of_the_test_set(tmp_path: Path) -> None:
    home = write(tmp_path, "2.1.0")
    labels = pd.DataFrame({"study_id": ["50000003"]})
    labels[list(mimic_cxr.LABELS)] = "0"
    labels = labels.rename(columns={"Lung Opacity": "Airspace Opacity"})
    labels["Airspace Opacity"] = "1"
    labels.to_csv(home / mimic_cxr.LABEL_TABLES["radiologist"], index=False)
    table = mimic_cxr.load(tmp_path, "radiologist", with_reports=False)
    assert table.exclusions.counts == {"unlabelled": 3}
    assert list(table.labels["Lung Opacity"]) == [1]


def test_a_missing_report_is_counted(tmp_path: Path) -> None:
    write(tmp_path)
    write_texts(tmp_path)
    (tmp_path / "mimic-cxr/2.0.0" / f"{place('10000001', '50000001')}.txt").unlink()
    table = mimic_cxr.load(tmp_path)
    assert table.exclusions.counts == {"no_report": 2}
    assert table.rows_in == len(table) + 2


def test_missing_images_and_split_rows_are_counted(tmp_path: Path) -> None:
    home = write(tmp_path, packed=False)
    (home / place("10000002", "50000002") / f"{dicom_id(2)}.jpg").unlink()
    split = pd.read_csv(home / mimic_cxr.SPLIT, dtype=str)
    split[1:].to_csv(home / mimic_cxr.SPLIT, index=False)
    table = mimic_cxr.load(tmp_path, with_reports=False)
    assert table.exclusions.counts == {"missing_file": 1, "no_split": 1}


def test_no_reports_at_all_says_what_to_do(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(DataError, match="with_reports=False"):
        mimic_cxr.load(tmp_path)


@pytest.mark.parametrize("name", ["../s50000009.txt", "/files/s50000009.txt"])
def test_a_zip_that_leaves_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    write_zip(tmp_path, [name])
    with pytest.raises(DataError, match="points outside"):
        mimic_cxr.load(tmp_path)


def test_a_truncated_zip(tmp_path: Path) -> None:
    write(tmp_path)
    write_zip(tmp_path)
    path = tmp_path / "mimic-cxr/2.0.0" / mimic_cxr.REPORTS_ZIP
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="not a readable zip"):
        mimic_cxr.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        (mimic_cxr.METADATA, "ViewPosition", "View", r"no column \['ViewPosition'\]"),
        (mimic_cxr.METADATA, dicom_id(1), "../../x", r"dicom_id '\.\./\.\./x' in data row 2"),
        (mimic_cxr.METADATA, "10000002", "1e7", "subject_id '1e7' in data row 3"),
        (mimic_cxr.SPLIT, "validate", "valid", "split 'valid'; expected one of train"),
        (mimic_cxr.LABEL_TABLES["chexpert"], "1.0", "9", "'Edema' is '9' in data row 1"),
    ],
)
def test_edited_tables_are_refused(
    tmp_path: Path, name: str, old: str, new: str, words: str
) -> None:
    home = write(tmp_path, packed=False)
    (home / name).write_text((home / name).read_text().replace(old, new))
    with pytest.raises(DataError, match=words) as error:
        mimic_cxr.load(tmp_path, with_reports=False)
    assert name in str(error.value)


def test_unpacking_the_tables_leaves_their_hash(tmp_path: Path) -> None:
    tables = []
    for packed in (True, False):
        write(tmp_path / str(packed), packed=packed)
        write_texts(tmp_path / str(packed))
        tables.append(mimic_cxr.load(tmp_path / str(packed)).table_sha256)
    assert tables[0] == tables[1]


def test_a_damaged_packed_table_is_named(tmp_path: Path) -> None:
    home = write(tmp_path)
    path = home / f"{mimic_cxr.METADATA}.gz"
    path.write_bytes(gzip.compress(b"dicom_id,study_id\n" * 99)[:20])
    with pytest.raises(DataError, match=r"metadata\.csv\.gz: not a readable CSV"):
        mimic_cxr.load(tmp_path, with_reports=False)


def test_studies_missing_from_the_sectioned_table_come_from_the_other(tmp_path: Path) -> None:
    write(tmp_path)
    write_sectioned(tmp_path)
    folder = tmp_path / "mimic-cxr/2.0.0"
    path = folder / mimic_cxr.SECTIONED
    path.write_text("\n".join(path.read_text().splitlines()[:2]) + "\n")  # s50000001 only
    assert mimic_cxr.load(tmp_path).exclusions.counts == {"no_report": 2}
    (folder / mimic_cxr.USED_TEXT).write_text('s50000001,other\ns50000002,"By, hand"\n')
    table = mimic_cxr.load(tmp_path)
    assert table.exclusions.counts == {"no_report": 1}
    assert table[2].sections["impression"] == "By, hand"
    assert table[0].sections["impression"] == "Study 50000001."


def names(text: str) -> list[str]:
    return [section.name for section in split_report(text)]


def test_a_header_ending_its_line_swallows_the_next() -> None:
    found = sections_of(" FINAL REPORT\n FINDINGS:\n IMPRESSION: two\n")
    assert found["findings"] == "IMPRESSION: two"
    assert found["impression"] == ""
    assert sections_of("\n FINDINGS: one\n IMPRESSION: two\n")["impression"] == "two"


@pytest.mark.parametrize(
    "text",
    [
        " IMPRESSION: on the first line\n",
        "x\nIMPRESSION: column 0\n",
        "x\n\tIMPRESSION: a tab\n",
        "x\n Impression: lower case\n",
        "x\n IMPRESSION 2: digit\n",
        "x\n FINDINGS & IMPRESSION: ampersand\n",
        "x\n IMPRESSION:no whitespace\n",
    ],
)
def test_headers_that_are_not_seen(text: str) -> None:
    assert names(text) == ["full report"]


def test_deeper_indentation_by_spaces_is_part_of_the_name() -> None:
    assert sections_of("x\n   IMPRESSION: seen\n")["impression"] == "seen"


def test_the_last_of_several_sections_counts_and_empty_ones_do_not() -> None:
    assert sections_of("\n IMPRESSION: first\n \n IMPRESSION: second\n")["impression"] == "second"
    assert sections_of("\n IMPRESSION: first\n \n IMPRESSION: \n")["impression"] == "first"


def test_without_either_section_the_rest_below_a_blank_line_is_used() -> None:
    text = "\n INDICATION: Cough.\n \n Lungs are clear.\n \n No change.\n"
    found = sections_of(text)
    assert found["last_paragraph"] == "Lungs are clear.\n \n No change."
    assert used_text(found) == found["last_paragraph"]
    assert split_report(text)[1] == ("indication", "Cough.")
    plain = "Title\n \n Body of the report.\n"
    assert sections_of(plain)["last_paragraph"] == "Body of the report."


def test_comparison_is_the_last_resort() -> None:
    assert used_text(sections_of("\n COMPARISON: Lungs are clear.\n")) == "Lungs are clear."
    assert used_text(sections_of("nothing here")) == ""


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("IMPRESSION", "impression"),
        (" FINDINGS AND IMPRESSION ", "impression"),
        ("NDICATION", "impression"),  # the maintainers' oddity
        ("IMPRESSON", "impression"),
        ("PFI", "history"),
        ("WETREAD", "wet read"),
        ("CHEST, TWO VIEWS", "findings"),
        ("FINDINGS AND CONCLUSION OF IMPRESSION", "impression"),  # impression is tried first
        ("FAMILY HISTORY AND COMPARISON", "history"),
        ("PORTABLE AP FILM", "findings"),
        ("RIBS, UNILATERAL", "findings"),
        ("TELEPHONE NOTE", "telephone note"),
    ],
)
def test_header_names(header: str, name: str) -> None:
    assert normalise(header) == name


def test_studies_treated_by_hand(tmp_path: Path) -> None:
    text = "\n HISTORY: Really the findings.\n FINDINGS: not these\n"
    path = tmp_path / "custom.json"
    content = {
        "names": {"s50000001": "history"},
        "offsets": {"s50000002": [3, 7], "50000003": [0, 0]},
    }
    path.write_text(json.dumps(content))
    custom = read_custom(path)
    assert sections_of(text, "50000001", custom=custom)["impression"] == "Really the findings."
    assert sections_of(text, "50000001", custom=custom)["findings"] == ""
    assert sections_of(text, "50000002", custom=custom)["impression"] == text[3:7]
    assert used_text(sections_of(text, "50000003", custom=custom)) == ""
    assert sections_of(text, "50000004", custom=custom) == sections_of(text)
    path.write_text("[]")
    with pytest.raises(DataError, match="expected"):
        read_custom(path)


def test_the_maintainers_exceptions_on_golden_reports() -> None:
    """Invented reports under real study ids, as the maintainers' recipe cuts them."""
    golden = json.loads((GOLDEN / "mgca" / "reports.json").read_text())
    whole = dict(golden["mimic_cxr_sections_csv"])
    header, *rows = golden["mimic_cxr_sectioned_csv"]
    parsed = {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}
    for report in golden["reports"]:
        study = report["study"]
        found = sections_of(report["text"], study)
        assert used_text(found) == whole[f"s{study}"]
        if f"s{study}" in parsed:
            assert found == parsed[f"s{study}"]
        else:
            assert study in {*MAINTAINERS.names, *MAINTAINERS.offsets}
        assert [s.name for s in split_report(report["text"])] == report["section_names"]


def test_54_studies_are_treated_by_hand() -> None:
    assert (len(MAINTAINERS.names), len(MAINTAINERS.offsets)) == (23, 31)
    assert sum(span == (0, 0) for span in MAINTAINERS.offsets.values()) == 8


def test_custom_sections_reach_the_loader(tmp_path: Path) -> None:
    write(tmp_path)
    write_texts(tmp_path)
    custom = CustomSections(names={"50000002": "examination"})
    assert mimic_cxr.load(tmp_path, custom=custom)[2].sections["impression"] == "Chest."
