"""Extract from a submitted notebook what the student wrote for each exercise. Nothing of it is run here.

A notebook is JSON and a cell is text: this module reads both and never imports or executes a line. There is
one rule: *the answer is what stands when its check runs.* It is the first argument of the last
``check.NAME(…)``, and with it go the statements above that check which it needs (``slicing``). All else in
the notebook costs nothing, however slow, broken or hostile it is, and metadata (tags, nbgrader's fields) is
ignored.

What nobody can have meant is read as its author did: a notebook may lack the check, or have been run in
another order than it is written in, so that the function stands below its check. Then the last one that is
written counts.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from compresslab.checks.exercise import Lab
from compresslab.course import all_labs
from compresslab.errors import DamagedFile
from compresslab.grading.sandbox.notebook_names import NAMES
from compresslab.grading.sandbox.package_copy import TEACHING
from compresslab.grading.submission.cells import Cell, Notebook, parsed, read_notebook
from compresslab.grading.submission.slicing import Program, Slice
from compresslab.grading.submission.statements import Statement, read_statement

__all__ = ["Answer", "Piece", "Submission", "read_submission"]

SHIPPED = "a cell of the lab's own"
OFFERED = ("compresslab.notebook", "compresslab.classroom")  # what labs import; classroom is the old address
ALWAYS_THERE = frozenset({*dir(builtins), *NAMES})


@dataclass(frozen=True)
class Piece:
    """Some top-level statements of one cell, by index; the text stays whole, so line numbers stay right."""

    cell: str
    text: str
    keep: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """What makes one exercise's function, or the sentence why there is none.

    Attributes:
        name: of the exercise.
        pieces: the statements that the function needs, its own among them, in the notebook's order.
        target: the expression that was checked; as a rule the function's name.
        problem: why nothing can be graded.
        written: whether something was written that Python can't parse.
        cell: the name of the cell that it stands in.
        revealed: the exercises whose published answers it may use.
    """

    name: str
    pieces: tuple[Piece, ...] = ()
    target: str = ""
    problem: str = ""
    written: bool = False
    cell: str = ""
    revealed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Submission:
    """An answer for every exercise of the lab, in the lab's order, and notes on what was left out.

    ``unread`` says why a cell was not read that another Python may be able to parse: an answer that is
    wrong may need it, so a person has to look at it.
    """

    lab: str
    answers: tuple[Answer, ...]
    notes: tuple[str, ...] = ()
    unread: str = ""


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
        lab: the lab whose exercises are read.
        path: the file's name in messages.
        skeleton: the code that the lab ships in its other cells; an answer finds there what no cell of the
            notebook binds, so that a student may delete it.
        names: of every lab's exercises, to recognise another lab's notebook; by default the installed ones.

    Raises:
        CompressionError: it is not a notebook, or has no exercise of this lab.
    """
    notebook = read_notebook(content, path)
    exercises = [exercise.name for exercise in lab.exercises]
    reader = _Reader(notebook.cells, skeleton, (*TEACHING, *lab.answers), exercises)
    holes = {name: reader.hole(name) for name in exercises}
    if not any(holes.values()):
        raise DamagedFile(_no_hole(path, lab, notebook.cells, names))
    answers = tuple(reader.answer(name, holes[name]) for name in exercises)
    return Submission(lab.name, answers, tuple(dict.fromkeys(reader.notes)), _unread(notebook))


def _unread(notebook: Notebook) -> str:
    unread = [cell for cell in notebook.cells if cell.error and not cell.conflict]
    if not (unread and notebook.may_be_newer):
        return ""
    why = f"{unread[0].name}: {unread[0].error}; {notebook.may_be_newer}"
    return f"{why}; somebody should run the notebook there"


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


@dataclass(frozen=True)
class _Place:
    """Where an answer stands: the number of statements above, and the expression that was checked there."""

    above: int
    target: ast.expr


class _Reader:
    """The cells of one notebook as a program, and what the lab ships as another."""

    def __init__(
        self,
        cells: Sequence[Cell],
        skeleton: Sequence[str],
        refused: tuple[str, ...],
        exercises: Sequence[str],
    ) -> None:
        self.cells = cells
        self.exercises = exercises
        self.refused = refused
        self.notes: list[str] = []
        self.program = _Numbered(cells)
        self.shipped = _Numbered([parsed(SHIPPED, "", text) for text in skeleton])

    # The cell of an exercise, for what is said about it.

    def hole(self, name: str) -> Cell | None:
        """Return the cell that is the exercise's: the last that binds it, else the one with its id."""
        binding = [self.program.cell(i) for i in self.program.binders(name)]
        marked = [cell for cell in self.cells if cell.id == name]
        broken = [cell for cell in self.cells if cell.error and re.search(rf"(?m)^def {name}\b", cell.text)]
        checked = [self.program.cell(i) for i, _ in self.program.checks(name)]
        spoilt = [cell for cell in marked if cell.error]
        return next(reversed(binding or spoilt or broken or marked or checked), None)

    # The place where it stands.

    def place(self, name: str) -> _Place | None:
        """Return where an exercise's function stands when its check runs; None where nothing binds it."""
        checks = self.program.checks(name)
        if checks:
            index, target = checks[-1]
            if self._stands(name, target, index):
                return _Place(index, target)
        written = [i for i in self.program.binders(name) if not self._is_placeholder(name, i)]
        binders = written or self.program.binders(name)
        return _Place(binders[-1] + 1, ast.Name(name, ast.Load())) if binders else None

    def _stands(self, name: str, target: ast.expr, index: int) -> bool:
        """Whether what is checked is bound above its check, and not only written below it."""
        if not (isinstance(target, ast.Name) and target.id == name):
            return True
        above = self.program.program.binders(name, index)
        if not above:
            return False
        below = [i for i in self.program.binders(name) if i >= index and not self._is_placeholder(name, i)]
        return not (below and self._is_stub(name, above[-1]))

    def _is_placeholder(self, name: str, index: int) -> bool:
        """Whether a statement binds the lab's stub, or the published answer."""
        menus = self.program.program.menus
        calls = self.program.program.statements[index].now.calls
        return self._is_stub(name, index) or any(
            menus.get(owner) == "reveal" for call in calls for owner in call.owners
        )

    def _is_stub(self, name: str, index: int) -> bool:
        node = self.program.program.statements[index].node
        return (
            isinstance(node, ast.FunctionDef)
            and node.name == name
            and isinstance(node.body[-1], ast.Raise)
            and "NotImplementedError" in ast.unparse(node.body[-1])
        )

    # The answer.

    def answer(self, name: str, hole: Cell | None) -> Answer:
        """Return the answer to one exercise."""
        place = self.place(name)
        if place is not None:
            self._note_another_cell(name, place)
            return self._sliced(name, place)
        if hole is None:
            problem = f"its cell is missing; write def {name}(…) in any cell, save, submit again"
            return Answer(name, problem=problem)
        if not hole.error:
            problem = f"its cell does not define it; write def {name}(…) at the left margin"
            return Answer(name, problem=problem)
        advice = "correct the line, run the cell, save, submit again"
        return Answer(name, problem=f"{hole.error}; {advice}", written=True)

    def _note_another_cell(self, name: str, place: _Place) -> None:
        marked = [cell for cell in self.cells if cell.id == name]
        if len(marked) > 1:
            self.notes.append(
                f"{name}: {len(marked)} cells have its id; the one that defines it above its check is graded"
            )
        above = [i for i in self.program.binders(name) if i < place.above]
        own = [i for i in above if self.program.cell(i) in marked and not self._is_stub(name, i)]
        last = [i for i in above if isinstance(self.program.program.statements[i].node, ast.FunctionDef)]
        if own and last and self.program.cell(last[-1]) not in marked:
            cell = self.program.cell(last[-1]).name
            self.notes.append(f"{name}: {cell} defines it again; that one is graded, not its own cell")

    def _sliced(self, name: str, place: _Place) -> Answer:
        wanted = read_statement(ast.Expr(place.target))
        above = self.program.program.slice(wanted, place.above)
        below = self._below(above.missing - ALWAYS_THERE)
        missing = (above.unbound | below.unbound) - self.program.all_bound - ALWAYS_THERE
        shipped = self.shipped.asked(missing - {name})
        pieces = [*self._pieces(self.shipped, shipped.statements)]
        pieces += self._pieces(self.program, sorted({*above.statements, *below.statements}))
        used = {n for i in {*above.statements, *below.statements} for n in self._revealed_by(i)}
        used |= set(self._menu_names(wanted))
        return Answer(
            name,
            tuple(pieces),
            target=ast.unparse(place.target),
            cell=self._cell_of(name, place),
            revealed=tuple(sorted(used & set(self.exercises) - {name})),
        )

    def _cell_of(self, name: str, place: _Place) -> str:
        """Return the name of the last cell above the check that binds the function, else of the check's."""
        wanted = place.target.id if isinstance(place.target, ast.Name) else name
        above = [i for i in self.program.binders(wanted) if i < place.above] or self.program.binders(wanted)
        return self.program.cell(above[-1] if above else place.above).name

    def _below(self, names: Iterable[str]) -> Slice:
        """Return what binds names that nothing above binds: those cells were run in another order."""
        found = [name for name in names if name in self.program.all_bound]
        return self.program.asked(found)

    def _pieces(self, program: _Numbered, indices: Iterable[int]) -> Iterator[Piece]:
        kept: dict[Cell, list[int]] = {}
        for index in indices:
            cell = program.cell(index)
            if not self._is_refused(program.program.statements[index].node, cell):
                kept.setdefault(cell, []).append(program.position(index))
        yield from (Piece(cell.name, cell.text, tuple(keep)) for cell, keep in kept.items())

    def _revealed_by(self, index: int) -> Iterator[str]:
        yield from self._menu_names(self.program.program.statements[index])

    def _menu_names(self, statement: Statement) -> Iterator[str]:
        """Yield the exercises whose published answer a statement may use: ``reveal.x()`` or ``yours.x``."""
        for owner, name in statement.now.attributes | statement.later.attributes:
            if self.program.program.menus.get(owner) in ("reveal", "yours"):
                yield name

    def _is_refused(self, node: ast.stmt, cell: Cell) -> bool:
        """Whether a statement imports the answers; noted, where the student wrote it."""
        refused = [
            name for name in _imported(node) if _within(name, self.refused) and not _within(name, OFFERED)
        ]
        if refused and cell.name != SHIPPED:
            self.notes.append(
                f"{cell.name}: the import of {', '.join(refused)} is left out; write it yourself"
            )
        return bool(refused)


class _Numbered:
    """The statements of cells as one program, each with its cell."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._where = [(cell, position) for cell in cells for position in range(len(cell.statements))]
        self.program = Program(
            [statement for cell in cells for statement in cell.statements], known=ALWAYS_THERE
        )
        self.all_bound = frozenset().union(*(s.now.binds for s in self.program.statements))

    def cell(self, index: int) -> Cell:
        """Return the cell of a statement."""
        return self._where[index][0]

    def position(self, index: int) -> int:
        """Return which statement of its cell it is."""
        return self._where[index][1]

    def binders(self, name: str) -> list[int]:
        """Return the statements that bind a name themselves, imports aside."""
        return [
            index
            for index in self.program.binders(name, len(self._where))
            if name in self.program.statements[index].now.binds
            and not isinstance(self.program.statements[index].node, ast.Import | ast.ImportFrom)
        ]

    def asked(self, names: Iterable[str]) -> Slice:
        """Return the slice that makes these names at the program's end."""
        reads = [ast.Name(name, ast.Load()) for name in sorted(names)]
        wanted = read_statement(ast.Expr(ast.Tuple([*reads], ast.Load())))
        return self.program.slice(wanted, len(self._where)) if reads else Slice()

    def checks(self, name: str) -> list[tuple[int, ast.expr]]:
        """Return where an exercise's function is checked, and the expression that is."""
        found = []
        for index, statement in enumerate(self.program.statements):
            if any(call.name == name for call in statement.now.calls):
                found += [(index, target) for target in self._checked(statement, name)]
        return found

    def _checked(self, statement: Statement, name: str) -> Iterator[ast.expr]:
        for node in ast.walk(statement.node):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr=attribute)) if (
                    attribute == name
                ):
                    if self.program.menus.get(owner) == "check":
                        values = [*node.args, *(keyword.value for keyword in node.keywords)]
                        target = values[0] if len(values) == 1 else None
                        bound = (
                            {n.id for n in ast.walk(target) if isinstance(n, ast.Name)} if target else set()
                        )
                        made_here = bound & statement.now.binds
                        yield target if target is not None and not made_here else ast.Name(name, ast.Load())


def _imported(node: ast.stmt) -> list[str]:
    """Return what a statement imports: modules, or names with their module in front."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def _within(name: str, modules: Iterable[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)
