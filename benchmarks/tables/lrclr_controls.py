"""Controls that no paper prints: leak-free pairs, and Eq. 5 as it is printed."""

from benchmarks.core import Column, Row, Table
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
    columns=(
        *COLUMNS,
        *(
            Column(title, "rsna", "regions", metric, unit=unit)
            for title, metric, unit in (
                ("regions in a box", "selected", ""),
                ("patches in a box", "chance", ""),
                ("ratio", "ratio", "ratio"),
            )
        ),
    ),
    unit="%",
    footnotes=(
        *FOOTNOTES[:3],
        "All pairs: every image meets every text in a pass of its own, so no token has seen its "
        "pair alone and the loss cannot vanish on noise.",
        "Regions: share of the patches that attention selects whose centre lies in a box of RSNA's "
        "test images with pneumonia, beside that of all patches, and their ratio (1: chance).",
    ),
    apart=True,
)
