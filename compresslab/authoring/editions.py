"""The students' edition of a lab, which nbgrader makes from the instructor's notebook.

The same settings serve ``compresslab build`` and nbgrader's own command line, which reads them from
``nbgrader_config.py``. Two steps are added: cells that
fail while a hole is empty do not stop a Run All, and the edition stores a digest of each cell.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from traitlets.config import Config

from compresslab.authoring.edition_metadata import KEY, digest
from compresslab.authoring.instructor_notebook import MAY_RAISE
from compresslab.authoring.needs_answers import cells_that_need_answers
from compresslab.errors import BadSource
from compresslab.grading.nbgrader.settings import course_settings

with warnings.catch_warnings():  # nbgrader's dependencies announce removals that we cannot fix
    warnings.simplefilter("ignore")
    from nbgrader.converters import GenerateAssignment
    from nbgrader.coursedir import CourseDirectory
    from nbgrader.preprocessors import NbGraderPreprocessor

__all__ = ["STUB", "LetRunAllFinish", "RememberCells", "nbgrader_settings", "student_edition"]

STUB = 'raise NotImplementedError("your code goes here")'


class LetRunAllFinish(NbGraderPreprocessor):
    """Tag the cells that need answers, so that Run All continues after them in a half-done lab."""

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
        for cell in cells_that_need_answers(nb):
            cell.metadata["tags"] = [*cell.metadata.get("tags", ()), MAY_RAISE]
        return nb, resources


class RememberCells(NbGraderPreprocessor):
    """Write a digest of each cell into the metadata, so that a student's changes can be told later."""

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
        nb.metadata.setdefault(KEY, {})["cells"] = {cell.id: digest(cell.source) for cell in nb.cells}
        return nb, resources


def nbgrader_settings() -> Config:
    """Return how this course uses nbgrader; everything else is nbgrader's default."""
    settings = course_settings()
    settings.ClearSolutions.code_stub = {"python": STUB}
    settings.GenerateAssignment.preprocessors = [
        LetRunAllFinish,
        *GenerateAssignment().preprocessors,
        RememberCells,
    ]
    return settings


def student_edition(notebook: NotebookNode, name: str) -> str:
    """Return the text of the students' notebook; nbgrader writes no database and no other file.

    Raises:
        BadSource: nbgrader refuses the notebook.
    """
    settings = nbgrader_settings()
    settings.GenerateAssignment.no_database = True
    settings.SaveCells.enabled = False
    with tempfile.TemporaryDirectory() as root, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = Path(root, "solutions", name, f"{name}.ipynb")
        source.parent.mkdir(parents=True)
        nbformat.write(notebook, source)
        course = CourseDirectory(config=settings, root=root, assignment_id=name)
        try:
            GenerateAssignment(coursedir=course, config=settings).start()
        except Exception as error:  # nbgrader raises many kinds
            raise BadSource(
                f"nbgrader refuses {name}: {error}; correct its source and build again"
            ) from error
        return Path(root, "labs", name, f"{name}.ipynb").read_text(encoding="utf-8")
