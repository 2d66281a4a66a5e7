"""IMITATE Table VIII: what each term of the loss contributes."""

from benchmarks.core import Column, Model, Row, Table
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


def ablation(
    number: int,
    roman: str,
    title: str,
    rows: dict[str, Model],
    *notes: str,
    default: str = "IMITATE",
) -> Table:
    """One of Tables VIII to XIII: variants, and the default as the last row."""
    return Table(
        id=f"imitate-table{number}",
        title=f"IMITATE Table {roman}: {title}, with 1 % of the labels",
        published=f"imitate_table{number}.csv",
        rows=(
            *(Row(name, model=model) for name, model in rows.items()),
            Row(default, model=IMITATE),
        ),
        columns=COLUMNS,
        unit="%",
        footnotes=(*FOOTNOTES, *notes),
    )


TABLE = ablation(
    8,
    "VIII",
    "terms of the loss",
    TERMS,
    "VV and VL: views against each other, views against text; H and M: the last stage, all stages. "
    "VLM alone meets both sections, as the paper's text has it.",
)
