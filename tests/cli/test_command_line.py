"""The command line: each command prints what it found and ends with an exit code that a script can use."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import compresslab
import compresslab.cli.jupyter as start
from compresslab.__main__ import app
from compresslab.authoring.verify import Row, Verification
from compresslab.course import all_labs, find_lab
from compresslab.data import location
from compresslab.grading.scores import ExerciseScore, Score, Status

ROOT = Path(compresslab.__file__).parents[1]
LAB = "00_measuring"
SOLUTION = ROOT / "solutions" / LAB / f"{LAB}.ipynb"
UNTOUCHED = ROOT / "labs" / LAB / f"{LAB}.ipynb"


def said(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A student's folder with the labs copied into it."""
    monkeypatch.setattr(location, "MY_LABS", tmp_path / "my_labs")
    start.copy_labs(target=location.MY_LABS)
    return location.MY_LABS


GROUPS = {
    "For students": ["start", "doctor", "labs", "check", "hint", "reset", "update"],
    "For authors": ["build", "verify", "train", "new"],
    "For teachers": ["bundle", "sandbox", "grade"],
}


def test_every_command_is_listed_with_a_sentence_in_the_group_of_those_it_is_for():
    code, words = said("--help")
    assert code == 0
    groups = re.split(r"─ (For \w+) ─", words)[1:]
    found = dict(zip(groups[::2], groups[1::2], strict=True))
    assert list(found) == list(GROUPS)
    for group, names in GROUPS.items():
        assert re.findall(r"│ ([a-z]+) +[A-Z]", found[group]) == names


def test_the_version_is_the_packages_own_and_the_installed_ones():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "compresslab.__version__"}
    assert "version" in project["project"]["dynamic"]
    assert said("--version") == (0, f"compresslab {compresslab.__version__}")


def test_python_runs_the_package_as_the_same_program():
    command = [sys.executable, "-m", "compresslab", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"compresslab {compresslab.__version__}\n"


def test_the_newest_entry_of_the_changelog_and_the_citation_are_of_this_version():
    entries = re.findall(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert (entries[0], cited[1]) == (compresslab.__version__, compresslab.__version__)


def test_labs_lists_every_lab_with_its_minutes_and_points(desk):
    code, words = said("labs")
    assert code == 0
    for lab in all_labs():
        assert f"{lab.name} │ {lab.title} │ {lab.minutes} │ {lab.points} │ not begun" in words


def test_an_untouched_lab_is_checked_to_0_points_and_exit_code_1_and_labs_remembers(desk):
    code, words = said("check", "00")
    assert code == 1
    assert "not written yet" in words
    assert f"0 of {find_lab(LAB).points} points" in said("labs")[1]


def test_a_finished_lab_is_checked_to_full_points_and_exit_code_0_and_the_file_is_named(desk):
    code, words = said("check", LAB, SOLUTION)
    assert code == 0, words
    assert str(find_lab(LAB).points) in words
    assert f"Checked: {SOLUTION}" in words


@pytest.fixture
def marks(monkeypatch):
    """Let ``check`` give these points instead of marking: (core, bonus), all there are if True."""

    def give(core: bool, bonus: bool, name: str = LAB) -> None:
        tests = tuple(
            ExerciseScore(
                e.name, "right" if (bonus if e.bonus else core) else "wrong", e.points, "", "", e.bonus
            )
            for e in find_lab(name).exercises
        )
        score = Score(name, Status.GRADED, tests, "", 0.0)
        monkeypatch.setattr("compresslab.grading.grade.grade_alone", lambda lab, place: score)

    return give


@pytest.mark.parametrize(("core", "bonus", "code"), [(True, False, 0), (True, True, 0), (False, True, 1)])
def test_the_exit_code_is_that_of_the_core_however_many_bonus_points_there_are(
    desk, marks, core, bonus, code
):
    marks(core, bonus, "03_pruning")
    assert said("check", "03")[0] == code


def test_labs_shows_bonuses_apart_and_forgets_them_with_a_reset(desk, marks):
    notebook = desk / "03_pruning" / "03_pruning.ipynb"
    notebook.write_text(notebook.read_text().replace("raise NotImplementedError", "return 1", 1))
    assert "│ begun, not yet checked" in said("labs")[1]
    marks(True, True, "03_pruning")
    said("check", "03")
    lab = find_lab("03")
    bonus = sum(each.points for each in lab.exercises if each.bonus)
    assert f"│ {lab.points} of {lab.points} + {bonus} points (" in said("labs")[1]
    said("reset", "03")
    assert said("labs")[1].count("not begun") == len(all_labs())


def test_a_note_of_a_former_version_and_one_of_a_restored_notebook_are_read_right(desk):
    notebook = desk / LAB / f"{LAB}.ipynb"
    (desk / LAB / ".progress.json").write_text('{"score": 20, "max_score": 16, "at": "2026-09-01T10:11"}')
    assert said("labs")[1].count("not begun") == len(all_labs()), "as shipped: restored by hand"
    notebook.write_text(notebook.read_text().replace("raise NotImplementedError", "return 1", 1))
    assert "16 of 16 + 4 points (2026-09-01 10:11)" in said("labs")[1]


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """The course's own ``labs/``, to be edited in a test."""
    monkeypatch.setattr(location, "LABS", tmp_path / "labs")
    shutil.copytree(ROOT / "labs", location.LABS)
    return location.LABS / LAB / f"{LAB}.ipynb"


def test_check_warns_of_an_edited_notebook_of_the_course(desk, theirs, marks):
    marks(False, False)
    words = said("check", "00")[1]
    assert f"Checked: {desk / LAB / LAB}.ipynb" in words
    assert "belongs to the course" not in words
    theirs.write_text(theirs.read_text().replace("raise NotImplementedError", "return 1", 1))
    assert (
        "labs/00_measuring is edited and was not checked: labs/ belongs to the course"
        in said("check", "00")[1]
    )
    assert "labs/00_measuring is edited and was checked: labs/" in said("check", "00", theirs)[1]


# Full and read-only places.


def fails(number: int) -> Callable[..., None]:
    def write(path: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    return write


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_right_notebook_in_a_folder_that_cannot_be_written_is_right(desk, marks, monkeypatch, number):
    marks(True, False)
    monkeypatch.setattr(Path, "write_bytes", fails(number))
    code, words = said("check", "00")
    assert code == 0
    assert "Your points are not noted for compresslab labs: " in words
    assert os.strerror(number) in words


def half_written(path: Path, content: bytes) -> int:
    with path.open("wb") as file:
        file.write(content[: len(content) // 2])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


@pytest.mark.parametrize("command", ["reset", "update"])
def test_on_a_full_disk_the_notebook_stays_and_no_half_of_a_copy_is_left(desk, monkeypatch, command):
    notebook = desk / LAB / f"{LAB}.ipynb"
    mine = json.loads(notebook.read_text())
    mine["metadata"]["compresslab"]["version"] = "0.0.1"  # so that update has something to do
    notebook.write_text(json.dumps(mine))
    before = {path.name: path.read_bytes() for path in notebook.parent.iterdir()}
    monkeypatch.setattr(Path, "write_bytes", half_written)
    code, words = said(command, "00")
    assert code == 2
    assert "can't be written (No space left on device); " in words
    assert "your notebook stays as it is. Free some space" in words
    assert {path.name: path.read_bytes() for path in notebook.parent.iterdir()} == before


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), "/x/y can't be written (No space left"),
        (
            OSError(errno.EROFS, "Read-only file system"),
            "a file can't be written (Read-only file system); free",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
            "variable TMPDIR",
        ),
    ],
)
def test_an_error_of_the_disk_is_a_sentence_in_every_command(desk, monkeypatch, error, sentence):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("compresslab.grading.grade.grade_alone", fail)
    code, words = said("check", "00")
    assert (code, sentence in words) == (2, True), words


def test_another_error_of_the_system_is_not_hidden(desk, monkeypatch):
    def fail(*_: object) -> None:
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    monkeypatch.setattr("compresslab.grading.grade.grade_alone", fail)
    assert isinstance(CliRunner().invoke(app, ["check", "00"]).exception, ConnectionResetError)


def test_grading_writes_results_and_its_exit_code_says_graded(tmp_path):
    code, words = said("grade", LAB, UNTOUCHED, "--out", tmp_path / "out", "--seed", 1)
    assert code == 0, words
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["score"] == 0
    assert results["extra_data"]["status"] == "graded"


def test_what_is_no_notebook_needs_review_and_says_why(tmp_path):
    (tmp_path / "essay.ipynb").write_text("not a notebook")
    code, words = said("grade", LAB, tmp_path / "essay.ipynb", "--out", tmp_path)
    assert code == 3
    assert "notebook" in words


def test_a_hint_is_shown_step_by_step():
    exercise = find_lab(LAB).exercises[0]
    for step, hint in enumerate(exercise.hints, start=1):
        code, words = said("hint", "00", exercise.name, step)
        assert code == 0
        assert f"Hint {step} of 3: {hint.symptom}" in words


def test_brackets_in_a_hint_are_text_and_no_markup():
    hint = find_lab(LAB).exercise("network_macs").hints[2]
    assert "[layer.register_forward_hook" in hint.text
    assert hint.text in said("hint", "00", "network_macs", 3)[1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("hint", "00", "juggle"),
            "EXERCISE must be one of 00_measuring, got 'juggle'; there are count_",
        ),
        (("hint", "00", "conv_macs", 4), "STEP must be 1 to 3, got 4; start with 1"),
        (("hint", "77", "conv_macs"), "no labs are called '77'; there are 00_measuring"),
        (("train", "resnet"), "NAME must be one of baseline, teacher, student, mlp, 01_quant"),
        (("build", "nothing"), "no labs are called 'nothing'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, sentence):
    code, words = said(*arguments)
    assert code == 2
    assert sentence in words
    assert "Traceback" not in words


def test_a_check_before_the_labs_are_copied_says_how_to_copy_them(tmp_path, monkeypatch):
    monkeypatch.setattr(location, "MY_LABS", tmp_path)
    code, words = said("check", "00")
    assert code == 2
    assert "my_labs/00_measuring is not there yet; copy the labs with: compresslab start" in words


def test_reset_puts_the_lab_back_and_keeps_a_backup(desk):
    notebook = desk / LAB / f"{LAB}.ipynb"
    notebook.write_text("mine")
    code, words = said("reset", "00")
    assert code == 0
    assert notebook.read_text() == UNTOUCHED.read_text()
    backup = re.search(r"kept as (\S+\.ipynb)", words)
    assert backup is not None
    assert (desk / LAB / backup[1]).read_text() == "mine"


@pytest.mark.parametrize(("problems", "wanted"), [((), 0), (("99_tiny: no cell has [a hole]",), 1)])
def test_verify_prints_the_kill_table_and_its_exit_code_says_whether_there_are_problems(
    monkeypatch, problems, wanted
):
    report = Verification((Row("99_tiny", "add", 2, 3, 5, 4, 4),), problems)
    monkeypatch.setattr("compresslab.authoring.verify.verify", lambda root, labs: report)
    code, words = said("verify")
    assert code == wanted
    assert "99_tiny │ add │ 2 │ 3 │ 5 │ 4 │ 4" in words
    assert words.endswith(" ".join([*(f"✗ {problem}" for problem in problems), f"{len(problems)} problems"]))
    assert said("verify", "--json")[1] == " ".join(report.to_json().split())
