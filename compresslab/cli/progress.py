"""How far a student is in each lab: the note that the last check left, and whether a notebook was touched."""

from __future__ import annotations

import contextlib
import datetime
import json
from pathlib import Path
from typing import Any

import nbformat

from compresslab.authoring.edition_metadata import digest, shipped_cells
from compresslab.cli.jupyter import notebook_of
from compresslab.errors import CompressionError
from compresslab.grading.scores import Score
from compresslab.storage.atomic import write_text

__all__ = ["forget", "is_begun", "note", "progress"]

PROGRESS = ".progress.json"  # beside the student's notebook: the last check's score
NOT_BEGUN = "not begun"


def progress(lab_name: str, folder: Path) -> str:
    """Return a lab's row in ``compresslab labs``: ``19 of 19 + 15 points (2026-09-01 10:11)``.

    Args:
        lab_name: such as ``00_measuring``.
        folder: the students' own, ``my_labs/``.
    """
    notebook = notebook_of(folder, lab_name)
    begun, noted = is_begun(notebook, lab_name), _noted(notebook)
    if noted is None or not notebook.is_file() or (noted[0] and not begun):  # restored since
        return "begun, not yet checked" if begun else NOT_BEGUN
    return noted[1]


def is_begun(notebook: Path, lab_name: str) -> bool:
    """Whether a cell of the notebook is not as it was shipped; outputs do not count."""
    try:
        found = nbformat.reads(notebook.read_text(encoding="utf-8"), as_version=4)
        shipped = shipped_cells(found, lab_name)
        return any(digest(cell.source) != shipped.get(cell.get("id", "")) for cell in found.cells)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, AttributeError, TypeError, nbformat.ValidationError):
        return True  # not as it was shipped, whatever it is


def note(score: Score, notebook: Path) -> str:
    """Note a score for ``progress``; return an empty text, or why it could not be noted."""
    bonus = sum(test.score for test in score.tests if test.bonus)
    values = {
        "score": score.score,
        "max_score": score.max_score,
        "bonus": bonus,
        "at": datetime.datetime.now().isoformat(timespec="minutes"),
    }
    try:
        write_text(notebook.with_name(PROGRESS), json.dumps(values))
    except CompressionError as error:
        return str(error).partition("; ")[0]
    return ""


def forget(notebook: Path) -> None:
    """Remove the note of a notebook that was restored."""
    with contextlib.suppress(OSError):
        notebook.with_name(PROGRESS).unlink()


def _noted(notebook: Path) -> tuple[float, str] | None:
    """Return the noted points and their row; notes of former versions do not tell the bonus."""
    try:
        values: dict[str, Any] = json.loads(notebook.with_name(PROGRESS).read_text(encoding="utf-8"))
        score, most = float(values["score"]), float(values["max_score"])
        bonus = float(values.get("bonus", max(0.0, score - most)))
        above = f" + {bonus:g}" if bonus else ""
        return score, f"{score - bonus:g} of {most:g}{above} points ({values['at'].replace('T', ' ')})"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
