"""The worker: it is told nothing that would help, loads nothing that is slow, and defines what it is sent."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from submissions import tiny

from compresslab.classroom.exercise import draw_cases
from compresslab.classroom.exercises import all_labs, find_lab
from compresslab.classroom.grading import worker
from compresslab.classroom.grading.marking import FORKS, _environment, _write_job, worker_command
from compresslab.classroom.grading.submission import Answer, Piece
from compresslab.classroom.networks import build
from compresslab.classroom.recording import from_bytes, to_bytes
from compresslab.classroom.running import run_from_bytes

EXERCISES = [exercise for lab in all_labs() for exercise in lab.exercises]


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
def test_a_probe_needs_nothing_but_what_the_worker_gives_it(exercise):
    known = {*worker._names(), "build", *dir(__builtins__), *__builtins__}
    codes = [exercise.probe.__code__]
    while codes:
        code = codes.pop()
        codes += [constant for constant in code.co_consts if hasattr(constant, "co_code")]
        free = {name for name in code.co_names if name in exercise.probe.__globals__} - known
        assert not free, f"{exercise.name}'s probe uses {free} of its own page"
    assert exercise.probe.__closure__ is None


def test_the_job_holds_inputs_sources_and_probes_and_nothing_of_the_judge(tmp_path):
    lab = find_lab("00_measuring")
    seed = 987_654_321
    answers = [Answer(exercise.name, (Piece("cell 1", "x = 1", (0,)),)) for exercise in lab.exercises]
    _write_job(tmp_path, lab, answers, {e.name: draw_cases(e, seed) for e in lab.exercises})
    job = (tmp_path / "job.json").read_text()
    told = set(json.loads(job)["exercises"]["count_parameters"])
    assert told == {"seconds", "pieces", "probe", "probe_name"}
    for word in (str(seed), "judg", "mistake", *(exercise.statement for exercise in lab.exercises)):
        assert word not in job


def test_the_cases_that_a_worker_reads_are_the_cases_that_are_judged():
    for exercise in EXERCISES:
        cases = draw_cases(exercise, 3)
        read = from_bytes(to_bytes(cases))
        assert [title for title, _ in read] == [title for title, _ in cases]
        assert to_bytes(read) == to_bytes(cases)


def test_the_worker_loads_no_notebook_stack_and_no_exercise():
    code = "import sys, compresslab.classroom.grading.worker; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], env=_environment(), capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {
        "IPython",
        "jupyter_client",
        "nbformat",
        "nbclient",
        "ipywidgets",
        "matplotlib",
        "torchvision",
        "rich",
    }
    assert not heavy & set(loaded)
    assert not [name for name in loaded if name.startswith("compresslab.classroom.exercises.")]


def test_nothing_a_student_writes_beside_the_job_is_imported(tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('imported the planted file')")
    job = {"hidden": [], "exercises": {}}
    (tmp_path / "job.json").write_text(json.dumps(job))
    done = subprocess.run(
        worker_command(tmp_path, [], fork=True),
        cwd=tmp_path,
        env=_environment(),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("how", ["fork", "here"])
def test_a_loud_answer_leaves_a_record_and_two_lines_of_progress_alone(tmp_path, how):
    if how == "fork" and not FORKS:
        pytest.skip("this system does not fork safely")
    loud = "import os, sys\ndef first(x):\n    os.write(1, b'loud')\n    os.write(2, b'loud')\n    return 1"
    lab = tiny("first")
    cases = {"first": draw_cases(lab.exercises[0], 1)}
    _write_job(
        tmp_path, lab, [Answer("first", (Piece("cell 1", f"print('loud')\n{loud}", (0, 1, 2)),))], cases
    )
    command = worker_command(tmp_path, ["first"], fork=how == "fork")
    done = subprocess.run(command, cwd=tmp_path, env=_environment(), capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("started first\nended first ok\n", "")
    assert len(run_from_bytes((tmp_path / "first.run").read_bytes()).attempts) == 2


# Defining, in this process.


def defined(*texts: str, name: str = "first"):
    """The function that these cells define, all statements kept, and what failed on the way."""
    pieces = [[f"cell {n}", text, list(range(text.count(";") + 1))] for n, text in enumerate(texts, start=1)]
    return worker._define(name, pieces)


def test_the_hole_defines_the_function_with_what_other_cells_define():
    answer, failures = defined("TWO = 2", "first = lambda x: TWO * x")
    assert (answer(4), failures) == (8, [])


def test_dataclasses_and_unknown_annotations_are_no_trouble():
    cell = "from dataclasses import dataclass\n@dataclass\nclass Pair:\n    a: int"
    hole = "def first(x: NoSuchType) -> Tensr: return Pair(x).a"
    answer, _ = worker._define("first", [["cell 1", cell, [0, 1]], ["cell 2", hole, [0]]])
    assert answer(4) == 4


def test_a_failing_definition_elsewhere_is_passed_over_and_kept_as_a_reason():
    answer, failures = defined("import no_such_module; TWO = 2", "first = lambda x: TWO * x")
    assert answer(4) == 8
    assert failures == [
        "cell 1 raises ModuleNotFoundError: No module named 'no_such_module', in line 1: "
        "import no_such_module; TWO = 2"
    ]


def test_a_failing_definition_in_the_hole_is_told_with_its_line():
    with pytest.raises(worker._NoRun, match=r"cell 1 raises ZeroDivisionError: .*, in line 1: first = 1 / 0"):
        defined("first = 1 / 0")
    with pytest.raises(worker._NoRun, match="SystemExit: it calls"):
        defined("import sys; first = sys.exit()")


def test_what_is_no_function_is_named():
    with pytest.raises(worker._NoRun, match="first is a function; yours is a int"):
        defined("first = 3")


def test_reveal_gives_a_stub_that_only_says_so():
    answer, _ = defined("first = reveal.first()")
    with pytest.raises(worker.Revealed):
        answer(torch.ones(2))


def test_a_missing_import_explains_the_name_that_is_missing_later(tmp_path):
    _job(
        tmp_path, [["cell 1", "import no_such_module as m", [0]], ["cell 2", "first = lambda x: m.f(x)", [0]]]
    )
    assert "No module named 'no_such_module'" in (tmp_path / "first.words").read_text()


def test_a_run_is_written_as_a_record(tmp_path):
    _job(tmp_path, [["cell 1", "first = lambda x: float(x.sum())", [0]]])
    attempts = run_from_bytes((tmp_path / "first.run").read_bytes()).attempts
    assert [attempt.record["sum"].type for attempt in attempts] == ["float", "float"]


def test_an_answer_too_large_to_record_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "MAXIMUM_BYTES", 100)
    _job(tmp_path, [["cell 1", "first = lambda x: float(x.sum())", [0]]])
    assert "too large to record" in (tmp_path / "first.words").read_text()


def _job(folder, pieces) -> None:
    lab = tiny("first")
    _write_job(folder, lab, [Answer("first", ())], {"first": draw_cases(lab.exercises[0], 1)})
    task = json.loads((folder / "job.json").read_text())["exercises"]["first"]
    worker._here(folder, "first", task | {"pieces": pieces})


def test_a_probe_builds_the_network_that_the_judge_builds():
    layers = [["Linear", {"in_features": 2, "out_features": 3}]]
    assert build(from_bytes(to_bytes(layers)))[0].weight.tolist() == build(layers)[0].weight.tolist()
