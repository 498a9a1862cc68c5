"""Extract from a submitted notebook what the student wrote for each exercise. Nothing of it is run here.

A notebook is JSON and a cell is text: this module reads both and never imports or executes a line. The hole
of an exercise is the cell that counts when its check runs: the last one above it that writes the function.
From the hole come its imports, functions, classes and assignments; from the other cells the imports,
functions, classes and simple values *that the hole needs*, by name. So a slow, broken or hostile cell
elsewhere costs nothing, and metadata (tags, nbgrader's fields) is ignored.
"""

from __future__ import annotations

import ast
import re
import symtable
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from compresslab.checks.exercise import Lab
from compresslab.course import all_labs
from compresslab.errors import DamagedFile
from compresslab.grading.sandbox.package_copy import TEACHING
from compresslab.grading.submission.cells import Cell, bound, code_cells, parsed

__all__ = ["Answer", "Piece", "Submission", "read_submission"]

SHIPPED = "a cell of the lab's own"
OFFERED = {  # what labs import; classroom is the old address
    f"compresslab.{package}.{name}"
    for package in ("notebook", "classroom")
    for name in ("lab", "metric", "verdict")
}


@dataclass(frozen=True)
class Piece:
    """Some top-level statements of one cell, by index; the text stays whole, so line numbers stay right."""

    cell: str
    text: str
    keep: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """The definitions of one exercise's function, the hole itself last; or the sentence why there are none.

    ``written`` is true where something was written that Python can't parse.
    """

    name: str
    pieces: tuple[Piece, ...] = ()
    problem: str = ""
    written: bool = False


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
    """Return the student's answers in a notebook file, whatever its name.

    Args:
        content: of the file, from ``submitted_bytes``.
        lab: the lab whose holes are read.
        path: the file's name in messages.
        skeleton: the code that the lab ships in its other cells; what a hole needs of it is available even if
            the student has deleted it, and the student's own cells come after it.
        names: of every lab's exercises, to recognise another lab's notebook; by default the installed ones.

    Raises:
        CompressionError: it is not a notebook, or has no hole of this lab.
    """
    cells = tuple(code_cells(content, path))
    shipped = tuple(parsed(SHIPPED, "", text) for text in skeleton)
    asked = [exercise.name for exercise in lab.exercises]
    notes: list[str] = []
    holes = {name: _hole(name, cells, notes) for name in asked}
    if not any(holes.values()):
        raise DamagedFile(_no_hole(path, lab, cells, names))
    refused = (*TEACHING, *lab.answers)
    kept = {s: cell for cell in (*shipped, *cells) for s in cell.body if _kept(s, everything=False)}
    answers = tuple(_answer(name, holes[name], kept, refused, notes) for name in asked)
    return Submission(lab.name, answers, tuple(dict.fromkeys(notes)))


# The holes: which cell answers which exercise.


def _hole(name: str, cells: Sequence[Cell], notes: list[str]) -> Cell | None:
    """Return the cell that counts when the exercise's check runs: the last above it that writes the function.

    If none is above it, the last of all; if the function is not written, the cell with the exercise's id.
    """
    marked = [cell for cell in cells if cell.id == name]
    checks = [place for place, cell in enumerate(cells) if f"check.{name}(" in cell.text]
    defining = {place: cell for place, cell in enumerate(cells) if name in cell.defines}
    written = {place: cell for place, cell in defining.items() if not _is_stub(name, cell)} or defining
    above = [cell for place, cell in written.items() if checks and place <= checks[-1]]
    chosen = next(reversed(above or list(written.values())), None)
    if len(marked) > 1:
        notes.append(f"{name}: {len(marked)} cells have its id; the last one that defines it is graded")
    if chosen is None:
        broken = [cell for cell in cells if cell.error and re.search(rf"(?m)^def {name}\b", cell.text)]
        return next(reversed([cell for cell in marked if cell.error] or marked or broken), None)
    if not any(name in cell.defines for cell in marked):
        notes.append(f"{name}: its own cell is gone or empty; {chosen.name} defines it and is graded")
    elif chosen not in marked:
        notes.append(f"{name}: {chosen.name} defines it again; that one is graded, not its own cell")
    return chosen


def _is_stub(name: str, cell: Cell) -> bool:
    """Whether a cell's last definition is the placeholder of the lab, or the published answer."""
    last = [statement for statement in cell.body if name in bound(statement)][-1]
    if isinstance(last, ast.FunctionDef):
        return isinstance(last.body[-1], ast.Raise) and "NotImplementedError" in _used(last.body[-1])
    return "reveal" in _used(last)


def _no_hole(path: str, lab: Lab, cells: Sequence[Cell], names: Mapping[str, Sequence[str]] | None) -> str:
    seen = {cell.id for cell in cells}.union(*(cell.defines for cell in cells))
    if names is None:
        names = {each.name: [exercise.name for exercise in each.exercises] for each in all_labs()}
    found = {name: len(seen & set(exercises)) for name, exercises in names.items()}
    likely = max(found, key=lambda name: found[name], default="")
    if likely != lab.name and found.get(likely):
        return f"{path} seems to be lab {likely}; expected lab {lab.name}; submit the notebook of that lab"
    return (
        f"{path} is a notebook without a single cell of lab {lab.name}; expected the lab's own notebook, "
        f"from my_labs/{lab.name}; submit that one"
    )


def _answer(
    name: str, hole: Cell | None, kept: Mapping[ast.stmt, Cell], refused: tuple[str, ...], notes: list[str]
) -> Answer:
    if hole is None:
        return Answer(
            name, problem=f"its cell is missing; write def {name}(…) in any cell, save, submit again"
        )
    if hole.error:
        return Answer(
            name, problem=f"{hole.error}; correct the line, run the cell, save, submit again", written=True
        )
    if name not in hole.defines:
        return Answer(name, problem=f"its cell does not define it; write def {name}(…) at the left margin")
    own = [s for s in hole.body if _kept(s, everything=True) and not _refused(s, refused, hole, notes)]
    others = {s: cell for s, cell in kept.items() if cell is not hole and bound(s) != {name}}
    needed = _needed_by(own, others)
    wanted = {s: cell for s, cell in others.items() if s in needed and not _refused(s, refused, cell, notes)}
    pieces = [_piece(cell, wanted) for cell in dict.fromkeys(wanted.values())]
    return Answer(name, (*pieces, _piece(hole, dict.fromkeys(own, hole))))


def _piece(cell: Cell, kept: dict[ast.stmt, Cell]) -> Piece:
    return Piece(cell.name, cell.text, tuple(place for place, s in enumerate(cell.body) if s in kept))


# Statements: which ones define something, and what they need.


def _kept(statement: ast.stmt, *, everything: bool) -> bool:
    """Whether a statement defines something; outside the hole an assignment needs a simple value."""
    if isinstance(statement, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef):
        return True
    if isinstance(statement, ast.Try):
        return bool(bound(statement))
    if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
        return False
    return everything or isinstance(statement.value, ast.Lambda) or _is_simple(statement.value)


def _is_simple(value: ast.expr) -> bool:
    """Whether a value has only numbers and text, names, arithmetic, and calls of torch, numpy or math."""
    nodes = list(ast.walk(value))
    calls = [node.func for node in nodes if isinstance(node, ast.Call)]
    return all(isinstance(n, _SIMPLE) for n in nodes) and all(
        _module_of(c) in ("torch", "np", "math") for c in calls
    )


def _module_of(function: ast.expr) -> str:
    """Return ``torch`` for ``torch.linalg.svd``."""
    while isinstance(function, ast.Attribute):
        function = function.value
    return function.id if isinstance(function, ast.Name) else ""


_SIMPLE = (
    ast.Constant,
    ast.Tuple,
    ast.List,
    ast.Set,
    ast.Dict,
    ast.UnaryOp,
    ast.unaryop,
    ast.BinOp,
    ast.operator,
    ast.Name,
    ast.Attribute,
    ast.Subscript,
    ast.Slice,
    ast.Call,
    ast.keyword,
    ast.Load,
)


def _used(node: ast.AST) -> set[str]:
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}


def _names_needed(statement: ast.stmt) -> set[str]:
    """Return the names that a statement needs from outside, without its functions' own variables.

    >>> sorted(_names_needed(ast.parse("def f(x, y=size): z = half(x); return z").body[0]))
    ['f', 'half', 'size']
    """
    try:
        tables = [symtable.symtable(ast.unparse(statement), "<cell>", "exec")]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return _used(statement)
    names: set[str] = set()
    for table in tables:
        tables += table.get_children()
        inside = table.get_type() == "module"
        names |= {symbol.get_name() for symbol in table.get_symbols() if inside or symbol.is_global()}
    return names


def _needed_by(own: Iterable[ast.stmt], others: Iterable[ast.stmt]) -> set[ast.stmt]:
    """Return those of the others that the hole needs, directly or through one another."""
    makers: dict[str, list[ast.stmt]] = {}
    for statement in others:
        for name in bound(statement):
            makers.setdefault(name, []).append(statement)
    names = ["*", *set().union(*map(_names_needed, own))]
    needed: set[ast.stmt] = set()
    while names:
        found = makers.pop(names.pop(), [])
        needed.update(found)
        names += set().union(*map(_names_needed, found))
    return needed


def _refused(statement: ast.stmt, modules: tuple[str, ...], cell: Cell, notes: list[str]) -> bool:
    """Whether a statement imports the answers; noted, except for the import at the start of every lab."""
    if isinstance(statement, ast.Import):
        asked = [alias.name for alias in statement.names]
    elif isinstance(statement, ast.ImportFrom):
        asked = [f"{statement.module}.{alias.name}" for alias in statement.names]
    else:
        return False
    refused = [name for name in asked if name.startswith(modules)]
    if refused and not set(asked) <= OFFERED and cell.name != SHIPPED:
        notes.append(f"{cell.name}: the import of {', '.join(refused)} is left out; write it yourself")
    return bool(refused)
