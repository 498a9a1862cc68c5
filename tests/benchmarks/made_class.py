"""A made-up class for the benchmarks of grading: notebooks of a lab, and the score that each deserves.

Each is the lab's solution with its holes filled otherwise: by another right answer, or by one of the planted
mistakes of the exercise, so that it is known beforehand what it must get. No two are alike. Hostile ones come
from ``tests/hostile``.
"""

from __future__ import annotations

import copy
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from compresslab.checks.exercise import Lab

__all__ = ["ROOT", "HandedIn", "holes_and_checks", "hostile_class", "machine", "made_class", "solution"]

ROOT = Path(__file__).parents[2]
sys.path[:0] = [
    str(ROOT / "tests"),
    str(ROOT / "tests" / "made"),
]  # where the tests' submissions and attacks are written


@dataclass(frozen=True)
class HandedIn:
    """One student's notebook as text, the exercises that it has right, and whether it attacks."""

    student: str
    text: str
    right: tuple[str, ...]
    hostile: bool = False


def solution(lab: Lab) -> NotebookNode:
    """The instructor's notebook of a lab."""
    return nbformat.read(ROOT / "solutions" / lab.name / f"{lab.name}.ipynb", as_version=4)


def made_class(lab: Lab, count: int) -> list[HandedIn]:
    """That many honest students; of four, one has everything right and the others one to three mistakes."""
    return [_student(lab, number) for number in range(count)]


def _student(lab: Lab, number: int) -> HandedIn:
    exercises, book = lab.exercises, solution(lab)
    places = [(number + 3 * k) % len(exercises) for k in range(number % 4)]
    wrong = {exercises[place].name: (exercises[place], number // 4 + place) for place in places}
    for cell in book.cells:
        if cell.id in wrong:
            exercise, which = wrong[cell.id]
            cell.source = _text(exercise, exercise.mistakes[which % len(exercise.mistakes)].answer)
        elif cell.id in lab_names(lab):
            exercise = lab.exercise(cell.id)
            cell.source = _text(exercise, exercise.right[number % len(exercise.right)])
    book.cells.append(nbformat.v4.new_markdown_cell(f"Handed in by student {number}.", id="signature"))
    right = tuple(name for name in lab_names(lab) if name not in wrong)
    return HandedIn(f"student_{number:03}", nbformat.writes(book), right)


def lab_names(lab: Lab) -> tuple[str, ...]:
    return tuple(exercise.name for exercise in lab.exercises)


def _text(exercise, answer) -> str:
    from submissions import whole

    return f"from __future__ import annotations\n{whole(exercise, answer)}"


def holes_and_checks(book: NotebookNode, lab: Lab) -> NotebookNode:
    """A notebook of the imports, the holes and their checks alone: the least that nbgrader must run."""
    less = copy.deepcopy(book)
    kept = [cell for cell in less.cells if cell.id.removeprefix("check-") in lab_names(lab)]
    opening = [
        "import itertools\nimport math\n\nimport numpy as np\nimport torch\nfrom torch import Tensor, nn"
    ]
    opening += [f'from compresslab.notebook import lab\n\ncheck, hint, reveal, yours = lab("{lab.name}")']
    cells = [nbformat.v4.new_code_cell(text, id=f"opening-{n}") for n, text in enumerate(opening)]
    less.cells = cells + kept
    return less


# The hostile ones.


def hostile_class(lab: Lab, count: int) -> list[HandedIn]:
    """That many attacks: bombs and loops first, then what was written against this very lab.

    An attack that was written for a made-up sum acts from inside the lab's last hole, which then is wrong, be
    the attack what it may; all other holes are right.
    """
    with tempfile.TemporaryDirectory() as scratch:
        found = list(_attacks(lab, Path(scratch)))
    return [
        HandedIn(f"hostile_{n:03}_{name}", text, right, hostile=True)
        for n, (name, text, right) in enumerate(found[k % len(found)] for k in range(count))
    ]


def _attacks(lab: Lab, scratch: Path) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    from hostile import attacks_notebook, attacks_process, attacks_reach, attacks_resources, attacks_values

    pages = (attacks_notebook, attacks_reach, attacks_values)
    own = [attack for page in pages for attack in page.ATTACKS if attack.lab.name == lab.name]
    for attack in [*attacks_resources.ATTACKS, *attacks_process.ATTACKS[::3], *own[::3]]:
        text = attack.submission(scratch).read_text()
        if attack.lab.name == lab.name:
            yield attack.name, text, attack.earns
        else:
            yield attack.name, *_moved(lab, json.loads(text))


def _moved(lab: Lab, book: Mapping) -> tuple[str, tuple[str, ...]]:
    """The attack of another notebook's hole ``attacked`` in the lab's last hole."""
    *others, last = lab_names(lab)
    attack = next(cell["source"] for cell in book["cells"] if cell["id"] == "attacked")
    own = solution(lab)
    hole = next(cell for cell in own.cells if cell.id == last)
    hole.source = f"{attack}\n\ndef {last}(*given, **settings):\n    return attacked(torch.ones(3))\n"
    return nbformat.writes(own), tuple(others)


# Where it was measured.


def machine() -> dict[str, object]:
    """What a reader needs to compare seconds: processors, memory, versions, and how code is isolated."""
    import os
    import platform
    from importlib.metadata import version

    words = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.partition(":")[2].strip() for line in words.splitlines() if line.startswith("model name")]
    return {
        "processors": os.cpu_count(),
        "processor": models[0] if models else platform.machine(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "torch": version("torch"),
        "nbgrader": version("nbgrader"),
        "bubblewrap": shutil.which("bwrap") is not None,
    }
