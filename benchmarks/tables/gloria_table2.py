"""GLoRIA Table 2: linear classification with 1, 10 and 100 % of the labels."""

from benchmarks.core import Column, Row, Table
from benchmarks.models import CONVIRT, GLORIA, IMAGENET, RANDOM

TABLE = Table(
    id="gloria-table2",
    title="GLoRIA Table 2: linear classification on frozen image features, AUROC",
    published="gloria_table2.csv",
    rows=(
        Row("Random", model=RANDOM),
        Row("ImageNet", model=IMAGENET),
        Row("DSVE", why_not_run="re-trained by the paper from another project"),
        Row("VSE++", why_not_run="re-trained by the paper from another project"),
        Row("ConVIRT", model=CONVIRT),
        Row("GLoRIA", model=GLORIA),
    ),
    columns=tuple(
        Column(f"{title} {fraction:.0%}", dataset, "linear", "auroc", fraction)
        for dataset, title in (("chexpert", "CheXpert"), ("rsna", "RSNA"))
        for fraction in (0.01, 0.1, 1.0)
    ),
    unit="%",
    footnotes=(
        "CheXpert: macro mean over the five competition findings on the expert-labelled images; "
        "RSNA: pneumonia. The paper averages five runs.",
        "ConVIRT: GLoRIA's encoders and heads with ConVIRT's temperature 0.1 and weighting 0.75.",
    ),
)
