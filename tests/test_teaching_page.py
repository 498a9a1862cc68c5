"""The teacher's page is true: its commands, typed one after the other, do what it says."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from compresslab.grading.sandbox import self_test
from compresslab.grading.submission.inbox import find_submissions

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "TEACHING.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def school(tmp_path_factory) -> Path:
    """A folder in which a teacher has typed everything that the page says."""
    if not self_test.can_isolate():
        pytest.skip("the page grades in a sandbox, and this machine has none: " + self_test.INSTALL)
    folder = tmp_path_factory.mktemp("school")
    for name in ("labs", "solutions", "nbgrader_config.py"):
        (folder / name).symlink_to(ROOT / name)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    script = "\n".join(["set -e", *COMMANDS])
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_table_has_a_row_a_student_and_no_silent_zero(school):
    with open(school / "results" / "scores.csv", newline="") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert {student: row["status"] for student, row in rows.items()} == {
        "anna": "graded",
        "ben": "graded",
        "carla": "needs-review",
    }
    assert float(rows["anna"]["score"]) == float(rows["anna"]["max_score"]) > float(rows["ben"]["score"]) == 0


def test_all_that_the_page_names_is_there(school):
    named = re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE)
    assert len(named) == 7
    for name in named:
        if name != ".bundle/":
            assert (school / "results" / name.replace("NAME", "ben")).exists(), name


def test_one_students_push_is_graded_alike(school):
    alone, in_class = (
        json.loads((school / place / "results.json").read_text())
        for place in ("results_anna", "results/students/anna")
    )
    assert alone["score"] == in_class["score"] > 0
    assert alone["extra_data"] == in_class["extra_data"]


def test_the_feedback_says_what_to_do_and_shows_no_solution(school):
    feedback = (school / "results" / "students" / "ben" / "feedback.html").read_text()
    assert "not written yet" in feedback
    assert "parameter.numel()" not in feedback


def exports() -> dict[str, tuple[list[str], str]]:
    """Return the exports that the page shows: {platform: (paths, the student)}."""
    shown: dict[str, tuple[list[str], str]] = {}
    for line in re.search(r"```text\n(Moodle.*?)```", PAGE, re.DOTALL)[1].splitlines():
        platform, path, student = re.fullmatch(r"(\w*) +(.+?)(?: +→ (.+))?", line).groups()
        if platform:
            shown[platform] = ([], student)
        shown[list(shown)[-1]][0].append(path)
    return shown


def test_the_page_shows_an_export_of_each_kind():
    assert list(exports()) == ["Moodle", "Blackboard", "Brightspace", "Canvas", "ILIAS"]
    assert all(len(paths) == 2 for paths, _ in exports().values())


@pytest.mark.parametrize("platform", exports())
def test_an_export_that_the_page_shows_is_one_row_by_that_name(tmp_path, platform):
    paths, student = exports()[platform]
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (found,) = find_submissions(tmp_path, "00_measuring")
    assert (found.student, found.problem) == (student, "")
    assert bool(found.note) == (platform == "Canvas")


def test_the_gradebook_has_the_scores(school):
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{school}/gradebook.db") as gradebook:
        anna = gradebook.find_submission("00_measuring", "anna")
        assert anna.score > 0
        assert gradebook.find_submission("00_measuring", "ben").score == 0
    assert list((school / "feedback" / "anna").rglob("*.html"))
