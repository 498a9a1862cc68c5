"""Taking the right answer from wherever it may lie: the package, the exercises, the disk."""

from __future__ import annotations

import contextlib
import importlib
import os
import pathlib
import sys

from hostile.attack import Attack, attack

__all__ = ["ATTACKS"]

NOTHING = "ValueError: found nothing"


@attack("ImportError", hole="count_parameters")
def the_answer_from_the_package(model):
    """Imports the answer from the package that the lab is about."""
    from compresslab import count_parameters as answer

    return answer(model)


@attack("write it yourself", hole="count_parameters")
def the_answer_from_its_module(model):
    """Imports the answer from the module that defines it, by a name put together at run time."""
    return importlib.import_module(".".join(["compresslab.measurement", "co" + "sts"])).count_parameters(
        model
    )


@attack("write it yourself", hole="count_parameters")
def the_answer_from_the_exercise(model):
    """Takes `right` from the exercise's own module."""
    page = importlib.import_module("compresslab.course.measuring.count_parameters")
    return page.EXERCISE.right[0](model)


@attack("revealed: 0 points", hole="count_parameters")
def the_answer_from_the_desk(model):
    """Takes the answer that `reveal` would hand over."""
    from compresslab.notebook import lab

    return lab("00_measuring")[2].count_parameters()(model)


@attack(NOTHING, hole="count_parameters")
def the_answer_from_the_disk(model):
    """Looks through every folder that Python imports from, and above, for solutions and exercises."""
    found = set()
    for place in {
        *sys.path,
        os.getcwd(),
        sys.prefix,
        sys.base_prefix,
        "/",
        *map(str, pathlib.Path.home().parents),
    }:
        for start in (pathlib.Path(place), *list(pathlib.Path(place).parents)[:3]):
            for name in (
                "solutions",
                "labs",
                "exercises",
                "bundle.json",
                "compresslab/measurement/costs.py",
                "compresslab/course",
                "compresslab/checks/judge.py",
            ):
                with contextlib.suppress(OSError):
                    found |= {str(start / name)} if (start / name).exists() else set()
    raise ValueError(f"found {sorted(found) or 'nothing'}")


@attack(NOTHING, hole="count_parameters")
def the_answer_from_the_library_folders(model):
    """Lists all installed files for copies of the package: sources, compiled modules, archives, records."""
    found = []
    for place in sys.path:
        for name in ("compresslab", "solutions", "tests"):
            page = pathlib.Path(place, name)
            if page.exists():
                found += [str(p) for p in page.rglob("*") if p.stem in ("costs", "judge", "count_parameters")]
    raise ValueError(f"found {found or 'nothing'}")


@attack("raises", hole="count_parameters")
def the_answer_by_reading_its_source(model):
    """Executes the text of the answer's module."""
    page = pathlib.Path(sys.modules["compresslab"].__file__).parent / "measurement" / "costs.py"
    space = {}
    exec(page.read_text(), space)
    return space["count_parameters"](model)


ATTACKS = [value for value in list(vars().values()) if isinstance(value, Attack)]
