"""MaCo Table 2: the fourteen diseases of NIH ChestX-ray14 after fine-tuning."""

from benchmarks.core import Column, Row, Table
from benchmarks.models import MACO, RANDOM_MACO
from benchmarks.tables.maco_table1 import FRACTIONS, RECIPE
from benchmarks.tables.mgca_table1 import COPIED
from common.data import nih

EARLIER = (
    *("MedKLIP", "M-FLAG", "REFERS", "Model Genesis", "C2L", "Context Restoration", "TransVW"),
    "ImageNet Pre-training",
)

TABLE = Table(
    id="maco-table2",
    title="MaCo Table 2: fine-tuned classification of each disease of NIH ChestX-ray14, AUROC",
    published="maco_table2.csv",
    rows=(
        Row("Random Init", model=RANDOM_MACO, ours=True),
        *(Row(name, why_not_run=COPIED) for name in EARLIER),
        Row("MaCo", model=MACO),
    ),
    columns=tuple(
        Column(f"{title} {fraction:.0%}", "nih", "finetune", metric, fraction)
        for fraction in FRACTIONS
        for title, metric in (
            ("Average", "auroc"),
            *((label.replace("_", " "), f"auroc:{label}") for label in sorted(nih.LABELS)),
        )
    ),
    unit="%",
    footnotes=(
        RECIPE,
        "Cells that print digits of their neighbours are left empty or repaired; see the notes in "
        "the published table.",
    ),
)
