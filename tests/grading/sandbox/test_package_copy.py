"""The student's copy of the package: no answer in it, nothing that imports one, and complete all the same."""

from __future__ import annotations

import ast
import json
import os
import site
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import compresslab
from compresslab.course import all_labs
from compresslab.errors import CompressionError
from compresslab.grading.sandbox.package_copy import WORKER, copy_package

PACKAGE = Path(compresslab.__file__).parent
GRADERS = tuple(
    f"compresslab.{module}"
    for module in ("course", "notebook", "checks.judge", "checks.expect", "grading.grade", "grading.bundle")
)
LOOK = """
import importlib, json, pkgutil, sys
import compresslab, compresslab.grading.sandbox.worker
told = {"loaded": sorted(sys.modules), "broken": {}, "untrue": [], "from": compresslab.__file__}
for page in ["compresslab", *(p.name for p in pkgutil.walk_packages(compresslab.__path__, "compresslab."))]:
    try:
        module = importlib.import_module(page)
    except ImportError as error:
        told["broken"][page] = str(error.name)
    else:
        names = getattr(module, "__all__", ())
        told["untrue"] += [f"{page}.{name}" for name in names if not hasattr(module, name)]
told["all"] = sorted(name for name in sys.modules if name.partition(".")[0] == "compresslab")
print(json.dumps(told))
"""


@pytest.fixture(scope="module", params=all_labs(), ids=lambda lab: lab.name)
def copied(request, tmp_path_factory):
    """A real lab, its copy, what went, and what a process saw that has nothing but the copy."""
    lab, place = request.param, tmp_path_factory.mktemp("copy")
    gone = copy_package(PACKAGE, place / "compresslab", hidden=lab.answers)
    paths = os.pathsep.join([str(place), *site.getsitepackages()])
    seen = subprocess.run(  # -S: no site, so no finder of an editable install
        [sys.executable, "-S", "-P", "-B", "-c", LOOK],
        env={"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        cwd=place,
    )
    assert seen.returncode == 0, seen.stderr
    return lab, place / "compresslab", gone, json.loads(seen.stdout)


def within(name: str, above: str) -> bool:
    return name == above or name.startswith(f"{above}.")


def test_the_worker_runs_from_the_copy_alone(copied):
    _, place, _, seen = copied
    assert seen["from"] == str(place / "__init__.py")
    assert set(WORKER) - set(seen["all"]) == set()


def test_every_module_that_stays_can_be_imported_and_its_all_is_true(copied):
    _, _, _, seen = copied
    ours = {page: name for page, name in seen["broken"].items() if within(name, "compresslab")}
    assert ours == {}  # another library may be missing here, a module of ours may not
    assert seen["untrue"] == []


def test_no_answer_and_no_grader_is_in_the_copy(copied):
    lab, place, gone, seen = copied
    there = {
        ".".join(("compresslab", *path.relative_to(place).with_suffix("").parts))
        for path in place.rglob("*.py")
    }
    for above in (*lab.answers, *GRADERS):
        assert [name for name in {*there, *seen["all"]} if within(name, above)] == []
    for above in (*lab.answers, *GRADERS):
        assert [name for name in gone if within(name, above)], f"{above} is no module of the package"


def test_no_function_in_the_copy_has_the_name_of_a_hole(copied):
    lab, place, _, _ = copied
    holes = {exercise.name for exercise in lab.exercises}
    defined = {
        f"{path.relative_to(place)}: {node.name}"
        for path in place.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name in holes
    }
    assert defined == set()


@pytest.mark.parametrize("lab", all_labs(), ids=lambda lab: lab.name)
def test_no_function_in_the_copy_passes_a_check(lab, tmp_path):
    told = tried_on(lab.name, tmp_path)
    assert told["tried"] > 100
    assert told["passed"] == []


def test_a_function_that_is_not_hidden_would_be_found(tmp_path):
    told = tried_on("measuring", tmp_path, "compresslab.techniques")
    assert told["passed"] == [
        ["count_parameters", "compresslab.measurement.costs.count_parameters"],
        ["network_macs", "compresslab.measurement.costs.count_macs"],
    ]


def tried_on(lab: str, folder: Path, *hidden: str) -> dict[str, Any]:
    script = Path(__file__).with_name("every_function.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), lab, *hidden],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=300,
        check=True,
    )
    return json.loads(done.stdout)


def test_the_worker_loads_nothing_of_a_notebook(copied):
    heavy = {"IPython", "jupyter_client", "nbformat", "nbclient", "ipywidgets", "matplotlib", "torchvision"}
    assert heavy & set(copied[3]["loaded"]) == set()


# The rules, on a small made package.

MODULES = {
    "__init__": "from compresslab.answers import f, g as renamed\nfrom compresslab.free import h\n"
    "__all__ = ['f', 'h', 'renamed']\n",
    "answers": "def f(): return 42\ndef g(): return 43\n",
    "answers_of_others": "",
    "importing": "from compresslab.answers import f\n",
    "importing_the_module": "from compresslab import answers\n",
    "importing_that": "import compresslab.importing\n",
    "free": "# a remark\ndef h():\n    from compresslab.answers import f\n    return f()\n",
    "typed": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from compresslab.answers import f\n",
    "family/__init__": "# a remark stays\nfrom compresslab.free import h\n\n__all__ = ['h']\n",
    "family/page": "",
    "checks/__init__": "",
    "checks/judge": "",
    "checks/networks": "",
    "cli/student": "",
}


def made(folder: Path, **changed: str) -> Path:
    for name, text in (MODULES | changed).items():
        place = folder / "compresslab" / f"{name}.py"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return folder / "compresslab"


def names(place: Path) -> set[str]:
    return {path.relative_to(place).with_suffix("").as_posix() for path in place.rglob("*.py")}


def test_what_is_hidden_goes_and_what_imports_it_however_far(tmp_path):
    gone = copy_package(made(tmp_path), tmp_path / "out", hidden=["compresslab.answers"])
    importing = {"importing", "importing_the_module", "importing_that"}
    assert names(tmp_path / "out") == set(MODULES) - importing - {"answers", "checks/judge", "cli/student"}
    assert {name.removeprefix("compresslab.") for name in gone} == {
        *importing,
        "answers",
        "checks.judge",
        "cli.student",
    }


def test_what_takes_an_answer_from_a_package_that_offers_it_goes_too(tmp_path):
    package = made(
        tmp_path,
        **{
            "family/__init__": "from compresslab.answers import f\n__all__ = ['f']\n",
            "through": "from compresslab.family import f\n",
        },
    )
    assert "compresslab.through" in copy_package(package, tmp_path / "out", hidden=["compresslab.answers"])


def test_hiding_a_package_hides_all_that_is_below_it(tmp_path):
    copy_package(made(tmp_path), tmp_path / "out", hidden=["compresslab.family"])
    assert not (tmp_path / "out" / "family").exists()
    assert (tmp_path / "out" / "importing.py").exists()


def test_an_init_forgets_what_has_gone_and_nothing_else(tmp_path):
    copy_package(made(tmp_path), tmp_path / "out", hidden=["compresslab.answers"])
    kept, _, added = (tmp_path / "out" / "__init__.py").read_text().partition("\n\n")
    assert kept.splitlines() == ["from compresslab.free import h", "__all__ = ['h']"]
    space: dict[str, Any] = {"__name__": "compresslab"}
    exec(added, space)
    for name, sentence in (
        ("f", "compresslab's own f; write it yourself"),
        ("other", "no attribute 'other'"),
    ):
        with pytest.raises(AttributeError, match=sentence):
            space["__getattr__"](name)


def test_other_modules_are_copied_as_they_are(tmp_path):
    copy_package(made(tmp_path), tmp_path / "out", hidden=["compresslab.answers"])
    for module in ("free", "typed"):
        assert (tmp_path / "out" / f"{module}.py").read_text() == MODULES[module]


def test_the_students_user_may_read_the_copy_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        copy_package(made(tmp_path), tmp_path / "out", hidden=["compresslab.answers"])
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "out", *(tmp_path / "out").rglob("*"))}
    assert modes == {0o644, 0o755}


def test_a_worker_that_imports_an_answer_is_refused(tmp_path):
    package = made(tmp_path, **{"checks/networks": "import compresslab.answers"})
    with pytest.raises(
        CompressionError,
        match=r"answers hides compresslab\.answers, which the worker's compresslab\.checks\.networks "
        r"imports; expected answers that the worker does without; name other modules",
    ):
        copy_package(package, tmp_path / "out", hidden=["compresslab.answers"])
    assert not (tmp_path / "out").exists()
