"""MS-CXR: both file forms and releases, phrases, images of MIMIC, and the phantom's sentences."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from common.data import load, mimic_cxr, ms_cxr
from common.data.phantom import write_ms_cxr
from common.data.phantom.world import draw_study
from common.data.phantom.writers import write_corpus
from common.data.records import Box
from common.data.tables import DataError
from common.data.verify import verify

A, B = "-".join(["0000000a"] * 5), "-".join(["0000000b"] * 5)
PATH = "files/p10/p10000001/s5000000{}/{}.jpg"
HEADER = ",".join(ms_cxr.COLUMNS)
ROWS = (
    f"{A},Pneumothorax,Right apical pneumothorax,{PATH.format(1, A)},1,2,30,40,100,80",
    f"{A},Pleural Effusion,Small effusion,{PATH.format(1, A)},5,50,20,30,100,80",
    f"{A},Pleural Effusion,small Effusion,{PATH.format(1, A)},60,50,20,30,100,80",
    f"{B},Edema,,{PATH.format(2, B)},0,0,100,80,100,80",
)


def write(
    root: Path,
    rows: tuple[str, ...] = ROWS,
    *,
    version: str = "1.0.0",
    place: str = "ms-cxr/0.1",
    split: dict[str, str] | None = None,
) -> Path:
    home, images = root / place, root / "mimic-cxr-jpg/2.0.0"
    home.mkdir(parents=True, exist_ok=True)
    lines = [HEADER, *rows]
    if version == "1.1.0":
        lines = [f"{line},{'test' if n else 'split'}" for n, line in enumerate(lines)]
    table = home / f"{ms_cxr.STEM}_v{version}.csv"
    table.write_text("\n".join(lines) + "\n")
    for number, name in ((1, A), (2, B)):
        path = images / PATH.format(number, name)
        path.parent.mkdir(parents=True)
        path.write_bytes(b"pixels")
    (images / mimic_cxr.METADATA).write_text("dicom_id\n")
    if split is not None:
        parts = "".join(f"{name},{part}\n" for name, part in split.items())
        (images / mimic_cxr.SPLIT).write_text(f"dicom_id,split\n{parts}")
    return table


def as_json(table: Path) -> None:
    """The COCO file in place of the table; an empty text becomes NaN."""
    frame = pd.read_csv(table, keep_default_na=False)
    names = list(dict.fromkeys(frame["dicom_id"]))
    images, notes = {}, []
    for row in frame.to_dict("records"):
        number = names.index(row["dicom_id"]) + 1
        size = {"width": row["image_width"], "height": row["image_height"]}
        name = f"{row['dicom_id']}.jpg"
        images[number] = {"id": number, "file_name": name, "path": row["path"], **size}
        box = [row[k] for k in ("x", "y", "w", "h")]
        kind = ms_cxr.CATEGORIES.index(row["category_name"]) + 1
        note = {"image_id": number, "category_id": kind, "bbox": box}
        notes.append({**note, "label_text": row["label_text"] or float("nan")})
    kinds = [{"id": n, "name": name} for n, name in enumerate(ms_cxr.CATEGORIES, start=1)]
    content = {"images": list(images.values()), "annotations": notes, "categories": kinds}
    table.with_suffix(".json").write_text(json.dumps(content))
    table.unlink()


@pytest.mark.parametrize("coco", [False, True])
@pytest.mark.parametrize(
    ("version", "place"),
    [("1.0.0", "ms-cxr/0.1"), ("1.1.0", "ms-cxr/1.1.0"), ("1.0.0", "MS-CXR"), ("1.1.0", ".")],
)
def test_both_releases_and_both_forms(tmp_path: Path, version: str, place: str, coco: bool) -> None:
    table = write(tmp_path, version=version, place=place)
    if coco:
        as_json(table)
    found = ms_cxr.load(tmp_path)
    assert list(found.frame["image_id"]) == [A, B]
    assert list(found.frame["study_id"]) == ["50000001", "50000002"]
    assert list(found.frame["patient_id"]) == ["10000001", "10000001"]
    assert found.root == tmp_path / "mimic-cxr-jpg/2.0.0"
    assert all(record.path.is_file() for record in found)
    assert set(found.frame["source_split"]) == {"test"}
    assert [[k for k, v in record.labels.items() if v] for record in found] == [
        ["Pleural Effusion", "Pneumothorax"],
        ["Edema"],
    ]
    assert found.boxes[A][0] == Box(1, 2, 30, 40, "Pneumothorax")
    assert [len(boxes) for boxes in found.boxes.values()] == [3, 1]
    assert found.rows_in == 2


@pytest.mark.parametrize("text", [".", "___", " - "])
def test_a_text_without_a_word_counts_as_none(tmp_path: Path, text: str) -> None:
    table = write(tmp_path)
    frame = pd.read_csv(table, keep_default_na=False)
    frame["label_text"] = text
    frame.to_csv(table, index=False)
    assert ms_cxr.left_out(tmp_path)["boxes_without_text"] == len(frame)
    assert not ms_cxr.phrases(tmp_path)


@pytest.mark.parametrize("coco", [False, True])
def test_phrases(tmp_path: Path, coco: bool, caplog: pytest.LogCaptureFixture) -> None:
    table = write(tmp_path)
    if coco:
        as_json(table)
    with caplog.at_level(logging.WARNING):
        found = ms_cxr.phrases(tmp_path)
    assert "1 boxes without a phrase" in caplog.text
    assert ms_cxr.left_out(tmp_path) == {"repeated_rows": 0, "boxes_without_text": 1}
    assert [(p.text, p.category, len(p.boxes)) for p in found] == [
        ("Right apical pneumothorax", "Pneumothorax", 1),
        ("Small effusion", "Pleural Effusion", 2),
    ]
    assert found[1].boxes[1] == Box(60, 50, 20, 30, "Pleural Effusion")
    assert (found[0].image_id, found[0].width, found[0].height) == (A, 100, 80)
    assert found[0].path.is_file()


def test_of_two_findings_under_one_sentence_the_last_names_the_category(tmp_path: Path) -> None:
    both = tuple(row.replace("Pleural Effusion,small", "Pneumonia,small") for row in ROWS)
    write(tmp_path, both)
    phrase = ms_cxr.phrases(tmp_path)[1]
    assert (phrase.text, phrase.category) == ("Small effusion", "Pneumonia")
    assert [box.label for box in phrase.boxes] == ["Pleural Effusion", "Pneumonia"]


def test_a_repeated_row_is_one_box_and_one_duplicate(tmp_path: Path) -> None:
    write(tmp_path, (*ROWS, ROWS[2]))
    found = ms_cxr.load(tmp_path)
    assert found.exclusions.counts == {"duplicate": 1}
    assert len(found.boxes[A]) == 3
    assert len(ms_cxr.phrases(tmp_path)[1].boxes) == 2
    assert ms_cxr.left_out(tmp_path) == {"repeated_rows": 1, "boxes_without_text": 1}


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ("5,50,0,30,100,80", "box of zero or negative area in data row 2"),
        ("5,50,20,31,100,80", "box outside the image in data row 2"),
        ("-1,50,20,30,100,80", "box outside the image in data row 2"),
        ("90,50,20,30,100,80", "box outside the image in data row 2"),
        ("5,fifty,20,30,100,80", "box or image size is no number in data row 2"),
        ("5,50,20,30,100,90", "has two sizes"),
    ],
)
def test_invalid_boxes_are_refused(tmp_path: Path, box: str, words: str) -> None:
    row = ROWS[1].replace("5,50,20,30,100,80", box)
    table = write(tmp_path, (ROWS[0], row, *ROWS[2:]))
    for read in (ms_cxr.load, ms_cxr.phrases):
        with pytest.raises(DataError, match=words) as error:
            read(tmp_path)
        assert table.name in str(error.value)
        assert A in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Edema", "Oedema", "category_name is 'Oedema' in data row 4; expected one of Atelectasis"),
        (
            "files/p10/p10000001/s50000002",
            "/etc",
            "path is '/etc/.*in data row 4; expected files/p",
        ),
        (f"{B},Edema", f"{A},Edema", "path is .*in data row 4"),
        ("label_text", "phrase", r"no column \['label_text'\]"),
    ],
)
def test_edited_tables_are_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    table = write(tmp_path)
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(DataError, match=words):
        ms_cxr.load(tmp_path)


@pytest.mark.parametrize("content", ["{", "{}", '{"images": [], "annotations": [{}]}', "[]"])
def test_another_json_is_refused(tmp_path: Path, content: str) -> None:
    table = write(tmp_path)
    table.unlink()
    table.with_suffix(".json").write_text(content)
    with pytest.raises(DataError, match="not COCO annotations"):
        ms_cxr.load(tmp_path)


def test_missing_data_sets(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ms_cxr is missing; looked for MS_CXR_Local_Alignment_v1"):
        ms_cxr.load(tmp_path)
    write(tmp_path)
    (tmp_path / "mimic-cxr-jpg/2.0.0" / PATH.format(1, A)).unlink()
    assert ms_cxr.load(tmp_path).exclusions.counts == {"missing_file": 1}
    (tmp_path / "mimic-cxr-jpg/2.0.0" / PATH.format(2, B)).write_bytes(b"")
    assert ms_cxr.load(tmp_path).exclusions.counts == {"missing_file": 1, "zero_byte": 1}
    (tmp_path / "mimic-cxr-jpg/2.0.0" / PATH.format(2, B)).unlink()
    with pytest.raises(DataError, match="none of the 2 annotated images"):
        ms_cxr.load(tmp_path)
    (tmp_path / "mimic-cxr-jpg/2.0.0" / mimic_cxr.METADATA).unlink()
    with pytest.raises(DataError, match="mimic is missing"):
        ms_cxr.load(tmp_path)


def test_images_seen_in_pretraining(tmp_path: Path) -> None:
    write(tmp_path, split={A: "train", "other": "train"})
    expected = {"train": 1, "validate": 0, "test": 0, "": 1}
    assert ms_cxr.seen_in_pretraining(tmp_path) == expected


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ms_cxr")
    write_corpus(root, size="ci", datasets=["ms_cxr", "mimic"], workers=1)
    return root


def test_phantom_round_trip(phantom: Path) -> None:
    """World to disk to loader: pictures, boxes and sentences are those of the phantom's MIMIC."""
    assert verify(phantom, ["ms_cxr", "mimic"]).problems == []
    world = pd.read_json(phantom / "world/mimic.jsonl", lines=True).set_index("image_id")
    table, reports = load("ms_cxr", phantom), mimic_cxr.read_reports(phantom)
    mimic = load("mimic", phantom).select(table.frame["image_id"])
    assert not table.exclusions.total()
    assert [record.path for record in table] == [record.path for record in mimic]
    assert list(table.frame["mimic_split"]) == list(mimic.frame["source_split"])
    phrases = ms_cxr.phrases(phantom)
    assert len(phrases) >= len(table) > 3
    for phrase in phrases:
        line = world.loc[phrase.image_id]
        assert (phrase.width, phrase.height) == (line["width"], line["height"])
        report = " ".join(" ".join(reports.loc[str(line["extra"]["study_id"])]).split())
        assert phrase.text in report
        name = phrase.category
        name = "Consolidation" if name in ("Pneumonia", "Lung Opacity") else name
        boxes = [[box.x, box.y, box.width, box.height] for box in phrase.boxes]
        assert boxes == line["boxes"][name]
    seen = ms_cxr.seen_in_pretraining(phantom)
    assert seen["train"] > 0
    assert seen["test"] > seen["train"]
    assert seen["validate"] == seen[""] == 0


def test_the_phantom_s_csv_and_json_agree(phantom: Path, tmp_path: Path) -> None:
    home = phantom / write_ms_cxr.ROOT
    frames = [ms_cxr.read_rows(home / n) for n in (write_ms_cxr.TABLE, write_ms_cxr.JSON)]
    pd.testing.assert_frame_equal(*frames)


def test_one_sentence_states_a_finding_and_every_category_occurs() -> None:
    categories = set()
    for index in range(2500):
        study = replace(draw_study(2, index, site="mimic"), quirk="")
        text = study.sections["findings"].split(". ")
        for finding, sentence in write_ms_cxr.statements(study):
            words = write_ms_cxr.STATED[finding.label]
            assert sum(bool(words.search(part.lower())) for part in text) == 1, text
            assert "no " not in sentence.lower()
            categories.add(write_ms_cxr.category_of(finding, sentence))
    assert categories == set(ms_cxr.CATEGORIES)


def test_annotations_are_added_to_a_written_corpus(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ms_cxr annotates the pictures of mimic: write mimic too"):
        write_corpus(tmp_path, size="ci", datasets=["ms_cxr"], workers=1)
    write_corpus(tmp_path, size="ci", datasets=["mimic"], workers=1)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    write_corpus(tmp_path, size="ci", datasets=["ms_cxr"], workers=1)
    assert files.items() <= {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}.items()
    assert len(ms_cxr.phrases(tmp_path)) > 3
