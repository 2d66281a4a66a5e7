"""Open-I: XML unpacked and packed, Kaggle's tables, hostile XML, the real archive if at hand."""

import io
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import pytest

from common.data import open_i
from common.data.facts import facts
from common.data.tables import DataError

XML = """<?xml version="1.0" encoding="utf-8"?>
<eCitation><uId id="CXR{uid}"/>
<MedlineCitation><Article><Abstract>
<AbstractText Label="COMPARISON">None</AbstractText>
<AbstractText Label="INDICATION">Cough &amp; XXXX</AbstractText>
<AbstractText Label="FINDINGS">{findings}</AbstractText>
<AbstractText Label="IMPRESSION"/>
</Abstract></Article></MedlineCitation>
<MeSH><major>{major}</major><automatic>lung</automatic></MeSH>
{images}</eCitation>"""
IMAGE = '<parentImage id="CXR{uid}_1_IM-{uid:04d}-{k}"><caption>Chest</caption></parentImage>'


def xml(uid: int, images: int = 2, major: str = "normal", findings: str = "Clear.") -> bytes:
    pictures = "".join(IMAGE.format(uid=uid, k=1001 + k) for k in range(images))
    return XML.format(uid=uid, findings=findings, major=major, images=pictures).encode()


REPORTS = {2: xml(2), 10: xml(10, images=1, major="Opacity/lung/left"), 3: xml(3, images=0)}


def write_images(root: Path) -> None:
    (root / "NLMCXR_png").mkdir(parents=True)
    for name in ("CXR2_1_IM-0002-1001", "CXR2_1_IM-0002-1002", "CXR10_1_IM-0010-1001"):
        (root / "NLMCXR_png" / f"{name}.png").write_bytes(b"pixels")


def write_xml(root: Path, reports: Mapping[int, bytes] | None = None) -> None:
    folder = root / "ecgen-radiology"
    folder.mkdir(parents=True)
    for uid, content in (reports or REPORTS).items():
        (folder / f"{uid}.xml").write_bytes(content)


def write_archive(
    root: Path, reports: Mapping[int, bytes] | None = None, name: str = "ecgen-radiology/{}.xml"
) -> None:
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / open_i.REPORTS_ARCHIVE, "w:gz") as tar:
        for uid, content in (reports or REPORTS).items():
            member = tarfile.TarInfo(name.format(uid))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("writer", [write_xml, write_archive])
def test_reports_packed_or_not(tmp_path: Path, writer: Callable[..., None]) -> None:
    writer(tmp_path / "openi")
    write_images(tmp_path / "openi")
    table = open_i.load(tmp_path)
    assert list(table.frame["patient_id"]) == ["CXR2", "CXR2", "CXR10"]  # by number
    assert table.exclusions.counts == {"no_image": 1}
    assert table[0].sections == {
        "comparison": "None",
        "indication": "Cough & XXXX",
        "findings": "Clear.",
        "impression": "",
    }
    assert list(table.labels["Normal"]) == [1, 1, 0]
    assert table.frame["mesh"][2] == "Opacity/lung/left"
    assert set(table.frame["view"]) == {"other"}
    assert all(record.path.is_file() for record in table)


def test_a_missing_picture_is_counted(tmp_path: Path) -> None:
    write_xml(tmp_path)
    write_images(tmp_path)
    next((tmp_path / "NLMCXR_png").glob("CXR10*")).unlink()
    assert open_i.load(tmp_path).exclusions.counts == {"missing_file": 1, "no_image": 1}


KAGGLE = """uid,MeSH,Problems,image,indication,comparison,findings,impression
2,normal,normal,Chest,Cough,None,Clear.,
10,Opacity/lung,Opacity,Chest,,,,Left base opacity.
"""
PROJECTIONS = """uid,filename,projection
2,2_IM-0002-1001.dcm.png,Frontal
2,2_IM-0002-1002.dcm.png,Lateral
10,10_IM-0010-1001.dcm.png,Frontal
"""


def write_kaggle(root: Path, projections: str = PROJECTIONS) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / open_i.KAGGLE_REPORTS).write_text(KAGGLE)
    (root / open_i.KAGGLE_PROJECTIONS).write_text(projections)


def test_kaggles_tables(tmp_path: Path) -> None:
    write_kaggle(tmp_path)
    images = tmp_path / "images" / "images_normalized"
    images.mkdir(parents=True)
    for line in PROJECTIONS.splitlines()[1:]:
        (images / line.split(",")[1]).write_bytes(b"pixels")
    table = open_i.load(tmp_path)
    assert list(table.frame["view"]) == ["frontal", "lateral", "frontal"]
    assert table[0].sections["comparison"] == "None"  # the word
    assert table[2].sections["impression"] == "Left base opacity."
    assert table[0].path == images / "2_IM-0002-1001.dcm.png"


def test_kaggles_views_serve_the_xml(tmp_path: Path) -> None:
    write_xml(tmp_path)
    write_kaggle(tmp_path)
    table = open_i.load(tmp_path, check_files=False)
    assert list(table.frame["view"]) == ["frontal", "lateral", "frontal"]


@pytest.mark.parametrize(
    ("kaggle", "image_id"),
    [
        ("1_IM-0001-3001.dcm.png", "CXR1_1_IM-0001-3001"),
        ("2_IM-0652-1001.dcm.png", "CXR2_IM-0652-1001"),
    ],
)
def test_kaggles_names_meet_the_archives(kaggle: str, image_id: str) -> None:
    assert open_i.kaggle_name(kaggle) == open_i.kaggle_name(image_id)


def test_kaggle_names_cannot_leave_the_root(tmp_path: Path) -> None:
    write_kaggle(tmp_path, PROJECTIONS.replace("10_IM", "../10_IM"))
    with pytest.raises(DataError, match="filename is not"):
        open_i.load(tmp_path)


BOMB = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><a>&c;</a>'


@pytest.mark.parametrize("writer", [write_xml, write_archive])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (BOMB, "document type"),
        (BOMB.decode().encode("utf-16"), "NUL"),
        (b" " * (1 << 20) + xml(7), "huge"),
        (b"", "not well-formed"),
        (xml(7)[:200], "not well-formed"),
        (b"<a/>", "expected <uId"),
        (xml(7).replace(b"CXR7", b"../7"), "expected <uId"),
        (xml(7).replace(b'Label="FINDINGS"', b""), r"no AbstractText labelled \['findings'\]"),
        (xml(7).replace(b"CXR7_1", b"../../x"), "not file names"),
    ],
)
def test_unsafe_or_damaged_xml_is_refused_by_name(
    tmp_path: Path, writer: Callable[..., None], content: bytes, words: str
) -> None:
    writer(tmp_path, {7: content})
    with pytest.raises(DataError, match=words) as error:
        open_i.load(tmp_path, check_files=False)
    assert "7.xml" in str(error.value)


@pytest.mark.parametrize("name", ["../{}.xml", "/{}.xml"])
def test_archive_members_that_leave_the_root(tmp_path: Path, name: str) -> None:
    write_archive(tmp_path, name=name)
    with pytest.raises(DataError, match="points outside"):
        open_i.load(tmp_path)


def test_a_truncated_archive(tmp_path: Path) -> None:
    write_archive(tmp_path)
    path = tmp_path / open_i.REPORTS_ARCHIVE
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match="not a readable tar archive"):
        open_i.load(tmp_path)


def test_an_absent_corpus(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="open_i is missing"):
        open_i.load(tmp_path)


@pytest.mark.skipif("OPEN_I_ROOT" not in os.environ, reason="OPEN_I_ROOT names no real copy")
def test_the_real_archive() -> None:
    root = Path(os.environ["OPEN_I_ROOT"])
    home = open_i.find_home(root)
    reports = open_i.read_reports(home)
    known = facts("open_i")
    counts = known["counts"]
    assert len(reports) == counts["reports"]
    assert (reports["findings"] != "").sum() == counts["findings"]
    assert (reports["impression"] != "").sum() == counts["impression"]
    assert (reports["comparison"] == "None").sum() == known["literal_none"]
    assert reports["MeSH"].str.split(";").apply(lambda m: "normal" in m).sum() == known["normal"]
    table = open_i.load(root, check_files=False)
    assert table.frame["image_id"].map(open_i.kaggle_name).is_unique
    assert len(table) == counts["images"]
    assert table.exclusions.counts == {"no_image": known["without_image"]}
    for path in (root / "open_i_reports.csv.gz", root.parent / "open_i_reports.csv.gz"):
        if path.is_file():  # the same reports as a table
            other = pd.read_csv(path, dtype=str, keep_default_na=False)
            shared = [name for name in open_i.COLUMNS if name in other]
            pd.testing.assert_frame_equal(reports[shared], other[shared])
