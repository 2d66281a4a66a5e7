"""RSNA: one row an image, boxes kept in pixels, edited tables refused."""

from pathlib import Path

import pandas as pd
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from common.data import rsna
from common.data.tables import DataError

A, B, C = (f"{k}{k}{k}{k}-img" for k in "abc")
HEADER = "patientId,x,y,width,height,Target\n"
ROWS = f"{A},,,,,0\n{B},264.0,152.0,213.0,379.0,1\n{B},562.0,152.0,256.0,453.0,1\n{C},,,,,0\n"
CLASSES = f"patientId,class\n{A},Normal\n{B},Lung Opacity\n{B},Lung Opacity\n"
CLASSES += f"{C},No Lung Opacity / Not Normal\n"


def write(root: Path, rows: str = ROWS, classes: str = CLASSES) -> Path:
    (root / rsna.IMAGES).mkdir(parents=True)
    (root / rsna.LABEL_TABLE).write_text(HEADER + rows)
    if classes:
        (root / rsna.CLASS_TABLE).write_text(classes)
    for name in (A, B, C):
        (root / rsna.IMAGES / f"{name}.dcm").write_bytes(b"pixels")
    return root


@pytest.mark.parametrize("folder", ["rsna-pneumonia-detection-challenge", "rsna", "."])
def test_one_row_an_image(tmp_path: Path, folder: str) -> None:
    write(tmp_path / folder)
    table = rsna.load(tmp_path)
    assert list(table.frame["image_id"]) == [A, B, C]
    assert list(table.labels["Pneumonia"]) == [0, 1, 0]
    classes = ["Normal", "Lung Opacity", "No Lung Opacity / Not Normal"]
    assert list(table.frame["detailed_class"]) == classes  # repeated like the boxes, never merged
    assert [len(record.boxes) for record in table] == [0, 2, 0]
    box = table[1].boxes[0]
    assert (box.x, box.y, box.width, box.height, box.label) == (264, 152, 213, 379, "Pneumonia")
    assert table.rows_in == 3
    assert table[0].path.is_file()


def test_the_class_table_is_optional(tmp_path: Path) -> None:
    write(tmp_path, classes="")
    assert list(rsna.load(tmp_path).frame["detailed_class"]) == ["", "", ""]


def test_missing_and_empty_dicoms_are_counted(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / rsna.IMAGES / f"{A}.dcm").unlink()
    (tmp_path / rsna.IMAGES / f"{C}.dcm").write_bytes(b"")
    assert rsna.load(tmp_path).exclusions.counts == {"missing_file": 1, "zero_byte": 1}


def test_a_repeated_row_is_one_box_and_one_duplicate(tmp_path: Path) -> None:
    write(tmp_path, rows=ROWS + ROWS.splitlines()[1] + "\n" + ROWS.splitlines()[0] + "\n")
    table = rsna.load(tmp_path)
    assert table.exclusions.counts == {"duplicate": 2}
    assert [len(record.boxes) for record in table] == [0, 2, 0]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{},,,,,1", "positive without a complete box"),
        ("{},1,2,,4,1", "positive without a complete box"),
        ("{},nan,2,3,4,1", "positive without a complete box"),
        ("{},1,2,0,4,1", "zero or negative area"),
        ("{},-1,2,3,4,1", "starts outside the image"),
        ("{},inf,2,3,4,1", "not finite"),
        ("{},1,2,3,4,0", "negative with a box"),
        ("{},1,2,3,4,2", "'Target' is '2' in data row 5"),
        ("{},1,2,3,4,-1", "Target must be 0 or 1"),
        ("{},1,2,3,4,", "Target must be 0 or 1"),
        ("{},1,2,wide,4,1", "width is 'wide' in data row 5"),
        (A + ",1,2,3,4,1", "an image has Target 0 and 1"),
    ],
)
def test_invalid_rows_are_refused(tmp_path: Path, row: str, words: str) -> None:
    write(tmp_path, rows=ROWS + row.format("dddd-img") + "\n")
    with pytest.raises(DataError, match=words) as error:
        rsna.load(tmp_path)
    assert rsna.LABEL_TABLE in str(error.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [(f"{A},Lung Opacity", "two classes for one image"), (f"{A},Sick", "class 'Sick'; expected")],
)
def test_an_edited_class_table_is_refused(tmp_path: Path, line: str, words: str) -> None:
    write(tmp_path, classes=CLASSES + line + "\n")
    with pytest.raises(DataError, match=words):
        rsna.load(tmp_path)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    frame = pd.read_csv(tmp_path / rsna.LABEL_TABLE).drop(columns="width")
    frame.to_csv(tmp_path / rsna.LABEL_TABLE, index=False)
    with pytest.raises(DataError, match=r"no column \['width'\]"):
        rsna.load(tmp_path)


def test_other_layouts_are_indexed_by_the_header(tmp_path: Path) -> None:
    write(tmp_path)
    for old in (tmp_path / rsna.IMAGES).iterdir():
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
            SecondaryCaptureImageStorage,
            UID("1.2"),
        )
        image = Dataset()
        image.file_meta, image.PatientID = meta, old.stem
        image.SOPClassUID, image.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2"
        new = tmp_path / f"1.2.{ord(old.name[0])}" / "1.3" / "1.4.dcm"
        new.parent.mkdir(parents=True)
        pydicom.dcmwrite(new, image, enforce_file_format=True)
        old.unlink()
    (tmp_path / rsna.IMAGES).rmdir()
    (tmp_path / "1.2.97" / "broken.dcm").write_bytes(b"")
    table = rsna.load(tmp_path)
    assert list(table.frame["path"]) == [f"1.2.{k}/1.3/1.4.dcm" for k in (97, 98, 99)]


def test_an_absent_corpus(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rsna is missing; looked for stage_2_train_labels"):
        rsna.load(tmp_path)
