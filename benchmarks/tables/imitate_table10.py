"""IMITATE Table X: kernels of the soft targets."""

from benchmarks.core import Row, Table
from benchmarks.models import IMITATE, KERNELS
from benchmarks.tables.imitate_table8 import COLUMNS, FOOTNOTES

TABLE = Table(
    id="imitate-table10",
    title="IMITATE Table X: kernels of the soft targets, with 1 % of the labels",
    published="imitate_table10.csv",
    rows=(
        *(Row(name, model=model) for name, model in KERNELS.items()),
        Row("IMITATE", model=IMITATE),
    ),
    columns=COLUMNS,
    unit="%",
    footnotes=FOOTNOTES,
)
