"""Copy the package for a worker: without the lab's answers, and without every module that imports them.

A worker imports ``compresslab`` from this copy. It holds no exercises, nothing that notebooks import, nothing
of grading beyond the worker itself, and none of the modules that hold the lab's answers. A module that
imports one of those at its top could not be imported, so it is left out too, and an ``__init__`` loses the
names that came from there. What is not in the copy can't be found by any trick in the process: not in
``sys.modules``, not by ``gc``, not on the disk.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from compresslab.errors import BadSource

__all__ = ["TEACHING", "WORKER", "copy_package"]

WORKER = tuple(  # what a worker imports of TEACHING
    f"compresslab.{module}"
    for module in (
        "checks",
        "checks.call",
        "checks.exercise",
        "checks.networks",
        "checks.record",
        "checks.withheld_calls",
        "grading",
        "grading.sandbox",
        "grading.sandbox.kernel",
        "grading.sandbox.limits",
        "grading.sandbox.messages",
        "grading.sandbox.namespaces",
        "grading.sandbox.notebook_names",
        "grading.sandbox.privileges",
        "grading.sandbox.syscalls",
        "grading.sandbox.worker",
    )
)
TEACHING = tuple(  # how the course is taught and graded: none of it is copied, except for WORKER
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

WITHHOLDING = """
def __getattr__(name):
    if name in {names}:
        from compresslab.grading.sandbox.notebook_names import Withheld
        raise Withheld(name)
    raise AttributeError(f"module {{__name__!r}} has no attribute {{name!r}}")
"""  # at the end of an ``__init__`` that has lost these names


def copy_package(package: Path, out: Path, *, hidden: Sequence[str]) -> tuple[str, ...]:
    """Copy the package's modules to ``out``, except hidden ones and those that import them.

    Args:
        package: the folder of the whole package.
        out: a folder that does not exist yet.
        hidden: modules, with everything below them.

    Returns:
        The names of the modules that were left out.

    Raises:
        CompressionError: the worker itself imports something hidden.
    """
    modules = {_module(path, package): path for path in sorted(package.rglob("*.py"))}
    excluded = _excluded(modules, hidden)
    if lost := [name for name in WORKER if name in excluded]:
        raise BadSource(
            f"answers hides {', '.join(hidden)}, which the worker's {', '.join(lost)} imports; expected "
            "answers that the worker does without; name other modules in the lab's answers"
        )
    for name in sorted(modules.keys() - excluded):
        path = out / modules[name].relative_to(package)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = modules[name].read_text(encoding="utf-8")
        path.write_text(
            _without_imports(text, excluded) if path.name == "__init__.py" else text, encoding="utf-8"
        )
    for path in (out, *out.rglob("*")):  # the student's user reads it, whatever the umask
        path.chmod(0o755 if path.is_dir() else 0o644)
    return tuple(sorted(excluded & modules.keys()))


def _module(path: Path, package: Path) -> str:
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join([package.name, *parts]).removesuffix(".__init__")


def _excluded(modules: dict[str, Path], hidden: Sequence[str]) -> set[str]:
    """Return what is hidden, what belongs to teaching, and every module that imports one of those.

    The names that a package's ``__init__`` can no longer import are among them, as if they were modules.
    """
    excluded = {name for name in modules if any(_within(name, answer) for answer in hidden)}
    excluded |= {name for name in modules if name not in WORKER and any(_within(name, p) for p in TEACHING)}
    bodies = {name: ast.parse(path.read_text(encoding="utf-8")).body for name, path in modules.items()}
    while more := set(_importing(modules, bodies, excluded)) - excluded:
        excluded |= more
    return excluded


def _importing(
    modules: dict[str, Path], bodies: dict[str, list[ast.stmt]], excluded: set[str]
) -> Iterator[str]:
    """Yield the modules that import something excluded, and the names that an ``__init__`` takes from it."""
    for name, body in bodies.items():
        lost = [statement for statement in body if not excluded.isdisjoint(_imported([statement]))]
        if modules[name].name == "__init__.py":
            yield from (f"{name}.{offered}" for offered in _bound(lost))
        elif lost:
            yield name


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _imported(body: Iterable[ast.stmt]) -> Iterator[str]:
    """Yield what these statements import at the top: the modules, and each name as if it were one."""
    for statement in body:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            yield str(statement.module)
            yield from (f"{statement.module}.{alias.name}" for alias in statement.names)


def _bound(statements: Iterable[ast.stmt]) -> Iterator[str]:
    """Yield the names that ``from … import`` statements bind."""
    for statement in statements:
        if isinstance(statement, ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in statement.names)


def _without_imports(text: str, excluded: set[str]) -> str:
    """Return an ``__init__`` without its imports of excluded modules and their names in ``__all__``.

    Who asks for one of those names is told to write it.
    """
    tree = ast.parse(text)
    lost = [s for s in tree.body if set(_imported([s])) & excluded]
    names = set(_bound(lost))
    tree.body = [s for s in tree.body if s not in lost]
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            kept = [name for name in ast.literal_eval(statement.value) if name not in names]
            statement.value = ast.parse(repr(kept), mode="eval").body
    if names:
        tree.body += ast.parse(WITHHOLDING.format(names=sorted(names))).body
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"
