"""IMITATE Table VIII: what each term of the loss contributes."""

from benchmarks.core import Column, Row, Table
from benchmarks.models import IMITATE, TERMS
from benchmarks.tables.imitate_table4 import FINETUNED
from benchmarks.tables.mgca_table3 import DICE

COLUMNS = (
    Column("CheXpert 1%", "chexpert", "linear", "auroc", 0.01),
    Column("SIIM 1%", "siim", "segmentation", "dice", 0.01),
    Column("RSNA 1%", "rsna", "detection", "map", 0.01),
    Column("NIH 1%", "nih", "finetune", "auroc", 0.01, on="nih_kad"),
)
FOOTNOTES = ("CheXpert: linear, AUROC; SIIM: Dice; RSNA: detection, mAP.", DICE, FINETUNED)

TABLE = Table(
    id="imitate-table8",
    title="IMITATE Table VIII: terms of the loss, with 1 % of the labels",
    published="imitate_table8.csv",
    rows=(
        *(Row(name, model=model) for name, model in TERMS.items()),
        Row("IMITATE", model=IMITATE),
    ),
    columns=COLUMNS,
    unit="%",
    footnotes=(
        *FOOTNOTES,
        "VV and VL: views against each other, views against text; H and M: the last stage, all "
        "stages. VLM alone meets both sections, as the paper's text has it.",
    ),
)
