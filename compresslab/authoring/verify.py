"""``compresslab verify``: what is missing or wrong in a lab, so that no check is shipped unproved.

Each function returns sentences, none where all is well:

    problems_left_to_do      no line of the lab is marked TODO
    problems_in_source       each exercise has its hole; opening, first cell, length; no number is typed
    problems_in_editions     both notebooks are what the source makes today; marked cells have a stored output
    problems_in_labs         nothing of the answer lies where students look
    problems_with_grading    an untouched notebook earns nothing, the solution earns everything
    problems_in_proofs       each exercise has all its parts, right answers pass, each mistake is told by name
"""

from __future__ import annotations

import ast
import json
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from compresslab.authoring.build import fill, paths
from compresslab.authoring.editions import student_edition
from compresslab.authoring.instructor_notebook import (
    BEGIN,
    END,
    MAY_RAISE,
    holes,
    instructor_notebook,
    read_source,
    without_solution,
)
from compresslab.authoring.placeholders import typed_numbers
from compresslab.checks.exercise import Exercise, Lab
from compresslab.checks.proofs import kills, problems_with_parts, problems_with_right_answers
from compresslab.course import all_labs
from compresslab.errors import CompressionError
from compresslab.notebook.metrics import read_metrics

__all__ = [
    "Row",
    "Verification",
    "author_files",
    "problems_in_editions",
    "problems_in_labs",
    "problems_in_proofs",
    "problems_in_source",
    "problems_left_to_do",
    "problems_with_grading",
    "verify",
]

LINES_PER_CELL = 20
_ENDS = "\"'(),. \n"  # what ends a TODO that stands in a text
_FORBIDDEN = {
    "an absolute path": r"""["'](?:/(?:\w+/)+|~/|[A-Za-z]:[\\/])""",
    "an installation": r"\b(?:pip|conda|uv|apt(?:-get)?)3?\s+(?:install|add)\b",
    "a download": r"https?://|download\s*=\s*True|urlretrieve|urlopen|\brequests\.|\bwget\b|\bcurl\b|load_state_dict_from_url",
}


@dataclass(frozen=True)
class Row:
    """One exercise's row of the kill table."""

    lab: str
    name: str
    points: int
    rights: int
    mistakes: int
    killed: int
    own_message: int


@dataclass(frozen=True)
class Verification:
    """The result of the author's checks."""

    exercises: tuple[Row, ...]
    problems: tuple[str, ...]

    def to_json(self) -> str:
        """``{"exercises": [{…}], "problems": ["…"]}``"""
        return json.dumps(
            {"exercises": [asdict(row) for row in self.exercises], "problems": self.problems}, indent=1
        )


def verify(
    root: Path,
    *,
    labs: Sequence[Lab] | None = None,
    seeds: Sequence[int] = range(10),
    say: Callable[[str], None] = lambda words: None,
) -> Verification:
    """Return what every author's check but nbval finds in these labs, or in all; ``say`` is told the step."""
    rows, problems = [], [] if labs is not None else _stray_folders(root)
    for lab in all_labs() if labs is None else labs:
        for check in CHECKS:
            say(f"{lab.name}: {check.__name__.replace('_', ' ')}")
            problems += [f"{lab.name}: {problem}" for problem in check(lab, root)]
        for exercise in lab.exercises:
            say(f"{lab.name}: {exercise.name}, {len(exercise.mistakes)} mistakes on {len(seeds)} seeds")
            row, found = problems_in_proofs(exercise, seeds)
            problems += [f"{lab.name}: {problem}" for problem in found]
            rows.append(row)
    return Verification(tuple(rows), tuple(problems))


def problems_in_proofs(exercise: Exercise, seeds: Sequence[int]) -> tuple[Row, list[str]]:
    """Return an exercise's row of the kill table, and what its proofs find.

    An exercise that is being written may raise anything where it is tried: that is a sentence, too.
    """
    row = Row(exercise.lab, exercise.name, exercise.points, len(exercise.right), len(exercise.mistakes), 0, 0)
    try:
        found = [*problems_with_parts(exercise), *problems_with_right_answers(exercise, seeds)]
        kill = kills(exercise, seeds)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        return row, [f"{exercise.name}: a proof ends with {type(error).__name__}: {error} ({place})"]
    values = {name: value for name, value in vars(kill).items() if name != "problems"}
    return Row(**values), [*found, *kill.problems]


def author_files(lab_name: str, root: Path) -> dict[str, Path]:
    """Return what the author of a lab writes: its folder in ``course``, its source and its own test."""
    topic = lab_name.partition("_")[2]
    return {
        "course": root / "compresslab" / "course" / topic,
        "source": root / "solutions" / lab_name / f"{lab_name}.py",
        "test": root / "tests" / "course" / f"test_{topic}.py",
    }


def problems_left_to_do(lab: Lab, root: Path) -> list[str]:
    """Return each line that the author, or ``compresslab new``, has marked TODO."""
    files = author_files(lab.name, root)
    pages = [*sorted(files["course"].glob("*.py")), files["source"], files["test"]]
    return [
        f"{page.relative_to(root)}:{number}: {line[line.index('TODO') :].rstrip(_ENDS)}"
        for page in pages
        if page.is_file()
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1)
        if "TODO" in line
    ]


def _stray_folders(root: Path) -> list[str]:
    """Return the folders of labs/ and solutions/ that belong to no lab."""
    names = {lab.name for lab in all_labs()}
    found = [path for part in ("labs", "solutions") for path in sorted((root / part).glob("*/"))]
    return [
        f"{path.relative_to(root)} belongs to no lab; remove it" for path in found if path.name not in names
    ]


def problems_in_source(lab: Lab, root: Path) -> list[str]:
    """Return what is wrong with the script that the author wrote."""
    source = paths(lab, root)["source"]
    if not source.is_file():
        return [f"there is no {source.relative_to(root)}"]
    if not lab.exercises:
        return [f"it has no exercise yet; run compresslab new exercise {lab.name} NAME"]
    try:
        text = source.read_text(encoding="utf-8")
        cells, notebook = read_source(text), instructor_notebook(lab, text)
    except CompressionError as error:
        return [str(error)]
    missing = [exercise.name for exercise in lab.exercises if exercise.name not in holes(notebook)]
    found = [f'no cell has exercise="{name}"' for name in missing]
    if not cells or "{{ lab }}" not in cells[0].source or cells[0].cell_type != "markdown":
        found.append("the opening cell has no {{ lab }}, which prints objectives, prerequisites and minutes")
    if not cells or "{{ check }}" not in cells[-1].source or cells[-1].cell_type != "markdown":
        found.append("the last cell has no {{ check }}, which prints how the lab is checked")
    codes = [cell for cell in cells if cell.cell_type == "code"]
    if codes and not _imports_only(codes[0].source):
        found.append("the first code cell does more than import; move the rest into the next cell")
    return found + [problem for cell in cells for problem in _problems_in_cell(cell)]


def _imports_only(source: str) -> bool:
    return all(isinstance(statement, ast.Import | ast.ImportFrom) for statement in ast.parse(source).body)


def _problems_in_cell(cell: NotebookNode) -> Iterator[str]:
    name = repr((cell.source.splitlines() or [""])[0])
    if cell.cell_type == "markdown":
        for number in typed_numbers(cell.source):
            yield (
                f"the text {name} has the number {number!r} typed by hand; measure it, "
                "write {{ name | filter }}; settings go in backticks, a quoted figure links to its source"
            )
        return
    own = _without_docstring(without_solution(cell.source)) if BEGIN in cell.source else cell.source
    lines = [line for line in own.splitlines() if line.strip()]
    if len(lines) > LINES_PER_CELL:
        yield f"the cell {name} has {len(lines)} lines; at most {LINES_PER_CELL}; move code to compresslab"
    for what, pattern in _FORBIDDEN.items():
        seen = re.search(pattern, cell.source)
        if seen:
            yield f"the cell {name} has {what}: {seen[0]}"


def _without_docstring(source: str) -> str:
    return re.sub(r'""".*?"""', "", source, count=1, flags=re.DOTALL)


def problems_in_editions(lab: Lab, root: Path) -> list[str]:
    """Return where the notebooks differ from what the source makes, and marked cells without output."""
    files = paths(lab, root)
    absent = [str(path.relative_to(root)) for path in files.values() if not path.is_file()]
    if absent:
        return [f"it is not built: {', '.join(absent)} missing; run compresslab build {lab.name}"]
    try:
        wanted = instructor_notebook(lab, files["source"].read_text(encoding="utf-8"))
        fill(wanted, read_metrics(files["metrics"].read_text(encoding="utf-8")))
        student = student_edition(wanted, lab.name)
    except CompressionError as error:
        return [str(error)]
    stored = nbformat.read(files["solution"], as_version=4)
    found = []
    if _bare(stored) != _bare(wanted):
        found.append(
            f"{files['solution'].relative_to(root)} is not what its source makes ({_apart(stored, wanted)})"
        )
    if files["student"].read_text(encoding="utf-8") != student:
        found.append(f"{files['student'].relative_to(root)} is not what the source makes")
    if found:
        found[-1] += f"; run compresslab build {lab.name}"
    return (
        found
        + [
            f"the cell {cell.id} is marked nbval-check-output and has no stored output"
            for cell in _unchecked(stored)
        ]
        + [
            f"the cell {cell.id} of solutions/ has the tag {MAY_RAISE}, so it would pass where it fails; "
            "take it out: the students' edition gets it by itself"
            for cell in stored.cells
            if MAY_RAISE in cell.metadata.get("tags", ())
        ]
    )


def _bare(notebook: NotebookNode) -> dict:
    """Return a notebook without what a run leaves in it."""
    bare = json.loads(json.dumps(notebook))
    for cell in bare["cells"]:
        cell.pop("outputs", None)
        cell.pop("execution_count", None)
    return bare


def _apart(stored: NotebookNode, wanted: NotebookNode) -> str:
    pairs = zip(_bare(stored)["cells"], _bare(wanted)["cells"], strict=False)
    cells = [mine.get("id", "without id") for mine, theirs in pairs if mine != theirs]
    return (
        f"first at the cell {cells[0]}" if cells else f"{len(stored.cells)} cells, wanted {len(wanted.cells)}"
    )


def _unchecked(notebook: NotebookNode) -> list[NotebookNode]:
    marked = [cell for cell in notebook.cells if "nbval-check-output" in cell.metadata.get("tags", ())]
    return [cell for cell in marked if not cell.get("outputs") or cell.get("execution_count") is None]


def problems_in_labs(lab: Lab, root: Path) -> list[str]:
    """Return what must not be in the students' folder: other files, outputs, solutions."""
    student = paths(lab, root)["student"]
    if not student.is_file():
        return []  # problems_in_editions says so
    found = [
        f"{path.relative_to(root)} must not be in the students' folder, which holds only the notebook"
        for path in sorted(student.parent.rglob("*"))
        if path != student and ".ipynb_checkpoints" not in path.parts
    ]
    notebook = nbformat.read(student, as_version=4)
    answers = _answer_lines(paths(lab, root)["source"].read_text(encoding="utf-8"))
    for cell in notebook.cells:
        if cell.get("outputs") or cell.get("execution_count") is not None:
            found.append(f"the student's cell {cell.id} has an output")
        if BEGIN in cell.source or END in cell.source:
            found.append(f"the student's cell {cell.id} still has its solution")
        told = answers & {line.strip() for line in cell.source.splitlines()}
        found += [f"the student's cell {cell.id} has a line of a solution: {line}" for line in sorted(told)]
    return found


def _answer_lines(text: str) -> set[str]:
    """Return the lines that are only in solutions."""
    lines = lambda words: {line.strip() for line in words.splitlines() if len(line.strip()) >= 12}  # noqa: E731
    inside = "\n".join(re.findall(rf"{BEGIN}(.*?){END}", text, flags=re.DOTALL))
    return lines(inside) - lines(without_solution(text))


def problems_with_grading(lab: Lab, root: Path, *, seed: int = 0) -> list[str]:
    """Return whether an untouched notebook earns points, or the solution does not earn all of them."""
    from compresslab.grading.grade import grade_alone

    files = paths(lab, root)
    if not (files["student"].is_file() and files["solution"].is_file()):
        return []
    untouched, solved = (grade_alone(lab, files[name], seed=seed) for name in ("student", "solution"))
    found = []
    if untouched.score != 0:
        found.append(f"the untouched notebook earns {untouched.score:g} points")
    every = sum(exercise.points for exercise in lab.exercises)
    if solved.score != every or solved.max_score != lab.points:
        found.append(f"the solution earns {solved.score:g} of {every} points")
    return found


CHECKS = (
    problems_left_to_do,
    problems_in_source,
    problems_in_editions,
    problems_in_labs,
    problems_with_grading,
)
