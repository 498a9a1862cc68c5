"""The teaching: exercises, checks, notebooks and grades. Nothing outside this folder imports it."""

from compresslab.classroom.desk import Desk, lab
from compresslab.classroom.metrics import metric, verdict

__all__ = ["Desk", "lab", "metric", "verdict"]
