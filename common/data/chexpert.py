"""CheXpert: 224,316 chest radiographs of 65,240 patients with 14 labels drawn from the reports.

Origin: Stanford Hospital, 2002 to 2017, released by the Stanford ML group and Stanford AIMI; the
reports followed as CheXpert Plus. Access: registration with Stanford AIMI and its research-use
agreement; no redistribution. Citation: Irvin et al., "CheXpert: a large chest radiograph dataset
with uncertainty labels and expert comparison", AAAI 2019; Chambon et al., "CheXpert Plus", 2024.

Layouts read, below the data root: `CheXpert-v1.0-small/`, `CheXpert-v1.0/`, the batches of the AIMI
download (no `train` level, patients spread by number), and mirrors without a top folder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from common.data.labels import CHEXPERT_14, COMPETITION
from common.data.records import EXAMPLES, RecordTable, assemble
from common.data.tables import (
    DataError,
    files_below,
    find_table,
    first_home,
    has_table,
    read_labels,
    read_table,
    table_sha256,
)

ROOTS: tuple[str, ...] = (
    "CheXpert-v1.0-small",
    "CheXpert-v1.0",
    "chexpert/CheXpert-v1.0-small",
    "chexpert/CheXpert-v1.0",
    "chexpert",
    "CheXpert",
    "chexpertchestxrays-u20210408",
    ".",
)
REPORT_ROOTS: tuple[str, ...] = (
    "chexpertplus",
    "CheXpert-Plus",
    "CheXpert_Plus",
    "CheXpertPlus",
    "chexpert_plus",
    "chexpert-plus",
    ".",
)
SUFFIXES = (".jpg", ".png")
TEST_TABLES = ("test_labels.csv", "groundtruth.csv")
SECTIONS = ("section_findings", "section_impression")
DETAILS = {"Sex": "sex", "Age": "age", "AP/PA": "ap_pa"}

BATCHES = {
    1: "CheXpert-v1.0 batch 1 (validate & csv)",
    2: "CheXpert-v1.0 batch 2 (train 1)",
    3: "CheXpert-v1.0 batch 3 (train 2)",
    4: "CheXpert-v1.0 batch 4 (train 3)",
}
BATCH_STARTS = (21514, 43018)
"""First patient numbers of batches 3 and 4."""

ZERO_IN_5X200 = (
    "Enlarged Cardiomediastinum",
    "Lung Lesion",
    "Lung Opacity",
    "Pneumonia",
    "Pneumothorax",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""Labels that must be 0 beside the other four competition findings; No Finding is not tested."""

_KEY = re.compile(
    r"^(?:[^/]+/)?(?P<image_id>(?P<part>train|valid|val|test)/(?P<patient_id>patient\d+)"
    r"/(?P<study>study\d+)/view\d+_(?P<view>frontal|lateral))\.(?P<suffix>jpg|png)$"
)
_PATH_ALIAS = {"path_to_image": "path", "Path": "path"}
_TEXT_COLUMNS = ("section_impression", "Report Impression", "report")
"""The first one present is the impression; CheXpert Plus has the whole `report` too."""


class Home(NamedTuple):
    """Where a copy of CheXpert lies."""

    root: Path
    tables: Path
    batches: bool


def find_home(data_root: Path, names: Sequence[str] = ("train.csv", "valid.csv")) -> Home:
    """The first of `ROOTS` that holds one of the tables `names`.

    Raises:
        DataError: If none does; lists the places looked in.
    """

    def tables_of(folder: Path) -> Path | None:
        places = (folder, folder / BATCHES[1])
        return next((p for p in places if any(has_table(p, name) for name in names)), None)

    folder = first_home(
        data_root,
        ROOTS,
        lambda folder: tables_of(folder) is not None,
        dataset="chexpert",
        wanted=" or ".join(names),
    )
    tables = tables_of(folder) or folder
    return Home(folder, tables, (folder / BATCHES[2]).is_dir() or tables != folder)


def load(
    data_root: Path, parts: Sequence[str] = ("train", "valid"), *, check_files: bool = True
) -> RecordTable:
    """The images of `train.csv` and `valid.csv`.

    `image_id` is the path below the dataset's prefix without extension, for instance
    `train/patient00001/study1/view1_frontal`; extra columns are `sex`, `age` and `ap_pa`.
    `table_sha256` covers both tables whatever `parts` asks for, so that splits stay comparable.

    Args:
        data_root: Folder that holds one of `ROOTS`.
        parts: Tables to read, of `train` and `valid`.
        check_files: Look for the image files; false loads the tables alone.

    Raises:
        DataError: If a table is absent or malformed.
    """
    home = find_home(data_root)
    rows = [read_part(home, part) for part in parts]
    frame = pd.concat([frame for frame, _ in rows], ignore_index=True)
    labels = pd.concat([labels for _, labels in rows], ignore_index=True)
    return assemble(
        frame,
        labels,
        dataset="chexpert",
        root=home.root,
        table_sha256=table_sha256(*tables(home)),
        suffixes=SUFFIXES if check_files else (),
    )


def tables(home: Home) -> list[Path]:
    """The label tables present: train, then valid."""
    found = []
    for name in ("train.csv", "valid.csv"):
        if has_table(home.tables, name):
            found.append(find_table(home.tables, name))
    return found


def read_part(home: Home, part: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every row of one table as it stands, repeated rows included: columns and labels."""
    path = find_table(home.tables, f"{part}.csv")
    table = read_table(path, ["Path", "Frontal/Lateral", *CHEXPERT_14])
    frame = _split_paths(table["Path"], path)
    # The column decides, not `view1`: 16 first views are lateral.
    named = table["Frontal/Lateral"].str.strip().str.lower()
    frame["view"] = named.where(named.isin(["frontal", "lateral"]), "other")
    frame["source_split"] = part
    if home.batches:
        frame["path"] = _batch_paths(frame["path"])
    for source, name in DETAILS.items():
        frame[name] = table.get(source, "")
    return frame, read_labels(table, CHEXPERT_14, path=path)


def _split_paths(paths: pd.Series, table: Path) -> pd.DataFrame:
    """Ids and the path below the prefix; `view` is the file name's."""
    text = paths.str.strip()
    frame = text.str.extract(_KEY)
    bad = frame["image_id"].isna()
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"{table}: Path {paths.iloc[row]!r} in data row {row + 1} is not "
            "<prefix>/<train|valid|test>/patient<n>/study<n>/view<n>_<frontal|lateral>.jpg"
        )
    frame["path"] = frame["image_id"] + "." + frame.pop("suffix")
    frame["study_id"] = frame["patient_id"] + "/" + frame.pop("study")
    frame["source_split"] = frame.pop("part")
    return frame


def _batch_paths(paths: pd.Series) -> pd.Series:
    """Paths of the AIMI batches, which have no `train` level."""
    number = paths.str.extract(r"/patient(\d+)/", expand=False).astype(int)
    batch = pd.Series(2 + np.searchsorted(BATCH_STARTS, number, side="right"), index=paths.index)
    train = batch.map(BATCHES) + "/" + paths.str.removeprefix("train/")
    return train.where(paths.str.startswith("train/"), BATCHES[1] + "/" + paths)


def load_test(data_root: Path, *, check_files: bool = True) -> RecordTable:
    """The 668 expert-labelled test images of 500 studies.

    Images and labels come from `test_labels.csv`; where only `groundtruth.csv` (one row a study)
    exists, the images below `test/` are joined to it by study, never by position. With both tables
    they must agree.

    Raises:
        DataError: If both tables are absent, malformed, or contradict each other.
    """
    home = find_home(data_root, TEST_TABLES)
    listed, truth = (
        find_table(home.tables, n) if has_table(home.tables, n) else home.tables / n
        for n in TEST_TABLES
    )
    if listed.is_file():
        table = read_table(listed, ["Path", *CHEXPERT_14])
        frame = _split_paths(table["Path"], listed)
        labels = read_labels(table, CHEXPERT_14, path=listed)
        if truth.is_file() and not labels.equals(_labels_by_study(truth, frame)):
            raise DataError(f"{listed} and {truth.name} disagree; restore the original tables")
    else:
        names = [name for name in files_below(home.root, SUFFIXES) if name.startswith("test/")]
        frame = _split_paths(pd.Series(sorted(names), dtype=str), home.root / "test")
        labels = _labels_by_study(truth, frame)
    loaded = assemble(
        frame,
        labels,
        dataset="chexpert",
        root=home.root,
        table_sha256=table_sha256(*(path for path in (listed, truth) if path.is_file())),
        suffixes=SUFFIXES if check_files else (),
    )
    unlabelled = loaded.labels.isna().all(axis=1)
    return loaded.where(~unlabelled, "unlabelled") if unlabelled.any() else loaded


def _labels_by_study(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """`groundtruth.csv` for the studies of `frame`, row by row; blank where it has none."""
    table = read_table(path, ["Study", *CHEXPERT_14])
    labels = read_labels(table, CHEXPERT_14, path=path)
    labels.index = pd.Index(table["Study"].str.extract(r"(patient\d+/study\d+)$", expand=False))
    return labels.reindex(frame["study_id"]).reset_index(drop=True)


def load_reports(data_root: Path, table: Path | None = None) -> pd.DataFrame:
    """Report sections by image id: columns `section_findings` and `section_impression`.

    Args:
        data_root: Folder that holds one of `REPORT_ROOTS` with CheXpert Plus's
            `df_chexpert_plus_<date>.csv`.
        table: Read this CSV instead. It needs a column `path_to_image`, `Path` or `path`, and
            one of `section_impression`, `Report Impression` and `report` (the first of them is
            taken as the impression); `section_findings` and `split` are optional.

    Returns:
        Index `image_id`; absent text is "". `split` is "" where the table has none.

    Raises:
        DataError: If there is no table, a column lacks, or one image has two different texts.
    """
    path = table or find_reports(data_root)
    rows = read_table(path, ["path"], alias=_PATH_ALIAS)
    named = next((name for name in _TEXT_COLUMNS if name in rows), None)
    if named is None:
        raise DataError(f"{path}: no column {' or '.join(_TEXT_COLUMNS)}; has {list(rows.columns)}")
    rows["section_impression"] = rows[named]
    key = r"((?:train|valid|val|test)/patient\d+/study\d+/view\d+_(?:frontal|lateral))"
    rows["image_id"] = rows["path"].str.extract(key, expand=False)
    if rows["image_id"].isna().any():
        bad = rows["path"][rows["image_id"].isna()].iloc[0]
        raise DataError(f"{path}: {bad!r} names no image of CheXpert")
    reports = pd.DataFrame(index=pd.Index(rows["image_id"]))
    for name in (*SECTIONS, "split"):
        text = rows[name].str.strip() if name in rows else pd.Series("", index=rows.index)
        # pandas writes absent text as the word; no report consists of it.
        reports[name] = text.mask(text.str.lower() == "nan", "").to_numpy()
    reports = reports[~reports.reset_index().duplicated().to_numpy()]
    twice = reports.index[reports.index.duplicated()]
    if len(twice):
        raise DataError(f"{path}: two different reports for {list(twice[:EXAMPLES])}")
    return reports


def find_reports(data_root: Path) -> Path:
    """CheXpert Plus's table.

    Raises:
        DataError: If there is none; lists the places looked in.
    """
    for name in REPORT_ROOTS:
        found = sorted((data_root / name).glob("df_chexpert_plus_*.csv*"))
        if found:
            return found[-1]
    looked = "".join(f"\n  {data_root / name}/df_chexpert_plus_*.csv" for name in REPORT_ROOTS)
    raise DataError(f"CheXpert has no reports of its own, and CheXpert Plus is missing:{looked}")


def join_reports(
    table: RecordTable, reports: pd.DataFrame, *, keep_unmatched: bool = False
) -> RecordTable:
    """`table` with the report sections as columns.

    Rows without a report are counted under `no_report`, or kept with empty sections. A report whose
    section is empty is a match: what to do then depends on the paper's choice of section.
    """
    matched = table.frame["image_id"].isin(reports.index)
    frame = table.frame.copy()
    for name in SECTIONS:
        text = reports[name].to_dict()
        frame[name] = [text.get(image_id, "") for image_id in frame["image_id"]]
    joined = replace(table, frame=frame)
    return joined if keep_unmatched or matched.all() else joined.where(matched, "no_report")


def five_by_200(
    table: RecordTable, *, seed: int | np.random.RandomState, per_class: int | None = None
) -> pd.DataFrame:
    """The 5x200 set: frontal training images with exactly one competition finding.

    Blank counts as 0 and uncertain (-1) excludes; `ZERO_IN_5X200` must be 0 too. Classes are drawn
    in the order of `COMPETITION`.

    Args:
        table: CheXpert; rows outside `train` are ignored.
        seed: An int starts anew in each class (MGCA, seed 0); a `RandomState` is carried through
            the classes (GLoRIA, whose package seeds numpy with 6).
        per_class: Images a class. None: 200, or the size of the smallest pool where that is less.

    Returns:
        Columns `image_id` and `label` (the class), in the order drawn.

    Raises:
        DataError: If a pool is smaller than `per_class`.
    """
    pools = five_by_200_pools(table)
    smallest = min(len(pool) for pool in pools.values())
    size = min(200, smallest) if per_class is None else per_class
    if size > smallest:
        sizes = {name: len(pool) for name, pool in pools.items()}
        raise DataError(f"cannot draw {size} images a class from pools of {sizes}")
    drawn = [
        pd.DataFrame({"image_id": pool.sample(n=size, random_state=seed), "label": name})
        for name, pool in pools.items()
    ]
    return pd.concat(drawn, ignore_index=True)


def five_by_200_pools(table: RecordTable) -> dict[str, pd.Series]:
    """Image ids each class of the 5x200 set may be drawn from, in table order."""
    values = table.labels[[*COMPETITION, *ZERO_IN_5X200]].fillna(0.0)
    usable = (table.frame["view"] == "frontal") & (table.frame["source_split"] == "train")
    usable &= (values[list(ZERO_IN_5X200)] == 0).all(axis=1)
    alone = (values[list(COMPETITION)] != 0).sum(axis=1) == 1
    return {
        name: table.frame["image_id"][usable & alone & (values[name] == 1)] for name in COMPETITION
    }
