"""Controls that no paper prints: does GLoRIA learn from the pairing, and only from it?"""

from benchmarks.core import Column, Row, Table
from benchmarks.models import GLORIA, SHUFFLED

TABLE = Table(
    id="gloria-controls",
    title="GLoRIA controls: zero-shot AUROC with true and with shuffled image-report pairs",
    published=None,
    rows=(Row("GLoRIA", model=GLORIA), Row("GLoRIA, shuffled pairs", model=SHUFFLED)),
    columns=(Column("five findings", "chexpert", "zero_shot", "auroc"),),
    unit="%",
    footnotes=("Macro mean over the five competition findings on the expert-labelled images.",),
)
