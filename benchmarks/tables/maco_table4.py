"""MaCo Table 4: phrase grounding on MS-CXR."""

from benchmarks.core import Column, Row, Table
from benchmarks.models import MACO, RANDOM_MACO
from benchmarks.tables.mgca_table1 import COPIED

GROUNDING = (
    "Grounding is zero-shot, tau 0.1, means over phrases; results also hold means over categories, "
    "absolute CNR, the centre prior on the same boxes, and a grid of tau. Phantom phrases are the "
    "reports' own sentences, their boxes those of the drawn findings."
)

TABLE = Table(
    id="maco-table4",
    title="MaCo Table 4: zero-shot phrase grounding",
    published="maco_table4.csv",
    rows=(
        Row("untrained", model=RANDOM_MACO, ours=True),
        *(Row(name, why_not_run=COPIED) for name in ("ConVIRT", "GLoRIA", "BioViL")),
        Row("MaCo", model=MACO),
    ),
    columns=(
        Column("mIoU", "ms_cxr", "grounding", "miou"),
        Column("CNR", "ms_cxr", "grounding", "cnr"),
    ),
    unit="ratio",
    footnotes=(GROUNDING,),
)
