"""MGCA Table 5: against pre-training on natural image-text pairs."""

from benchmarks.core import Row, Table
from benchmarks.models import BLIP, MGCA_VIT
from benchmarks.tables.mgca_table1 import COLUMNS, FOOTNOTES

TABLE = Table(
    id="mgca-table5",
    title="MGCA Table 5: linear classification against BLIP, AUROC",
    published="mgca_table5.csv",
    rows=(
        Row("BLIP", model=BLIP),
        Row("MGCA", model=MGCA_VIT),
    ),
    columns=tuple(column for column in COLUMNS if column.dataset != "covidx"),
    unit="%",
    footnotes=(
        *FOOTNOTES,
        "BLIP: the vision tower of the base model on the hub (129 million pairs); the paper's was "
        "trained on 14 million.",
    ),
)
