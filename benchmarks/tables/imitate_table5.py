"""IMITATE Table V: segmentation and detection on a frozen ResNet-50."""

from benchmarks.core import Column, Row, Table
from benchmarks.models import IMAGENET_IMITATE, IMITATE, RANDOM_IMITATE
from benchmarks.tables.imitate_table3 import BASELINES, RIVALS, UNBUILT
from benchmarks.tables.mgca_table3 import DICE

TABLE = Table(
    id="imitate-table5",
    title="IMITATE Table V: segmentation (Dice) and detection (mAP) on a frozen ResNet-50",
    published="imitate_table5.csv",
    rows=(
        Row("Random", model=RANDOM_IMITATE),
        Row("ImageNet", model=IMAGENET_IMITATE),
        *RIVALS,
        Row("MedKLIP", why_not_run=UNBUILT),
        Row("IMITATE", model=IMITATE),
    ),
    columns=tuple(
        Column(f"{title} {fraction:.0%}", dataset, task, metric, fraction)
        for dataset, title, task, metric in (
            ("siim", "SIIM", "segmentation", "dice"),
            ("rsna", "RSNA", "segmentation", "dice"),
            ("rsna", "RSNA mAP", "detection", "map"),
            ("object_cxr", "Object-CXR mAP", "detection", "map"),
        )
        for fraction in (0.01, 0.1, 1.0)
    ),
    unit="%",
    footnotes=(
        DICE,
        BASELINES,
        "Random, ImageNet and IMITATE follow IMITATE's recipe. On real data GLoRIA's own net for "
        "segmentation trains its encoder too.",
    ),
)
