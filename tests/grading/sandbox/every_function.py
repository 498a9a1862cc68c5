"""Give every function and class in a lab's stripped package to every check of that lab.

    python every_function.py LAB [HIDDEN …]

It is a process of its own, because it calls functions with arguments that they do not expect. It prints JSON:
``tried``, how many functions, and ``passed``, each [exercise, function] that a check accepts.
"""

from __future__ import annotations

import ast
import importlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import compresslab
from compresslab.checks.call import Run, run
from compresslab.checks.exercise import Case, Exercise, draw_cases
from compresslab.checks.judge import examine
from compresslab.course import find_lab
from compresslab.errors import WrongAnswer
from compresslab.grading.sandbox.package_copy import copy_package

PACKAGE = Path(compresslab.__file__).parent
ACTS_ON_THE_PROCESS = (  # they change limits, users, pipes and the temporary folder, and return no value
    "compresslab.grading.sandbox",
    "compresslab.jobs",
)
SECONDS = 0.5  # for the first case: every right answer needs far less


def main(name: str, *hidden: str) -> None:
    """Print what passes in one lab, by default with everything hidden that the lab hides."""
    torch.set_num_threads(1)
    lab = find_lab(name)
    with tempfile.TemporaryDirectory() as folder:
        copy_package(PACKAGE, Path(folder) / "compresslab", hidden=hidden or lab.answers)
        found = dict(callables(Path(folder) / "compresslab"))
    coded = [exercise for exercise in lab.exercises if not exercise.choices]
    for exercise in coded:  # imports what probes and judges need, before anything can spoil this process
        assert right(exercise, draw_cases(exercise, 0), exercise.right[0]), exercise.name
    passed = [[exercise.name, path] for exercise in coded for path in accepted(exercise, found)]
    print(json.dumps({"tried": len(found), "passed": passed}))


def callables(copy: Path) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield each function and class, private ones too, that a module of the copy defines."""
    for file in sorted(copy.rglob("*.py")):
        parts = ("compresslab", *file.relative_to(copy).with_suffix("").parts)
        module = ".".join(parts).removesuffix(".__init__")
        if module.startswith(ACTS_ON_THE_PROCESS):
            continue
        for statement in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(statement, ast.FunctionDef | ast.ClassDef) and statement.name != "__getattr__":
                yield f"{module}.{statement.name}", getattr(importlib.import_module(module), statement.name)


def accepted(exercise: Exercise, found: dict[str, Callable[..., Any]]) -> Iterator[str]:
    """Yield the functions that a check accepts; what raises on the first case is not run on the others."""
    cases = draw_cases(exercise, 0)
    for path, answer in found.items():
        first = run(exercise.probe, cases[:1], answer, seconds=SECONDS)
        if first.attempts and not first.attempts[0].raised and right(exercise, cases, answer):
            yield path


def right(exercise: Exercise, cases: list[Case], answer: Callable[..., Any]) -> bool:
    """Tell whether the whole check accepts an answer, without asking which mistake it makes."""
    done = run(exercise.probe, cases, answer, seconds=exercise.seconds)
    try:
        examine(exercise, cases, done, mistakes={named.title: Run(()) for named in exercise.mistakes})
    except WrongAnswer:
        return False
    return True


if __name__ == "__main__":
    main(*sys.argv[1:])
