"""What a table is: rows (models), columns (cells to fill), and where each number comes from."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
PUBLISHED = HERE / "published"
SCHEMA = 1
FRACTIONS = (0.01, 0.1, 1.0)
"""Shares of the training labels."""


@dataclass(frozen=True)
class Model:
    """A model that this repository can make: a paper's package and the flags that select a variant.

    Attributes:
        id: Name of its run folder.
        paper: Package that builds and pre-trains it.
        flags: Flags of the paper's `pretrain.py`, after the preset.
        pretrained: False for an initialisation baseline, which is only built.
        variant: Of the paper's presets, behind their name: `resnet50` for `paper-resnet50`.
        judged_by: Paper whose protocols judge it on real data, where it is not its own.
        fractions: Shares of the labels it is judged with; ablations need the first alone.
        not_on_phantom: Why the phantom preset cannot make it.
    """

    id: str
    paper: str
    flags: tuple[str, ...] = ()
    pretrained: bool = True
    variant: str = ""
    judged_by: str = ""
    fractions: tuple[float, ...] = FRACTIONS
    not_on_phantom: str = ""


@dataclass(frozen=True)
class Row:
    """A method of a table; either runnable, or published only with the reason.

    Attributes:
        name: As rendered.
        model: What is run.
        published_as: Name in the published CSV, where it differs.
        why_not_run: Reason, for a row without a model.
        ours: The paper's table has no such row.
        dense: What is run instead for segmentation and detection, which need a ResNet.
    """

    name: str
    model: Model | None = None
    published_as: str | None = None
    why_not_run: str | None = None
    ours: bool = False
    dense: Model | None = None

    def __post_init__(self) -> None:
        if (self.model is None) == (self.why_not_run is None):
            raise ValueError(
                f"row {self.name!r} needs either a model or a reason why it is not run"
            )

    def model_for(self, column: Column) -> Model | None:
        """What fills the row's cell in `column`."""
        return self.dense if self.dense and column.task in DENSE_TASKS else self.model


class NotRunnable(Exception):
    """A row cannot be evaluated here; the message is the reason that its cells print."""


DENSE_TASKS = ("segmentation", "detection")


@dataclass(frozen=True)
class Column:
    """One number a row: a metric of an evaluation.

    Attributes:
        title: As rendered.
        dataset: Test set, as in the published CSV.
        task: A key of `benchmarks.job.DATASETS_OF`; also the evaluation's name.
        metric: Ours, as in the published CSV; of one finding behind a colon.
        label_fraction: Share of training labels, None where there are none.
        unit: Where it differs from the table's.
        on: Test set as the evaluation calls it, where that differs: `rsna_dense` is RSNA in the
            parts of the dense tasks.
        by: The evaluation that fills it, where that is not the published task: `splits`.
        ours: The paper's table has no such column.
    """

    title: str
    dataset: str
    task: str
    metric: str
    label_fraction: float | None = None
    unit: str = ""
    on: str = ""
    by: str = ""
    ours: bool = False

    @property
    def cell(self) -> tuple[str, str, float | None]:
        """Data set, metric and label fraction of the cell that an evaluation leaves for it."""
        return self.on or self.dataset, self.metric, self.label_fraction


@dataclass(frozen=True)
class Table:
    """A published table.

    Attributes:
        id: For instance `gloria-table2`.
        title: What the paper's caption says, in our words.
        published: File of `published/`, the only home of printed numbers; None for our own tables.
        rows: Methods in the paper's order.
        columns: Cells of a row in the paper's order.
        unit: Of printed and rendered values, a key of `benchmarks.render.UNITS`.
        footnotes: What a reader of the numbers must know.
        apart: Reproduced by its own name alone, not with its paper.
        size: Of the phantom corpus; another than `small` only for tables apart.
    """

    id: str
    title: str
    published: str | None
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    unit: str
    footnotes: tuple[str, ...] = ()
    apart: bool = False
    size: str = "small"

    def folder(self, corpus: str) -> str:
        """Name of the folders of its runs and results."""
        small = corpus != "phantom" or self.size == "small"
        return corpus if small else f"{corpus}-{self.size}"


@dataclass(frozen=True)
class Evaluation:
    """One job: a model under a protocol on a data set; fills several cells."""

    model: Model
    task: str
    dataset: str

    @property
    def name(self) -> str:
        """File name stem of its results."""
        return f"{self.model.id}/{self.task}__{self.dataset}"


JOB_DATASET = {("linear", "chexpert5x200"): "chexpert"}
"""Test sets that a job on another data set covers: the CheXpert classifier also meets 5x200."""


def evaluation(model: Model, column: Column) -> Evaluation:
    """The job that fills a model's cell of `column`."""
    task, dataset = column.by or column.task, column.on or column.dataset
    return Evaluation(model, task, JOB_DATASET.get((task, dataset), dataset))


def evaluations(table: Table) -> list[Evaluation]:
    """The jobs that fill a table's runnable cells, each once."""
    jobs = {}
    for row in table.rows:
        for column in table.columns:
            if model := row.model_for(column):
                job = evaluation(model, column)
                jobs[job.name] = job
    return list(jobs.values())


class Printed(NamedTuple):
    """A published number, and its digits as the paper prints them, with a deviation if any."""

    value: float
    text: str


def published_values(table: Table) -> dict[tuple[str, Column], Printed]:
    """Printed numbers by row name and column, in the table's unit."""
    if table.published is None:
        return {}
    with (PUBLISHED / table.published).open(newline="") as file:
        cells = list(csv.DictReader(file))
    values = {}
    for row in table.rows:
        for column in table.columns:
            for cell in cells:
                if cell["value"] and _is(
                    cell, row.name if row.published_as is None else row.published_as, column
                ):
                    parts = filter(None, (cell["value"], cell.get("std")))
                    values[row.name, column] = Printed(float(cell["value"]), " ± ".join(parts))
    return values


def _is(cell: dict[str, str], method: str, column: Column) -> bool:
    fraction = float(cell["label_fraction"]) if cell["label_fraction"] else None
    finding = cell.get("finding", "Average").replace(" ", "_")
    metric = cell["metric"] if finding == "Average" else f"{cell['metric']}:{finding}"
    key = (cell["method"], cell["dataset"], cell["task"], metric, fraction)
    return key == (method, column.dataset, column.task, column.metric, column.label_fraction)


@dataclass(frozen=True)
class Cell:
    """One measured number of an evaluation."""

    dataset: str
    metric: str
    value: float
    n: int
    label_fraction: float | None = None
    interval: tuple[float, float] | None = None


def parse_seeds(text: str) -> list[int]:
    """`0,1,2` as numbers.

    Raises:
        SystemExit: If one is no whole number from 0, or is named twice.
    """
    words = text.split(",")
    if not all(word.isdecimal() for word in words) or len({*map(int, words)}) < len(words):
        sys.exit(f"error: seeds are distinct whole numbers with commas between, not {text!r}")
    return [int(word) for word in words]


def result_path(results: Path, job: str, seed: int) -> Path:
    """Where an evaluation's JSON lies; its per-image predictions lie beside it as `.npz`."""
    return results / f"{job}__seed{seed}.json"


def load_results(results: Path, job: Evaluation, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The evaluations of `seeds` that exist."""
    paths = [result_path(results, job.name, seed) for seed in seeds]
    return [json.loads(path.read_text()) for path in paths if path.is_file()]
