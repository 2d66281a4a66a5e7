"""MGCA Table 3: segmentation with a frozen ResNet-50."""

from benchmarks.core import Column, Row, Table
from benchmarks.models import (
    CONVIRT_MGCA,
    GLORIA,
    GLORIA_MIMIC,
    IMAGENET_RESNET,
    MGCA_RESNET,
    RANDOM_RESNET,
)

DICE = (
    "Dice: mean over the test images, 1 where neither truth nor prediction has a pixel, 0 where "
    "one of them has none: predicting nothing scores the share of images without a mask (about "
    "78 % of SIIM's table, on phantom 85 % of SIIM and 80 % of RSNA). Results also hold the mean "
    "over positives, which tells learning from silence, and the mean of batch means."
)

TABLE = Table(
    id="mgca-table3",
    title="MGCA Table 3: segmentation with a U-Net on a frozen ResNet-50, Dice",
    published="mgca_table3.csv",
    rows=(
        Row("Random", model=RANDOM_RESNET),
        Row("ImageNet", model=IMAGENET_RESNET),
        Row("ConVIRT", model=CONVIRT_MGCA),
        Row("GLoRIA", model=GLORIA),
        Row("GLoRIA-MIMIC", model=GLORIA_MIMIC),
        Row("MGCA", model=MGCA_RESNET),
    ),
    columns=tuple(
        Column(f"{title} {fraction:.0%}", dataset, "segmentation", "dice", fraction)
        for dataset, title in (("siim", "SIIM"), ("rsna", "RSNA"))
        for fraction in (0.01, 0.1, 1.0)
    ),
    unit="%",
    footnotes=(
        DICE,
        "SIIM trains on all positives and as many negatives; RSNA's boxes are filled.",
        "On real data the GLoRIA row is judged by GLoRIA's own recipe (its Table 4, whose SIIM "
        "cells MGCA prints): the encoder is trained too, at 512 pixels. GLoRIA-MIMIC is judged as "
        "MGCA.",
    ),
)
