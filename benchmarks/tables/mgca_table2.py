"""MGCA Table 2: detection with a frozen ResNet-50."""

from benchmarks.core import Column, Row, Table
from benchmarks.models import (
    CONVIRT_MGCA,
    GLORIA,
    GLORIA_MIMIC,
    IMAGENET_RESNET,
    MGCA_RESNET,
    RANDOM_RESNET,
)

TABLE = Table(
    id="mgca-table2",
    title="MGCA Table 2: detection with YOLOv3 on a frozen ResNet-50, mAP",
    published="mgca_table2.csv",
    rows=(
        Row("Random", model=RANDOM_RESNET),
        Row("ImageNet", model=IMAGENET_RESNET),
        Row("ConVIRT", model=CONVIRT_MGCA),
        Row("GLoRIA", model=GLORIA),
        Row("GLoRIA-MIMIC", model=GLORIA_MIMIC),
        Row("MGCA", model=MGCA_RESNET),
    ),
    columns=tuple(
        Column(f"{title} {fraction:.0%}", dataset, "detection", "map", fraction)
        for dataset, title in (("rsna", "RSNA"), ("object_cxr", "Object-CXR"))
        for fraction in (0.01, 0.1, 1.0)
    ),
    unit="%",
    footnotes=(
        "mAP over IoU 0.40 to 0.75 and all test images; results also hold it over images with both "
        "box and detection, as released. Images are stretched to squares.",
    ),
)
