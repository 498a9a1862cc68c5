"""Rebuild a submission's notebook, safe to look at in a browser; nothing of it is run.

The course's own cells come from the course; the student's cells are code or plain text, in the student's
order; each check cell shows what the grader found. Outputs, metadata, attachments and HTML of the submission
are dropped: they may be forged, and formgrader shows them where the teacher is logged in. With them go
pictures and the formatting of the student's own Markdown.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from compresslab.checks.exercise import Lab
from compresslab.grading.scores import ExerciseScore, Score, Status, Verdict, plain
from compresslab.grading.submission.answers import read_submission
from compresslab.grading.submission.cells import source_of, submitted_bytes

__all__ = ["autograded_notebook", "final"]

LONGEST_TEXT = 20_000  # characters, of a student's cell of text
MOST_CELLS = 1_000  # beyond them only the graded ones are shown


def final(score: Score, test: ExerciseScore | None) -> float | None:
    """Return an exercise's points, or None while they are open."""
    return (
        None if score.status != Status.GRADED or test is None or test.verdict == Verdict.FAULT else test.score
    )


def autograded_notebook(path: Path | None, score: Score, lab: Lab, released: NotebookNode) -> NotebookNode:
    """Return the notebook to look at; if the submission can't be read, the lab's own with a notice on top.

    Args:
        path: the submitted file, whatever it holds; None if there is none.
        score: of the submission.
        lab: the lab that was graded.
        released: the students' edition, with nbgrader's marks on its holes and checks; it is not changed.
    """
    cells, answers, problem = _read(path, lab)
    book = copy.deepcopy(released)
    book.cells = _in_submitted_order(book.cells, cells, answers)
    _restore(book, [cell for cell in released.cells if cell.metadata.get("nbgrader")])
    return _with_results(book, score, problem)


# The submission


def _read(path: Path | None, lab: Lab) -> tuple[list[Any], dict[str, int], str]:
    """Return a submission's cells, the position of each answer among them, and why there are none."""
    if path is None:
        return [], {}, "there is no notebook of this student"
    try:
        content = submitted_bytes(Path(path))
        submission = read_submission(content, lab, path=Path(path).name)
        cells = json.loads(content)["cells"]
        found = {a.name: int(a.cell.removeprefix("cell ")) for a in submission.answers if a.cell}
    except Exception as error:  # whatever it holds, the other students' notebooks are written
        return [], {}, str(error)
    names = {exercise.name for exercise in lab.exercises}
    marked = {cell["id"]: index for index, cell in enumerate(cells, 1) if _is_code(cell, names)}
    return cells, marked | found, ""


def _is_code(cell: Any, names: set[str]) -> bool:
    """Whether it is a code cell with one of these ids."""
    if not isinstance(cell, dict) or cell.get("cell_type") != "code":
        return False
    return isinstance(cell.get("id"), str) and cell["id"] in names


# The cells


def _in_submitted_order(
    own: Sequence[NotebookNode], cells: Sequence[Any], answers: Mapping[str, int]
) -> list[NotebookNode]:
    """Return the student's cells; of those that a student may not change, the course's own."""
    left = {cell.id: cell for cell in own}
    graded = {index: name for name, index in answers.items()}
    shown = []
    for index, cell in enumerate(cells, 1):
        if not isinstance(cell, dict) or (index > MOST_CELLS and index not in graded):
            continue
        text, identity = source_of(cell), str(cell.get("id", ""))
        if graded.get(index) in left:
            shown.append(left.pop(graded[index]))
            shown[-1].source = text
        elif identity in left and (_is_locked(left[identity]) or _is_same(left[identity], text, answers)):
            shown.append(left.pop(identity))
        else:
            shown.append(_own_cell(cell.get("cell_type"), text, index))
    return shown


def _is_locked(cell: NotebookNode) -> bool:
    return bool(cell.metadata.get("nbgrader", {}).get("locked"))


def _is_same(cell: NotebookNode, text: str, answers: Mapping[str, int]) -> bool:
    return cell.source == text and cell.id not in answers


def _own_cell(kind: Any, text: str, index: int) -> NotebookNode:
    """Return a student's cell: code stays code; text is verbatim, since as Markdown it could be a script."""
    if kind == "code":
        return new_code_cell(text, id=f"submitted-{index}")
    return new_markdown_cell(_verbatim(text), id=f"submitted-{index}")


def _verbatim(text: str) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    cut = "" if len(text) <= LONGEST_TEXT else f"\n… cut after {LONGEST_TEXT:,} characters"
    return f"{fence}text\n{text[:LONGEST_TEXT]}{cut}\n{fence}"


def _restore(book: NotebookNode, marked: Sequence[NotebookNode]) -> None:
    """Add the holes and checks that the submission lacks, each after the cell it follows in the course."""
    behind = 0
    for cell in marked:
        ids = [present.id for present in book.cells]
        if cell.id not in ids:
            book.cells.insert(behind, copy.deepcopy(cell))
            if not _is_locked(cell):
                book.cells[behind].source = f"# not in a cell of its own in the submission\n{cell.source}"
        behind = [present.id for present in book.cells].index(cell.id) + 1


# The grader's results


def _with_results(book: NotebookNode, score: Score, problem: str) -> NotebookNode:
    """Return the notebook with results in its check cells and, if there is more to say, a notice on top."""
    tests = {test.name: test for test in score.tests}
    for cell in book.cells:
        marks = cell.metadata.get("nbgrader", {})
        if marks.get("grade"):
            test = tests.get(marks["grade_id"].removeprefix("check_"))
            cell.outputs = [new_output("stream", name="stdout", text=_outcome(score, test))]
    words = [
        plain(note) for note in (*([score.message] * (score.status != Status.GRADED)), problem, *score.notes)
    ]
    if any(words):
        notice = _verbatim("\n".join(dict.fromkeys(filter(None, words))))
        book.cells.insert(
            0, new_markdown_cell(f"**The grader says** ({score.status})\n\n{notice}", id="the-grader-says")
        )
    return book


def _outcome(score: Score, test: ExerciseScore | None) -> str:
    if test is None or final(score, test) is None:
        return f"not graded yet, a person will look at it: {plain(test.output if test else score.message)}\n"
    return f"{test.score:g} of {test.max_score:g} points: {plain(test.output)}\n"
