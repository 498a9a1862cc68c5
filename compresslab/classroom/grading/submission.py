"""A submitted notebook, taken apart: what the student wrote for each exercise. Nothing of it is run here.

A notebook is JSON and a cell is text: this page reads both and never imports or executes a line. The hole of
an exercise is the code cell whose id is the exercise's name; where an editor dropped the ids, the last cell
that defines a function of that name. From the hole come its imports, functions, classes and assignments; from
the other cells the imports, functions, classes and plain constants *that the hole needs*, by name. So a slow,
broken or hostile cell elsewhere costs nothing, and metadata (tags, nbgrader's fields) is ignored.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from compresslab.classroom.exercise import Lab
from compresslab.classroom.exercises import all_labs
from compresslab.classroom.grading.cells import Cell, bound, code_cells, parsed
from compresslab.errors import CompressionError

__all__ = ["Answer", "Piece", "Submission", "read_submission"]


SHIPPED = "a cell of the lab's own"


@dataclass(frozen=True)
class Piece:
    """Some top-level statements of one cell, by place; the text stays whole, so line numbers stay true."""

    cell: str
    text: str
    keep: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """What defines one exercise's function, the hole itself last; or the sentence why nothing does."""

    name: str
    pieces: tuple[Piece, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Submission:
    """An answer for every exercise of the lab, in the lab's order, and notes on what was left out."""

    lab: str
    answers: tuple[Answer, ...]
    notes: tuple[str, ...] = ()


def read_submission(
    content: bytes,
    lab: Lab,
    *,
    path: str,
    skeleton: Sequence[str] = (),
    names: Mapping[str, Sequence[str]] | None = None,
) -> Submission:
    """The student's answers in a notebook file, whatever the file is called.

    Args:
        content: of the file, as ``submitted_bytes`` gives it.
        lab: whose holes are looked for.
        path: what the file is called in messages.
        skeleton: the code that the lab ships in its other cells; what a hole needs of it is there even where
            the student has deleted it, and the student's own cells come after it.
        names: of every lab's exercises, to tell another lab's notebook; by default those installed here.

    Raises:
        CompressionError: it is no notebook, or holds not one hole of this lab.
    """
    cells = tuple(code_cells(content, path))
    shipped = tuple(parsed(SHIPPED, "", text) for text in skeleton)
    asked = [exercise.name for exercise in lab.exercises]
    notes: list[str] = []
    holes = {name: _hole(name, cells, notes) for name in asked}
    if not any(holes.values()):
        raise CompressionError(_no_hole(path, lab, cells, names))
    refused = ("compresslab.classroom", *lab.answers)
    kept = {s: cell for cell in (*shipped, *cells) for s in cell.body if _kept(s, everything=False)}
    answers = tuple(_answer(name, holes[name], kept, refused, notes) for name in asked)
    return Submission(lab.name, answers, tuple(dict.fromkeys(notes)))


# The holes: which cell answers which exercise.


def _hole(name: str, cells: Sequence[Cell], notes: list[str]) -> Cell | None:
    """The cell with the exercise's id; else the last that defines the function; else one that tries to."""
    marked = [cell for cell in cells if cell.id == name]
    right = [cell for cell in marked if name in cell.defines]
    if len(marked) > 1:
        notes.append(f"{name}: {len(marked)} cells have its id; the last one that defines it is graded")
    if right or any(cell.error for cell in marked):
        return (right or marked)[-1]
    retyped = [cell for cell in cells if name in cell.defines]
    if retyped:
        notes.append(f"{name}: its own cell is gone or empty; {retyped[-1].name} defines it and is graded")
        return retyped[-1]
    broken = [cell for cell in cells if cell.error and re.search(rf"(?m)^def {name}\b", cell.text)]
    return next(reversed(marked or broken), None)


def _no_hole(path: str, lab: Lab, cells: Sequence[Cell], names: Mapping[str, Sequence[str]] | None) -> str:
    seen = {cell.id for cell in cells}.union(*(cell.defines for cell in cells))
    if names is None:
        names = {each.name: [exercise.name for exercise in each.exercises] for each in all_labs()}
    found = {name: len(seen & set(exercises)) for name, exercises in names.items()}
    likely = max(found, key=lambda name: found[name], default="")
    if likely != lab.name and found.get(likely):
        return (
            f"{path} seems to be lab {likely}; expected lab {lab.name}; submit that one, or grade as {likely}"
        )
    return (
        f"{path} is a notebook without a single cell of lab {lab.name}; expected the lab's own notebook, "
        f"as it lies in my_labs/{lab.name}; submit that one"
    )


def _answer(
    name: str, hole: Cell | None, kept: Mapping[ast.stmt, Cell], refused: tuple[str, ...], notes: list[str]
) -> Answer:
    if hole is None:
        return Answer(
            name, problem=f"its cell is missing; write def {name}(…) in any cell, save, submit again"
        )
    if hole.error:
        return Answer(name, problem=f"{hole.error}; mend the line, run the cell, save, submit again")
    if name not in hole.defines:
        return Answer(name, problem=f"its cell does not define it; write def {name}(…) at the left margin")
    own = [s for s in hole.body if _kept(s, everything=True) and not _refused(s, refused, hole, notes)]
    others = {s: cell for s, cell in kept.items() if cell is not hole and bound(s) != {name}}
    needed = _closure(own, others)
    wanted = {s: cell for s, cell in others.items() if s in needed and not _refused(s, refused, cell, notes)}
    pieces = [_piece(cell, wanted) for cell in dict.fromkeys(wanted.values())]
    return Answer(name, (*pieces, _piece(hole, dict.fromkeys(own, hole))))


def _piece(cell: Cell, kept: dict[ast.stmt, Cell]) -> Piece:
    return Piece(cell.name, cell.text, tuple(place for place, s in enumerate(cell.body) if s in kept))


# The statements: which define something, and what they need.


def _kept(statement: ast.stmt, *, everything: bool) -> bool:
    """Whether a statement defines something; an assignment outside the hole only with a literal as value."""
    if isinstance(statement, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef):
        return True
    if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
        return False
    return everything or all(isinstance(node, _LITERAL) for node in ast.walk(statement.value))


_LITERAL = (
    ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.UnaryOp, ast.USub, ast.UAdd, ast.BinOp, ast.Add,
    ast.Sub, ast.Load,
)  # fmt: skip


def _used(statement: ast.stmt) -> set[str]:
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}


def _closure(own: Iterable[ast.stmt], others: Iterable[ast.stmt]) -> set[ast.stmt]:
    """Those of the others that the hole needs, and that these need in their turn."""
    makers: dict[str, list[ast.stmt]] = {}
    for statement in others:
        for name in bound(statement):
            makers.setdefault(name, []).append(statement)
    names = ["*", *set().union(*map(_used, own))]
    needed: set[ast.stmt] = set()
    while names:
        found = makers.pop(names.pop(), [])
        needed.update(found)
        names += set().union(*map(_used, found))
    return needed


def _refused(statement: ast.stmt, modules: tuple[str, ...], cell: Cell, notes: list[str]) -> bool:
    """Whether a statement imports the answers; noted, except for the line that opens every lab."""
    if isinstance(statement, ast.Import):
        asked = [alias.name for alias in statement.names]
    elif isinstance(statement, ast.ImportFrom):
        asked = [f"{statement.module}.{alias.name}" for alias in statement.names]
    else:
        return False
    refused = [name for name in asked if name.startswith(modules)]
    if refused and asked != ["compresslab.classroom.lab"] and cell.name != SHIPPED:
        notes.append(f"{cell.name}: the import of {', '.join(refused)} is left out; write it yourself")
    return bool(refused)
