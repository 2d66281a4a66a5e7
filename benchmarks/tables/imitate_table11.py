"""IMITATE Table XI: how many layers of the text encoder are trained."""

from benchmarks.core import Column, Row, Table
from benchmarks.models import IMITATE, UNFROZEN
from benchmarks.tables.imitate_table8 import COLUMNS, FOOTNOTES

SIZE = Column(
    "trainable",
    "",
    "model_size",
    "trainable_parameters",
    unit="M",
    on="architecture",
    by="parameters",
)

TABLE = Table(
    id="imitate-table11",
    title="IMITATE Table XI: trained layers of the text encoder, with 1 % of the labels",
    published="imitate_table11.csv",
    rows=(
        *(Row(name, model=model) for name, model in UNFROZEN.items()),
        Row("IMITATE", model=IMITATE),
    ),
    columns=(SIZE, *COLUMNS),
    unit="%",
    footnotes=(
        *FOOTNOTES,
        "Trainable parameters in millions, counted in the paper preset, on phantom too. The "
        "released layers count 30.66 without BERT; with three of its layers 51.93, which is what "
        "the paper prints for none. Ours has 396 positions instead of 513: 30.63.",
    ),
)
