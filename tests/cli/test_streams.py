"""No command fails where the output is not UTF-8: signs are replaced, and exit codes keep their meaning."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import compresslab.cli.jupyter as start
from compresslab.__main__ import app
from compresslab.course import find_lab
from compresslab.data import location
from compresslab.grading.grade import ungraded
from compresslab.grading.scores import ExerciseScore, Score, Status

ENCODINGS = ("cp1252", "ascii", "cp437", "latin-1", "shift_jis")
LAB = find_lab("00")


def app_names() -> list[str]:
    """Return the name of every command, from the program itself."""
    return list(typer.main.get_command(app).commands)


COMMANDS = (
    ("--help", 0),
    *((f"{name} --help", 0) for name in app_names()),
    ("labs", 0),
    ("doctor", None),  # this machine may lack something
    ("check 00", 0),
    *((f"hint 00 {each.name} {step}", 0) for each in LAB.exercises[:3] for step in (1, 2, 3)),
    ("hint 00 none", 2),
    ("reset 00", 0),
    ("update 00", 0),
    ("train 03 --dry-run", 0),
    ("sandbox --check", None),
    ("grade 00 {notebook} --out {out}", 3),
    ("check 77", 2),
    ("no-such-command", 2),
)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A student's folder, where checks and grades come at once and are full of signs."""
    monkeypatch.setattr(location, "MY_LABS", tmp_path / "my_labs")
    start.copy_labs(target=location.MY_LABS)
    tests = tuple(
        ExerciseScore(e.name, "right", e.points, "✓ − 2.07× → é", "", e.bonus) for e in LAB.exercises
    )
    right = Score(LAB.name, Status.GRADED, tests, "all … right", 0.0)
    monkeypatch.setattr("compresslab.grading.grade.grade_alone", lambda *_: right)
    refused = ungraded(LAB, Status.NEEDS_REVIEW, "naïve “text” – ☃")
    monkeypatch.setattr("compresslab.grading.command.grade_notebook", lambda *_, **__: refused)
    monkeypatch.setattr("compresslab.grading.command.run_self_test", lambda: ())
    return tmp_path


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_command_prints_in_every_encoding(desk, encoding):
    names = {"notebook": location.MY_LABS / LAB.name / f"{LAB.name}.ipynb", "out": desk / "out"}
    for line, wanted in COMMANDS:
        result = CliRunner(charset=encoding).invoke(app, line.format(**names).split(), env={"COLUMNS": "200"})
        assert result.exception is None or isinstance(result.exception, SystemExit), (line, result.exception)
        assert wanted in (None, result.exit_code), (line, result.output)
        assert result.output_bytes.decode(encoding)


def test_right_and_wrong_still_look_different_in_ascii(desk):
    words = CliRunner(charset="ascii").invoke(app, ["check", "00"], env={"COLUMNS": "200"}).output
    assert "+ count_parameters" in words
    assert "+ - 2.07x -> e" in words
    assert "x no labs are called" in CliRunner(charset="ascii").invoke(app, ["check", "77"]).output


def test_a_file_name_of_another_encoding_is_printed_in_utf_8(tmp_path):
    name = os.fsdecode(b"J\xfcrgen.ipynb")  # as a zip of old leaves it on a disk
    result = CliRunner().invoke(app, ["grade", "00", str(tmp_path / name), "--out", str(tmp_path / "out")])
    assert (result.exit_code, "J?rgen.ipynb does not exist" in " ".join(result.output.split())) == (2, True)


def test_nothing_is_replaced_in_utf_8(desk):
    assert "✓ − 2.07× → é" in CliRunner().invoke(app, ["check", "00"], env={"COLUMNS": "200"}).output


def test_a_file_and_a_pipe_of_another_encoding_are_written(tmp_path):
    """As on Windows: compresslab labs > log.txt."""
    log = tmp_path / "log.txt"
    with log.open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "compresslab", "check", "77"],
            stdout=file,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONIOENCODING": "cp1252"},
            cwd=Path(location.REPOSITORY),
        )
    assert (done.returncode, done.stderr) == (2, b"")
    assert log.read_bytes().decode("cp1252").startswith("x no labs are called '77'")
