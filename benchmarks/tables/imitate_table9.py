"""IMITATE Table IX: parts of the report."""

from benchmarks.core import Row, Table
from benchmarks.models import IMITATE, REPORTS
from benchmarks.tables.imitate_table8 import COLUMNS, FOOTNOTES

TABLE = Table(
    id="imitate-table9",
    title="IMITATE Table IX: parts of the report, with 1 % of the labels",
    published="imitate_table9.csv",
    rows=(
        *(Row(name, model=model) for name, model in REPORTS.items()),
        Row("IMITATE", model=IMITATE),
    ),
    columns=COLUMNS,
    unit="%",
    footnotes=FOOTNOTES,
)
