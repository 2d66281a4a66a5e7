"""`verify` finds each planted fault and nothing else."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from common.data import mimic_cxr, ms_cxr, nih, rsna
from common.data.labels import CHEXPERT_14
from common.data.tables import DataError
from common.data.verify import main, verify

NOISE = np.random.default_rng(0).integers(0, 255, (32, 40), dtype=np.uint8)
TRAIN = [f"train/patient0000{k}/study1/view1_frontal" for k in range(1, 5)]
VALID = ["valid/patient64541/study1/view1_frontal"]
SMALL = "CheXpert-v1.0-small"
KAGGLE = "rsna-pneumonia-detection-challenge"
JPG = "mimic-cxr-jpg/2.0.0"
NIH_TABLE, PHRASES = nih.TABLES["2020"], ms_cxr.TABLES[0]
SUBJECTS = ["10000001", "10000001", "10000002"]
DICOM_IDS = ["-".join([f"{k:08x}"] * 5) for k in range(3)]


def write_picture(path: Path, pixels: NDArray[np.uint8] = NOISE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


def write_dicom(path: Path, name: str, *, photometric: str = "MONOCHROME2", bits: int = 8) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    image = Dataset()
    image.file_meta, image.PatientID = meta, name
    image.SOPClassUID, image.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    pixels = NOISE.astype(np.uint8 if bits == 8 else np.uint16)
    image.Rows, image.Columns = pixels.shape
    image.SamplesPerPixel, image.PixelRepresentation = 1, 0
    image.PhotometricInterpretation = photometric
    image.BitsAllocated, image.BitsStored, image.HighBit = 8 * pixels.itemsize, bits, bits - 1
    image.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path, enforce_file_format=True)


def write_chexpert(root: Path) -> None:
    for part, names in (("train", TRAIN), ("valid", VALID)):
        frame = pd.DataFrame({"Path": [f"{SMALL}/{name}.jpg" for name in names]})
        frame["Frontal/Lateral"] = "Frontal"
        frame[list(CHEXPERT_14)] = "0.0"
        for name in names:
            write_picture(root / SMALL / f"{name}.jpg")
        frame.to_csv(root / SMALL / f"{part}.csv", index=False)
    seal(root / SMALL, "train.csv", "valid.csv")


def write_rsna(root: Path) -> None:
    home = root / KAGGLE
    for name in ("a", "b", "c", "d"):
        write_dicom(home / rsna.IMAGES / f"{name}.dcm", name)
    rows = "a,,,,,0\nb,1.0,2.0,10.0,10.0,1\nb,5.0,5.0,35.0,27.0,1\nc,,,,,0\nd,,,,,0\n"
    (home / rsna.LABEL_TABLE).write_text(f"patientId,x,y,width,height,Target\n{rows}")
    write_dicom(home / rsna.TEST_IMAGES / "t.dcm", "t")
    (home / rsna.TEST_TABLE).write_text("patientId,PredictionString\nt,0.5 0 0 100 100\n")
    seal(home, rsna.LABEL_TABLE)


def write_mimic(root: Path) -> None:
    home = root / JPG
    frame = pd.DataFrame({"dicom_id": DICOM_IDS, "subject_id": SUBJECTS})
    frame["study_id"] = "5" + frame["subject_id"].str[1:]
    frame["ViewPosition"], frame["split"] = "PA", "train"
    for image, subject, study in frame[["dicom_id", "subject_id", "study_id"]].to_numpy():
        write_picture(home / f"files/p{subject[:2]}/p{subject}/s{study}/{image}.jpg")
    frame.drop(columns="split").to_csv(home / mimic_cxr.METADATA, index=False)
    frame.drop(columns="ViewPosition").to_csv(home / mimic_cxr.SPLIT, index=False)
    seal(home, mimic_cxr.METADATA, mimic_cxr.SPLIT)


def write_open_i(root: Path) -> None:
    home = root / "openi"
    (home / "ecgen-radiology").mkdir(parents=True)
    sections = "".join(
        f'<AbstractText Label="{name}">x</AbstractText>'
        for name in ("COMPARISON", "INDICATION", "FINDINGS", "IMPRESSION")
    )
    (home / "ecgen-radiology" / "1.xml").write_text(
        f'<eCitation><uId id="CXR1"/>{sections}<MeSH><major>normal</major></MeSH>'
        '<parentImage id="CXR1_1_IM-1"/></eCitation>'
    )
    write_picture(home / "NLMCXR_png" / "CXR1_1_IM-1.png")
    seal(home)


def write_covidx(root: Path) -> None:
    home = root / "COVIDx"
    for part in ("train", "test"):
        write_picture(home / part / f"{part}.png")
        (home / f"{part}_COVIDx9A.txt").write_text(f"{part} {part}.png normal rsna\n")
    seal(home, "train_COVIDx9A.txt", "test_COVIDx9A.txt")


def write_siim(root: Path) -> None:
    home = root / "siim"
    write_dicom(home / "dicom-images-train" / "1" / "2" / "a.dcm", "a")
    (home / "train-rle.csv").write_text("ImageId, EncodedPixels\na, 1 2\n")
    seal(home, "train-rle.csv")


def write_objects(root: Path) -> None:
    home = root / "object-CXR"
    for part in ("train", "dev"):
        write_picture(home / part / "1.jpg")
        (home / f"{part}.csv").write_text("image_name,annotation\n1.jpg,0 1 2 9 9\n")
    seal(home, "train.csv", "dev.csv")


def write_nih(root: Path) -> None:
    home = root / "ChestX-ray14"
    names = [f"{k:08d}_000.png" for k in (1, 2, 3)]
    for name in names:
        write_picture(home / "images" / name)
    header = "Image Index,Finding Labels,Patient ID,Patient Age,Patient Sex,View Position"
    rows = "".join(f"{name},Mass,{int(name[:8])},50,M,PA\n" for name in names)
    (home / NIH_TABLE).write_text(f"{header}\n{rows}")
    boxes = f"Image Index,Finding Label,Bbox [x,y,w,h],,,\n{names[2]},Mass,1,2,30,30,,,\n"
    (home / nih.BOX_TABLE).write_text(boxes)
    (home / nih.LISTS["train"]).write_text(f"{names[0]}\n{names[1]}\n")
    (home / nih.LISTS["test"]).write_text(f"{names[2]}\n")
    seal(home, NIH_TABLE, nih.BOX_TABLE)


def write_ms_cxr(root: Path) -> None:
    """After `write_mimic`."""
    home = root / "ms-cxr/0.1"
    home.mkdir(parents=True)
    path = f"files/p10/p10000001/s50000001/{DICOM_IDS[0]}.jpg"
    row = f"{DICOM_IDS[0]},Edema,Mild edema.,{path},1,2,30,20,40,32"
    (home / PHRASES).write_text(",".join(ms_cxr.COLUMNS) + f"\n{row}\n")
    seal(home, PHRASES)


def seal(folder: Path, *tables: str) -> None:
    (folder / "SYNTHETIC_DATA.txt").write_text("made up")
    lines = [f"{hashlib.sha256((folder / t).read_bytes()).hexdigest()}  {t}\n" for t in tables]
    (folder / "SHA256SUMS.txt").write_text("".join(lines))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for write in (
        write_chexpert,
        write_rsna,
        write_mimic,
        write_open_i,
        write_covidx,
        write_siim,
        write_objects,
        write_nih,
        write_ms_cxr,
    ):
        write(tmp_path)
    return tmp_path


def found(root: Path, **options: Any) -> list[tuple[str, str, str]]:
    return [(p.kind, p.dataset, p.path) for p in verify(root, **options).problems]


def append(path: Path, line: str) -> None:
    path.write_text(path.read_text() + line + "\n")


def test_a_clean_corpus_has_no_problem(corpus: Path) -> None:
    report = verify(corpus)
    assert report.problems == []
    assert [present.dataset for present in report.datasets] == [
        "chexpert",
        "covidx",
        "mimic",
        "ms_cxr",
        "nih",
        "object_cxr",
        "open_i",
        "rsna",
        "siim",
    ]
    assert all(present.synthetic for present in report.datasets)
    assert found(corpus, decode=False) == []


IMAGE = f"{SMALL}/{TRAIN[1]}.jpg"
DICOM = f"{KAGGLE}/{rsna.IMAGES}/c.dcm"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def colour(path: Path, mode: str = "RGB") -> None:
    pixels = np.stack([NOISE, NOISE // 2, NOISE], axis=-1)
    Image.fromarray(pixels).convert(mode).save(path, "PNG" if mode == "RGBA" else "JPEG")


def break_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere/at/all.jpg")


FILE_FAULTS: dict[str, Callable[[Path], object]] = {
    "zero_byte": lambda path: path.write_bytes(b""),
    "truncated": truncate,
    "not_an_image": lambda path: path.write_bytes(b"<html>expired</html>"),
    "missing_file": lambda path: path.unlink(),
    "wrong_mode": colour,
    "wrong_mode rgba": lambda path: colour(path, "RGBA"),
    "unreadable": lambda path: path.chmod(0),
    "unreadable link": break_link,
}
DICOM_FAULTS: dict[str, Callable[[Path], object]] = {
    "zero_byte": lambda path: path.write_bytes(b""),
    "truncated": truncate,
    "not_an_image": lambda path: path.write_bytes(b"version https://git-lfs.github.com" * 9),
    "missing_file": lambda path: path.unlink(),
    "monochrome1": lambda path: write_dicom(path, "c", photometric="MONOCHROME1"),
    "high_bit_depth": lambda path: write_dicom(path, "c", bits=12),
}


@pytest.mark.parametrize("fault", FILE_FAULTS)
def test_a_faulty_picture_is_the_only_problem(corpus: Path, fault: str) -> None:
    FILE_FAULTS[fault](corpus / IMAGE)
    assert found(corpus) == [(fault.split()[0], "chexpert", IMAGE)]


@pytest.mark.parametrize("fault", DICOM_FAULTS)
def test_a_faulty_dicom_is_the_only_problem(corpus: Path, fault: str) -> None:
    DICOM_FAULTS[fault](corpus / DICOM)
    assert found(corpus) == [(fault, "rsna", DICOM)]


@pytest.mark.parametrize(
    ("dataset", "place"),
    [
        ("chexpert", f"{SMALL}/train/patient00001/study9/view1_frontal.jpg"),
        ("mimic", f"{JPG}/files/p10/p10000001/extra.jpg"),
        ("open_i", "openi/NLMCXR_png/CXR9.png"),
        ("rsna", f"{KAGGLE}/{rsna.IMAGES}/z.dcm"),
        ("rsna", f"{KAGGLE}/{rsna.TEST_IMAGES}/z.dcm"),
    ],
)
def test_an_unlisted_file(corpus: Path, dataset: str, place: str) -> None:
    (corpus / place).parent.mkdir(parents=True, exist_ok=True)
    (corpus / place).write_bytes(b"x")
    assert found(corpus) == [("unlisted_file", dataset, place)]


def test_equal_colour_channels_are_fine(corpus: Path) -> None:
    Image.fromarray(NOISE).convert("RGB").save(corpus / IMAGE)
    assert found(corpus) == []


@pytest.mark.parametrize("box", ["6.0,5.0,35.0,27.0", "5.0,6.0,35.0,27.0", "-1.0,5.0,5.0,5.0"])
def test_a_box_outside_the_image(corpus: Path, box: str) -> None:
    table = corpus / KAGGLE / rsna.LABEL_TABLE
    table.write_text(table.read_text().replace("5.0,5.0,35.0,27.0", box))
    seal(table.parent, table.name)
    assert found(corpus) == [("box_outside", "rsna", f"{KAGGLE}/{rsna.LABEL_TABLE}#b")]
    assert found(corpus, decode=False) == found(corpus)


def test_a_positive_without_a_box(corpus: Path) -> None:
    table = corpus / KAGGLE / rsna.LABEL_TABLE
    table.write_text(table.read_text().replace("c,,,,,0", "c,,,,,1"))
    seal(table.parent, table.name)
    assert found(corpus) == [("box_invalid", "rsna", f"{KAGGLE}/{rsna.LABEL_TABLE}#c")]


@pytest.mark.parametrize(
    ("dataset", "table", "row", "name"),
    [
        ("chexpert", f"{SMALL}/train.csv", 2, TRAIN[1]),
        ("mimic", f"{JPG}/{mimic_cxr.METADATA}", 3, DICOM_IDS[2]),
        ("rsna", f"{KAGGLE}/{rsna.LABEL_TABLE}", 1, "a"),
        ("rsna", f"{KAGGLE}/{rsna.LABEL_TABLE}", 2, "b"),
    ],
)
def test_a_repeated_row(corpus: Path, dataset: str, table: str, row: int, name: str) -> None:
    path = corpus / table
    append(path, path.read_text().splitlines()[row])
    seal(path.parent, path.name)
    assert found(corpus) == [("duplicate_row", dataset, f"{table}#{name}")]


def test_a_changed_table(corpus: Path) -> None:
    append(corpus / SMALL / "SHA256SUMS.txt", f"{'0' * 64}  valid.csv")
    assert found(corpus) == [("table_hash", "chexpert", f"{SMALL}/valid.csv")]


def test_a_chexpert_patient_in_two_splits(corpus: Path) -> None:
    table = corpus / SMALL / "valid.csv"
    table.write_text(table.read_text().replace("patient64541", "patient00001"))
    (corpus / SMALL / "valid/patient64541").rename(corpus / SMALL / "valid/patient00001")
    seal(table.parent, table.name)
    assert found(corpus) == [
        ("patient_in_two_splits", "chexpert", f"{SMALL}/valid.csv#patient00001")
    ]


def test_a_mimic_patient_in_two_splits(corpus: Path) -> None:
    table = corpus / JPG / mimic_cxr.SPLIT
    frame = pd.read_csv(table, dtype=str)
    frame.loc[0, "split"] = "test"
    frame.to_csv(table, index=False)
    seal(table.parent, table.name)
    expected = f"{JPG}/{mimic_cxr.SPLIT}#10000001"
    assert found(corpus) == [("patient_in_two_splits", "mimic", expected)]


@pytest.mark.parametrize(
    ("dataset", "table", "old", "new", "kind", "name"),
    [
        ("nih", nih.BOX_TABLE, "30,30", "40,30", "box_outside", "00000003_000.png"),
        ("nih", nih.BOX_TABLE, "30,30", "0,30", "box_invalid", "00000003_000.png"),
        ("nih", nih.BOX_TABLE, "00000003", "00000009", "box_invalid", "00000009_000.png"),
        ("nih", nih.LISTS["test"], "00000003", "00000002", "patient_in_two_splits", "2"),
        ("nih", nih.LISTS["train"], "00000002", "00000009", "not_in_table", "00000009_000.png"),
        ("ms_cxr", PHRASES, "30,20,40", "40,20,40", "box_outside", DICOM_IDS[0]),
        ("ms_cxr", PHRASES, "30,20,40", "45,20,50", "box_outside", DICOM_IDS[0]),
        ("ms_cxr", PHRASES, "30,20,40", "30,0,40", "box_invalid", DICOM_IDS[0]),
    ],
)
def test_nih_and_ms_cxr_rows(
    corpus: Path, dataset: str, table: str, old: str, new: str, kind: str, name: str
) -> None:
    path = corpus / ("ChestX-ray14" if dataset == "nih" else "ms-cxr/0.1") / table
    path.write_text(path.read_text().replace(old, new))
    sealed = (NIH_TABLE, nih.BOX_TABLE) if dataset == "nih" else (PHRASES,)
    seal(path.parent, *sealed)
    assert found(corpus) == [(kind, dataset, f"{path.relative_to(corpus)}#{name}")]


def test_malformed_shapes_are_listed(corpus: Path) -> None:
    home = corpus / "object-CXR"
    for part, shape in (("train", "0 5 5 5 9"), ("dev", "7 1 2 3 4")):
        (home / f"{part}.csv").write_text(f"image_name,annotation\n1.jpg,{shape}\n")
    seal(home, "train.csv", "dev.csv")
    assert sorted(found(corpus)) == [
        ("box_invalid", "object_cxr", f"object-CXR/{part}.csv#{part}/1.jpg")
        for part in ("dev", "train")
    ]


def test_an_opaque_alpha_channel_is_as_published_for_nih(corpus: Path) -> None:
    path = corpus / "ChestX-ray14/images/00000001_000.png"
    grey = np.stack([NOISE, NOISE, NOISE, np.full_like(NOISE, 255)], axis=-1)
    Image.fromarray(grey).save(path)
    assert found(corpus) == []
    grey[0, 0, 3] = 7
    Image.fromarray(grey).save(path)
    assert found(corpus) == [("wrong_mode", "nih", str(path.relative_to(corpus)))]


def test_a_missing_picture_of_mimic_is_ms_cxr_s_too(corpus: Path) -> None:
    name = f"{JPG}/files/p10/p10000001/s50000001/{DICOM_IDS[0]}.jpg"
    (corpus / name).unlink()
    assert found(corpus) == [("missing_file", d, name) for d in ("mimic", "ms_cxr")]


@pytest.mark.parametrize(
    ("dataset", "table", "old", "new"),
    [
        ("chexpert", f"{SMALL}/valid.csv", "Edema", "Oedema"),
        ("rsna", f"{KAGGLE}/{rsna.LABEL_TABLE}", "width", "breadth"),
        ("mimic", f"{JPG}/{mimic_cxr.SPLIT}", "subject_id", "patient"),
        ("open_i", "openi/ecgen-radiology/1.xml", "</eCitation>", ""),
        ("chexpert", f"{SMALL}/train.csv", "0.0", "5.0"),
    ],
)
def test_an_unreadable_table_is_one_problem(
    corpus: Path, dataset: str, table: str, old: str, new: str
) -> None:
    (corpus / table).write_text((corpus / table).read_text().replace(old, new, 1))
    assert found(corpus) == [("table", dataset, table)]


def test_all_faults_at_once(corpus: Path) -> None:
    faults = ("zero_byte", "truncated", "missing_file", "wrong_mode rgba")
    for fault, name in zip(faults, TRAIN, strict=True):
        FILE_FAULTS[fault](corpus / SMALL / f"{name}.jpg")
    write_dicom(corpus / DICOM, "c", photometric="MONOCHROME1", bits=12)
    kinds = sorted(kind for kind, _, _ in found(corpus))
    assert kinds == [
        "high_bit_depth",
        "missing_file",
        "monochrome1",
        "truncated",
        "wrong_mode",
        "zero_byte",
    ]


def test_sizes_of_real_data_are_compared(corpus: Path) -> None:
    (corpus / "openi" / "SYNTHETIC_DATA.txt").unlink()
    report = verify(corpus, ["open_i"])
    assert {p.kind for p in report.problems} == {"count"}
    assert "openi#images" in {p.path for p in report.problems}
    assert "images 1 (expected 7,470)" in str(report)


def test_the_command_prints_and_returns(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(corpus)]) == 0
    out = capsys.readouterr().out
    assert "chexpert: present in" in out
    assert "0 problems" in out
    (corpus / IMAGE).write_bytes(b"")
    assert main([str(corpus), "--datasets", "chexpert", "--no-decode"]) == 1
    assert f"zero_byte\tchexpert\t{IMAGE}" in capsys.readouterr().out


def test_missing_data_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1  # nothing there at all
    out = capsys.readouterr().out
    assert "rsna is missing; looked for stage_2_train_labels.csv" in out
    assert [p.kind for p in verify(tmp_path, ["mimic"]).problems] == ["missing_dataset"]
    with pytest.raises(DataError, match="unknown data sets"):
        verify(tmp_path, ["imagenet"])


def test_long_lists_are_cut(corpus: Path) -> None:
    for k in range(30):
        (corpus / SMALL / f"train/{k}.jpg").write_bytes(b"x")
    report = verify(corpus)
    assert len(report.problems) == 30
    assert "... and 10 more" in str(report)


def test_nothing_is_written(corpus: Path) -> None:
    def listing() -> set[tuple[str, int]]:
        return {(str(p), p.lstat().st_mtime_ns) for p in corpus.rglob("*")}

    before = listing()
    verify(corpus)
    assert listing() == before
    assert os.path.lexists(corpus / IMAGE)
    assert pydicom.dcmread(corpus / DICOM).PatientID == "c"
