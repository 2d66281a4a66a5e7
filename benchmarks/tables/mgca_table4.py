"""MGCA Table 4: what each alignment contributes."""

from benchmarks.core import Column, Row, Table
from benchmarks.models import (
    ITA_CPA_RESNET,
    ITA_CPA_VIT,
    ITA_CTA_RESNET,
    ITA_CTA_VIT,
    ITA_RESNET,
    ITA_VIT,
    MGCA_RESNET,
    MGCA_VIT,
)
from benchmarks.tables.mgca_table3 import DICE

ROWS = (
    ("ITA", ITA_VIT, ITA_RESNET),
    ("ITA+CTA", ITA_CTA_VIT, ITA_CTA_RESNET),
    ("ITA+CPA", ITA_CPA_VIT, ITA_CPA_RESNET),
    ("ITA+CTA+CPA", MGCA_VIT, MGCA_RESNET),
)

TABLE = Table(
    id="mgca-table4",
    title="MGCA Table 4: ablation of the alignments, AUROC and Dice",
    published="mgca_table4.csv",
    rows=tuple(
        Row(name, model=vit, dense=resnet, published_as=f"MGCA ablation: {name}")
        for name, vit, resnet in ROWS
    ),
    columns=tuple(
        Column(f"{title} {fraction:.0%}", dataset, task, metric, fraction)
        for dataset, title, task, metric in (
            ("chexpert", "CheXpert", "linear", "auroc"),
            ("rsna", "RSNA", "linear", "auroc"),
            ("siim", "SIIM", "segmentation", "dice"),
        )
        for fraction in (0.01, 0.1, 1.0)
    ),
    unit="%",
    footnotes=(
        "Classification with ViT-B/16, segmentation with ResNet-50: the last row's printed cells "
        "are those of Tables 1 and 3.",
        "The printed SIIM cells of ITA equal ConVIRT's row of Table 3.",
        DICE,
    ),
)
