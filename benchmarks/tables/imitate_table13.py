"""IMITATE Table XIII: drop ratios."""

from benchmarks.core import Row, Table
from benchmarks.models import DROPS, IMITATE
from benchmarks.tables.imitate_table8 import COLUMNS, FOOTNOTES

TABLE = Table(
    id="imitate-table13",
    title="IMITATE Table XIII: drop ratios, with 1 % of the labels",
    published="imitate_table13.csv",
    rows=(
        *(Row(name, model=model) for name, model in DROPS.items()),
        Row("drop 0.9", model=IMITATE),
    ),
    columns=COLUMNS,
    unit="%",
    footnotes=(
        *FOOTNOTES,
        "The default drops 0.85 of the first stage, 0.9 of the others; on phantom 0.25, 0.5, 0.75 "
        "and 0.75, for its stages are narrow.",
    ),
)
