"""IMITATE Table IX: parts of the report."""

from benchmarks.models import REPORTS
from benchmarks.tables.imitate_table8 import ablation

TABLE = ablation(9, "IX", "parts of the report", REPORTS)
