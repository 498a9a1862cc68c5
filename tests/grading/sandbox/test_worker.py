"""The worker: it is sent nothing that would help, loads nothing slow, and defines what it is sent."""

from __future__ import annotations

import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from submissions import tiny

from compresslab.checks.call import run_from_bytes
from compresslab.checks.exercise import draw_cases
from compresslab.checks.networks import build
from compresslab.checks.record import from_bytes, to_bytes
from compresslab.course import all_labs, find_lab
from compresslab.grading.bundle import make_bundle
from compresslab.grading.grade import _job
from compresslab.grading.sandbox import worker
from compresslab.grading.sandbox.notebook_names import Revealed, library_names
from compresslab.grading.sandbox.worker_client import FORKS, WorkerClient
from compresslab.grading.submission.answers import Answer, Piece

EXERCISES = [exercise for lab in all_labs() for exercise in lab.exercises]
TINY = tiny("first")
SUMS = "first = lambda x: float(x.sum())"
needs_forks = pytest.mark.skipif(not FORKS, reason="this system does not fork safely")


@pytest.fixture(autouse=True)
def _modules_kept():
    """A worker's child stands for ``__main__`` and offers modules of its own; this process goes on."""
    before = dict(sys.modules)
    yield
    for name in ("__main__", "compresslab.notebook", "compresslab.classroom"):
        sys.modules.pop(name, None)
        if name in before:
            sys.modules[name] = before[name]


def job(*cells: str) -> bytes:
    """What the grader sends for these cells, of which every statement is one line and kept."""
    pieces = tuple(
        Piece(f"cell {n}", text, tuple(range(text.count("\n") + 1))) for n, text in enumerate(cells, start=1)
    )
    exercise = TINY.exercises[0]
    return to_bytes(_job(TINY, exercise, Answer("first", pieces, "first"), draw_cases(exercise, 1)))


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
def test_a_probe_needs_nothing_but_what_the_worker_gives_it(exercise):
    known = {*library_names(), "build", *dir(__builtins__), *__builtins__}
    codes = [exercise.probe.__code__]
    while codes:
        code = codes.pop()
        codes += [constant for constant in code.co_consts if hasattr(constant, "co_code")]
        free = {name for name in code.co_names if name in exercise.probe.__globals__} - known
        assert not free, f"{exercise.name}'s probe uses {free} of its own module"
    assert exercise.probe.__closure__ is None


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
def test_a_job_holds_inputs_sources_and_the_probe_and_nothing_of_the_judge(exercise):
    seed = 987_654_321
    cases = draw_cases(exercise, seed)
    lab = find_lab(exercise.lab)
    answer = Answer(exercise.name, (Piece("cell 1", "x = 1", (0,)),), target="x")
    told = _job(lab, exercise, answer, cases)
    assert set(told) == {"name", "seconds", "pieces", "target", "published", "probe", "probe_name", "cases"}
    assert told["published"] == {}
    whole = to_bytes(told).decode(errors="replace")
    for words in (str(seed), exercise.statement, *(wrong.title for wrong in exercise.mistakes)):
        assert words not in whole


def test_the_cases_that_a_worker_reads_are_the_cases_that_are_judged():
    for exercise in EXERCISES:
        cases = draw_cases(exercise, 3)
        read = from_bytes(to_bytes(cases))
        assert [title for title, _ in read] == [title for title, _ in cases]
        assert to_bytes(read) == to_bytes(cases)


# The worker's process.


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """Starts a worker as the grader would, in a folder."""
    bundle = make_bundle(TINY, tmp_path_factory.mktemp("made"))

    def start(how: str, folder, content: bytes) -> subprocess.CompletedProcess[bytes]:
        workers = WorkerClient(bundle, isolated=False, fork=how == "fork")
        return subprocess.run(
            workers.command(), input=content, cwd=folder, env=workers._environment(), capture_output=True
        )

    return start


def framed(content: bytes) -> bytes:
    return len(content).to_bytes(8, "big") + content


@needs_forks
def test_nothing_a_student_writes_beside_the_worker_is_imported(started, tmp_path):
    for name in ("torch", "numpy", "compresslab", "mmap"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported the planted file')")
    done = started("fork", tmp_path, b"")
    assert (done.returncode, done.stdout, done.stderr) == (0, framed(b"ready"), b"")


@pytest.mark.parametrize("how", [pytest.param("fork", marks=needs_forks), "once"])
def test_a_loud_answer_leaves_one_message_and_not_a_word_beside_it(started, tmp_path, how):
    loud = (
        "import os, sys\nprint('loud')\nos.write(1, b'loud')\nos.write(2, b'loud')\nsys.stderr.write('loud')"
    )
    done = started(how, tmp_path, framed(job(f"{loud}\n{SUMS}")))
    message = done.stdout.removeprefix(framed(b"ready"))[8:]
    assert (done.stdout, done.stderr) == (framed(b"ready") + framed(message), b"")
    assert message.startswith(b"ok\nrun\n")
    assert len(run_from_bytes(message.removeprefix(b"ok\nrun\n")).attempts) == 2


@needs_forks
def test_a_worker_ends_with_its_stdin_within_a_job_too(started, tmp_path):
    done = started("fork", tmp_path, framed(job(SUMS)) + framed(job(SUMS))[:50])
    assert done.stdout.count(b"ok\nrun\n") == 1
    assert (done.returncode, done.stderr) == (0, b"")


def test_only_what_lies_beside_the_worker_is_found():
    finder = worker._ThisCopyOnly()
    assert finder.find_spec("json") is None  # others look for it
    assert finder.find_spec("compresslab.errors", sys.modules["compresslab"].__path__) is not None
    with pytest.raises(ModuleNotFoundError, match="compresslab's own none; write it yourself"):
        finder.find_spec("compresslab.none", ["nowhere"])


# What a supervisor makes of an answer's process.


@pytest.fixture
def followed():
    """The supervisor's message about a process that runs this code, whose stdout it reads."""

    def follow(code: str, *, seconds=20.0, watchdog=None) -> bytes:
        code = f"import os, sys, time\nos.write(1, {worker.STARTED})\n{code}"
        with subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE) as child:
            try:
                return worker._follow(child.pid, child.stdout.fileno(), time.monotonic() + seconds, watchdog)
            finally:
                child.kill()

    return follow


WRITES = "os.write(1, (5).to_bytes(8, 'big') + b'run'); time.sleep(0.1); os.write(1, b'ny'"


@needs_forks
@pytest.mark.parametrize(
    ("code", "says"),
    [
        (f"{WRITES})", b"ok\nrunny"),
        (f"{WRITES}); time.sleep(60)", b"ok\nrunny"),
        (f"{WRITES} + b'and more')", b"ok\nrunny"),
        ("", b"died\n"),
        ("os.write(1, (5).to_bytes(8, 'big') + b'run')", b"died\n"),
        ("os.close(1)", b"died\n"),
        ("os.fork() and os._exit(0); time.sleep(1)", b"died\n"),
        ("os.write(1, b'\\xff' * 20); time.sleep(60)", b"ok\n" + b"\xff" * 12),
    ],
)
def test_a_supervisor_takes_one_whole_message_or_says_that_there_is_none(followed, code, says):
    assert followed(code) == says


@needs_forks
def test_an_answer_that_never_started_is_the_graders_error(followed, monkeypatch):
    monkeypatch.setattr(worker, "STARTED", b"")
    with pytest.raises(RuntimeError, match="the sandbox for an answer could not be set up"):
        followed("")


@needs_forks
@pytest.mark.parametrize(
    "code", ["time.sleep(60)", "os.close(1); time.sleep(60)", "os.write(1, bytes(7)); time.sleep(60)"]
)
def test_a_supervisor_waits_no_longer_than_the_limit(followed, code):
    assert followed(code, seconds=0.3) == b"late\n"


@needs_forks
def test_a_supervisor_ends_what_takes_too_much_memory(followed):
    exceeded = SimpleNamespace(is_exceeded=lambda: True)
    assert followed("time.sleep(60)", watchdog=exceeded) == b"memory\n"


# Defining, in this process.


def defined(*texts: str, name: str = "first"):
    """The function that these cells define, all statements kept, and what failed on the way."""
    pieces = [[f"cell {n}", text, list(range(text.count(";") + 1))] for n, text in enumerate(texts, start=1)]
    return define(pieces, name)


def define(pieces: list, name: str = "first", target: str = "", published: dict | None = None):
    task = {"pieces": pieces, "target": target or name, "published": published or {}}
    return worker._define(name, task)


def test_the_hole_defines_the_function_with_what_other_cells_define():
    answer, failures = defined("TWO = 2", "first = lambda x: TWO * x")
    assert (answer(4), failures) == (8, [])


def test_dataclasses_and_unknown_annotations_are_no_trouble():
    cell = "from dataclasses import dataclass\n@dataclass\nclass Pair:\n    a: int"
    hole = "def first(x: NoSuchType) -> Tensr: return Pair(x).a"
    answer, _ = define([["cell 1", cell, [0, 1]], ["cell 2", hole, [0]]])
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
    with pytest.raises(Revealed):
        answer(torch.ones(2))


def test_what_is_checked_is_evaluated_where_it_stands():
    answer, _ = define(
        [["cell 1", "def half(x): return x / TWO\nTWO = 2", [0, 1]]], target="lambda x: -half(x)"
    )
    assert answer(4) == -2
    with pytest.raises(worker._NoRun, match=r"check\.first\(half\) raises NameError: name 'half'"):
        define([], target="half")


def test_another_exercise_s_published_answer_is_at_hand():
    published = {"half": "def half(x): return x / 2"}
    answer, _ = define([["cell 1", "half = reveal.half()", [0]]], target="half", published=published)
    assert answer(4) == 2


def test_await_at_the_left_margin_is_run_to_its_end():
    cell = "async def given():\n    await later()\n    return 3\nasync def later(): pass\nTWO = await given()"
    answer, failures = define([["cell 1", cell, [0, 1, 2]]], target="lambda: TWO")
    assert (answer(), failures) == (3, [])


@needs_forks
def test_slow_statements_are_stopped_and_the_function_is_still_tried(monkeypatch):
    monkeypatch.setattr(worker, "PREPARATION", 0.2)
    cells = [["cell 1", "first = lambda x: x", [0]], ["cell 2", "while True: pass", [0]]]
    answer, failures = define(cells)
    assert answer(2) == 2
    assert failures == ["the statements that first needs take more than 0.2 s; move slow ones elsewhere"]


# What an answer leaves, in this process.


def test_a_missing_import_explains_the_name_that_is_missing_later():
    left = worker._answer(job("import no_such_module as m", "first = lambda x: m.f(x)"))
    (failed,) = run_from_bytes(left.removeprefix(b"run\n")).failed
    assert failed.startswith("cell 1 raises ModuleNotFoundError: No module named 'no_such_module'")


def test_a_run_is_written_as_a_record():
    left = worker._answer(job(SUMS))
    assert left.startswith(b"run\n")
    attempts = run_from_bytes(left[4:]).attempts
    assert [attempt.record["sum"].type for attempt in attempts] == ["float", "float"]


def test_an_answer_too_large_to_record_is_told_so(monkeypatch):
    monkeypatch.setattr(worker, "MAXIMUM_BYTES", 100)
    assert worker._answer(job(SUMS)).startswith(b"no\nyour answers are too large to record (")


def test_a_sentence_that_is_no_text_is_written_all_the_same():
    told = worker._answer(job("raise ValueError('\\udc80')"))
    assert told.startswith(b"no\ncell 1 raises ValueError: ?")


def test_a_probe_builds_the_network_that_the_judge_builds():
    layers = [["Linear", {"in_features": 2, "out_features": 3}]]
    assert build(from_bytes(to_bytes(layers)))[0].weight.tolist() == build(layers)[0].weight.tolist()
