"""A wheel has the package and nothing else: each command works there, or says in a sentence why not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from compresslab.data.location import LABS, PACKAGE

COMMANDS = (
    "labs",
    "doctor",
    "hint 00 conv_macs",
    "check 00 {mine}",
    "check 01",
    "start",
    "reset 00",
    "update 00",
    "build 00",
    "verify",
    "train 03 --dry-run",
    "train baseline",
    "new lab demo",
    "new exercise 00 x",
)
RUN = """
import json, sys
from typer.testing import CliRunner
from compresslab.__main__ import app
ended = {}
for line in sys.argv[1:]:
    result = CliRunner().invoke(app, line.split(), env={"COLUMNS": "300"})
    error = result.exception
    fault = "" if error is None or isinstance(error, SystemExit) else repr(error)
    ended[line.partition(" /")[0]] = [result.exit_code, " ".join(result.output.split()), fault]
print(json.dumps(ended))
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory) -> dict[str, tuple[int, str, str]]:
    """What each command did in an installation: {command: (exit code, words, error)}."""
    site = tmp_path_factory.mktemp("site-packages")
    shutil.copytree(PACKAGE, site / "compresslab", ignore=shutil.ignore_patterns("__pycache__"))
    mine = shutil.copy(next(LABS.glob("00_*/*.ipynb")), tmp_path_factory.mktemp("mine") / "mine.ipynb")
    lines = [line.format(mine=mine) for line in COMMANDS]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *lines],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=Path(mine).parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(place.name for place in site.iterdir()) == ["compresslab"], "nothing is written beside it"
    return {line: tuple(end) for line, end in json.loads(done.stdout.splitlines()[-1]).items()}


def test_no_command_fails_with_a_traceback(ended):
    assert len(ended) == len(COMMANDS)
    assert {line: fault for line, (_, _, fault) in ended.items() if fault} == {}


@pytest.mark.parametrize("line", ["start", "check 01", "reset 00", "update 00"])
def test_without_the_labs_it_is_said_that_they_come_with_the_repository(ended, line):
    code, words, _ = ended[line]
    assert code == 2
    assert "they come with the repository, not the package. Clone the repository" in words


@pytest.mark.parametrize(
    "line", [line for line in COMMANDS if line.startswith(("build", "ver", "train", "new"))]
)
def test_an_authors_command_asks_for_a_clone(ended, line):
    code, words, _ = ended[line]
    assert code == 2
    assert (
        f"compresslab {line.split()[0]} works in a clone of the repository, and compresslab is inst" in words
    )
    assert "run: pip install -e ." in words


def test_a_notebook_is_checked_without_the_repository(ended):
    code, words, _ = ended["check 00"]
    assert code == 1
    assert "not written yet" in words
    assert "Checked: " in words


def test_labs_and_hints_are_shown_and_nothing_is_advised_that_cannot_work(ended):
    assert ended["labs"][0] == ended["hint 00 conv_macs"][0] == 0
    assert "compresslab start" not in ended["labs"][1]
    assert "come with the repository" in ended["labs"][1]


def test_the_doctor_says_that_the_repository_is_missing(ended):
    code, words, _ = ended["doctor"]
    assert code == 1
    assert "installed without it: no labs, no trained networks" in words
    assert "git checkout" not in words
    assert "compresslab train" not in words
