"""IMITATE Table X: kernels of the soft targets."""

from benchmarks.models import KERNELS
from benchmarks.tables.imitate_table8 import ablation

TABLE = ablation(10, "X", "kernels of the soft targets", KERNELS)
