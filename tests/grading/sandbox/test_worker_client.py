"""The grader's side of a worker: what is killed, late, silent or large costs no point, and nothing stays."""

from __future__ import annotations

import ast
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from submissions import tiny

from compresslab.checks.call import run_from_bytes
from compresslab.grading.bundle import make_bundle
from compresslab.grading.sandbox import worker_client
from compresslab.grading.sandbox.self_test import can_isolate
from compresslab.grading.sandbox.worker_client import FORKS, WorkerClient

pytestmark = [
    pytest.mark.alone,  # counts processes, threads and open files, and ends answers after a tenth of a second
    pytest.mark.skipif(not FORKS, reason="this system does not fork safely: workers run once"),
]

PROBE = "def probe(case, written):\n    return {'sum': written(case['x'])}"
ADDS = "def first(x):\n    return float(x.sum())"
SLOW = "import time\ndef first(x):\n    time.sleep(0.5)\n    return float(x.sum())"
DEAF = """import signal
def first(x):
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    while True: pass"""
LEAVES = "import os\ndef first(x):\n    os.write(2, b'last words')\n    os._exit(0)"
SHARES = """import os, time
import numpy as np
def first(x):
    pages = np.ones(2**29, np.uint8)[::4096]
    for _ in range(9):
        if os.fork() == 0:
            pages.sum()
            time.sleep(60)
    time.sleep(60)"""


def job(text=ADDS, *, seconds=5.0, x=None):
    """What a grader sends: ``first`` as this cell defines it, called once."""
    kept = list(range(len(ast.parse(text).body)))
    case = {"x": torch.ones(3) if x is None else x}
    return {
        "name": "first",
        "seconds": seconds,
        "pieces": [["cell 1", text, kept]],
        "target": "first",
        "published": {},
        "probe": PROBE,
        "probe_name": "probe",
        "cases": [("a row", case)],
    }


def summed(end: str, left: bytes) -> float:
    """What the answer returned; it must have."""
    assert (end, left[:4]) == ("ok", b"run\n")
    return float(run_from_bytes(left[4:]).attempts[0].record["sum"].array)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tiny("first"), tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def isolated(bundle):
    if not can_isolate():
        pytest.skip("bubblewrap can't isolate here: compresslab sandbox --check says why")
    with WorkerClient(bundle, isolated=True) as workers:
        yield workers


@pytest.fixture(scope="module")
def alone(bundle):
    with WorkerClient(bundle, isolated=False) as workers:
        yield workers


@pytest.fixture(params=["isolated", "alone"])
def warm(request):
    return request.getfixturevalue(request.param)


def idle(workers: WorkerClient) -> int:
    """How many processes there are where none is a supervisor or an answer: bubblewrap has two of its own."""
    return 3 if workers.isolated else 1


def running(among: set[int]) -> set[int]:
    """Those of these processes that have not ended yet."""
    stats = {process: Path(f"/proc/{process}/stat") for process in among}
    return {n for n, stat in stats.items() if stat.exists() and stat.read_text().rpartition(")")[2][1] != "Z"}


def family(workers: WorkerClient) -> set[int]:
    """The worker's processes, all of them."""
    found, parents = {workers._process.pid}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def until(true, seconds=10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return true()


# A warm worker.


def test_one_worker_serves_one_exercise_after_the_other(warm):
    assert [summed(*warm.run(job(x=torch.full((2,), float(n))))) for n in range(3)] == [0, 2, 4]
    process = warm._process
    warm.run(job())
    assert warm._process is process


def test_nothing_of_an_exercise_is_there_in_the_next(warm):
    warm.run(job("import torch\ntorch.Tensor.sum = lambda x: 99\n" + ADDS))
    assert summed(*warm.run(job())) == 3


def test_a_job_and_a_record_of_many_megabytes_go_through(warm):
    numbers = torch.arange(2_000_000, dtype=torch.float64)
    end, left = warm.run(job("def first(x):\n    return x + 1", x=numbers, seconds=20))
    assert end == "ok"
    assert run_from_bytes(left[4:]).attempts[0].record["sum"].array.sum() == (numbers + 1).sum()


@pytest.mark.parametrize(("text", "end"), [(DEAF, "late"), (LEAVES, "died")])
def test_an_answer_that_ends_badly_ends_alone(warm, text, end):
    warm.run(job())
    process = warm._process
    assert warm.run(job(text, seconds=0.1)) == (end, b"")
    assert summed(*warm.run(job())) == 3
    assert warm._process is process


def test_processes_that_together_take_too_much_are_ended(isolated):
    assert isolated.run(job(SHARES, seconds=30)) == ("memory", b"")
    assert summed(*isolated.run(job())) == 3


# Killed from outside.


def kill(workers: WorkerClient) -> None:
    os.killpg(workers._process.pid, signal.SIGKILL)


def test_a_worker_killed_between_two_exercises_costs_nothing(warm):
    warm.run(job())
    kill(warm)
    assert summed(*warm.run(job())) == 3


def test_a_worker_killed_within_an_exercise_costs_nothing(warm):
    warm.run(job())
    assert until(lambda: warm.processes() == idle(warm))
    killed = []

    def killer():
        if until(lambda: warm.processes() == idle(warm) + 2):  # the supervisor, and the answer
            killed.append(warm._process.pid)
            kill(warm)

    thread = threading.Thread(target=killer)
    thread.start()
    end = warm.run(job(SLOW))
    thread.join()
    assert summed(*end) == 3
    assert killed
    assert killed != [warm._process.pid]


# What is left.


def test_closing_leaves_no_process_no_thread_and_no_open_file(bundle, warm):
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for text in (ADDS, DEAF):
        with WorkerClient(bundle, isolated=warm.isolated) as workers:
            workers.run(job(text, seconds=0.1))
            left = family(workers)
            assert until(lambda worker=workers: workers.processes() == idle(workers))
        assert until(lambda left=left: not running(left))
        assert workers.processes() == 0
    assert until(lambda: threading.active_count() == threads)
    assert len(os.listdir("/proc/self/fd")) == files


def test_closing_within_an_exercise_ends_the_answer_too(bundle, warm):
    workers = WorkerClient(bundle, isolated=warm.isolated)
    workers._start()
    asking = threading.Thread(target=workers._ask, args=(worker_client.to_bytes(job(DEAF)), 60.0))
    asking.start()
    assert until(lambda: workers.processes() == idle(workers) + 2, 60)
    left = family(workers)
    workers.close()
    asking.join(10)
    assert not asking.is_alive()
    assert until(lambda: not running(left))


def test_closing_twice_or_before_the_start_is_no_trouble(bundle):
    workers = WorkerClient(bundle, isolated=False)
    assert (workers.close(), workers.close(), workers.processes()) == ("", "", 0)


# A worker an exercise.


@pytest.mark.parametrize(
    "text", [ADDS, "print(1)\ndef first(x):\n    print(x)\n    return 1 / 0", "first = 3"]
)
def test_a_worker_for_each_exercise_comes_to_the_same(bundle, alone, text):
    with WorkerClient(bundle, isolated=False, fork=False) as workers:
        assert workers.run(job(text)) == alone.run(job(text))
        assert workers._process is None


def test_where_nothing_forks_an_answer_that_ends_its_process_has_died_and_is_not_our_fault(bundle):
    with WorkerClient(bundle, isolated=False, fork=False) as workers:
        assert workers.run(job(LEAVES)) == ("died", b"")


# WorkerClient that never start.


def spoiled(monkeypatch, bundle, code):
    monkeypatch.setattr(WorkerClient, "command", lambda workers: [sys.executable, "-c", code])
    return WorkerClient(bundle, isolated=False)


def test_a_worker_that_never_starts_is_no_students_fault(bundle, monkeypatch):
    with (
        spoiled(monkeypatch, bundle, "import sys; sys.exit('no torch here')") as workers,
        pytest.raises(RuntimeError, match=r"the worker did not start \(no torch here\)"),
    ):
        workers.run(job())


def test_a_worker_that_never_starts_and_says_nothing_is_no_students_fault(bundle, monkeypatch):
    with (
        spoiled(monkeypatch, bundle, "") as workers,
        pytest.raises(RuntimeError, match="the worker did not start"),
    ):
        workers.run(job())


def test_a_worker_that_never_gets_ready_is_no_students_fault(bundle, monkeypatch):
    monkeypatch.setattr(worker_client, "START_UP", 0.1)
    monkeypatch.setattr(worker_client, "MARGIN", 0.0)
    with (
        spoiled(monkeypatch, bundle, "import time; time.sleep(60)") as workers,
        pytest.raises(RuntimeError, match="the worker did not start"),
    ):
        workers.run(job(seconds=0.1))


# What a worker is given.


def test_a_worker_sees_the_copy_and_few_of_our_variables(bundle, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "secret")
    environment = WorkerClient(bundle, isolated=False)._environment()
    assert "secret" not in environment.values()
    assert environment["PYTHONPATH"] == str(bundle.worker)


def test_what_runs_is_said_by_the_command_line(bundle):
    ends = {isolated: WorkerClient(bundle, isolated=isolated).command()[-1] for isolated in (True, False)}
    assert ends[False] == "fork"
    assert WorkerClient(bundle, isolated=False, fork=False).command()[-1] == "once"
    assert WorkerClient(bundle, isolated=True).command()[-2] == "isolated"
    assert ends[True].isdecimal()


# What is the grader's own error.


@pytest.mark.parametrize("function", ["address_space_bytes", "set_limits"])
def test_a_limit_that_can_not_be_set_is_no_students_fault(tmp_path, function):
    bundle = make_bundle(tiny("first"), tmp_path)
    place = bundle.worker / "compresslab" / "grading" / "sandbox" / "limits.py"
    place.write_text(
        f"{place.read_text()}\n\ndef {function}(*_, **__):\n    raise OSError(28, 'no space here')\n"
    )
    with (
        WorkerClient(bundle, isolated=False) as workers,
        pytest.raises(RuntimeError, match=r"OSError: .*no space here"),
    ):
        workers.run(job())
