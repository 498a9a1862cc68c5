"""Notebooks as students hand them in, made from an exercise's own right answers and mistakes."""

from __future__ import annotations

import ast
import inspect
import json
import platform
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import torch

from compresslab.checks import expect
from compresslab.checks.exercise import Exercise, Hint, Lab, mistake

SAVED_HERE = {"language_info": {"name": "python", "version": platform.python_version()}}  # as JupyterLab does
OPENING = """import torch
from compresslab.notebook import lab
check, hint, reveal, yours = lab("00_measuring")"""


def source(exercise: Exercise, answer: Callable[..., Any]) -> str:
    """The answer's text under the exercise's name; a letter's function is written out."""
    if exercise.choices:
        return f"def {exercise.name}():\n    return {answer()!r}\n"
    text = textwrap.dedent(inspect.getsource(answer))
    text = text[text.index("def ") :]  # without the decorator that makes it a mistake
    return re.sub(rf"\b{answer.__name__}\b", exercise.name, text)


def unwritten(exercise: Exercise) -> str:
    return f"def {exercise.name}(*arguments, **settings):\n    raise NotImplementedError\n"


def whole(exercise: Exercise, answer: Callable[..., Any]) -> str:
    """The answer in one cell with whatever its page imports and defines around it."""
    return f"{around(exercise)}\n\n{source(exercise, answer)}"


def around(exercise: Exercise) -> str:
    """What the exercise's own page imports and defines beside its answers, as a cell of a student might."""
    page = (
        ast.parse(inspect.getsource(sys.modules[exercise.judge.__module__])) if not exercise.choices else None
    )
    kept = [
        node
        for node in (page.body if page else ())
        if (isinstance(node, ast.Import | ast.ImportFrom) and "compresslab" not in ast.unparse(node))
        or (isinstance(node, ast.FunctionDef) and not node.decorator_list)
        or (isinstance(node, ast.Assign) and not re.search("__all__|EXERCISE|mistake", ast.unparse(node)))
    ]
    return "\n".join(ast.unparse(node) for node in kept if "__future__" not in ast.unparse(node))


def right_answers(lab: Lab, which: int = 0) -> dict[str, str]:
    return {exercise.name: whole(exercise, exercise.right[which]) for exercise in lab.exercises}


def notebook(holes: Mapping[str, str], *, ids: bool = True) -> nbformat.NotebookNode:
    """A submission: the opening cell, then for each hole a card, the hole and its check."""
    cells = [nbformat.v4.new_code_cell(OPENING)]
    for name, text in holes.items():
        cells.append(nbformat.v4.new_markdown_cell(f"## {name}"))
        cells.append(nbformat.v4.new_code_cell(text, **({"id": name} if ids else {})))
        cells.append(
            nbformat.v4.new_code_cell(f"check.{name}({name})", **({"id": f"check-{name}"} if ids else {}))
        )
    return nbformat.v4.new_notebook(cells=cells, metadata=SAVED_HERE)


def saved(book: nbformat.NotebookNode, folder: Path, name: str = "submission.ipynb") -> Path:
    place = folder / name
    place.write_text(json.dumps(book))
    return place


def code(*texts: str, ids: Sequence[str] = ()) -> nbformat.NotebookNode:
    """A notebook of these code cells."""
    cells = [nbformat.v4.new_code_cell(text) for text in texts]
    book = nbformat.v4.new_notebook(cells=cells, metadata=SAVED_HERE)
    for cell, identity in zip(book.cells, ids, strict=False):
        cell["id"] = identity  # afterwards: nbformat would mend a duplicated one
    return book


# A lab of three small exercises, so that a test can spoil one and look at the others.


def cases(rng):
    yield "a row", {"x": torch.rand(3, generator=rng)}
    yield "one number", {"x": torch.rand(1, generator=rng)}


def probe(case, written):
    return {"sum": written(case["x"])}


def judge(case, record):
    total = expect.number(record["sum"])
    expect.close(total, sum(case["x"].tolist()), what="the sum")


def by_method(x):
    return float(x.sum())


def by_loop(x):
    return sum(x.tolist())


@mistake("takes the mean", says="you return {yours}, the mean: do not divide")
def mean(x):
    return float(x.mean())


def tiny(*names: str, seconds: float = 0.5) -> Lab:
    hints = tuple(Hint(f"symptom {step}", "text") for step in (1, 2, 3))
    exercises = tuple(
        Exercise(
            name,
            2,
            1,
            1,
            f"{name}(x) adds up.",
            cases,
            probe,
            judge,
            (by_method, by_loop),
            (mean,),
            hints,
            seconds,
        )
        for name in names
    )
    answers = ("compresslab.techniques.tiny",)  # not there: what would hold them
    return Lab("99_tiny", "Tiny", "sums", ("add",), (), exercises, answers)


def adds(name: str, *, first: str = "pass") -> str:
    """A right answer for the tiny lab, with a line of the test's before it."""
    return f"import torch, os, sys, time\ndef {name}(x):\n    {first}\n    return float(x.sum())\n"
