"""MaCo Table 3: pneumothorax segmentation with UPerNet."""

from benchmarks.core import Column, Row, Table
from benchmarks.models import MACO, RANDOM_MACO
from benchmarks.tables.maco_table1 import FRACTIONS
from benchmarks.tables.mgca_table1 import COPIED

EARLIER = ("ConVIRT", "GLoRIA", "MGCA", "M-FLAG", "Med-UniC")

TABLE = Table(
    id="maco-table3",
    title="MaCo Table 3: pneumothorax segmentation with UPerNet on a ViT-B/16, Dice",
    published="maco_table3.csv",
    rows=(
        Row("Random Init", model=RANDOM_MACO, ours=True),
        *(Row(name, why_not_run=COPIED) for name in EARLIER),
        Row("MaCo", model=MACO),
    ),
    columns=tuple(
        Column(f"SIIM {fraction:.0%}", "siim", "segmentation", metric, fraction)
        for metric in ("dice",)
        for fraction in FRACTIONS
    ),
    unit="%",
    footnotes=(
        "Dice: mean over the test images, 1 where neither truth nor prediction has a pixel; "
        "results also hold the mean over positives, pooled over the data set, and pooled for the "
        "front alone. The paper names none.",
        "The authors' lists let 494 test images be trained on with all labels (of positives about "
        "75 %); here the parts are disjoint.",
    ),
)
