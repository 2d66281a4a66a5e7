"""The one record type every loader returns, and the account of what was left out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from common.data.tables import DataError, files_below

COLUMNS = ("image_id", "study_id", "patient_id", "path", "view", "source_split")
VIEWS = ("frontal", "lateral", "other")
EXAMPLES = 5


@dataclass(frozen=True)
class Box:
    """A finding's bounding box in original pixels, origin top-left."""

    x: float
    y: float
    width: float
    height: float
    label: str


@dataclass(frozen=True)
class Record:
    """One image with everything its data set says about it.

    Labels keep four states: 1 present, 0 absent, -1 uncertain, NaN not mentioned. A named policy of
    `common.data.labels` turns them into targets, last.
    """

    dataset: str
    image_id: str
    study_id: str
    patient_id: str
    path: Path
    view: str
    source_split: str
    labels: Mapping[str, float]
    sections: Mapping[str, str]
    boxes: tuple[Box, ...]


class Exclusions:
    """Counts of what was left out, by reason, with the first five ids of each."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.examples: dict[str, list[str]] = {}

    def add(self, reason: str, ids: Iterable[object]) -> None:
        """Count `ids` under `reason`; no ids leaves no trace."""
        names = [str(name) for name in ids]
        if names:
            self.counts[reason] = self.counts.get(reason, 0) + len(names)
            shown = self.examples.setdefault(reason, [])
            shown.extend(names[: EXAMPLES - len(shown)])

    def total(self) -> int:
        """How many rows were left out for any reason."""
        return sum(self.counts.values())

    def __str__(self) -> str:
        return ", ".join(f"{reason}: {n}" for reason, n in sorted(self.counts.items())) or "none"


@dataclass(frozen=True)
class RecordTable:
    """All usable images of one data set, one row an image.

    Attributes:
        dataset: Lower-case id, for instance `chexpert`.
        root: Folder that `frame["path"]` is relative to.
        frame: Columns of `COLUMNS` (all strings), then one `section_<name>` column a section.
        labels: One float column a label, same index as `frame`; values 1, 0, -1 or NaN.
        exclusions: Every row of the source tables that is not in `frame`.
        rows_in: Rows of the source table; always `len(frame) + exclusions.total()`.
        table_sha256: Hash of the source tables' bytes.
        boxes: Boxes by image id; images without boxes are absent.
    """

    dataset: str
    root: Path
    frame: pd.DataFrame
    labels: pd.DataFrame
    exclusions: Exclusions
    rows_in: int
    table_sha256: str
    boxes: Mapping[str, tuple[Box, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the invariants that every user of a table relies on."""
        missing = [name for name in COLUMNS if name not in self.frame]
        if missing:
            raise ValueError(f"{self.dataset}: loader returned no column {missing}")
        if self.rows_in != len(self.frame) + self.exclusions.total():
            raise ValueError(
                f"{self.dataset}: {self.rows_in} rows in, {len(self.frame)} out, but "
                f"{self.exclusions.total()} accounted for as excluded ({self.exclusions})"
            )
        twice = self.frame["image_id"][self.frame["image_id"].duplicated()]
        if len(twice):
            raise ValueError(f"{self.dataset}: image ids occur twice: {list(twice[:EXAMPLES])}")

    def __len__(self) -> int:
        return len(self.frame)

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, row: int) -> Record:
        """The record in position `row`."""
        values = self.frame.iloc[row]
        sections = {
            str(name)[len("section_") :]: values[name]
            for name in self.frame.columns
            if str(name).startswith("section_")
        }
        return Record(
            dataset=self.dataset,
            image_id=values["image_id"],
            study_id=values["study_id"],
            patient_id=values["patient_id"],
            path=self.root / values["path"],
            view=values["view"],
            source_split=values["source_split"],
            labels={str(k): float(v) for k, v in self.labels.iloc[row].items()},
            sections=sections,
            boxes=self.boxes.get(values["image_id"], ()),
        )

    def where(self, keep: pd.Series | np.ndarray, reason: str) -> RecordTable:
        """The rows where `keep` is true; the others are counted under `reason`."""
        mask = np.asarray(keep, dtype=bool)
        exclusions = Exclusions()
        exclusions.counts = dict(self.exclusions.counts)
        exclusions.examples = {k: list(v) for k, v in self.exclusions.examples.items()}
        exclusions.add(reason, self.frame["image_id"][~mask])
        return RecordTable(
            self.dataset,
            self.root,
            self.frame[mask].reset_index(drop=True),
            self.labels[mask].reset_index(drop=True),
            exclusions,
            self.rows_in,
            self.table_sha256,
            self.boxes,
        )

    def select(self, image_ids: Iterable[str]) -> RecordTable:
        """The rows of `image_ids`, in that order; nothing counts as excluded.

        Raises:
            KeyError: If an id is not in the table.
        """
        ids = list(image_ids)
        position = {name: row for row, name in enumerate(self.frame["image_id"].tolist())}
        unknown = [name for name in ids if name not in position]
        if unknown:
            raise KeyError(
                f"{len(unknown)} image ids are not in {self.dataset} under {self.root} "
                f"(first: {unknown[:EXAMPLES]}); was the split made from another table?"
            )
        return self.rows([position[name] for name in ids])

    def rows(self, which: slice | Sequence[int]) -> RecordTable:
        """The rows in these positions; nothing counts as excluded."""
        frame = self.frame.iloc[which].reset_index(drop=True)
        return RecordTable(
            self.dataset,
            self.root,
            frame,
            self.labels.iloc[which].reset_index(drop=True),
            Exclusions(),
            len(frame),
            self.table_sha256,
            self.boxes,
        )

    def exclusion_report(self) -> dict[str, object]:
        """The account saved beside every split and prepared folder."""
        return {
            "dataset": self.dataset,
            "table_sha256": self.table_sha256,
            "rows_in": self.rows_in,
            "rows_out": len(self),
            "excluded": dict(sorted(self.exclusions.counts.items())),
            "examples": dict(sorted(self.exclusions.examples.items())),
        }

    def save_exclusions(self, path: Path) -> None:
        """Write `exclusion_report` as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.exclusion_report(), indent=2) + "\n")


def assemble(
    frame: pd.DataFrame,
    labels: pd.DataFrame,
    *,
    dataset: str,
    root: Path,
    table_sha256: str,
    suffixes: Sequence[str] = (),
    boxes: Mapping[str, tuple[Box, ...]] | None = None,
) -> RecordTable:
    """The table of a loader's rows: repeated rows and absent files are counted and left out.

    Args:
        frame: One row a source row, with `COLUMNS`; `path` is relative to `root`.
        labels: Label columns, same index as `frame`.
        dataset: Registry id.
        root: Folder that holds the images.
        table_sha256: Hash of the source tables.
        suffixes: Of the image files; one walk below `root` then finds `missing_file` and
            `zero_byte` rows. Empty skips the walk.
        boxes: Boxes by image id.

    Raises:
        DataError: If an image id has two different rows, or if no listed file exists.
    """
    frame, labels = frame.reset_index(drop=True), labels.reset_index(drop=True)
    again = frame["image_id"].duplicated()
    if again.any():
        _refuse_conflicts(frame, labels, dataset)
    exclusions = Exclusions()
    exclusions.add("duplicate", frame["image_id"][again])
    kept, kept_labels = frame[~again], labels[~again]
    table = RecordTable(
        dataset,
        root,
        kept.reset_index(drop=True),
        kept_labels.reset_index(drop=True),
        exclusions,
        len(frame),
        table_sha256,
        boxes or {},
    )
    return drop_absent(table, suffixes) if suffixes else table


def _refuse_conflicts(frame: pd.DataFrame, labels: pd.DataFrame, dataset: str) -> None:
    """Two rows of one image may only repeat each other."""
    rows = pd.concat([frame, labels], axis=1)
    clash = frame["image_id"].duplicated() & ~rows.duplicated()
    if clash.any():
        raise DataError(
            f"{dataset}: {int(clash.sum())} image ids have two different rows "
            f"(first: {list(frame['image_id'][clash][:EXAMPLES])}); restore the original table"
        )


def drop_absent(table: RecordTable, suffixes: Sequence[str]) -> RecordTable:
    """The rows whose file exists and is not empty; one walk below the root.

    Raises:
        DataError: If no listed file exists.
    """
    size = table.frame["path"].map(files_below(table.root, suffixes))
    if len(table) and size.isna().all():
        raise DataError(
            f"{table.dataset}: none of the {len(table)} listed images is below {table.root} "
            f"(first: {table.frame['path'].iloc[0]}); unpack the images there, or load the tables "
            "alone with check_files=False"
        )
    if size.isna().any():
        table = table.where(size.notna(), "missing_file")
        size = size.dropna()
    return table.where(size.to_numpy() > 0, "zero_byte") if (size == 0).any() else table
