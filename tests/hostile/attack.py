"""An attack is data: what it tries, the file handed in, the holes whose honest content is right.

Three ways to write one. ``@attack()`` takes a function whose own text becomes a hole of the submission; it
is never called here. ``written()`` takes the hole's text, for what acts while it is being defined.
``@handed_in()`` takes a function that builds the whole file in a folder. The attacked hole is ``attacked``
of a made-up lab of two sums, or a hole of the real lab 00; every other hole is right and must keep its
points.

The folder stands for the teacher's disk: ``FOLDER`` in an attack's text is its path, and nothing in it but
the submission may change (``furnish``, ``unchanged``).
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import os
import re
import socket
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from submissions import adds, notebook, right_answers, saved, tiny

from compresslab.checks.exercise import Lab
from compresslab.course import find_lab

__all__ = [
    "ABSTRACT",
    "FOLDER",
    "MEASURING",
    "PORT",
    "SECRET",
    "TINY",
    "Attack",
    "attack",
    "furnish",
    "handed_in",
    "holes",
    "is_unheard",
    "listening",
    "unchanged",
    "written",
]

TINY = tiny("attacked", "honest", seconds=3.0)  # on a busy machine half a second may take two
MEASURING = find_lab("00_measuring")
FOLDER = ""  # in a submission: the path of the folder that the attack is after
PORT = 20_000 + os.getpid() % 20_000  # of this machine; there, and under the abstract name, nobody may call
ABSTRACT = f"\0compresslab-{PORT}"
SECRET = "the-teachers-secret-5d1e"  # lies in that folder, and in the grader's environment
OPENING = "import math, os, sys, time\nimport torch\n"  # of a hole that is given as text


@dataclass(frozen=True)
class Attack:
    """One hostile submission.

    Args:
        name: of the attack, as a test's id.
        tries: one sentence.
        lab: whose notebook it pretends to be.
        submission: builds the file in a folder and returns its path.
        earns: the holes whose honest content is right, and which keep their points.
        says: a piece of what the student is told; where the attack breaks Python itself, one of several.
        status: of the whole score.
        limit: why it earns more than that all the same: known, and said to the teacher.
    """

    name: str
    tries: str
    lab: Lab
    submission: Callable[[Path], Path]
    earns: tuple[str, ...]
    says: tuple[str, ...] = ()
    status: str = "graded"
    limit: str = ""

    @property
    def wanted(self) -> float:
        """The points that it must get: those of its honest content."""
        return sum(self.lab.exercise(name).points for name in self.earns)


def attack(
    *says: str, hole: str = "attacked", honest: bool = False, limit: str = ""
) -> Callable[[Callable], Attack]:
    """Makes an attack of a function: its text answers the hole. ``honest``: and its value is right."""

    def make(function: Callable) -> Attack:
        text = textwrap.dedent(inspect.getsource(function))
        text = re.sub(rf"\b{function.__name__}\b", hole, text[text.index("def ") :])
        tries = inspect.getdoc(function) or ""
        whole = f"{definitions_of(function)}\n\n{text}"
        return written(function.__name__, tries, whole, says=says, hole=hole, honest=honest, limit=limit)

    return make


def written(
    name: str,
    tries: str,
    text: str,
    *,
    says: str | tuple[str, ...] = (),
    hole: str = "attacked",
    honest: bool = False,
    limit: str = "",
) -> Attack:
    """Makes an attack of the text of one hole's cell."""
    lab = TINY if hole == "attacked" else MEASURING

    def submission(folder: Path) -> Path:
        here = f"FOLDER = {str(folder)!r}\nPORT = {PORT}\nABSTRACT = {ABSTRACT!r}\n"
        answer = f"{OPENING}{here}{textwrap.dedent(text)}"
        return saved(notebook(holes(lab) | {hole: answer}), folder)

    earns = tuple(exercise.name for exercise in lab.exercises if honest or exercise.name != hole)
    told = (says,) if isinstance(says, str) else says
    return Attack(name, tries, lab, submission, earns, told, limit=limit)


def handed_in(
    *says: str, lab: Lab = TINY, status: str = "graded", earns: tuple[str, ...] | None = None
) -> Callable[[Callable[[Path], Path]], Attack]:
    """Makes an attack of a function that builds the file; all holes earn unless it is told which."""

    def make(build: Callable[[Path], Path]) -> Attack:
        all_of_them = tuple(exercise.name for exercise in lab.exercises) if status == "graded" else ()
        kept = all_of_them if earns is None else earns
        return Attack(build.__name__, inspect.getdoc(build) or "", lab, build, kept, says, status)

    return make


def definitions_of(function: Callable) -> str:
    """The imports and the plain functions of the function's module, so that an attack may use them."""
    module = ast.parse(inspect.getsource(sys.modules[function.__module__]))
    kept = [
        node
        for node in module.body
        if isinstance(node, ast.Import)
        or (isinstance(node, ast.ImportFrom) and node.module not in ("__future__", "hostile.attack"))
        or (isinstance(node, ast.FunctionDef) and not node.decorator_list)
    ]
    return "\n".join(map(ast.unparse, kept))


def holes(lab: Lab) -> dict[str, str]:
    """A right answer for each hole."""
    return {e.name: adds(e.name) for e in lab.exercises} if lab is TINY else right_answers(lab)


# The teacher's disk, and what must not change on it.

DISK = {
    "results/students/ada/results.json": f'{{"score": 3, "secret": "{SECRET}"}}',
    "results/scores.csv": "student,score\nada,3\n",
    "inbox/ada/submission.ipynb": f'{{"cells": [], "secret": "{SECRET}"}}',
    "solutions/99_tiny/99_tiny.py": f"# {SECRET}\ndef attacked(x): return float(x.sum())\n",
    "gradebook.db": SECRET,
}


def furnish(folder: Path) -> None:
    """Writes what a teacher's folder holds, open to everybody: the file system's rights must not matter."""
    for name, text in DISK.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    for place in [folder, *folder.rglob("*")]:
        place.chmod(0o777)


def unchanged(folder: Path, submission: Path) -> None:
    """Raises AssertionError where something was written, removed, added or linked."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if folder in submission.parents:
        found -= {submission.relative_to(folder).as_posix()}
    assert found == set(DISK)
    for name, text in DISK.items():
        place = folder / name
        assert place.read_text() == text
        assert place.stat().st_nlink == 1


# Where nobody may call: a port and an abstract socket of this machine.


def listening() -> dict[str, socket.socket]:
    """Sockets that listen on 127.0.0.1 and under an abstract name."""
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(ABSTRACT)
    abstract.listen()
    sockets = {"tcp": socket.create_server(("127.0.0.1", PORT)), "abstract": abstract}
    for one in sockets.values():
        one.setblocking(False)
    return sockets


def is_unheard(listener: socket.socket) -> bool:
    """Whether nobody has called since this was last asked."""
    calls = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            calls += 1
    return calls == 0
