"""Named splits: rules that turn a table into lists of image ids, hashed and saved as JSON.

Build a split from a table loaded with `check_files=False` and before reports are joined: a random
draw over part of the rows is another draw. `Split.select` then takes the rows that are there and
counts those that are not.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import pandas as pd

from common.data.labels import COMPETITION
from common.data.lists import read_list
from common.data.records import Exclusions, RecordTable
from common.data.split_rules import rule_of
from common.data.tables import DataError

__all__ = ["INCOMPLETE", "Split", "build", "fraction", "read_list"]

log = logging.getLogger(__name__)


INCOMPLETE = ("missing_file", "zero_byte", "no_report", "empty_text")
"""Exclusions that depend on the copy at hand; a draw after them is another draw."""


@dataclass(frozen=True)
class Split:
    """Image ids by part, with the rule and the table they come from.

    Attributes:
        id: Versioned name, for instance `rsna/gloria-v1`.
        dataset: Registry id of the table.
        parts: Image ids by part (`train`, `valid`, `test`).
        rule: How the ids were chosen, in words.
        table_sha256: `RecordTable.table_sha256` of the table.
        allow_patient_overlap: Patients may be in several parts; else that is an error.
        allow_image_overlap: Even images may: reproduces a leak of released code.
    """

    id: str
    dataset: str
    parts: Mapping[str, tuple[str, ...]]
    rule: str
    table_sha256: str
    allow_patient_overlap: bool = False
    allow_image_overlap: bool = False

    @property
    def sha256(self) -> dict[str, str]:
        """Hash of each part's sorted ids, and under `total` of all parts' hashes."""
        hashes = {name: ids_sha256(ids) for name, ids in self.parts.items()}
        lines = [f"{name} {value}" for name, value in sorted(hashes.items())]
        return {**hashes, "total": _hash("\n".join(lines))}

    def overlaps(self, table: RecordTable) -> dict[str, dict[str, int]]:
        """Images and patients shared by each pair of parts, keyed `train-valid` and so on."""
        patient = _patients(table)
        images = {name: set(ids) for name, ids in self.parts.items()}
        people = {
            name: {patient[i] for i in ids if i in patient} for name, ids in self.parts.items()
        }
        return {
            f"{a}-{b}": {
                "images": len(images[a] & images[b]),
                "patients": len(people[a] & people[b]),
            }
            for a, b in combinations(self.parts, 2)
        }

    def check_overlaps(self, table: RecordTable) -> None:
        """Log what parts share.

        Raises:
            DataError: If they share patients or images and the split does not declare it.
        """
        for pair, shared in self.overlaps(table).items():
            text = (
                f"{self.id}: {pair} share {shared['images']} images, {shared['patients']} patients"
            )
            log.log(logging.WARNING if any(shared.values()) else logging.INFO, text)
            allowed = self.allow_patient_overlap or self.allow_image_overlap
            if shared["patients"] and not allowed:
                raise DataError(f"{text}; set allow_patient_overlap if that is meant")
            if shared["images"] and not self.allow_image_overlap:
                raise DataError(f"{text}; an image may be in one part only")

    def select(self, part: str, table: RecordTable) -> RecordTable:
        """The rows of one part, in the split's order; ids without a row count as `not_in_table`.

        Raises:
            DataError: If there is no such part, the table has none of its images, or is of another
                dataset.
        """
        if part not in self.parts:
            raise DataError(f"{self.id} has no part {part!r}; it has {', '.join(self.parts)}")
        known = set(table.frame["image_id"].tolist())
        absent = [name for name in self.parts[part] if name not in known]
        if self.dataset != table.dataset or len(absent) == len(self.parts[part]):
            raise DataError(
                f"{self.id} was made from {self.dataset}; the {table.dataset} table under "
                f"{table.root} has {len(self.parts[part]) - len(absent)} of the {part} images"
            )
        found = table.select(name for name in self.parts[part] if name in known)
        if not absent:
            return found
        log.warning("%s: %d of the %s images are absent", self.id, len(absent), part)
        exclusions = Exclusions()
        exclusions.add("not_in_table", absent)
        return RecordTable(
            found.dataset,
            found.root,
            found.frame,
            found.labels,
            exclusions,
            len(self.parts[part]),
            found.table_sha256,
            found.boxes,
        )

    def save(self, path: Path) -> None:
        """Write as JSON, with the hashes that `load` verifies."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**asdict(self), "sha256": self.sha256}, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path, table: RecordTable | None = None) -> Split:
        """Read what `save` wrote, and check it against its hashes and `table`.

        Raises:
            DataError: If the file was changed, or belongs to another version of the table.
        """
        try:
            content = json.loads(path.read_text())
            stored = content.pop("sha256")
            content["parts"] = {name: tuple(ids) for name, ids in content["parts"].items()}
            split = cls(**content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}: not a split file ({type(error).__name__}: {error})"
            ) from error
        if split.sha256 != stored:
            raise DataError(f"{path}: the ids do not match the stored hashes; the file was changed")
        if table is not None and table.table_sha256 != split.table_sha256:
            raise DataError(
                f"{path} was made from a {split.dataset} table {split.table_sha256[:12]}, but "
                f"{table.root} has {table.table_sha256[:12]}; get that version or build it anew"
            )
        return split


def build(split_id: str, table: RecordTable) -> Split:
    """Apply the rule called `split_id` to `table`.

    Raises:
        DataError: If the id is unknown, the table another dataset's, a part empty, or patients are
            shared although the rule does not declare it.
    """
    rule = rule_of(split_id)
    if table.dataset != rule.dataset:
        raise DataError(f"{split_id} splits {rule.dataset}, not {table.dataset}")
    lost = {r: n for r, n in table.exclusions.counts.items() if r in INCOMPLETE}
    if lost:
        log.warning("%s: drawn without %s; not the draw of the complete table", split_id, lost)
    split = Split(
        split_id,
        rule.dataset,
        rule.build(table),
        rule.text,
        table.table_sha256,
        rule.allow_patient_overlap,
        rule.allow_image_overlap,
    )
    empty = [name for name, ids in split.parts.items() if not ids]
    if empty:
        raise DataError(f"{split_id}: no image for {empty}; {len(table)} rows are too few")
    split.check_overlaps(table)
    return split


def fraction(
    ids: Sequence[str], table: RecordTable, share: float, *, seed: int, rule: str = "nested"
) -> tuple[str, ...]:
    """A share of the training ids for the label-efficiency experiments.

    Args:
        ids: Image ids of the training part.
        table: Where patients and labels are looked up.
        share: In (0, 1]; the result has round(share * len(ids)) ids, by `nested` at least one.
        seed: Of the draw.
        rule: `nested`: in the order of a hash of (seed, patient id), so that 1% lies within 10% and
            a patient's images stay together, but for the one at the cut; `sample`: pandas'
            `sample(frac)`, as MGCA's classification draws (seed 42).

    Raises:
        ValueError: If the share or the rule is unknown.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share}")
    if rule not in ("nested", "sample"):
        raise ValueError(f"unknown rule {rule!r}; choose nested or sample")
    if rule == "sample":
        chosen = tuple(pd.Series(list(ids)).sample(frac=share, random_state=seed).tolist())
    else:
        patient = _patients(table)
        order = sorted(ids, key=lambda name: (_hash(f"{seed} {patient[name]}"), name))
        chosen = tuple(order[: max(1, round(share * len(order)))])
    _warn_without_positive(ids, chosen, table)
    return chosen


def _warn_without_positive(ids: Sequence[str], chosen: Sequence[str], table: RecordTable) -> None:
    judged = set(COMPETITION) <= set(table.labels)  # else a data set's own labels are
    names = list(COMPETITION) if judged else list(table.labels)
    positive, image_ids = table.labels[names] == 1, table.frame["image_id"].tolist()
    here, there = set(ids), set(chosen)
    before = positive[[name in here for name in image_ids]].any()
    lost = before & ~positive[[name in there for name in image_ids]].any()
    if lost.any():
        warnings.warn(
            f"{len(chosen)} of {len(ids)} images have no positive for {list(lost.index[lost])}; "
            "take a larger share or another seed",
            stacklevel=3,
        )


def _patients(table: RecordTable) -> dict[str, str]:
    """Patient by image id."""
    ids, patients = (table.frame[name].tolist() for name in ("image_id", "patient_id"))
    return dict(zip(ids, patients, strict=True))


def ids_sha256(ids: Iterable[str]) -> str:
    """Hash of a set of images, in any order."""
    return _hash("\n".join(sorted(ids)))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
