"""nbgrader's own autograde and Validate on a student's copy: what is not written, or wrong, earns nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import made_lab
import nbformat
import pytest
from made_lab import LAB, SOURCE

from compresslab.authoring.build import execute
from compresslab.authoring.editions import student_edition
from compresslab.authoring.instructor_notebook import instructor_notebook

with warnings.catch_warnings():  # nbgrader's dependencies announce removals that are not ours to mend
    warnings.simplefilter("ignore")
    from nbgrader.api import Gradebook
    from nbgrader.validator import Validator

ROOT = Path(__file__).parents[2]
NAME = LAB.name
MENUS = f"""
import sys

sys.path.insert(0, {str(Path(made_lab.__file__).parent)!r})
from made_lab import LAB

from compresslab.notebook import menus as desk

desk.find_lab = lambda name: LAB
check, hint, reveal, yours = desk.lab(LAB.name)
"""
USES = """
# %%
yours.double(1)
"""
ANSWERS = {
    "untouched": None,
    "wrong": "def double(x):\n    return x / 2",
    "broken": "def double(x):\n    return y",
    "revealed": "double = reveal.double()",
    "right": "def double(x):\n    return x + x",
}
POINTS = {"untouched": 0, "wrong": 0, "broken": 0, "revealed": 0, "right": 2}


def instructors():
    old = next(line for line in SOURCE.splitlines() if line.startswith("check = "))
    notebook = instructor_notebook(LAB, SOURCE.replace(old, MENUS) + USES)
    notebook.cells = [cell for cell in notebook.cells if "{{" not in cell.source]
    return notebook


def handed_in(answer):
    """The students' edition with this answer in its hole; nothing was run."""
    notebook = nbformat.reads(student_edition(instructors(), NAME), as_version=4)
    if answer is not None:
        next(cell for cell in notebook.cells if cell.id == "double").source = answer
    return notebook


@pytest.fixture(scope="module")
def gradebook(tmp_path_factory):
    """A course of nbgrader's in which everybody has handed in, after ``nbgrader autograde``."""
    course = tmp_path_factory.mktemp("course")
    shutil.copy(ROOT / "nbgrader_config.py", course)
    places = {course / "solutions" / NAME: instructors()}
    places |= {course / "submitted" / who / NAME: handed_in(answer) for who, answer in ANSWERS.items()}
    for folder, notebook in places.items():
        folder.mkdir(parents=True)
        nbformat.write(notebook, folder / f"{NAME}.ipynb")
    for command in ("generate_assignment", "autograde"):
        done = subprocess.run(
            [sys.executable, "-m", "nbgrader", command, NAME], cwd=course, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        yield book


@pytest.mark.parametrize("who", ANSWERS)
def test_autograde_gives_the_points_that_the_answer_earns(gradebook, who):
    grade = gradebook.find_grade("check_double", NAME, NAME, who)
    assert (grade.auto_score, grade.max_score) == (POINTS[who], 2)
    assert not grade.needs_manual_grade


@pytest.mark.parametrize("who", ["untouched", "wrong", "right"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_validate_says_which_checks_fail(who, tmp_path):
    nbformat.write(handed_in(ANSWERS[who]), tmp_path / f"{NAME}.ipynb")
    failed = Validator().validate(str(tmp_path / f"{NAME}.ipynb")).get("failed", [])
    assert [cell["source"] for cell in failed] == ([] if who == "right" else ["check.double(double)"])
    assert all(("you halve" in cell["raw_error"]) == (who == "wrong") for cell in failed)


def outputs(notebook, folder):
    execute(notebook, folder, say=lambda words: None)
    return {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}


def test_run_all_shows_one_grey_line_for_what_is_not_written(tmp_path):
    shown = outputs(handed_in(None), tmp_path)
    (check,) = shown["check-double"]
    assert check.output_type == "execute_result"
    assert check.data["text/plain"] == "0"
    assert "double: not written yet" in check.data["text/html"]
    (needs,) = shown["code-yours-double-1"]
    assert (needs.output_type, needs.ename) == ("error", "Unwritten")
    assert len(needs.traceback) == 1


def test_run_all_shows_one_clean_line_for_what_is_wrong(tmp_path):
    (check,) = outputs(handed_in(ANSWERS["wrong"]), tmp_path)["check-double"]
    assert (check.output_type, check.ename) == ("error", "WrongAnswer")
    assert check.traceback[0] == "✗ you halve (case: negative)"
