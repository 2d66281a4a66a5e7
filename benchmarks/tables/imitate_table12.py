"""IMITATE Table XII: text encoders."""

from benchmarks.core import Row, Table
from benchmarks.models import ENCODERS, IMITATE
from benchmarks.tables.imitate_table8 import COLUMNS, FOOTNOTES

TABLE = Table(
    id="imitate-table12",
    title="IMITATE Table XII: text encoders, with 1 % of the labels",
    published="imitate_table12.csv",
    rows=(
        *(Row(name, model=model) for name, model in ENCODERS.items()),
        Row("BioClinicalBERT", model=IMITATE),
    ),
    columns=COLUMNS,
    unit="%",
    footnotes=(*FOOTNOTES, "On phantom the default row is the phantom's own random text encoder."),
)
