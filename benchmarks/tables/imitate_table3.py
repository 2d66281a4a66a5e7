"""IMITATE Table III: linear classification."""

from benchmarks.core import Column, Row, Table
from benchmarks.models import (
    CONVIRT_MGCA,
    GLORIA,
    GLORIA_MIMIC,
    IMAGENET_IMITATE,
    IMITATE,
    MGCA_RESNET,
    RANDOM_IMITATE,
)

UNBUILT = "another method, not one of this repository"
BASELINES = (
    "ConVIRT, GLoRIA, GLoRIA-MIMIC and MGCA are ours, GLoRIA judged by its own recipes, the other "
    "three by MGCA's; what the paper prints for them is copied from MGCA's paper."
)
RIVALS = (
    Row("ConVIRT", model=CONVIRT_MGCA),
    Row("GLoRIA", model=GLORIA),
    Row("GLoRIA-MIMIC", model=GLORIA_MIMIC),
    Row("MGCA", model=MGCA_RESNET),
)

TABLE = Table(
    id="imitate-table3",
    title="IMITATE Table III: linear classification, AUROC and accuracy",
    published="imitate_table3.csv",
    rows=(
        Row("Random Init", model=RANDOM_IMITATE),
        Row("ImageNet Init", model=IMAGENET_IMITATE),
        *RIVALS,
        Row("MRM", why_not_run=UNBUILT),
        Row("MedKLIP", why_not_run=UNBUILT),
        Row("IMITATE", model=IMITATE),
    ),
    columns=tuple(
        Column(f"{title} {fraction:.0%}", dataset, "linear", metric, fraction, on=on)
        for dataset, title, metric, on in (
            ("chexpert", "CheXpert", "auroc", ""),
            ("rsna", "RSNA", "auroc", "rsna_dense"),
            ("covidx", "COVIDx", "accuracy", "covidx_80"),
        )
        for fraction in (0.01, 0.1, 1.0)
    ),
    unit="%",
    footnotes=(
        "CheXpert: macro AUROC over the five competition findings on the expert-labelled images; "
        "RSNA and COVIDx in the parts of Table II, which are not those of MGCA's Table 1.",
        BASELINES,
    ),
)
