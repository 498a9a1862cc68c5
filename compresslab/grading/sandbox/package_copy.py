"""The package as a student's code may see it: without the lab's answers, and without what leans on them.

A worker imports ``compresslab`` from a copy. In it are no exercises, no desk, no grader beyond the worker
itself, and none of the modules that hold the lab's answers; a page that imports one of those at its top could
not be imported and goes too; a package's ``__init__`` forgets the names that went. What is not there can't be
found by any trick in the process: not in ``sys.modules``, not by ``gc``, not on the disk.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from compresslab.errors import BadSource

__all__ = ["TEACHING", "WORKER", "strip"]

WORKER = tuple(
    f"compresslab.{module}"
    for module in (
        "checks",
        "checks.call",
        "checks.exercise",
        "checks.networks",
        "checks.record",
        "grading",
        "grading.sandbox",
        "grading.sandbox.limits",
        "grading.sandbox.messages",
        "grading.sandbox.worker",
    )
)
TEACHING = tuple(  # how the course is taught and graded: nothing of it enters a worker but WORKER
    f"compresslab.{package}"
    for package in (
        "__main__",
        "authoring",
        "checks",
        "classroom",
        "cli",
        "course",
        "experiments",
        "grading",
        "notebook",
    )
)


def strip(package: Path, out: Path, *, hidden: Sequence[str]) -> tuple[str, ...]:
    """Copies the package's pages to ``out``, less what is hidden and what leans on it; the names that went.

    Args:
        package: the folder of the whole package.
        out: a folder that is not there yet.
        hidden: modules, with all that is below them.

    Raises:
        CompressionError: the worker itself leans on something hidden.
    """
    pages = {_module(place, package): place for place in sorted(package.rglob("*.py"))}
    gone = _gone(pages, hidden)
    if lost := [name for name in WORKER if name in gone]:
        raise BadSource(
            f"the worker needs {', '.join(lost)}, which leans on {', '.join(hidden)}; expected answers that "
            "the worker does without; name other modules in the lab's answers_in"
        )
    for name in sorted(pages.keys() - gone):
        place = out / pages[name].relative_to(package)
        place.parent.mkdir(parents=True, exist_ok=True)
        text = pages[name].read_text(encoding="utf-8")
        place.write_text(_forgetful(text, gone) if place.name == "__init__.py" else text, encoding="utf-8")
    for place in (out, *out.rglob("*")):  # the student's user reads it, whatever the umask
        place.chmod(0o755 if place.is_dir() else 0o644)
    return tuple(sorted(gone))


def _module(place: Path, package: Path) -> str:
    parts = place.relative_to(package).with_suffix("").parts
    return ".".join([package.name, *parts]).removesuffix(".__init__")


def _gone(pages: dict[str, Path], hidden: Sequence[str]) -> set[str]:
    """What is hidden, what belongs to teaching and grading, and every module that imports one of those."""
    gone = {name for name in pages if any(_below(name, answer) for answer in hidden)}
    gone |= {name for name in pages if name not in WORKER and any(_below(name, p) for p in TEACHING)}
    leans = {
        name: set(_imported(ast.parse(place.read_text(encoding="utf-8")).body))
        for name, place in pages.items()
        if place.name != "__init__.py"
    }
    while more := {name for name, asked in leans.items() if name not in gone and asked & gone}:
        gone |= more
    return gone


def _below(name: str, above: str) -> bool:
    return name == above or name.startswith(f"{above}.")


def _imported(body: Iterable[ast.stmt]) -> Iterator[str]:
    """What these statements import at the top: the modules, and each name as if it were one."""
    for statement in body:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            yield str(statement.module)
            yield from (f"{statement.module}.{alias.name}" for alias in statement.names)


def _forgetful(text: str, gone: set[str]) -> str:
    """An ``__init__`` without the imports of what has gone, and without their names in ``__all__``."""
    tree = ast.parse(text)
    lost = [s for s in tree.body if set(_imported([s])) & gone]
    names = {alias.asname or alias.name for s in lost if isinstance(s, ast.ImportFrom) for alias in s.names}
    tree.body = [s for s in tree.body if s not in lost]
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            kept = [name for name in ast.literal_eval(statement.value) if name not in names]
            statement.value = ast.parse(repr(kept), mode="eval").body
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"
