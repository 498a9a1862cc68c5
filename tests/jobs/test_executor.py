"""Engines: whatever runs the tasks, each ends with an outcome, and a process that dies costs only time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import class_tasks
import pytest

from compresslab.errors import CompressionError
from compresslab.jobs import executor
from compresslab.jobs.executor import Pool, WorkerDied, dask_cluster, local_processes, open_pool, run_all

pytestmark = pytest.mark.alone  # kills processes, and waits a fifth of a second for a cluster
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals of this kind are POSIX's")


def threads(size: int) -> Pool:
    return Pool(lambda: ThreadPoolExecutor(size), size)


def outcomes(orders, pool, marks=""):
    """{order: outcome}; an order that ends twice is a fault of the loop."""
    ended = list(
        run_all(orders, lambda team, each: team.submit(class_tasks.obey, each, marks=str(marks)), pool)
    )
    assert len(dict(ended)) == len(ended)
    return dict(ended)


def is_there(process: int) -> bool:
    with contextlib.suppress(OSError):
        os.kill(process, 0)
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    return False


def test_every_task_ends_with_its_outcome_or_its_exception():
    orders = ["say 1", "fail on purpose", "say 2", "say 3"]
    ended = outcomes(orders, threads(2))
    assert isinstance(ended.pop("fail on purpose"), ZeroDivisionError)
    assert ended == {order: f"done: {order}" for order in orders if "fail" not in order}


def test_no_more_tasks_are_on_their_way_than_the_pool_has_workers():
    started, seen = [], []

    def start(team, each):
        started.append(each)
        return team.submit(time.sleep, 0.01)

    for each, _ in run_all(range(6), start, threads(2)):
        seen.append(each)
        assert len(started) - len(seen) <= 1
    assert sorted(seen) == list(range(6))


def test_a_task_that_can_not_be_handed_in_has_an_outcome_too():
    def start(team, each):
        if each == 1:
            raise OSError("gone")
        return team.submit(int, each)

    ended = dict(run_all(range(3), start, threads(1)))
    assert isinstance(ended.pop(1), OSError)
    assert ended == {0: 0, 2: 2}


def test_an_outcome_may_make_further_tasks_ready():
    ready, ended = deque([3]), []
    for each, outcome in run_all(ready, lambda team, each: team.submit(int, each), threads(2)):
        ended.append(outcome)
        ready.extend(range(each))
    assert sorted(ended) == [0, 0, 0, 0, 1, 1, 2, 3]


def test_processes_have_the_variables_that_are_asked_for_and_this_one_keeps_its_own(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "0")
    with open_pool(1, TQDM_DISABLE="1") as pool, pool.open() as team:
        assert (pool.size, team.submit(os.getenv, "TQDM_DISABLE").result()) == (1, "1")
    assert os.environ["TQDM_DISABLE"] == "0"


def test_there_are_as_many_processes_as_processors_unless_a_number_is_asked_for():
    with open_pool() as every, open_pool(3) as three:
        assert (every.size, three.size) == (os.cpu_count(), 3)


@POSIX
def test_a_process_that_dies_costs_nothing_but_time_and_the_guilty_task(tmp_path):
    orders = ["say 1", "die-once by-the-system", "say 2", "die", "say 3", "say 4"]
    with local_processes(2) as pool:
        ended = outcomes(orders, pool, tmp_path)
    assert isinstance(ended.pop("die"), WorkerDied)
    assert ended == {order: f"done: {order}" for order in orders if order != "die"}
    assert (tmp_path / "by-the-system").exists()


@POSIX
def test_an_interruption_leaves_no_process_and_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    marks = tmp_path / "marks"
    marks.mkdir()

    def interrupt():
        with local_processes(1) as pool, pool.open() as team:
            team.submit(class_tasks.obey, "sleep 600", marks=str(marks))
            while not list(marks.iterdir()):
                time.sleep(0.05)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert multiprocessing.active_children() == []
    assert list(tmp_path.iterdir()) == [marks]


PARENT = """
import class_tasks, sys
from compresslab.jobs.executor import local_processes
if __name__ == "__main__":
    with local_processes(1) as pool, pool.open() as team:
        team.submit(class_tasks.obey, "sleep 600", marks=sys.argv[1]).result()
"""


@POSIX
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks /proc whether a process is there")
def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    marks = tmp_path / "marks"
    marks.mkdir()
    paths = os.pathsep.join([str(Path(class_tasks.__file__).parent), *sys.path])
    parent = subprocess.Popen(
        [sys.executable, str(script), str(marks)],
        env={**os.environ, "PYTHONPATH": paths, "TMPDIR": str(tmp_path)},
    )
    until = time.monotonic() + 60
    while not list(marks.iterdir()):
        assert time.monotonic() < until
        time.sleep(0.05)
    process = int(next(marks.iterdir()).name.removeprefix("process-"))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while is_there(process) or list(tmp_path.glob("compresslab-*")):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_less_than_one_process_is_told_so():
    with pytest.raises(CompressionError, match=r"got 0; try 2"), local_processes(0):
        pass


# A Dask cluster, here on this computer alone.


@contextlib.contextmanager
def cluster(**settings):
    distributed = pytest.importorskip("distributed", reason="the extra [cluster] is not installed")
    fixed = {"n_workers": 1, "threads_per_worker": 2, "host": "127.0.0.1", "dashboard_address": ":0"}
    with distributed.LocalCluster(protocol="tcp://", **{**fixed, **settings}) as there:
        yield there.scheduler_address


def test_a_cluster_comes_to_the_same_outcomes_and_gets_the_bundle_as_bytes(tmp_path):
    (tmp_path / "bundle.json").write_text("{}")
    orders = ["say 1", "fail on purpose", "say 2"]
    with cluster(processes=False) as address, dask_cluster(address) as pool:
        ended = outcomes(orders, pool)
        bundle = pool.send_folder(tmp_path)
        sizes = dict(run_all([1, 2], lambda team, _: team.submit(len, bundle), pool))
    assert isinstance(ended.pop("fail on purpose"), ZeroDivisionError)
    assert ended == {order: f"done: {order}" for order in orders if "fail" not in order}
    assert sizes[1] == sizes[2] > 0


@POSIX
def test_a_worker_of_a_cluster_that_dies_costs_only_time_and_the_guilty_task(tmp_path):
    dask = pytest.importorskip("dask", reason="the extra [cluster] is not installed")
    orders = ["say 1", "die-once by-the-system", "die", "say 2"]
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        cluster(processes=True, threads_per_worker=1) as address,
        dask_cluster(address) as pool,
    ):
        ended = outcomes(orders, pool, tmp_path)
    assert isinstance(ended.pop("die"), WorkerDied)
    assert ended == {order: f"done: {order}" for order in orders if order != "die"}


def test_a_cluster_without_workers_is_told_so(monkeypatch):
    monkeypatch.setattr(executor, "TIMEOUT", 0.2)
    with (
        cluster(processes=False, n_workers=0) as address,
        pytest.raises(
            CompressionError, match=r"has no worker; expected one .* start one with: dask worker tcp"
        ),
        dask_cluster(address),
    ):
        pass


def test_an_address_where_nobody_answers_is_told_so(monkeypatch):
    pytest.importorskip("distributed", reason="the extra [cluster] is not installed")
    monkeypatch.setattr(executor, "TIMEOUT", 1)
    for address in ("tcp://127.0.0.1:9", "nonsense://127.0.0.1:9"):
        with (
            pytest.raises(
                CompressionError, match=r"no Dask scheduler answers at .* expected tcp.* start one"
            ),
            dask_cluster(address),
        ):
            pass


def test_a_cluster_without_dask_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(CompressionError, match=r'pip install "compresslab\[cluster\]"'),
        dask_cluster("tcp://x:1"),
    ):
        pass
