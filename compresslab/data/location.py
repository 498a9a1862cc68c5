"""Paths of the repository's root and of the folders in it."""

from __future__ import annotations

import os
from pathlib import Path

from compresslab.errors import NotAvailable

__all__ = [
    "CLONE",
    "DATA",
    "HAS_REPOSITORY",
    "LABS",
    "MY_LABS",
    "PACKAGE",
    "REPOSITORY",
    "SOLUTIONS",
    "require_repository",
    "way_back",
]

REPOSITORY = Path(__file__).resolve().parents[2]  # the root of a clone; site-packages, in a wheel
HAS_REPOSITORY = (REPOSITORY / "pyproject.toml").is_file()
PACKAGE = REPOSITORY / "compresslab"
# Beside the package in a clone; absent in a wheel.
DATA = Path(os.environ.get("COMPRESSLAB_DATA", REPOSITORY / "data"))  # a worker's copy stands elsewhere
SOLUTIONS = REPOSITORY / "solutions"  # the source of every lab
LABS = REPOSITORY / "labs"  # the students' editions
MY_LABS = REPOSITORY / "my_labs"  # where ``compresslab start`` puts a student's own copies

CLONE = "Clone the repository and, inside it, run: pip install -e ."


def way_back(place: str, *, otherwise: str = "") -> str:
    """Return the sentence that says how to get a file of the repository again.

    Args:
        place: its path in the repository.
        otherwise: another way, for a clone.
    """
    if HAS_REPOSITORY:
        return f"Get it back with: git checkout -- {place}{otherwise}"
    return f"It comes with the repository, and compresslab is installed without it. {CLONE}"


def require_repository(what: str) -> None:
    """Raise where compresslab is installed without its repository.

    Args:
        what: what needs the repository, as the sentence's subject.

    Raises:
        NotAvailable: with what to do.
    """
    if not HAS_REPOSITORY:
        raise NotAvailable(
            f"{what} works in a clone of the repository, and compresslab is installed without it "
            f"(in {REPOSITORY}). {CLONE}"
        )
