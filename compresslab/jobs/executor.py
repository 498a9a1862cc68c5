"""Run many independent tasks on a pool of workers: processes of this computer, or an existing Dask cluster.

Both pools offer the same executor (``submit`` → future), so one loop serves them: ``run_all``. It knows
neither labs nor grades nor experiments. The death of a worker process costs only time: the tasks that it took
along are tried again, each alone, so that the task at fault shows; a task that keeps ending its process is
given up with ``WorkerDied``, and all others go on.
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

from compresslab.errors import BadSetting, NotAvailable
from compresslab.jobs.openmp import environment_for_children

__all__ = ["Pool", "WorkerDied", "dask_cluster", "local_processes", "open_pool", "run_all", "zipped"]

TIMEOUT = 10  # seconds for a scheduler to answer, and for its first worker
T = TypeVar("T")


class WorkerDied(Exception):
    """A task's process ended, and ended again when it ran nothing else."""


@dataclass(frozen=True)
class Pool:
    """Workers that run tasks.

    Attributes:
        open: opens the executor; called again after a death.
        size: how many tasks are submitted at once.
        send_folder: a folder → what a task is given in its place.
        shares_files: whether the workers see this computer's files.
        deaths: what the future of a task raises whose process has died.
        retries: how often a task that a death took along is tried again, alone.
    """

    open: Callable[[], AbstractContextManager[Executor]]
    size: int
    send_folder: Callable[[Path], Any] = Path
    shares_files: bool = True
    deaths: tuple[type[Exception], ...] = (BrokenExecutor,)
    retries: int = 2


def open_pool(
    jobs: int | None = None,
    scheduler: str | None = None,
    *,
    at_end: Callable[[], None] | None = None,
    **environment: str,
) -> AbstractContextManager[Pool]:
    """Return the Dask cluster at ``scheduler`` if an address is given, else ``jobs`` local processes.

    Args:
        jobs: how many processes, by default one per processor.
        scheduler: such as ``tcp://host:8786``.
        at_end: called once on every worker of a cluster when all tasks have ended.
        environment: further variables of the local processes, such as ``TQDM_DISABLE="1"``.

    Raises:
        CompressionError: as ``local_processes`` and ``dask_cluster``.
    """
    if scheduler:
        return dask_cluster(scheduler, at_end=at_end)
    return local_processes(jobs, **environment)


# The loop.


def run_all(
    items: Iterable[T], submit: Callable[[Executor, T], Future], pool: Pool
) -> Generator[tuple[T, Any], None, None]:
    """Yield each item with what its task returned, or with the exception it raised, in the order of ending.

    Args:
        items: one task each. A deque may be extended by the caller after any outcome, so that tasks can wait
            for the outcomes of others.
        submit: hands an item's task to the executor.
        pool: whose executor; it is closed, and running tasks are ended, if the iteration is left early.
    """
    waiting = items if isinstance(items, deque) else deque(items)
    while waiting:
        for suspect in (yield from _run_together(waiting, submit, pool, pool.size)):
            again = [suspect]
            for _ in range(pool.retries):
                again = yield from _run_together(deque(again), submit, pool, 1)
            for item in again:
                yield item, WorkerDied("its process died, and died again when it ran nothing else")


def _run_together(
    waiting: deque[T], submit: Callable[[Executor, T], Future], pool: Pool, size: int
) -> Generator[tuple[T, Any], None, list[T]]:
    """Run tasks until none waits, or until a process has died; return the items that it took along."""
    died: list[T] = []
    running: dict[Future, T] = {}
    with pool.open() as executor:
        while running or (waiting and not died):
            while waiting and not died and len(running) < size:
                item = waiting.popleft()
                try:
                    running[submit(executor, item)] = item
                except pool.deaths:  # of a process that ran nothing
                    died.append(item)
                except Exception as error:
                    yield item, error
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                item = running.pop(future)
                outcome = _outcome(future)
                if isinstance(outcome, pool.deaths):
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
    """Return a folder's files as one zip, for workers that do not see this computer's files."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                archive.write(path, path.relative_to(folder))
    return content.getvalue()


# Processes of this computer.


@contextlib.contextmanager
def local_processes(jobs: int | None = None, **environment: str) -> Iterator[Pool]:
    """Processes of this computer, by default one per processor.

    Args:
        jobs: how many.
        environment: further variables of theirs; OpenMP's passive waiting is always among them.

    Raises:
        BadSetting: fewer than one process is asked for.
    """
    if jobs is not None and jobs < 1:
        raise BadSetting(f"--jobs must be 1 or more, the number of processes, got {jobs}; try 2")
    size = jobs or os.cpu_count() or 1
    yield Pool(lambda: _process_pool(size, environment), size)


@contextlib.contextmanager
def _process_pool(jobs: int, environment: dict[str, str]) -> Iterator[Executor]:
    """A pool that leaves neither a process nor a file behind, however it is left."""
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    others = set(multiprocessing.active_children())
    with (
        environment_for_children(**environment),
        tempfile.TemporaryDirectory(prefix="compresslab-jobs-", ignore_cleanup_errors=True) as scratch,
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
    """Prepare a process of the pool: it leaves Ctrl-C to its parent, and ends when that has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tempfile.tempdir = scratch
    threading.Thread(target=_end_with_parent, args=(scratch,), daemon=True).start()


def _end_with_parent(scratch: str) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        shutil.rmtree(scratch, ignore_errors=True)  # the parent can no longer do so
        os._exit(1)


# A cluster.


@contextlib.contextmanager
def dask_cluster(address: str, *, at_end: Callable[[], None] | None = None) -> Iterator[Pool]:
    """The workers of an existing Dask scheduler; they need this kit and none of this computer's files.

    Args:
        address: such as ``tcp://host:8786``.
        at_end: called once on every worker when all tasks have ended, to release what they kept.

    Raises:
        NotAvailable: Dask is not installed, no scheduler answers at the address, or it has no worker.
    """
    try:
        import dask
        from distributed import Client, KilledWorker
    except ImportError as error:
        raise NotAvailable(
            f"--scheduler needs Dask, which is not installed ({error}); expected the extra [cluster]; "
            'try: pip install "compresslab[cluster]", or --jobs instead'
        ) from error
    try:
        client = Client(address, timeout=TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise NotAvailable(
            f"no Dask scheduler answers at {address} ({type(error).__name__} within {TIMEOUT} s); expected "
            "tcp://HOST:PORT of a running one; start one with: dask scheduler, or use --jobs instead"
        ) from error
    with client, dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GB"}):
        yield Pool(
            open=lambda: _cluster_executor(client),
            size=2 * _threads(client, address),  # the next task is there when one has ended
            send_folder=lambda folder: client.submit(bytes, zipped(folder)),
            shares_files=False,
            deaths=(KilledWorker,),
            retries=1,  # Dask itself raises this only after several deaths
        )
        if at_end is not None:
            client.run(at_end, on_error="ignore")


def _threads(client: Any, address: str) -> int:
    with contextlib.suppress(TimeoutError):
        client.wait_for_workers(1, timeout=TIMEOUT)
    threads = sum(client.nthreads().values())
    if not threads:
        raise NotAvailable(
            f"the Dask scheduler at {address} has no worker; expected one within {TIMEOUT} s; start one "
            f"with: dask worker {address}"
        )
    return threads


@contextlib.contextmanager
def _cluster_executor(client: Any) -> Iterator[Executor]:
    """The cluster as an executor; its tasks hold what they need, so Dask repeats them where a worker dies."""
    executor = client.get_executor(pure=False, retries=1)
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False)
        raise
    executor.shutdown()
