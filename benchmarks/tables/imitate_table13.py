"""IMITATE Table XIII: drop ratios."""

from benchmarks.models import DROPS
from benchmarks.tables.imitate_table8 import ablation

TABLE = ablation(
    13,
    "XIII",
    "drop ratios",
    DROPS,
    "The default drops 0.85 of the first stage, 0.9 of the others; on phantom 0.25, 0.5, 0.75 and "
    "0.75, for its stages are narrow.",
    default="drop 0.9",
)
