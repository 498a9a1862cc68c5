"""The house stays as planned: imports point one way, `__all__` is exact, pages are short and well named."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import compresslab

ROOT = Path(compresslab.__file__).parents[1]
PACKAGE = ROOT / "compresslab"
MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = sorted([*MODULES, *(ROOT / "tests").rglob("*.py")])

# A module imports from the lines above its own and from its own package, never from a neighbour in its line.
LAYERS = """
errors  openmp
vision  clock  checkpoints  long_runs
data  storage  seeds
models  transformers  costs  memory  display  steps  inputs  replacing
measuring
training  reporting  layers  deployment
recipes  damage  bench
techniques
classroom
doctor  start  terminal
learning  teaching
__main__
"""
LEVEL = {name: level for level, line in enumerate(LAYERS.split("\n")) for name in line.split()}
TECHNIQUES = LEVEL["techniques"]
EXERCISES = "compresslab.classroom.exercises."  # an exercise's page has one public name, EXERCISE


def dotted(file: Path) -> str:
    """A file's module name, such as ``compresslab.storage.container``."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str) -> Iterator[tuple[str, str]]:
    """Each (module, name) of ``from module import name``; ``import module`` has no name. At any depth."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "an import names its module in full"
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def house(file: Path) -> tuple[str, ...]:
    """Where a file lives: ``("data",)``, ``("storage",)``, ``("techniques", "pruning")``."""
    parts = dotted(file).split(".")[1:]
    return tuple(parts[:2] if parts[:1] == ["techniques"] else parts[:1])


def complaints(file: Path, source: str) -> list[str]:
    """What is wrong with a file's imports from compresslab, in words."""
    mine, wrong = house(file), []
    level = (
        LEVEL[mine[0]] if mine else TECHNIQUES
    )  # compresslab/__init__.py offers what is below the techniques
    for module, name in imports(source):
        if module.split(".")[0] != "compresslab":
            continue
        theirs = (*module.split(".")[1:], name)
        theirs = theirs[:2] if theirs[0] == "techniques" else theirs[:1]
        if theirs[0] not in LEVEL:
            wrong.append(f"{file.name} takes {name or module} from the package's front, not from its module")
        elif theirs != mine and LEVEL[theirs[0]] >= level:
            wrong.append(f"{file.name} imports {'.'.join(theirs)}, which is not above it")
    return wrong


def test_every_module_has_its_line_in_the_table():
    names = {house(file)[0] for file in MODULES if house(file)}
    assert names <= set(LEVEL), "a new module: give it a line"


@pytest.mark.parametrize("file", MODULES, ids=dotted)
def test_imports_point_one_way(file):
    assert not complaints(file, file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("place", "line", "allowed"),
    [
        ("data.py", "from compresslab.errors import Wrong", True),
        ("data.py", "from compresslab.storage import save_model", False),  # a neighbour
        ("data.py", "def f():\n    import compresslab.classroom.grading", False),  # hidden in a function
        ("data.py", "from compresslab import fit", False),
        ("data.py", "from compresslab import errors", True),
        ("storage/sparse.py", "from compresslab.storage.container import write", True),
        ("techniques/pruning/new.py", "from compresslab.techniques.pruning.criteria import magnitude", True),
        ("techniques/pruning/new.py", "from compresslab.techniques.low_rank.svd import truncate", False),
        ("techniques/pruning/new.py", "from compresslab.techniques import low_rank", False),
        ("classroom/lamp.py", "from compresslab.techniques.low_rank import svd", True),
        ("__init__.py", "from compresslab.training import fit", True),
        ("__init__.py", "from compresslab.classroom import lab", False),
    ],
)
def test_the_walk_tells_a_right_import_from_a_wrong_one(place, line, allowed):
    assert (complaints(PACKAGE / place, line) == []) == allowed


def test_labs_use_public_names_alone():
    for file in (ROOT / "solutions").glob("*/*.py"):
        for module, name in imports(file.read_text(encoding="utf-8")):
            if module.split(".")[0] == "compresslab" and name:
                owner = importlib.import_module(module)
                pages = {page.name for page in pkgutil.iter_modules(getattr(owner, "__path__", []))}
                assert name in {*owner.__all__, *pages}, f"{file.name}: {name} is no public name of {module}"


# public names


def defined(source: str) -> set[str]:
    """The functions and classes without an underscore at a module's top level."""
    kinds = ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef
    return {n.name for n in ast.parse(source).body if isinstance(n, kinds) and not n.name.startswith("_")}


def offered(source: str) -> set[str] | None:
    """What a module lists in ``__all__``; None where it has no such list."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "__all__" for t in node.targets):
            return set(ast.literal_eval(node.value))
    return None


@pytest.mark.parametrize("file", MODULES, ids=dotted)
def test_all_lists_every_function_and_class_and_nothing_that_is_not_there(file):
    if file.name == "__main__.py" or dotted(file).startswith(EXERCISES):
        return  # a command and an exercise are found by what they are, not by a list
    source, module = file.read_text(encoding="utf-8"), importlib.import_module(dotted(file))
    listed = offered(source)
    assert listed is not None or not defined(source), "it has no __all__"
    assert defined(source) <= (listed or set())
    assert all(hasattr(module, name) and not name.startswith("_") for name in listed or ())


def test_the_public_names_of_the_package_are_sorted_and_imported_from_their_own_module():
    assert compresslab.__all__ == sorted(compresslab.__all__)
    for name in compresslab.__all__:
        assert name in importlib.import_module(getattr(compresslab, name).__module__).__all__


# weight, length, names


def loaded_by(statement: str) -> set[str]:
    """The top-level packages that a fresh Python has loaded after a statement."""
    code = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    return set(done.stdout.split())


def test_importing_compresslab_is_light():
    heavy = {"matplotlib", "ipywidgets", "IPython", "jupyterlab", "nbgrader", "typer", "rich", "torchvision"}
    loaded = loaded_by("import compresslab")
    assert not heavy & loaded
    wanted = loaded_by("import torch, torch.utils.flop_counter, numpy, safetensors.torch, tqdm.auto")
    assert {name for name in loaded - wanted if name not in sys.stdlib_module_names} <= {"compresslab"}


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_page_has_at_most_300_lines(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 300


def test_no_file_is_called_by_a_name_that_says_nothing():
    nothing = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "handler", "base"}
    for file in [*SOURCES, *(ROOT / "solutions").rglob("*.py")]:
        words = {word for part in file.relative_to(ROOT).with_suffix("").parts for word in part.split("_")}
        assert not nothing & words, f"{file.relative_to(ROOT)}: if no name fits, it is not one thing"
