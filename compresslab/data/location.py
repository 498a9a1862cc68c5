"""Paths of the repository's root and of its data folder."""

from __future__ import annotations

from pathlib import Path

__all__ = ["DATA", "REPOSITORY"]

REPOSITORY = Path(__file__).resolve().parents[2]  # the root of a clone; site-packages, in a wheel
DATA = REPOSITORY / "data"  # beside the package in a clone; absent in a wheel
