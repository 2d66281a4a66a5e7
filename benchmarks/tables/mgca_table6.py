"""MGCA Table 6: error bars of linear classification."""

from benchmarks.core import Row, Table
from benchmarks.models import MGCA_VIT
from benchmarks.tables.mgca_table1 import COLUMNS, FOOTNOTES

TABLE = Table(
    id="mgca-table6",
    title="MGCA Table 6: linear classification over repeated runs, AUROC and accuracy",
    published="mgca_table6.csv",
    rows=(Row("MGCA (ViT-B/16)", model=MGCA_VIT),),
    columns=COLUMNS,
    unit="%",
    footnotes=(
        *FOOTNOTES,
        "The paper repeats the downstream runs three times; ours repeat pre-training too: give "
        "SEEDS=0,1,2.",
    ),
)
