"""What ``compresslab new`` writes runs at once, and ``compresslab verify`` says of it what is missing."""

from __future__ import annotations

import ast
import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import made_lab
import pytest

import compresslab
from compresslab.authoring.instructor_notebook import code_cells, instructor_notebook
from compresslab.authoring.new import new_exercise, new_lab
from compresslab.authoring.verify import author_files
from compresslab.course import all_labs
from compresslab.errors import BadSetting, BadSource

ROOT = Path(compresslab.__file__).parents[1]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """What an author's clone needs for the commands: the package, and what reads and checks its style."""
    root = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "compresslab", root / "compresslab", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def said(clone, *arguments):
    """Run a command in the clone; return its exit status and its words."""
    command = [sys.executable, "-m", "compresslab", *arguments]
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_a_new_lab_and_exercise_run_at_once_and_verify_says_what_is_missing(clone):
    assert said(clone, "new", "lab", "demo")[0] == 0
    code, words = said(clone, "verify", "demo")
    assert code == 1
    assert "✗ 05_demo: it has no exercise yet; run compresslab new exercise 05_demo NAME" in words
    assert said(clone, "new", "exercise", "demo", "first")[0] == 0
    code, words = said(clone, "verify", "demo")
    assert code == 1
    for sentence in (
        "it is not built: solutions/05_demo/05_demo.ipynb, solutions/05_demo/metrics.json, "
        "labs/05_demo/05_demo.ipynb missing; run compresslab build 05_demo",
        "first: 0 of at least 2 right answers",
        "first: 0 of at least 4 mistakes",
        "first: 0 of 3 hints",
        "first: 1 of at least 2 named cases",
        "compresslab/course/demo/__init__.py:11: TODO: its contents, in a line",
        "solutions/05_demo/05_demo.py:2: TODO: the title",
        "tests/course/test_demo.py:7: TODO: test the lab's figures and runs",
    ):
        assert f"✗ 05_demo: {sentence}" in words
    assert f"{words.count('✗')} problems" in words
    for check in (["check"], ["format", "--check"]):
        folders = ["compresslab/course/demo", "solutions", "tests"]
        done = subprocess.run(["ruff", *check, *folders], cwd=clone, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
    test = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/course/test_demo.py"]
    failed = subprocess.run(test, cwd=clone, capture_output=True, text=True).stdout
    assert "TODO: test the lab's figures and runs" in failed


def test_a_lab_takes_the_first_free_number_or_the_given_one(tmp_path):
    assert new_lab("demo", tmp_path)[0] == "05_demo"
    assert new_lab("more", tmp_path)[0] == "06_more"
    full_name, files = new_lab("given", tmp_path, number=42)
    assert full_name == "42_given"
    assert files == tuple(author_files(full_name, tmp_path)[k] / end for k, end in KEYS)


KEYS = (("course", "__init__.py"), ("source", ""), ("test", ""))


@pytest.mark.parametrize("name", ["my-lab", "Demo", "3d", "", "class", "_private", "a.b"])
def test_a_name_that_is_none_in_python_is_refused_and_nothing_is_written(tmp_path, name):
    with pytest.raises(BadSetting, match="NAME must be a Python name in lower case, got"):
        new_lab(name, tmp_path)
    with pytest.raises(BadSetting, match="NAME must be a Python name in lower case, got"):
        new_exercise(made_lab.LAB, name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_exists_is_never_overwritten(tmp_path):
    new_lab("demo", tmp_path)
    front = tmp_path / "compresslab" / "course" / "demo" / "__init__.py"
    front.write_text(front.read_text() + "# mine\n")
    with pytest.raises(BadSetting, match=r"NAME must be new, but demo/__init__\.py exists"):
        new_lab("demo", tmp_path)
    with pytest.raises(BadSetting, match=r"number must be free and in 0 … 99, got 5; taken are 00, .* 05"):
        new_lab("other", tmp_path, number=5)
    lab = dataclasses.replace(made_lab.LAB, name="05_demo")
    new_exercise(lab, "first", tmp_path)
    before = {place: place.read_bytes() for place in tmp_path.rglob("*.py")}
    with pytest.raises(BadSetting, match=r"NAME must be new, but demo/first\.py exists"):
        new_exercise(lab, "first", tmp_path)
    assert {place: place.read_bytes() for place in tmp_path.rglob("*.py")} == before
    assert front.read_text().endswith("# mine\n")


@pytest.mark.parametrize("lab", all_labs(), ids=lambda lab: lab.name)
def test_an_exercise_comes_last_in_its_lab_and_in_the_labs_source(lab, tmp_path):
    files = author_files(lab.name, tmp_path)
    for place in (files["course"] / "__init__.py", files["source"]):
        place.parent.mkdir(parents=True)
        shutil.copy(ROOT / place.relative_to(tmp_path), place)
    new_exercise(lab, "brand_new", tmp_path)
    tree = ast.parse((files["course"] / "__init__.py").read_text())
    (exercises,) = [
        n.value.elts for n in ast.walk(tree) if isinstance(n, ast.keyword) and n.arg == "exercises"
    ]
    wanted = [exercise.name for exercise in lab.exercises]
    assert [entry.value.id for entry in exercises] == [*wanted, "brand_new"]
    imported = [name.name for n in tree.body if isinstance(n, ast.ImportFrom) for name in n.names]
    assert {*wanted, "brand_new"} <= set(imported)
    made = dataclasses.replace(made_lab.EXERCISE, name="brand_new")
    longer = dataclasses.replace(lab, exercises=(*lab.exercises, made))
    notebook = instructor_notebook(longer, files["source"].read_text())
    assert code_cells(notebook)[-1].id == "check-brand_new"
    assert notebook.cells[-1].cell_type == "markdown"


def test_a_lab_that_is_not_here_or_is_written_in_another_way_is_told(tmp_path):
    with pytest.raises(BadSource, match=r"90_made is not in .*; run this in the repository"):
        new_exercise(made_lab.LAB, "first", tmp_path)
    files = author_files("90_made", tmp_path)
    for place in (files["course"] / "__init__.py", files["source"]):
        place.parent.mkdir(parents=True)
        place.write_text("# %%\nLAB = make()\n")
    with pytest.raises(BadSource, match=r"course/made/__init__.py has no Lab\(exercises=\(…\)\); add"):
        new_exercise(made_lab.LAB, "first", tmp_path)
    assert not (files["course"] / "first.py").exists()
