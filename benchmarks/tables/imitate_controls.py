"""Controls that no paper prints: random weights, and the global vision-language term alone."""

from benchmarks.core import Column, Row, Table
from benchmarks.models import IMITATE, RANDOM_IMITATE, REVERSED, VLH

TABLE = Table(
    id="imitate-controls",
    title="IMITATE controls: all terms against VLH alone, sections reversed, random weights",
    published=None,
    rows=(
        Row("Random", model=RANDOM_IMITATE),
        Row("VLH alone", model=VLH),
        Row("reversed", model=REVERSED),
        Row("IMITATE", model=IMITATE),
    ),
    columns=(
        Column("CheXpert 1%", "chexpert", "linear", "auroc", 0.01),
        Column("RSNA 1%", "rsna", "linear", "auroc", 0.01, on="rsna_dense"),
        Column("COVIDx 1%", "covidx", "linear", "accuracy", 0.01, on="covidx_80"),
        Column("NIH 1%", "nih", "finetune", "auroc", 0.01, on="nih_kad"),
    ),
    unit="%",
    footnotes=("CheXpert, RSNA and COVIDx: linear; NIH: fine-tuned.",),
)
