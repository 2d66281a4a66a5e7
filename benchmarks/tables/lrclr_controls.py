"""Controls that no paper prints: leak-free pairs, and Eq. 5 as it is printed."""

from benchmarks.core import Row, Table
from benchmarks.models import CHEXZERO, LRCLR, LRCLR_ALL_PAIRS, LRCLR_LITERAL
from benchmarks.tables.lrclr_table1 import COLUMNS, FOOTNOTES

TABLE = Table(
    id="lrclr-controls",
    title="LRCLR controls: forms of the local loss",
    published=None,
    rows=(
        Row("CheXzero", model=CHEXZERO),
        Row("matched pairs", model=LRCLR),
        Row("all pairs", model=LRCLR_ALL_PAIRS),
        Row("Eq. 5 as printed", model=LRCLR_LITERAL),
    ),
    columns=COLUMNS,
    unit="%",
    footnotes=(
        *FOOTNOTES[:3],
        "All pairs: every image meets every text in a pass of its own, so no token has seen its "
        "pair alone and the loss cannot vanish on noise.",
    ),
    apart=True,
)
