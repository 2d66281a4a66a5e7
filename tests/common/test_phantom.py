"""The phantom corpus: reproducible, with the designed label statistics, in the real layouts."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import math
import re
import shutil
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from common.data.labels import CHEXPERT_14
from common.data.phantom import NAMED, VOCABULARY, faults, phrases, write_chexpert, writers
from common.data.phantom.disk import NOTICE_FILE, SUMS, write_whole
from common.data.phantom.render import render
from common.data.phantom.reports import NOTHING, build_vocabulary, study_text
from common.data.phantom.world import Study, another_view, draw_study

COMPETITION = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
MUST_BE_ZERO = (
    *("Enlarged Cardiomediastinum", "Lung Lesion", "Lung Opacity", "Pneumonia"),
    *("Pneumothorax", "Pleural Other", "Fracture", "Support Devices"),
)


@pytest.fixture(scope="session")
def studies() -> list[Study]:
    return [draw_study(1, index, site="chexpert") for index in range(2000)]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom")
    written = writers.write_corpus(out, size="ci", datasets=list(writers.LAYOUTS), workers=2)
    assert set(written) == set(writers.LAYOUTS)
    return out


def rows_of(path: Path) -> list[dict[str, str]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return list(csv.DictReader(text.splitlines()))


def test_a_study_can_be_redrawn_alone(studies: list[Study]) -> None:
    again = draw_study(1, 1234, site="chexpert")
    assert repr(again) == repr(studies[1234])
    assert np.array_equal(render(again, size=96).image, render(studies[1234], size=96).image)
    assert repr(draw_study(2, 1234, site="chexpert")) != repr(again)


def test_another_take_moves_the_patient_and_keeps_the_findings(studies: list[Study]) -> None:
    again = another_view(studies[3], studies[3].view, take=2)
    assert again.findings == studies[3].findings
    assert again.exposure != studies[3].exposure


def test_prevalence_is_as_designed(studies: list[Study]) -> None:
    share = {name: np.mean([s.truth[name] for s in studies]) for name in CHEXPERT_14}
    expected = {
        "No Finding": (0.38, 0.55),
        "Cardiomegaly": (0.09, 0.17),
        "Edema": (0.10, 0.21),
        "Consolidation": (0.09, 0.17),
        "Atelectasis": (0.13, 0.23),
        "Pleural Effusion": (0.13, 0.25),
        "Pneumothorax": (0.04, 0.10),
        "Lung Lesion": (0.04, 0.10),
        "Fracture": (0.02, 0.07),
        "Support Devices": (0.17, 0.32),
    }
    assert {
        name: share[name] for name, (low, high) in expected.items() if not low < share[name] < high
    } == {}
    ap = [s.truth["No Finding"] for s in studies if s.view == "AP"]
    pa = [s.truth["No Finding"] for s in studies if s.view == "PA"]
    assert np.mean(pa) > np.mean(ap) + 0.1  # the confounding view


def test_truth_and_mention_differ_only_where_the_report_is_vague(studies: list[Study]) -> None:
    derived = ("No Finding", "Enlarged Cardiomediastinum", "Lung Opacity", "Pneumonia")
    for study in studies:
        for name in CHEXPERT_14:
            said = study.mentions[name]
            if name not in derived and study.truth[name]:
                assert said in (1, -1)
            elif said == 1 and name != "No Finding":
                assert study.truth[name]
        if study.mentions["No Finding"] == 1:
            others = [n for n in CHEXPERT_14 if n not in ("No Finding", "Support Devices")]
            assert not any(study.mentions[n] in (1, -1) for n in others)


def test_words_decide_on_opacity_and_pneumonia(studies: list[Study]) -> None:
    for study in studies:
        text = f"{study.sections['findings']} {study.sections['impression']}".lower()
        assert math.isnan(study.mentions["Lung Opacity"]) == ("opacit" not in text)
        assert math.isnan(study.mentions["Pneumonia"]) == ("pneumonia" not in text)


def test_each_5x200_pool_has_images(studies: list[Study]) -> None:
    for name in COMPETITION:
        others = [n for n in (*COMPETITION, *MUST_BE_ZERO) if n != name]
        pool = [
            s
            for s in studies
            if s.mentions[name] == 1 and not any(s.mentions[n] in (1, -1) for n in others)
        ]
        assert len(pool) >= 25, name


def test_impression_lists_positives_only(studies: list[Study]) -> None:
    for study in studies[:500]:
        text = study.sections["impression"]
        assert text == NOTHING or not re.search(r"\b(no|not|normal,)\b", text.lower())
        if re.search(r"\d\. ", text):
            assert text.startswith("1. ")
            assert " 2. " in text


@pytest.mark.parametrize("site", ["chexpert", "mimic", "rsna", "open_i"])
def test_boxes_and_masks_lie_in_the_image(site: str) -> None:
    for index in range(40):
        study = draw_study(5, index, site=site)
        drawn = render(another_view(study, "LATERAL") if index % 5 == 0 else study, size=96)
        height, width = drawn.image.shape
        assert max(height, width) == 96
        for boxes in drawn.boxes.values():
            for x, y, w, h in boxes:
                assert 0 <= x < x + w <= width
                assert 0 <= y < y + h <= height
        for mask in drawn.masks.values():
            assert mask.shape == drawn.image.shape
            assert mask.any()


def test_consolidation_always_has_a_box() -> None:
    found = [
        s for s in (draw_study(6, i, site="rsna") for i in range(200)) if s.truth["Consolidation"]
    ]
    assert len(found) > 20
    assert all(render(study, size=96).boxes["Consolidation"] for study in found)


def test_vocabulary_file_is_the_functions() -> None:
    assert VOCABULARY.read_text(encoding="utf-8").splitlines() == build_vocabulary()


def test_no_report_word_is_unknown(studies: list[Study]) -> None:
    known = set(build_vocabulary())
    texts = [study_text(study) for study in studies[:200]] + list(phrases.every_text())
    words = {
        word for text in texts for word in re.findall(r"[a-z]+|[0-9]+|[^\sa-z0-9]", text.lower())
    }
    assert {word for word in words if "[UNK]" in pieces(word, known)} == set()
    assert pieces("cardiomegaly", known) == ["card", "##io", "##meg", "##aly"]


def pieces(word: str, known: set[str]) -> list[str]:
    """Greedy longest-match WordPiece."""
    out: list[str] = []
    while word:
        mark = "##" if out else ""
        size = next((n for n in range(len(word), 0, -1) if mark + word[:n] in known), 0)
        if not size:
            return ["[UNK]"]
        out.append(mark + word[:size])
        word = word[size:]
    return out


def test_report_files_look_like_mimic(studies: list[Study]) -> None:
    header = re.compile(r"\n ([A-Z ()/,-]+):\s")
    seen = set()
    for study in studies:
        text = study_text(study)
        assert text.splitlines()[0].strip() == "FINAL REPORT"
        assert max(map(len, text.splitlines())) <= 79
        assert "SYNTHETIC PHANTOM" in text
        names = header.findall(text)
        seen.add(study.quirk)
        if study.quirk == "":
            expected = [
                "EXAMINATION",
                "INDICATION",
                "TECHNIQUE",
                "COMPARISON",
                "FINDINGS",
                "IMPRESSION",
            ]
            assert names == expected
        if study.quirk == "last_paragraph":
            assert names[-1] == "COMPARISON"
            assert "\n \n" in text.split("COMPARISON:")[1]
        if study.quirk == "swallowed_header":
            assert names[-1] == "FINDINGS"
    assert {"no_impression", "no_findings", "addendum", "blank", "merged_header"} <= seen


def test_chexpert_layout(corpus: Path) -> None:
    rows = rows_of(corpus / "CheXpert-v1.0-small/train.csv")
    assert tuple(rows[0]) == write_chexpert.COLUMNS
    assert sum(row["Frontal/Lateral"] == "Frontal" for row in rows) == 48
    assert any("view1_lateral" in row["Path"] for row in rows)
    assert any("view2_frontal" in row["Path"] for row in rows)
    for row in rows:
        with Image.open(corpus / row["Path"]) as picture:
            assert picture.mode == "L"
            assert b"SYNTHETIC" in picture.info["comment"]
    valid = rows_of(corpus / "CheXpert-v1.0-small/valid.csv")
    assert {row[name] for row in valid for name in CHEXPERT_14} == {"0.0", "1.0"}
    reports = rows_of(corpus / "chexpertplus" / write_chexpert.PLUS_TABLE)
    assert len(reports[0]) == 27
    assert len({row["path_to_image"] for row in reports}) == len(reports) < len(rows) + len(valid)
    assert len(rows_of(corpus / "CheXpert/groundtruth.csv")) == 12
    assert len(list(corpus.glob("CheXpert-v1.0 batch*"))) == 4


def test_mimic_layout(corpus: Path) -> None:
    root = corpus / "mimic-cxr-jpg/2.0.0"
    metadata = rows_of(root / "mimic-cxr-2.0.0-metadata.csv.gz")
    split = rows_of(root / "mimic-cxr-2.0.0-split.csv.gz")
    labels = rows_of(root / "mimic-cxr-2.0.0-chexpert.csv.gz")
    assert [row["dicom_id"] for row in metadata] == [row["dicom_id"] for row in split]
    assert list(labels[0])[2:] == sorted(CHEXPERT_14)
    for row in metadata:
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}", row["dicom_id"])
        study = f"files/p{row['subject_id'][:2]}/p{row['subject_id']}/s{row['study_id']}"
        with Image.open(root / study / f"{row['dicom_id']}.jpg") as picture:
            assert picture.size == (int(row["Columns"]), int(row["Rows"]))
        assert (corpus / "mimic-cxr/2.0.0" / f"{study}.txt").is_file()
    assert {row["split"] for row in split} == {"train", "validate", "test"}


def test_rsna_layout(corpus: Path) -> None:
    root = corpus / "rsna-pneumonia-detection-challenge"
    rows = rows_of(root / "stage_2_train_labels.csv")
    classes = rows_of(root / "stage_2_detailed_class_info.csv")
    assert [row["patientId"] for row in rows] == [row["patientId"] for row in classes]
    syntaxes = set()
    for row in rows:
        image = pydicom.dcmread(root / "stage_2_train_images" / f"{row['patientId']}.dcm")
        assert image.PatientID == row["patientId"]
        assert image.PhotometricInterpretation == "MONOCHROME2"
        assert image.pixel_array.shape == (image.Rows, image.Columns)
        assert str(image.PatientName).startswith("PHANTOM^")
        syntaxes.add(image.file_meta.TransferSyntaxUID)
        assert (row["Target"] == "1") == (row["width"] != "")
        if row["Target"] == "1":
            assert float(row["x"]) + float(row["width"]) <= image.Columns
    assert len(syntaxes) == 2


def test_open_i_layout(corpus: Path) -> None:
    root = corpus / "openi"
    texts = [path.read_text() for path in (root / "ecgen-radiology").glob("*.xml")]
    assert len(texts) == 60
    images = [name for text in texts for name in re.findall(r'parentImage id="([^"]+)"', text)]
    assert {path.stem for path in (root / "NLMCXR_png").glob("*.png")} == set(images)
    assert len(rows_of(root / "indiana_projections.csv")) == len(images)
    assert any(row["comparison"] == "None" for row in rows_of(root / "indiana_reports.csv"))


def test_every_root_is_marked_and_hashed(corpus: Path) -> None:
    lists = list(corpus.rglob(SUMS))
    assert len(lists) == 15
    for path in lists:
        assert (path.parent / NOTICE_FILE).is_file()
        for line in path.read_text().splitlines():
            digest, name = line.split("  ", 1)
            assert hashlib.sha256((path.parent / name).read_bytes()).hexdigest() == digest


def test_world_lists_every_image(corpus: Path) -> None:
    for name in writers.LAYOUTS:
        lines = (corpus / "world" / f"{name}.jsonl").read_text().splitlines()
        entries = [json.loads(line) for line in lines]
        assert all((corpus / entry["path"]).is_file() for entry in entries)
        assert len({entry["image_id"] for entry in entries}) == len(entries)
    assert not list((corpus / "world").glob("*.parts"))


def test_same_seed_same_bytes_and_restart(corpus: Path, tmp_path: Path) -> None:
    writers.write_corpus(tmp_path, size="ci", datasets=["chexpert"], workers=1)
    files = sorted((tmp_path / "CheXpert-v1.0-small").rglob("*.*"))
    assert all(
        path.read_bytes() == (corpus / path.relative_to(tmp_path)).read_bytes()
        for path in files
        if path.is_file()
    )
    table = tmp_path / "CheXpert-v1.0-small/train.csv"
    stamp = table.stat().st_mtime_ns
    writers.write_corpus(tmp_path, size="ci", datasets=["chexpert"], workers=1)
    assert table.stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="another folder"):
        writers.write_corpus(tmp_path, size="ci", datasets=["chexpert"], seed=1)


def test_faults_are_all_in_the_manifest(corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus, tmp_path, dirs_exist_ok=True)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    planted = faults.plant_faults(tmp_path)
    assert json.loads((tmp_path / faults.MANIFEST).read_text()) == planted
    after = {
        p: b"" if p.is_symlink() or not p.stat().st_mode & 0o444 else p.read_bytes()
        for p in tmp_path.rglob("*")
        if p.is_symlink() or p.is_file()
    }
    changed = {p for p in before | after if before.get(p) != after.get(p)}
    named = {tmp_path / fault["path"].split("#")[0] for fault in planted}
    side_effects = {SUMS, faults.MANIFEST, "view1_frontal.jpg", "train_val_list.txt"}
    assert {p.name for p in changed - named} <= side_effects
    assert {fault["kind"] for fault in planted} == {
        *("zero_byte", "truncated", "not_an_image", "missing_file", "unlisted_file", "wrong_mode"),
        *("monochrome1", "high_bit_depth", "unreadable", "box_outside", "mask_outside"),
        *("duplicate_row", "table_hash", "patient_in_two_splits"),
    }
    with pytest.raises(ValueError, match="already"):
        faults.plant_faults(tmp_path)


def test_processes_may_write_the_same_file_at_once(tmp_path: Path) -> None:
    with get_context("fork").Pool(4) as pool:
        pool.starmap(write_whole, [(tmp_path / "phantom.json", b"{}")] * 2000, chunksize=1)
    assert [path.name for path in tmp_path.iterdir()] == ["phantom.json"]


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="chexpert"):
        writers.write_corpus(tmp_path, size="ci", datasets=["chest"])
    with pytest.raises(ValueError, match="small"):
        writers.write_corpus(tmp_path, size="huge")


def test_named_labels_are_those_that_reports_call_by_name() -> None:
    studies = [draw_study(0, index, site="mimic") for index in range(400)]
    text = " ".join(" ".join(dict(study.sections).values()).lower() for study in studies)
    assert {label for label in CHEXPERT_14 if label.lower() in " ".join(text.split())} == set(NAMED)
