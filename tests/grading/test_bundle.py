"""A bundle: what it holds, what it leaves out, whose exercises it grades with, and what is no bundle."""

from __future__ import annotations

import json
import shutil
import sys
from types import SimpleNamespace

import pytest
from submissions import notebook, right_answers, saved, tiny

import compresslab
from compresslab.checks.record import to_bytes
from compresslab.course import all_labs, find_lab
from compresslab.errors import CompressionError
from compresslab.grading import bundle as bundle_module
from compresslab.grading.bundle import grading_digest, make_bundle, open_bundle
from compresslab.grading.grade import grade, grade_content
from compresslab.grading.sandbox.worker_client import WorkerClient

LAB = find_lab("00_measuring")
HOLE = "count_parameters"
VERSION = f'"version": "{compresslab.__version__}"'
CHANGED = """
import dataclasses
from compresslab.errors import WrongAnswer

def judge(case, record):
    raise WrongAnswer("the bundle's own judge says no")

def probe(case, written):
    return {"of the bundle": True}

EXERCISE = dataclasses.replace(EXERCISE, judge=judge, probe=probe, mistakes=(), points=77)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_bundle(LAB, tmp_path_factory.mktemp("made") / "bundle")


@pytest.fixture
def copy(made, tmp_path):
    """A copy of the bundle's folder, to be changed."""
    return shutil.copytree(made.folder, tmp_path / "copy")


def texts(folder):
    return {path: path.read_text() for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


# What is in it.


def test_a_bundle_opens_as_what_was_made(made):
    opened = open_bundle(made.folder)
    assert [exercise.name for exercise in opened.lab.exercises] == [e.name for e in LAB.exercises]
    for field in ("folder", "names", "skeleton", "key", "digest", "worker"):
        assert getattr(opened, field) == getattr(made, field)


def test_it_belongs_to_the_teacher_alone(made):
    assert made.folder.stat().st_mode & 0o777 == 0o700


def test_it_knows_every_labs_names_and_the_code_that_the_lab_ships(made):
    assert made.names == {lab.name: tuple(e.name for e in lab.exercises) for lab in all_labs()}
    assert any("import" in cell for cell in made.skeleton)
    for name in made.names[LAB.name]:
        assert not any(f"check.{name}" in cell or f"def {name}" in cell for cell in made.skeleton)


def test_of_other_labs_it_holds_nothing_but_names(made):
    whole = "\n".join(texts(made.folder).values())
    assert LAB.exercises[0].statement in whole  # its own it holds
    others = [e for lab in all_labs() if lab.name != LAB.name for e in lab.exercises]
    for exercise in others:
        secrets = [exercise.statement, *(mistake.says for mistake in exercise.mistakes)]
        secrets += [hint.text for hint in exercise.hints]
        assert [words for words in secrets if words in whole] == []


def test_where_the_worker_looks_is_no_exercise_no_key_and_no_name_of_an_exercise(made):
    whole = "\n".join(texts(made.worker).values())
    assert made.key.hex() not in whole
    assert [e.name for e in LAB.exercises if e.statement in whole] == []


def test_a_lab_without_a_notebook_here_has_no_skeleton(tmp_path):
    assert make_bundle(tiny("first"), tmp_path).skeleton == ()


# Whose exercises grade, and with which inputs.


def test_it_grades_with_its_own_exercises_and_leaves_the_installed_ones_alone(copy, tmp_path):
    installed = {
        name: module for name, module in sys.modules.items() if name.startswith(bundle_module.EXERCISES)
    }
    place = copy / "exercises" / "measuring" / f"{HOLE}.py"
    place.write_text(place.read_text() + CHANGED)
    bundle = open_bundle(copy)
    assert {n: m for n, m in sys.modules.items() if n.startswith(bundle_module.EXERCISES)} == installed
    assert bundle.lab.exercise(HOLE).points == 77
    assert LAB.exercise(HOLE).points != 77
    with WorkerClient(bundle, isolated=False) as workers:
        score = grade(bundle, saved(notebook(right_answers(LAB)), tmp_path), worker=workers)
    told = {test.name: test for test in score.tests}
    assert told.pop(HOLE).output.startswith("the bundle's own judge says no")
    assert {test.status for test in told.values()} == {"passed"}


def test_the_same_content_gets_the_same_inputs_and_any_other_gets_others(made, tmp_path):
    other = make_bundle(tiny("first"), tmp_path)
    opened = open_bundle(made.folder)
    assert opened.seed(b"one") == made.seed(b"one")
    assert len({made.seed(b"one"), made.seed(b"two"), other.seed(b"one"), other.seed(b"two")}) == 4
    assert 0 <= made.seed(b"one") < 2**63  # what torch's generators take


def test_no_job_holds_the_key_or_the_seed(made, tmp_path):
    jobs: list[bytes] = []
    listening = SimpleNamespace(
        isolated=False, run=lambda job: (jobs.append(to_bytes(job)), ("died", b""))[1]
    )
    content = saved(notebook(right_answers(LAB)), tmp_path).read_bytes()
    grade_content(made, content, worker=listening, path="submission.ipynb")
    assert len(jobs) == len(LAB.exercises)
    for secret in (made.key, made.key.hex().encode(), str(made.seed(content)).encode()):
        assert not any(secret in job for job in jobs)


# Digests.


@pytest.mark.parametrize(
    "name",
    [
        "bundle.json",
        "skeleton.json",
        f"exercises/measuring/{HOLE}.py",
        "worker/compresslab/errors.py",
        "new.py",
    ],
)
def test_any_file_that_changes_changes_the_digest(made, copy, name):
    assert bundle_module._digest(copy) == made.digest
    with (copy / name).open("a") as file:
        file.write("\n")
    assert bundle_module._digest(copy) != made.digest


def test_a_file_under_another_name_changes_the_digest_and_compiled_modules_do_not(made, copy):
    compiled = copy / "worker" / "__pycache__" / "module.pyc"
    compiled.parent.mkdir()
    compiled.write_text("compiled")
    assert bundle_module._digest(copy) == made.digest
    (copy / "skeleton.json").rename(copy / "other.json")
    assert bundle_module._digest(copy) != made.digest


def test_a_score_depends_on_bundle_content_and_isolation(made, tmp_path):
    other = make_bundle(LAB, tmp_path)
    asked = [(made, b"a", True), (made, b"a", False), (made, b"b", True), (other, b"a", True)]
    digests = [grading_digest(bundle, content, isolated=isolated) for bundle, content, isolated in asked]
    assert len(set(digests)) == len(asked)
    assert grading_digest(open_bundle(made.folder), b"a", isolated=True) == digests[0]


# What is told.


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(
        CompressionError, match=r"--out .* is not empty; expected a new folder; give another one"
    ):
        make_bundle(LAB, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(("out", "why"), [("file", "Not a directory"), ("file/below", "Not a directory")])
def test_where_no_folder_can_be_made_is_told(tmp_path, out, why):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        CompressionError,
        match=rf"{out} can't be written \({why}\); expected .* written; give another",
    ):
        make_bundle(LAB, tmp_path / out)


def test_a_folder_without_a_bundle_is_told(tmp_path):
    told = (
        r"is not a bundle \(FileNotFoundError: .*\); expected a folder that compresslab bundle made; make one"
    )
    for place in (tmp_path, tmp_path / "none", str(tmp_path)):
        with pytest.raises(CompressionError, match=told):
            open_bundle(place)


def test_a_bundle_of_another_format_is_told(copy):
    head = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps(head | {"format": 99}))
    with pytest.raises(CompressionError, match="format 99, this kit reads 1"):
        open_bundle(copy)


def test_a_bundle_names_the_kit_that_made_it(made):
    assert json.loads((made.folder / "bundle.json").read_text())["version"] == compresslab.__version__


def test_a_bundle_of_another_version_of_the_kit_is_refused_with_both_versions(copy):
    head = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps(head | {"version": "0.1.7"}))
    told = (
        rf"was made by compresslab 0\.1\.7; expected one made by this kit, {compresslab.__version__}; make a"
    )
    with pytest.raises(CompressionError, match=told):
        open_bundle(copy)
    del head["version"]
    (copy / "bundle.json").write_text(json.dumps(head))
    with pytest.raises(CompressionError, match=r"made by compresslab 0\.1\.0; expected one"):
        open_bundle(copy)


def test_a_bundle_of_the_same_version_with_another_worker_is_refused(copy):
    path = copy / "worker" / "compresslab" / "grading" / "sandbox" / "messages.py"
    path.write_text(path.read_text() + "\n# from another time\n")
    with pytest.raises(CompressionError, match=r"with another grading/sandbox/messages\.py; .* make a new"):
        open_bundle(copy)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '"text"',
        "{}",
        "\0",
        f'{{"format": 1, {VERSION}}}',
        f'{{"format": 1, {VERSION}, "lab": 3}}',
    ],
)
def test_a_damaged_head_is_told(copy, text):
    (copy / "bundle.json").write_text(text)
    with pytest.raises(CompressionError, match="is not a bundle"):
        open_bundle(copy)


@pytest.mark.parametrize(
    "name", ["skeleton.json", "exercises/measuring/__init__.py", f"exercises/measuring/{HOLE}.py"]
)
def test_a_missing_or_damaged_file_is_told_and_the_installed_modules_stay(copy, name):
    installed = sys.modules[f"{bundle_module.EXERCISES}.measuring"]
    (copy / name).write_text("def half(")
    with pytest.raises(CompressionError, match="is not a bundle"):
        open_bundle(copy)
    (copy / name).unlink()
    with pytest.raises(CompressionError, match="is not a bundle"):
        open_bundle(copy)
    assert sys.modules[f"{bundle_module.EXERCISES}.measuring"] is installed
