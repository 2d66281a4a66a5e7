"""GLoRIA Table 4: segmentation of pneumothorax."""

from benchmarks.core import Column, Row, Table
from benchmarks.models import CONVIRT, GLORIA, IMAGENET, RANDOM
from benchmarks.tables.mgca_table3 import DICE

TABLE = Table(
    id="gloria-table4",
    title="GLoRIA Table 4: pneumothorax segmentation with a U-Net, Dice",
    published="gloria_table4.csv",
    rows=(
        Row("Random", model=RANDOM),
        Row("ImageNet", model=IMAGENET),
        Row("ConVIRT", model=CONVIRT),
        Row("GLoRIA", model=GLORIA),
    ),
    columns=tuple(
        Column(f"SIIM {fraction:.0%}", "siim", "segmentation", "dice", fraction)
        for fraction in (0.01, 0.1, 1.0)
    ),
    unit="fraction",
    footnotes=(
        DICE,
        "The authors' code trains the whole U-Net; on phantom the encoder is frozen.",
    ),
)
