"""A made lab with a core exercise of 2 points and a bonus of 1: the students' edition, and submissions."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_lab
import nbformat
from nbformat import NotebookNode

from compresslab.authoring.editions import student_edition
from compresslab.authoring.instructor_notebook import instructor_notebook
from compresslab.grading.scores import ExerciseScore, Score

__all__ = ["LAB", "cell", "edition", "handed_in", "score"]

LAB = replace(
    made_lab.LAB,
    exercises=(made_lab.EXERCISE, replace(made_lab.EXERCISE, name="again", points=1, bonus=True)),
)
_HOLE = made_lab.SOURCE[made_lab.SOURCE.index('# %% exercise="double"') :].partition("# %%\n")[0]
SOURCE = made_lab.SOURCE + _HOLE.replace("def double", "def again").replace('"double"', '"again"')


@functools.cache
def edition() -> str:
    """The students' notebook, as nbgrader makes it."""
    return student_edition(instructor_notebook(LAB, SOURCE), LAB.name)


def score(
    double: str = "right",
    again: str = "right",
    status: str = "graded",
    message: str = "",
    notes: tuple[str, ...] = (),
) -> Score:
    """A score with these verdicts."""
    tests = (
        ExerciseScore("double", double, 2.0, f"double is {double}"),
        ExerciseScore("again", again, 1.0, f"again is {again}", bonus=True),
    )
    return Score(LAB.name, status, tests, message, 1.0, notes)


def handed_in(folder: Path, change: Callable[[NotebookNode], Any] = lambda book: None) -> Path:
    """A submission: the edition with both holes written, then changed."""
    book = nbformat.reads(edition(), as_version=4)
    for name in ("double", "again"):
        cell(book, name).source = f"def {name}(x):\n    return x + x"
    change(book)
    place = folder / "ann.ipynb"
    place.write_text(json.dumps(book))
    return place


def cell(book: NotebookNode, identity: str) -> NotebookNode:
    """The first cell of this id."""
    return next(cell for cell in book.cells if cell.id == identity)
