"""IMITATE Fig. 4: the smoothing of the targets, from 0.1 to 1."""

from benchmarks.core import Column, Row, Table
from benchmarks.models import IMITATE, SMOOTHINGS

POINTS = dict(sorted({**SMOOTHINGS, 0.2: IMITATE}.items()))
"""Model of each lambda."""
COLUMNS = (
    Column("CheXpert 1%", "chexpert", "linear", "auroc", 0.01),
    Column("SIIM 1%", "siim", "segmentation", "dice", 0.01),
    Column("RSNA 1%", "rsna", "detection", "map", 0.01),
)

TABLE = Table(
    id="imitate-figure4",
    title="IMITATE Fig. 4: smoothing lambda, with 1 % of the labels",
    published=None,
    rows=tuple(Row(f"lambda {rate}", model=model) for rate, model in POINTS.items()),
    columns=COLUMNS,
    unit="%",
    footnotes=(
        "The paper's figure prints no numbers: up to 0.4 above the best baseline, below it from "
        "0.5. `python -m imitate.figures smoothing` draws it from the results.",
    ),
    apart=True,
)
