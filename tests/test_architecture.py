"""The tree stays as designed: imports point one way, public names are exact, the front imports little."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import compresslab
from compresslab.course import all_labs

ROOT = Path(compresslab.__file__).parents[1]
PACKAGE = ROOT / "compresslab"
MODULES = sorted(PACKAGE.rglob("*.py"))

# A package imports from the floors above its own and from itself, never from a neighbour on its floor.
FLOORS = """
errors
storage  jobs
data
models
measurement  deployment
training
analysis
techniques
experiments
checks
course
notebook
grading
authoring
cli
classroom  __main__
"""
LEVEL = {name: level for level, line in enumerate(FLOORS.split("\n")) for name in line.split()}
FRONT = LEVEL["techniques"]  # compresslab/__init__.py offers what is above the techniques
COURSE = "compresslab.course."  # an exercise's module has one public name, EXERCISE


def dotted(file: Path) -> str:
    """Return a file's module name, such as ``compresslab.storage.container``."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str) -> Iterator[tuple[str, str]]:
    """Yield each (module, name) of ``from module import name``; ``import module`` has no name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "an import names its module in full"
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def package_of(file: Path) -> tuple[str, ...]:
    """Return the package of a file: ``("storage",)``, or with its family ``("techniques", "pruning")``."""
    parts = dotted(file).split(".")[1:]
    return tuple(parts[:2] if parts[:1] == ["techniques"] else parts[:1])


def complaints(file: Path, source: str) -> list[str]:
    """Return what is wrong with a file's imports from compresslab, in words."""
    mine, wrong = package_of(file), []
    level = LEVEL[mine[0]] if mine else FRONT
    for module, name in imports(source):
        if module.split(".")[0] != "compresslab" or (module, name) == ("compresslab", ""):
            continue
        theirs = (*module.split(".")[1:], name)
        theirs = theirs[:2] if theirs[0] == "techniques" else theirs[:1]
        if (module, name) == ("compresslab", "__version__"):
            continue
        if theirs[0] not in LEVEL:
            wrong.append(f"{file.name} takes {name or module} from the package's front, not from its module")
        elif theirs != mine and LEVEL[theirs[0]] >= level:
            wrong.append(f"{file.name} imports {'.'.join(theirs)}, which is not above it")
    return wrong


def test_every_package_has_its_floor():
    assert {package_of(file)[0] for file in MODULES if package_of(file)} == set(LEVEL)


@pytest.mark.parametrize("file", MODULES, ids=dotted)
def test_imports_point_one_way(file):
    assert not complaints(file, file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("path", "line", "allowed"),
    [
        ("data/new.py", "from compresslab.errors import CompressionError", True),
        ("data/new.py", "from compresslab.storage.atomic import write_bytes", True),
        ("storage/new.py", "from compresslab.jobs import executor", False),  # a neighbour
        ("data/new.py", "def f():\n    import compresslab.grading", False),  # hidden in a function
        ("data/new.py", "from compresslab import fit", False),
        ("data/new.py", "from compresslab import errors", True),
        ("storage/sparse.py", "from compresslab.storage.container import write", True),
        ("techniques/pruning/new.py", "from compresslab.techniques.pruning.criteria import magnitude", True),
        ("techniques/pruning/new.py", "from compresslab.techniques.low_rank.svd import truncate", False),
        ("techniques/pruning/new.py", "from compresslab.techniques import low_rank", False),
        ("techniques/pruning/new.py", "from compresslab.experiments import pruning", False),
        ("checks/new.py", "from compresslab.course import all_labs", False),
        ("grading/new.py", "from compresslab.techniques.low_rank import svd", True),
        ("__init__.py", "from compresslab.training.loop import fit", True),
        ("__init__.py", "from compresslab.notebook import lab", False),
    ],
)
def test_the_walk_tells_a_right_import_from_a_wrong_one(path, line, allowed):
    assert (complaints(PACKAGE / path, line) == []) == allowed


def test_labs_use_public_names_alone():
    for file in (ROOT / "solutions").glob("*/*.py"):
        for module, name in imports(file.read_text(encoding="utf-8")):
            if module.split(".")[0] == "compresslab" and name:
                owner = importlib.import_module(module)
                modules = {found.name for found in pkgutil.iter_modules(getattr(owner, "__path__", []))}
                public = {*getattr(owner, "__all__", ()), *modules}
                assert name in public, f"{file.name}: {name} is no public name of {module}"


def test_no_lab_is_named_outside_the_course_and_its_experiments():
    lab = re.compile(r"\b\d\d_(?:measuring|quantization|distillation|pruning|low_rank)\b")
    free = ("course", "experiments")
    for file in MODULES:
        if package_of(file)[:1] and package_of(file)[0] in free:
            continue
        code = re.sub(r'""".*?"""|(?m:#.*$)', "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert not lab.search(code), f"{dotted(file)} names a lab"


def test_the_repository_is_found_in_one_place():
    """Everything else takes its folders from data.location; ``module.__file__`` of another module is free."""
    own_path = re.compile(r"(?<![\w.])__file__\b")
    found = {dotted(file) for file in MODULES if own_path.search(file.read_text(encoding="utf-8"))}
    assert found == {"compresslab.data.location"}
    roots = [
        f for f in MODULES if re.search(r"\b(DATA|PACKAGE|LABS)\.parent\b", f.read_text(encoding="utf-8"))
    ]
    assert roots == []


def test_files_are_written_by_the_atomic_writers():
    """Only storage.atomic replaces a file; the worker's copy of the package is written into a new folder."""
    plain = re.compile(r"os\.replace\(|\.rename\(|\bsave_file\(|\.write_(?:text|bytes)\(|json\.dump\(")
    free = {
        "compresslab.storage.atomic",
        "compresslab.cli.update",  # inside ``replacing``
        "compresslab.grading.bundle",  # inside ``new_folder``
        "compresslab.grading.sandbox.package_copy",  # for a bundle
    }
    found = {dotted(file) for file in MODULES if plain.search(file.read_text(encoding="utf-8"))}
    assert found == free


def test_the_name_of_a_lab_is_written_once():
    code = "".join(strings(file.read_text(encoding="utf-8")) for file in MODULES)
    for lab in all_labs():
        assert code.count(f"{lab.name!r}") == 1, f"{lab.name} is written more than once, or its parts are"
        package = importlib.import_module(f"compresslab.course.{lab.name.partition('_')[2]}")
        assert package.LAB is lab
        modules = [f"{package.__name__}.{found.name}" for found in pkgutil.iter_modules(package.__path__)]
        own = [getattr(importlib.import_module(name), "EXERCISE", None) for name in modules]
        assert {exercise.name for exercise in own if exercise} == {each.name for each in lab.exercises}


def strings(source: str) -> str:
    """Return the string constants of a module, less its docstrings, as Python writes them."""
    tree = ast.parse(source)
    words = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in words]
    return "".join(repr(node.value) for node in found if isinstance(node.value, str))


# public names


def defined(source: str) -> set[str]:
    """Return the functions and classes without an underscore at a module's top level."""
    kinds = ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef
    return {n.name for n in ast.parse(source).body if isinstance(n, kinds) and not n.name.startswith("_")}


def listed_in(source: str) -> set[str] | None:
    """Return what a module lists in ``__all__``; None where it has no such list."""
    for node in ast.parse(source).body:
        target = node.target if isinstance(node, ast.AnnAssign) else None
        targets = node.targets if isinstance(node, ast.Assign) else [target]
        if any(getattr(t, "id", "") == "__all__" for t in targets):
            return set(ast.literal_eval(node.value))
    return None


@pytest.mark.parametrize("file", MODULES, ids=dotted)
def test_all_lists_every_function_and_class_and_nothing_that_is_not_there(file):
    if file.name == "__main__.py" or dotted(file).startswith(COURSE):
        return  # a command and an exercise are found by what they are, not by a list
    source, module = file.read_text(encoding="utf-8"), importlib.import_module(dotted(file))
    listed = listed_in(source)
    assert listed is not None or not defined(source), "it has no __all__"
    assert defined(source) <= (listed or set())
    assert all(hasattr(module, name) and not name.startswith("_") for name in listed or ())


def test_a_public_name_of_the_package_is_public_in_its_own_module():
    for name in compresslab.__all__:
        assert name in importlib.import_module(getattr(compresslab, name).__module__).__all__


def test_importing_every_module_leaves_the_public_names_callable():
    # importing a package rebinds the attribute of its name: a package called like a function would hide it
    code = (
        "import pkgutil, importlib, compresslab\n"
        "for found in pkgutil.walk_packages(compresslab.__path__, 'compresslab.'):\n"
        "    if not found.name.endswith('__main__'): importlib.import_module(found.name)\n"
        "print(*[name for name in compresslab.__all__ if not callable(getattr(compresslab, name))])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == []


# weight


def loaded_by(statement: str) -> set[str]:
    """Return the top-level packages that a fresh Python has loaded after a statement."""
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
