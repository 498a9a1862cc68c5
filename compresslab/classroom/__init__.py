"""The teaching: exercises, checks, notebooks and grades. Nothing outside this folder imports it."""

from compresslab.classroom.desk import Desk, lab

__all__ = ["Desk", "lab"]
