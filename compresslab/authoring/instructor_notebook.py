"""From a lab's source to the instructor's notebook: text in, notebook out; nothing is run.

The source is a script in percent format, ``solutions/NN/NN.py``, and the only file that an author edits:

    # %% [markdown]                       prose; {{ lab }} becomes objectives, prerequisites, minutes,
                                          {{ check }} how the lab is checked
    # %%                                  code
    # %% tags=["nbval-check-output"]      code whose output nbval compares with the stored one
    # %% exercise="count_parameters"      a hole: the function, its docstring, and the solution between
                                          ### BEGIN SOLUTION and ### END SOLUTION

A hole becomes three cells: the card (what, points, minutes, difficulty), nbgrader's solution cell, and the
locked cell that checks it. A cell's id depends only on its text, so that a rebuilt notebook is the same.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from compresslab.authoring.edition_metadata import edition_metadata
from compresslab.checks.exercise import Exercise, Lab
from compresslab.errors import BadSource

__all__ = [
    "BEGIN",
    "END",
    "MAY_RAISE",
    "TAGS",
    "code_cells",
    "holes",
    "instructor_notebook",
    "read_source",
    "without_solution",
]

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
TAGS = ("nbval-check-output", "nbval-ignore-output", "nbval-skip")
MAY_RAISE = "raises-exception"  # only for the students' edition: in solutions/ a failing check would pass
_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {
        "codemirror_mode": {"name": "ipython", "version": 3},
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "nbconvert_exporter": "python",
        "pygments_lexer": "ipython3",
    },
}


def read_source(text: str) -> list[NotebookNode]:
    """Return the cells of a source: type, text, and of the metadata only ``exercise`` and ``tags``.

    Raises:
        BadSource: a cell has another setting, or a tag that means nothing.
    """
    import jupytext

    cells = jupytext.reads(text, fmt="py:percent").cells
    for cell in cells:
        first = (cell.source.splitlines() or [""])[0]
        cell.metadata.pop("lines_to_next_cell", None)
        unknown = sorted(set(cell.metadata) - {"exercise", "tags"})
        if unknown:
            raise BadSource(f"the cell {first!r} may have the settings exercise and tags, got {unknown[0]}")
        strange = sorted(set(cell.metadata.get("tags", ())) - set(TAGS))
        if strange:
            raise BadSource(f"the cell {first!r} may have the tags {', '.join(TAGS)}, got {strange[0]}")
    return cells


def instructor_notebook(lab: Lab, text: str) -> NotebookNode:
    """Return the instructor's notebook of a source, without outputs and with placeholders for its numbers.

    Raises:
        BadSource: a hole that is no exercise of the lab, stands twice, or lacks its markers.
    """
    seen: set[str] = set()
    cells: list[NotebookNode] = []
    for cell in read_source(text):
        if "exercise" in cell.metadata:
            cells += _hole(lab, cell, seen)
        elif cell.cell_type == "markdown":
            text = cell.source.replace("{{ lab }}", _opening(lab)).replace("{{ check }}", _closing(lab))
            cells.append(new_markdown_cell(text))
        elif cell.cell_type == "code":
            cells.append(new_code_cell(cell.source, metadata=cell.metadata))
    _identify(cells)
    notebook = new_notebook(cells=cells, metadata={**_METADATA, **edition_metadata(lab.name)})
    nbformat.validate(notebook)
    return notebook


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def holes(notebook: NotebookNode) -> dict[str, NotebookNode]:
    """Return the cells that a student fills, by the exercise's name."""
    return {c.id: c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("solution")}


def without_solution(source: str) -> str:
    """Return a hole's text without the solution and its markers."""
    return re.sub(rf"[ \t]*{BEGIN}.*?{END}[^\n]*\n?", "", source, flags=re.DOTALL)


# One hole, three cells


def _hole(lab: Lab, cell: NotebookNode, seen: set[str]) -> Iterator[NotebookNode]:
    name = cell.metadata["exercise"]
    names = [exercise.name for exercise in lab.exercises]
    if name not in names:
        raise BadSource(f"the hole {name!r} must be an exercise of {lab.name}; there are {', '.join(names)}")
    if name in seen:
        raise BadSource(f"the hole {name} must be there once, got two in {lab.name}; keep one")
    seen.add(name)
    _require_hole(name, cell.source)
    exercise = lab.exercise(name)
    yield new_markdown_cell(_card(exercise), id=f"card-{name}")
    solution = _marked(f"{name}", grade=False, solution=True, locked=False)
    yield new_code_cell(cell.source, id=name, metadata=solution)
    check = _marked(f"check_{name}", grade=True, solution=False, locked=True, points=exercise.points)
    yield new_code_cell(f"check.{name}({name})", id=f"check-{name}", metadata=check)


def _require_hole(name: str, source: str) -> None:
    if (source.count(BEGIN), source.count(END)) != (1, 1) or source.index(BEGIN) > source.index(END):
        raise BadSource(
            f"the hole {name} must have one {BEGIN} and then one {END}; put the solution between them"
        )
    try:
        defined = [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    except SyntaxError as error:
        raise BadSource(f"the hole {name} must be Python: {error}") from error
    if name not in defined:
        raise BadSource(f"the hole {name} must define {name}, got {defined or 'nothing'}")


def _marked(grade_id: str, **settings: Any) -> dict[str, Any]:
    return {"nbgrader": {"grade_id": grade_id, **settings, "schema_version": 3, "task": False}}


def _card(exercise: Exercise) -> str:
    points = f"{exercise.points} point" + ("s" if exercise.points != 1 else "")
    stars = "●" * exercise.difficulty + "○" * (5 - exercise.difficulty)
    lines = [
        f"### {'Bonus' if exercise.bonus else 'Exercise'}: `{exercise.name}`",
        f"{points} · about {exercise.minutes} minutes · difficulty {stars}",
        exercise.statement,
    ]
    if exercise.choices:
        lines.append("\n".join(f"- **{letter})** {words}" for letter, words in exercise.choices))
    return "\n\n".join(lines)


def _opening(lab: Lab) -> str:
    core = sum(not exercise.bonus for exercise in lab.exercises)
    count = f"{core} exercise" + ("s" if core != 1 else "")
    bonus = len(lab.exercises) - core
    return "\n\n".join(
        [
            "**You will**",
            "\n".join(f"- {objective}" for objective in lab.objectives),
            f"**You need** {'; '.join(lab.prerequisites)}.",
            f"**Time** about {lab.minutes} minutes: {count}, {lab.points} points."
            + (f" On top, for whoever wants more: {bonus} bonus." if bonus else ""),
        ]
    )


def _closing(lab: Lab) -> str:
    number = lab.name.partition("_")[0]
    return "\n".join(
        [
            "Save this notebook and have it marked as the grader would, in one of three ways:",
            "",
            f"- here, in a new cell: `!compresslab check {number}`",
            f"- in a terminal, in the folder that you cloned: `make check LAB={number}`",
            f"- there too, where you have no `make`: `.venv/bin/compresslab check {number}`",
        ]
    )


def _identify(cells: list[NotebookNode]) -> None:
    """Give each cell outside a hole an id made from its first words, and a number if the id is taken."""
    taken: dict[str, int] = {}
    for cell in cells:
        if "nbgrader" in cell.metadata or cell.id.startswith("card-"):
            continue
        line = next((line for line in cell.source.splitlines() if line.strip()), "").lower()
        words = "-".join(re.findall(r"[a-z0-9]+", line))[:32].strip("-")
        name = ("text" if cell.cell_type == "markdown" else "code") + (f"-{words}" if words else "")
        taken[name] = taken.get(name, 0) + 1
        cell.id = name if taken[name] == 1 else f"{name}--{taken[name]}"
