"""``compresslab new``: the skeletons of a lab and of an exercise, with what is missing marked TODO.

``compresslab verify LAB`` then lists what is left to do. Nothing that exists is overwritten.
"""

from __future__ import annotations

import ast
import importlib.resources
import itertools
import keyword
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from compresslab.authoring.build import paths
from compresslab.authoring.verify import author_files
from compresslab.checks.exercise import Lab
from compresslab.course import all_labs
from compresslab.errors import BadSetting, BadSource
from compresslab.storage.atomic import write_text

__all__ = ["new_exercise", "new_lab"]


def new_lab(name: str, root: Path, *, number: int | None = None) -> tuple[str, tuple[Path, ...]]:
    """Write the skeleton of a lab; return its full name, such as ``05_demo``, and the files.

    Args:
        name: the lab's topic, also its folder in ``course/``: an identifier in lower case.
        root: the repository's folder.
        number: by default the first that is free.

    Raises:
        BadSetting: the name is no identifier or taken, or the number is taken.
    """
    _require_name(name)
    taken = {int(lab.name[:2]) for lab in all_labs()} | {
        int(folder.name[:2]) for folder in (root / "solutions").glob("[0-9][0-9]_*")
    }
    if number is None:
        number = next(free for free in itertools.count() if free not in taken)
    if number in taken or not 0 <= number <= 99:
        used = ", ".join(f"{each:02}" for each in sorted(taken))
        raise BadSetting(f"number must be free and in 0 … 99, got {number}; taken are {used}")
    words = {"lab": f"{number:02}_{name}", "number": f"{number:02}"}
    files = author_files(words["lab"], root)
    return words["lab"], _write(
        {
            files["course"] / "__init__.py": _filled("lab.py", words),
            files["source"]: _filled("source.py", words),
            files["test"]: _filled("test.py", words),
        }
    )


def new_exercise(lab: Lab, name: str, root: Path) -> tuple[Path, ...]:
    """Write the skeleton of an exercise, and add it to its lab's ``LAB`` and source; return the files.

    Raises:
        BadSetting: the name is no identifier or taken.
        BadSource: the lab's source is missing, or its LAB is written in another form.
    """
    _require_name(name)
    folder, source = author_files(lab.name, root)["course"], paths(lab, root)["source"]
    front = folder / "__init__.py"
    if not (front.is_file() and source.is_file()):
        raise BadSource(f"{lab.name} is not in {root}; run this in the repository that holds it")
    words = {"lab": lab.name, "exercise": name}
    pages = {folder / f"{name}.py": _filled("exercise.py", words)}
    changed = {
        front: _with_exercise(front.read_text(encoding="utf-8"), folder.name, name),
        source: _with_hole(source.read_text(encoding="utf-8"), _filled("hole.py", words)),
    }
    written = _write(pages)
    for place, text in changed.items():
        write_text(place, text)
    return (*written, *changed)


def _require_name(name: str) -> None:
    if not name.isidentifier() or name != name.lower() or keyword.iskeyword(name) or name.startswith("_"):
        raise BadSetting(
            f"NAME must be a Python name in lower case, got {name!r}; try one such as channel_scales"
        )


def _filled(name: str, words: Mapping[str, str]) -> str:
    text = (
        importlib.resources.files(__package__)
        .joinpath("templates", f"{name}.txt")
        .read_text(encoding="utf-8")
    )
    return Template(text).substitute(words)


def _write(texts: Mapping[Path, str]) -> tuple[Path, ...]:
    """Write new files, all or none.

    Raises:
        BadSetting: one of them exists.
    """
    for place in texts:
        folder = place.parent
        if place.exists() or (place.name == "__init__.py" and folder.exists()):
            raise BadSetting(f"NAME must be new, but {folder.name}/{place.name} exists; choose another name")
    for place, text in texts.items():
        write_text(place, text)
    return tuple(texts)


def _with_hole(source: str, hole: str) -> str:
    """Return a lab's source with a hole before its last cell, which says how the lab is checked."""
    place = source.rindex("\n# %%") + 1
    return source[:place] + hole + source[place:]


def _with_exercise(text: str, family: str, name: str) -> str:
    """Return the text of a lab's ``__init__.py`` with one more exercise, imported and last in ``LAB``."""
    tree = ast.parse(text)
    found = [
        setting.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Lab"
        for setting in node.keywords
        if setting.arg == "exercises" and isinstance(setting.value, ast.Tuple)
    ]
    if len(found) != 1:
        raise BadSource(f"course/{family}/__init__.py has no Lab(exercises=(…)); add {name}.EXERCISE by hand")
    exercises = [*map(ast.unparse, found[0].elts), f"{name}.EXERCISE"]
    lines = "".join(f"\n        {each}," for each in exercises) + "\n    "
    text = _replaced(text, found[0], f"({lines if len(exercises) > 1 else exercises[0] + ','})")
    package = f"compresslab.course.{family}"
    own = next((n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == package), None)
    if own is not None:
        return _replaced(text, own, _import_line(package, sorted([*(each.name for each in own.names), name])))
    last = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)][-1]
    return _replaced(text, last, f"{ast.unparse(last)}\n{_import_line(package, [name])}")


def _import_line(package: str, names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"from {package} import {names[0]}"
    return f"from {package} import (\n" + "".join(f"    {name},\n" for name in names) + ")"


def _replaced(text: str, node: ast.expr | ast.stmt, new: str) -> str:
    """Return the text with a node replaced; replace later nodes before earlier ones."""
    lines = text.encode().splitlines(keepends=True)  # a node's columns count bytes
    start = sum(map(len, lines[: node.lineno - 1])) + node.col_offset
    end = sum(map(len, lines[: (node.end_lineno or 0) - 1])) + (node.end_col_offset or 0)
    whole = text.encode()
    return (whole[:start] + new.encode() + whole[end:]).decode()
