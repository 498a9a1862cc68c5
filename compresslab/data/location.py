"""Paths of the repository's root and of the folders in it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["DATA", "LABS", "MY_LABS", "PACKAGE", "REPOSITORY", "SOLUTIONS"]

REPOSITORY = Path(__file__).resolve().parents[2]  # the root of a clone; site-packages, in a wheel
PACKAGE = REPOSITORY / "compresslab"
# Beside the package in a clone; absent in a wheel.
DATA = REPOSITORY / "data"
SOLUTIONS = REPOSITORY / "solutions"  # the source of every lab
LABS = REPOSITORY / "labs"  # the students' editions
MY_LABS = REPOSITORY / "my_labs"  # where ``compresslab start`` puts a student's own copies
