"""Controls that no paper prints: do MGCA's frozen features find, beside leave empty?"""

from benchmarks.core import Column, Row, Table
from benchmarks.models import CONVIRT_MGCA, MGCA_RESNET, RANDOM_RESNET

TABLE = Table(
    id="mgca-controls",
    title="MGCA controls: Dice over the images with a mask, and mAP, on a frozen ResNet",
    published=None,
    rows=(
        Row("Random", model=RANDOM_RESNET),
        Row("ConVIRT", model=CONVIRT_MGCA),
        Row("MGCA", model=MGCA_RESNET),
    ),
    columns=tuple(
        Column(f"{title} {fraction:.0%}", dataset, task, metric, fraction)
        for dataset, title, task, metric in (
            ("siim", "SIIM Dice", "segmentation", "dice_positives"),
            ("rsna", "RSNA Dice", "segmentation", "dice_positives"),
            ("rsna", "RSNA mAP", "detection", "map"),
            ("object_cxr", "Object-CXR mAP", "detection", "map"),
        )
        for fraction in (0.01, 0.1, 1.0)
    ),
    unit="%",
    footnotes=(
        "Over all images a net that predicts nothing scores the share of empty ones (about 80 % "
        "here): Table 3's Dice cannot tell it from a good one, this can.",
    ),
)
