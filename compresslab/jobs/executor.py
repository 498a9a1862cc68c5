"""Engines: who runs the tasks of a class, processes of this computer or a Dask cluster that is there already.

Both are executors (``submit`` → future), so one loop serves them: ``run_all``. A process that dies costs
nothing but time. What it took along is tried again, each task alone, so that a guilty one shows; a task that
keeps ending its process alone is given up with a reason, and all others go on.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import tempfile
import threading
import zipfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from compresslab.errors import CompressionError
from compresslab.jobs.openmp import environment_for_children

__all__ = ["Died", "Engine", "dask_cluster", "local_processes", "run_all", "zipped"]

PATIENCE = 10  # seconds for a scheduler to answer, and for its first worker
T = TypeVar("T")


class Died(Exception):
    """The process of a task ended under it, when it was alone in it too."""


@dataclass(frozen=True)
class Engine:
    """What runs tasks.

    Args:
        hire: opens the executor; called anew after a death.
        hands: how many tasks are on their way at once.
        hand_out: a bundle's folder → what each task is given in its stead.
        deaths: what a task's future raises whose process has died.
        chances: how often a task that a death took along is tried again, alone.
    """

    hire: Callable[[], AbstractContextManager[Executor]]
    hands: int
    hand_out: Callable[[Path], Any]
    deaths: tuple[type[Exception], ...] = (BrokenExecutor,)
    chances: int = 2


# The loop.


def run_all(
    items: Iterable[T], start: Callable[[Executor, T], Future], engine: Engine
) -> Generator[tuple[T, Any], None, None]:
    """Each item with what its task returned, or with the exception that it raised, in the order of ending.

    Args:
        items: one task each.
        start: hands an item's task to the executor.
        engine: whose executor; it is closed, and what runs is ended, where the iteration is left early.
    """
    waiting = deque(items)
    while waiting:
        for suspect in (yield from _side_by_side(waiting, start, engine, engine.hands)):
            again = [suspect]
            for _ in range(engine.chances):
                again = yield from _side_by_side(deque(again), start, engine, 1)
            for guilty in again:
                yield guilty, Died("the process that graded it died, and again when it graded nothing else")


def _side_by_side(
    waiting: deque[T], start: Callable[[Executor, T], Future], engine: Engine, hands: int
) -> Generator[tuple[T, Any], None, list[T]]:
    """Runs tasks until none waits, or until a process has died; returns the items that it took along."""
    died: list[T] = []
    running: dict[Future, T] = {}
    with engine.hire() as executor:
        while running or (waiting and not died):
            while waiting and not died and len(running) < hands:
                item = waiting.popleft()
                try:
                    running[start(executor, item)] = item
                except engine.deaths:  # of a process that nothing ran in
                    died.append(item)
                except Exception as error:
                    yield item, error
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                item = running.pop(future)
                outcome = _outcome(future)
                if isinstance(outcome, engine.deaths):
                    died.append(item)
                else:
                    yield item, outcome
    return died


def _outcome(future: Future) -> Any:
    try:
        return future.result()
    except Exception as error:
        return error


def zipped(folder: Path) -> bytes:
    """A folder's files as one zip, for workers that do not see this computer's files."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for place in sorted(folder.rglob("*")):
            if place.is_file() and "__pycache__" not in place.parts:
                archive.write(place, place.relative_to(folder))
    return content.getvalue()


# Processes of this computer.


@contextlib.contextmanager
def local_processes(jobs: int | None = None) -> Iterator[Engine]:
    """Processes of one thread each, by default one a processor.

    Raises:
        CompressionError: fewer than one process is asked for.
    """
    if jobs is not None and jobs < 1:
        raise CompressionError(f"--jobs is how many processes grade, got {jobs}; expected 1 or more; try 2")
    hands = jobs or os.cpu_count() or 1
    yield Engine(lambda: _pool(hands), hands, lambda folder: folder)


@contextlib.contextmanager
def _pool(jobs: int) -> Iterator[Executor]:
    """A pool that leaves neither a process nor a file behind, however it is left."""
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    others = set(multiprocessing.active_children())
    with (
        environment_for_children(),
        tempfile.TemporaryDirectory(prefix="compresslab-class-", ignore_cleanup_errors=True) as scratch,
    ):
        pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(scratch,))
        try:
            yield pool
        except BaseException:  # an interruption too: what waits is not begun, what runs is ended
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.kill()
                process.join()
            raise
        pool.shutdown()


def _begin(scratch: str) -> None:
    """What a pool's process does first: it leaves Ctrl-C to its parent, and ends when that has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tempfile.tempdir = scratch
    threading.Thread(target=_end_with_parent, args=(scratch,), daemon=True).start()


def _end_with_parent(scratch: str) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        shutil.rmtree(scratch, ignore_errors=True)  # it can't do so any more
        os._exit(1)


# A cluster.


@contextlib.contextmanager
def dask_cluster(address: str, *, at_end: Callable[[], None] | None = None) -> Iterator[Engine]:
    """The workers of an existing Dask scheduler; they need this kit and nothing of this computer's files.

    Args:
        address: such as ``tcp://host:8786``.
        at_end: called once on every worker when all tasks have ended, to release what they kept.

    Raises:
        CompressionError: Dask is not installed, nobody answers at the address, or nobody works there.
    """
    try:
        import dask
        from distributed import Client, KilledWorker
    except ImportError as error:
        raise CompressionError(
            f"--scheduler needs Dask, which is not installed ({error}); expected the extra [cluster]; "
            'try: pip install "compresslab[cluster]", or --jobs instead'
        ) from error
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise CompressionError(
            f"no Dask scheduler answers at {address} ({type(error).__name__} within {PATIENCE} s); expected "
            "tcp://HOST:PORT of a running one; start one with: dask scheduler, or use --jobs instead"
        ) from error
    with client, dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GB"}):
        hands = 2 * _threads(client, address)  # the next one is there when one has ended
        yield Engine(
            lambda: _team(client), hands, lambda folder: client.submit(bytes, zipped(folder)),
            (KilledWorker,), chances=1,  # Dask itself raises this only after several deaths
        )  # fmt: skip
        if at_end is not None:
            client.run(at_end, on_error="ignore")


def _threads(client: Any, address: str) -> int:
    with contextlib.suppress(TimeoutError):
        client.wait_for_workers(1, timeout=PATIENCE)
    threads = sum(client.nthreads().values())
    if not threads:
        raise CompressionError(
            f"the Dask scheduler at {address} has no worker; expected one within {PATIENCE} s; start one "
            f"with: dask worker {address}"
        )
    return threads


@contextlib.contextmanager
def _team(client: Any) -> Iterator[Executor]:
    """The cluster as an executor; its tasks hold what they need, so Dask repeats them where a worker dies."""
    team = client.get_executor(pure=False, retries=1)
    try:
        yield team
    except BaseException:
        team.shutdown(wait=False)
        raise
    team.shutdown()
