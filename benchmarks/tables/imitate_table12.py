"""IMITATE Table XII: text encoders."""

from benchmarks.models import ENCODERS
from benchmarks.tables.imitate_table8 import ablation

TABLE = ablation(
    12,
    "XII",
    "text encoders",
    ENCODERS,
    "On phantom the default row is the phantom's own random text encoder.",
    default="BioClinicalBERT",
)
