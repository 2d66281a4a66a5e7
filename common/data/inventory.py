"""What a copy of a data set must consist of: every file its tables list, read without judging.

Loaders refuse or count what is wrong; an inventory keeps it, so that `verify` can name it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from common.data import (
    chexpert,
    covidx,
    mimic_cxr,
    ms_cxr,
    nih,
    object_cxr,
    open_i,
    rsna,
    siim,
)
from common.data.tables import DataError, files_below, find_table, has_table, read_table


@dataclass
class Inventory:
    """One folder of one data set.

    Attributes:
        dataset: Registry id.
        root: Folder that paths are relative to.
        tables: Source tables.
        listed: Columns `image_id` and `path`, one row an image.
        boxes: Columns `image_id`, `x`, `y`, `width`, `height` in pixels.
        mask_ends: How many pixels an image needs for its run-length masks, by image id.
        faults: (kind, table, id, detail) of each faulty row.
        counts: Measured sizes, by the names of `facts.counts`.
        box_table: Where the boxes stand, if not in the first of `tables`.
        borrowed: Its pictures are some of another data set's, which answers for the rest of the
            folder and for its hashes.
        opaque_alpha: Some pictures have an alpha channel as published; reading drops it.
    """

    dataset: str
    root: Path
    tables: list[Path]
    listed: pd.DataFrame
    boxes: pd.DataFrame | None = None
    mask_ends: dict[str, int] = field(default_factory=dict)
    faults: list[tuple[str, Path, str, str]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    box_table: Path | None = None
    borrowed: bool = False
    opaque_alpha: bool = False

    def repeated(self, table: Path, ids: pd.Series) -> None:
        """Note each id of `ids` once as a repeated row of `table`."""
        for name in ids.drop_duplicates():
            self.faults.append(("duplicate_row", table, name, "this row occurs more than once"))


def chexpert_inventory(data_root: Path) -> list[Inventory]:
    """Train and valid tables, the test table where present, and the size of CheXpert Plus."""
    home = chexpert.find_home(data_root)
    tables = chexpert.tables(home)
    parts = {path.name.partition(".")[0]: path for path in tables}
    frames = {part: chexpert.read_part(home, part)[0] for part in parts}
    listed = pd.concat(frames.values(), ignore_index=True)
    found = Inventory("chexpert", home.root, tables, _unique(listed))
    for part, frame in frames.items():
        found.repeated(parts[part], frame["image_id"][frame["image_id"].duplicated()])
        found.counts[f"{part}_images"] = len(frame)
        found.counts[f"{part}_patients"] = frame["patient_id"].nunique()
        found.counts[f"{part}_frontal"] = int((frame["view"] == "frontal").sum())
    if "train" in frames:
        found.counts["train_studies"] = frames["train"]["study_id"].nunique()
    if len(frames) == 2:
        both = sorted(set(frames["train"]["patient_id"]) & set(frames["valid"]["patient_id"]))
        for name in both:
            detail = "this patient is in train.csv too"
            found.faults.append(("patient_in_two_splits", parts["valid"], name, detail))
    if _present(lambda: chexpert.find_reports(data_root)):
        found.tables.append(chexpert.find_reports(data_root))
        found.counts["report_rows"] = len(chexpert.load_reports(data_root))
    inventories = [found]
    if _present(lambda: chexpert.find_home(data_root, chexpert.TEST_TABLES)):
        test = chexpert.load_test(data_root, check_files=False)
        folder = chexpert.find_home(data_root, chexpert.TEST_TABLES).tables
        present = [find_table(folder, n) for n in chexpert.TEST_TABLES if has_table(folder, n)]
        inventories.append(Inventory("chexpert", test.root, present, _unique(test.frame)))
    return inventories


def rsna_inventory(data_root: Path) -> list[Inventory]:
    """Annotated images with their boxes, and the test images where the submission lists them."""
    home = rsna.find_home(data_root)
    table = find_table(home, rsna.LABEL_TABLE)
    rows = rsna.read_rows(home)
    ids = rows["patientId"].drop_duplicates()
    listed = pd.DataFrame({"image_id": ids, "path": rsna.image_paths(home, ids)})
    positive = rows[rows["Target"] == 1].rename(columns={"patientId": "image_id"})
    found = Inventory("rsna", home, [table], listed, positive[["image_id", *rsna.BOX]])
    found.repeated(table, rows["patientId"][rows.duplicated()])
    for name, detail in rsna.box_problems(rows).items():
        kind = "box_outside" if "outside" in detail else "box_invalid"
        found.faults.append((kind, table, name, detail))
    found.counts = {
        "label_rows": len(rows),
        "images": len(ids),
        "positive_images": positive["image_id"].nunique(),
        "boxes": len(positive.drop_duplicates()),
    }
    if (home / rsna.CLASS_TABLE).is_file():
        found.tables.append(home / rsna.CLASS_TABLE)
        rsna.detailed_classes(home)
    if (home / rsna.TEST_TABLE).is_file():
        test = read_table(home / rsna.TEST_TABLE, ["patientId"])["patientId"].str.strip()
        paths = rsna.TEST_IMAGES + "/" + test + ".dcm"
        found.listed = pd.concat([listed, pd.DataFrame({"image_id": test, "path": paths})])
        found.counts["test_images"] = len(test)
    return [found]


def object_cxr_inventory(data_root: Path) -> list[Inventory]:
    """Images and boxes of every part."""
    home = object_cxr.find_home(data_root)
    tables = object_cxr.tables(home)
    rows = {part: object_cxr.read_rows(path, part) for part, path in tables.items()}
    faults = [
        ("box_invalid", tables[part], listed["image_id"].iloc[number - 1], f"row {number}: {fault}")
        for part, listed in rows.items()
        for number, fault in object_cxr.malformed(listed).items()
    ]
    faulty = {name for _, _, name, _ in faults}
    both = pd.concat(rows.values(), ignore_index=True)
    boxes = [
        (name, box.x, box.y, box.width, box.height)
        for name, text in zip(both["image_id"], both["annotation"], strict=True)
        if name not in faulty
        for box in object_cxr.boxes_of(text)
    ]
    columns = ["image_id", "x", "y", "width", "height"]
    found = Inventory(
        *("object_cxr", home, list(tables.values()), _unique(both)),
        pd.DataFrame(boxes, columns=columns).drop_duplicates(),
        faults=faults,
    )
    for part, listed in rows.items():
        found.repeated(tables[part], listed["image_id"][listed["image_id"].duplicated()])
        found.counts[f"{part}_images"] = listed["image_id"].nunique()
    return [found]


def siim_inventory(data_root: Path) -> list[Inventory]:
    """Labelled images with the number of their annotations; others have no known label."""
    home = siim.find_home(data_root)
    table = siim.table_of(home)
    rows = siim.read_rows(table)
    ids = rows["ImageId"].drop_duplicates().reset_index(drop=True)
    scans = sorted(files_below(home, (siim.SUFFIX,)))
    listed = pd.DataFrame({"image_id": ids, "path": siim.image_paths(home, ids, scans)})
    found = Inventory("siim", home, [table], listed)
    found.repeated(table, rows["ImageId"][rows.duplicated()])
    others = pd.DataFrame({"path": siim.unlabelled(scans, ids)}, dtype=str)
    found.listed = pd.concat([listed, others.assign(image_id=others["path"])], ignore_index=True)
    positive = rows[rows["rle"] != ""]
    ends = positive["rle"].map(lambda rle: sum(map(int, rle.split())))
    found.mask_ends = ends.groupby(positive["ImageId"]).max().to_dict()
    measured = {
        "label_rows": len(rows),
        "images": len(ids),
        "positive_images": positive["ImageId"].nunique(),
        "annotations": len(positive),
    }
    found.counts = {f"{table.name.partition('.')[0]} {name}": n for name, n in measured.items()}
    return [found]


def covidx_inventory(data_root: Path) -> list[Inventory]:
    """Both lists; a patient of the test list must not be in the training list."""
    home = covidx.find_home(data_root)
    tables = covidx.tables(home)
    rows = {
        part: covidx.read_list(path, part) for part, path in zip(covidx.PARTS, tables, strict=True)
    }
    both = pd.concat(rows.values(), ignore_index=True)
    found = Inventory("covidx", home, tables, _unique(both), opaque_alpha=True)
    for path, part in zip(tables, rows.values(), strict=True):
        found.repeated(path, part["image_id"][part["image_id"].duplicated()])
    for name in sorted(set(rows["train"]["patient_id"]) & set(rows["test"]["patient_id"])):
        detail = "this patient is in the training list too"
        found.faults.append(("patient_in_two_splits", tables[1], name, detail))
    for path, listed in zip(tables, rows.values(), strict=True):
        found.counts[f"{path.stem} lines"] = len(listed)
        found.counts[f"{path.stem} patients"] = listed["patient_id"].nunique()
    return [found]


def mimic_inventory(data_root: Path) -> list[Inventory]:
    """Metadata, split and label tables, and the number of reports where there are any."""
    home = mimic_cxr.find_home(data_root)
    frame = mimic_cxr.read_rows(home)
    metadata = find_table(home, mimic_cxr.METADATA)
    split_table = find_table(home, mimic_cxr.SPLIT)
    split = read_table(split_table, ["dicom_id", "subject_id", "split"])
    found = Inventory("mimic", home, [metadata, split_table], _unique(frame))
    found.repeated(metadata, frame["image_id"][frame["image_id"].duplicated()])
    found.repeated(split_table, split["dicom_id"][split["dicom_id"].duplicated()])
    parts = split.groupby("subject_id")["split"].nunique()
    for name in parts.index[parts > 1]:
        found.faults.append(
            ("patient_in_two_splits", split_table, name, "this subject has two official splits")
        )
    for name in mimic_cxr.LABEL_TABLES.values():
        if has_table(home, name):
            path = find_table(home, name)
            found.tables.append(path)
            mimic_cxr.read_label_table(path)
    found.counts = {
        "images": len(frame),
        "studies": frame["study_id"].nunique(),
        "patients": frame["patient_id"].nunique(),
    }
    for part, size in frame["source_split"].value_counts().items():
        found.counts[f"{part}_images"] = int(size)
    if _present(lambda: mimic_cxr.find_reports(data_root)):
        found.counts["reports"] = len(mimic_cxr.read_reports(data_root))
    return [found]


def nih_inventory(data_root: Path) -> list[Inventory]:
    """Images, boxes and both official lists; a patient must be in one list only."""
    home = nih.find_home(data_root)
    version, table = nih.table_of(home)
    rows, boxes = nih.read_rows(table), nih.read_boxes(home)
    listed = _unique(rows.assign(path=nih.image_paths(home, rows["image_id"])))
    found = Inventory("nih", home, [table], listed, opaque_alpha=True)
    found.repeated(table, rows["image_id"][rows["image_id"].duplicated()])
    found.counts = {"images": len(listed), "patients": rows["patient_id"].nunique()}
    sums = rows.drop_duplicates("image_id")[list(nih.LABELS)].sum()
    found.counts |= {f"{version} {name}": int(n) for name, n in sums.items()}
    if len(boxes):
        path = find_table(home, nih.BOX_TABLE)
        found.tables.append(path)
        found.box_table = path
        known = boxes["image_id"].isin(listed["image_id"])
        for name in boxes["image_id"][~known].drop_duplicates():
            found.faults.append(("box_invalid", path, name, "not in the label table"))
        found.boxes = boxes.loc[known, ["image_id", *nih.BOX.values()]]
        found.repeated(path, boxes["image_id"][boxes.duplicated()])
        for name, detail in nih.box_problems(boxes).items():
            kind = "box_outside" if "outside" in detail else "box_invalid"
            found.faults.append((kind, path, name, detail))
        found.counts |= {"boxes": len(boxes), "boxed_images": boxes["image_id"].nunique()}
    patient = dict(zip(rows["image_id"], rows["patient_id"], strict=True))
    people: dict[str, set[str]] = {}
    for part, path in nih.lists(home).items():
        names = nih.read_names(path)
        people[part] = {patient[name] for name in names if name in patient}
        found.tables.append(path)
        found.counts[f"{part}_list"] = len(names)
        for name in sorted(set(names) - set(patient)):
            found.faults.append(("not_in_table", path, name, "listed, not in the label table"))
    for name in sorted(people.get("train", set()) & people.get("test", set())):
        detail = f"this patient is in {nih.LISTS['train']} too"
        found.faults.append(("patient_in_two_splits", home / nih.LISTS["test"], name, detail))
    return [found]


def ms_cxr_inventory(data_root: Path) -> list[Inventory]:
    """Annotated images, below MIMIC-CXR-JPG, and their boxes."""
    table = ms_cxr.table_of(ms_cxr.find_home(data_root))
    rows = ms_cxr.read_rows(table)
    root = mimic_cxr.find_home(data_root)
    found = Inventory("ms_cxr", root, [table], _unique(rows), borrowed=True)
    found.boxes = rows[["image_id", *ms_cxr.BOX.values()]]
    found.repeated(table, rows["image_id"][rows.duplicated()])
    for row, detail in ms_cxr.box_problems(rows).items():
        kind = "box_outside" if "outside" in detail else "box_invalid"
        found.faults.append((kind, table, rows["image_id"].iloc[row], detail))
    pairs = rows[["image_id", "category", "text"]].drop_duplicates()
    found.counts = {
        "boxes": len(rows.drop_duplicates()),
        "images": rows["image_id"].nunique(),
        "patients": rows["patient_id"].nunique(),
        "without_text": int((rows["text"] == "").sum()),
        "pairs": len(pairs),
    }
    found.counts |= {name: int((pairs["category"] == name).sum()) for name in ms_cxr.CATEGORIES}
    return [found]


def open_i_inventory(data_root: Path) -> list[Inventory]:
    """Images named by the reports, and how many reports have which section."""
    home = open_i.find_home(data_root)
    rows = open_i.read_rows(home)
    images = rows[rows["path"] != ""]
    reports = rows.drop_duplicates("study_id")
    found = Inventory("open_i", home, open_i.tables(home), _unique(images))
    projections = home / open_i.KAGGLE_PROJECTIONS
    if projections.is_file():
        names = read_table(projections, ["filename"])["filename"].map(open_i.kaggle_name)
        image_id = {open_i.kaggle_name(name): name for name in images["image_id"]}
        again = [image_id.get(name, name) for name in names[names.duplicated()]]
        found.repeated(projections, pd.Series(again, dtype=str))
    else:
        found.repeated(found.tables[0], images["image_id"][images["image_id"].duplicated()])
    measured = {
        "images": len(images),
        "reports": len(reports),
        "findings": int((reports["section_findings"] != "").sum()),
        "impression": int((reports["section_impression"] != "").sum()),
    }
    kind = "kaggle " if projections.is_file() else ""
    found.counts = {f"{kind}{name}": n for name, n in measured.items()}
    return [found]


def _unique(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[["image_id", "path"]].drop_duplicates()


def _present(find: Callable[[], object]) -> bool:
    try:
        find()
    except DataError:
        return False
    return True


INVENTORIES: dict[str, Callable[[Path], list[Inventory]]] = {
    "chexpert": chexpert_inventory,
    "covidx": covidx_inventory,
    "mimic": mimic_inventory,
    "ms_cxr": ms_cxr_inventory,
    "nih": nih_inventory,
    "object_cxr": object_cxr_inventory,
    "open_i": open_i_inventory,
    "rsna": rsna_inventory,
    "siim": siim_inventory,
}
