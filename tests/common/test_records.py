"""The record table: every row is accounted for."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.data.labels import apply_policy
from common.data.records import Box, Exclusions, RecordTable, assemble, drop_absent
from common.data.tables import (
    DataError,
    files_below,
    find_table,
    read_labels,
    read_table,
    resolve_inside,
)


def rows(*ids: str, **columns: object) -> pd.DataFrame:
    frame = pd.DataFrame({"image_id": list(ids)})
    frame["study_id"] = frame["patient_id"] = frame["image_id"]
    frame["path"] = frame["image_id"] + ".png"
    frame["view"], frame["source_split"] = "frontal", "train"
    return frame.assign(**columns)


def labels(*values: float) -> pd.DataFrame:
    return pd.DataFrame({"Edema": np.array(values, dtype="float32")})


def table(root: Path, *ids: str, values: Sequence[float] | None = None) -> RecordTable:
    values = values if values is not None else [1.0] * len(ids)
    return assemble(rows(*ids), labels(*values), dataset="toy", root=root, table_sha256="0")


def test_where_counts_what_it_leaves_out(tmp_path: Path) -> None:
    full = table(tmp_path, *"abcdefgh")
    kept = full.where(full.frame["image_id"] < "c", "late").where([True, False], "second")
    assert list(kept.frame["image_id"]) == ["a"]
    assert kept.exclusions.counts == {"late": 6, "second": 1}
    assert kept.exclusions.examples["late"] == list("cdefg")
    assert full.exclusions.total() == 0
    kept.save_exclusions(tmp_path / "deep" / "exclusions.json")
    report = json.loads((tmp_path / "deep" / "exclusions.json").read_text())
    assert report["rows_in"] == report["rows_out"] + sum(report["excluded"].values()) == 8


def test_unaccounted_rows_are_refused(tmp_path: Path) -> None:
    whole = table(tmp_path, "a", "b")
    with pytest.raises(ValueError, match="3 rows in, 2 out"):
        RecordTable("toy", tmp_path, whole.frame, whole.labels, Exclusions(), 3, "0")
    with pytest.raises(ValueError, match="no column"):
        RecordTable("toy", tmp_path, whole.frame[["image_id"]], whole.labels, Exclusions(), 2, "0")


def test_repeated_rows_count_and_contradicting_rows_fail(tmp_path: Path) -> None:
    again = table(tmp_path, "a", "b", "a")
    assert again.exclusions.counts == {"duplicate": 1}
    assert len(again) == 2
    with pytest.raises(DataError, match=r"two different rows.*'a'"):
        table(tmp_path, "a", "b", "a", values=[1, 1, 0])


def test_absent_and_empty_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "b.png").touch()
    found = drop_absent(table(tmp_path, *"abc"), (".png",))
    assert list(found.frame["image_id"]) == ["a"]
    assert found.exclusions.counts == {"missing_file": 1, "zero_byte": 1}
    with pytest.raises(DataError, match="none of the 1 listed images"):
        drop_absent(table(tmp_path, "c"), (".png",))


def test_select_keeps_order_and_names_unknown_ids(tmp_path: Path) -> None:
    whole = table(tmp_path, *"abc", values=[0, 1, -1])
    part = whole.select(["c", "a"])
    assert list(part.frame["image_id"]) == ["c", "a"]
    assert list(part.labels["Edema"]) == [-1, 0]
    with pytest.raises(KeyError, match="zzz"):
        whole.select(["a", "zzz"])


def test_a_record_carries_sections_and_boxes(tmp_path: Path) -> None:
    box = Box(1, 2, 3, 4, "Pneumonia")
    record = assemble(
        rows("a", section_findings="Clear."),
        labels(np.nan),
        dataset="toy",
        root=tmp_path,
        table_sha256="0",
        boxes={"a": (box,)},
    )[0]
    assert record.sections == {"findings": "Clear."}
    assert record.boxes == (box,)
    assert record.path == tmp_path / "a.png"
    assert np.isnan(record.labels["Edema"])


def test_tables_keep_words_that_pandas_takes_for_missing(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id , comparison\n007,None\n008,NA\n")
    frame = read_table(path, ["id", "comparison"])
    assert frame.to_numpy().tolist() == [["007", "None"], ["008", "NA"]]
    with pytest.raises(DataError, match=r"t\.csv: no column \['other'\]"):
        read_table(path, ["other"])


def test_labels_outside_their_set_name_row_and_value(tmp_path: Path) -> None:
    frame = pd.DataFrame({"Edema": ["1.0", "", "-1", "2"]})
    with pytest.raises(DataError, match=r"'Edema' is '2' in data row 4"):
        read_labels(frame, ["Edema"], path=tmp_path / "train.csv")
    got = read_labels(frame[:3], ["Edema"], path=tmp_path)["Edema"]
    np.testing.assert_array_equal(got, np.array([1, np.nan, -1], dtype="float32"))


def test_packed_and_plain_tables_must_agree(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": ["1"]})
    frame.to_csv(tmp_path / "t.csv.gz", index=False)
    assert find_table(tmp_path, "t.csv").name == "t.csv.gz"
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert find_table(tmp_path, "t.csv").name == "t.csv"
    (tmp_path / "t.csv").write_text("a\n2\n")
    with pytest.raises(DataError, match="differ; keep the one you mean"):
        find_table(tmp_path, "t.csv")


@pytest.mark.parametrize("name", ["/etc/passwd", "../up.png", "a/../../b.png"])
def test_paths_stay_inside_the_root(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="points outside"):
        resolve_inside(tmp_path, name)


def test_files_below_lists_sizes(tmp_path: Path) -> None:
    (tmp_path / "sub dir & more").mkdir()
    (tmp_path / "sub dir & more" / "A.PNG").write_bytes(b"123")
    (tmp_path / "b.txt").write_bytes(b"1")
    assert files_below(tmp_path, (".png",)) == {"sub dir & more/A.PNG": 3}


def test_files_below_follows_links_once(tmp_path: Path) -> None:
    """Folders of large sets are often linked from another disk."""
    home, disk = tmp_path / "home", tmp_path / "disk"
    (disk / "train").mkdir(parents=True)
    (disk / "train" / "a.png").write_bytes(b"12")
    home.mkdir()
    (home / "files").symlink_to(disk)
    (disk / "loop").symlink_to(home)
    assert files_below(home, (".png",)) == {"files/train/a.png": 2}


def test_files_below_follows_links_inside_and_those_of_one_folder(tmp_path: Path) -> None:
    """Both parts of COVIDx may be links to one folder; folders that link each other end."""
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "a.png").write_bytes(b"1")
    for part in ("train", "test"):
        (tmp_path / part).symlink_to("all")
    assert set(files_below(tmp_path, (".png",))) == {"all/a.png", "train/a.png", "test/a.png"}
    (tmp_path / "other").mkdir()
    (tmp_path / "all" / "to_other").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "to_all").symlink_to(tmp_path / "all")
    names = set(files_below(tmp_path, (".png",)))
    assert "other/to_all/a.png" in names
    assert not any("to_other/to_all" in name for name in names)


def test_policies_map_four_states() -> None:
    frame = pd.DataFrame(
        {"Edema": [1.0, 0.0, -1.0, np.nan], "Cardiomegaly": [1.0, 0.0, -1.0, np.nan]}
    )
    assert apply_policy(frame, "chexpert_mixed").to_numpy().T.tolist() == [
        [1, 0, 1, 0],
        [1, 0, 0, 0],
    ]
    assert apply_policy(frame, "u_ones")["Cardiomegaly"].tolist() == [1, 0, 1, 0]
    assert np.isnan(apply_policy(frame, "u_ignore")["Edema"][2])
    with pytest.raises(ValueError, match="unknown label policy"):
        apply_policy(frame, "ones")
    with pytest.raises(ValueError, match="no rule for 'Fracture'"):
        apply_policy(frame.rename(columns={"Edema": "Fracture"}), "chexpert_mixed")
