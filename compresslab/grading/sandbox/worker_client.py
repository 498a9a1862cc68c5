"""The grader's side of a worker: start it, send it one job after the other, replace it when it dies."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from compresslab.checks.record import MAXIMUM_BYTES, to_bytes
from compresslab.data.location import DATA
from compresslab.grading.bundle import Bundle
from compresslab.grading.sandbox.bubblewrap import fixed_variables, sandbox_command, shown_at, unused_user
from compresslab.grading.sandbox.messages import Ending, Mode, read_message, write_message
from compresslab.grading.sandbox.worker import MARGIN, PREPARATION

__all__ = ["FORKS", "WorkerClient"]

START_UP = 60.0  # seconds within which a worker has imported torch, from a slow disk too
FORKS = sys.platform.startswith("linux")  # elsewhere a fork after importing torch is unsafe or impossible
MODULE = "compresslab.grading.sandbox.worker"
KEPT_VARIABLES = (
    "PATH",
    "HOME",
    "COMPRESSLAB_CACHE",
    "XDG_CACHE_HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "SYSTEMROOT",
    "TEMP",
    "TMP",
    "TMPDIR",
)


class WorkerClient:
    """Runs the answers of one lab, each in a process of its own; ``with`` ends what is left.

    There is one worker at a time. It is started when it is first needed, and again when it has died.

    Args:
        bundle: whose copy of the package the worker imports.
        isolated: whether it runs in a sandbox. Without one a student's code has the rights of the grader.
        fork: whether one worker serves all exercises, or each has a worker of its own.
    """

    def __init__(self, bundle: Bundle, *, isolated: bool, fork: bool = FORKS) -> None:
        self.bundle = bundle
        self.isolated = isolated
        self.fork = fork
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None  # what the worker writes to its stderr
        self._before_jobs = 0  # bytes of it that imports wrote
        self._threads: list[threading.Thread] = []
        self._messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def __enter__(self) -> WorkerClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, job: Mapping[str, Any]) -> tuple[Ending, bytes]:
        """Return how the process of an exercise ended, and what it left.

        Where the worker dies meanwhile another one is started and asked once more, so that no answer loses
        points because something else has killed the worker.

        Raises:
            RuntimeError: no worker starts here, or it can't set up the sandbox for an answer.
        """
        content, error = to_bytes(dict(job)), ""
        for _ in range(2):
            if self._process is None:
                self._start()
            message = self._ask(content, float(job["seconds"]) + PREPARATION + 4 * MARGIN)
            if ending := _ending(message):
                if not self.fork:
                    self.close()
                return ending, (message or b"").partition(b"\n")[2]
            error = self.close()
            if message == b"" and not self.fork:  # with a fork, the supervisor would have reported it
                return Ending.LATE, b""
        if error:
            raise RuntimeError(f"the worker can't run an answer ({error})")
        return Ending.DIED, b""

    def command(self) -> list[str]:
        """Return the command line of a worker; with ``-P`` Python imports no file that a student writes."""
        worker = ["-P", "-m", MODULE]
        if not self.isolated:
            return [sys.executable, *worker, Mode.FORK if self.fork else Mode.ONCE]
        inner = [str(shown_at(Path(sys.executable))), *worker, Mode.ISOLATED, str(unused_user())]
        return sandbox_command(self.bundle.worker, inner)

    def processes(self) -> int:
        """Return how many processes of this worker there are below the grader's, where /proc tells."""
        below: dict[str, list[str]] = {}
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parent = status.read_text(errors="replace").rpartition(")")[2].split()[1]
                below.setdefault(parent, []).append(status.parent.name)
        found = [str(self._process.pid)] if self._process else []
        for process in found:
            found += below.get(process, [])
        return len(found)

    def _start(self) -> None:
        """Start a worker and wait until it has imported torch."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (close() does)
        self._process = subprocess.Popen(
            self.command(),
            env=self._environment(),
            cwd=tempfile.gettempdir(),
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self._messages, self._before_jobs = queue.SimpleQueue(), 0
        self._in_thread(_receive, self._process.stdout, self._messages)
        with contextlib.suppress(queue.Empty):
            if self._messages.get(timeout=START_UP) == b"ready":
                # what an import writes there is not an error of a job
                self._before_jobs = os.fstat(self._errors.fileno()).st_size
                return
        raise RuntimeError(f"the worker did not start ({self.close() or 'it wrote no error'})")

    def _in_thread(self, work: Callable[..., None], *arguments: object) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        self._threads[-1].start()

    def _environment(self) -> dict[str, str]:
        """Return the variables that a worker needs; a student's code must not see the others."""
        kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        own = {"PYTHONPATH": str(self.bundle.worker.resolve()), "COMPRESSLAB_DATA": str(DATA)}
        return kept | fixed_variables() | own

    def _ask(self, content: bytes, seconds: float) -> bytes | None:
        """Send a job and return the worker's message: None if it died, empty if it did not answer in time."""
        assert self._process is not None
        self._in_thread(_send, self._process.stdin, content)
        try:
            return self._messages.get(timeout=seconds)
        except queue.Empty:
            return b""

    def close(self) -> str:
        """End the worker and everything that it started; return the last line of its errors."""
        process, errors = self._process, self._errors
        self._process = self._errors = None
        if process is None or errors is None:
            return ""
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        while self._threads:
            self._threads.pop().join(MARGIN)  # before another file gets the number of its pipe
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        with errors:
            errors.seek(self._before_jobs)
            return "".join(errors.read().decode(errors="replace").strip().splitlines()[-1:])


def _ending(message: bytes | None) -> Ending | None:
    """Return what a worker's message says first; None where it is no message of the protocol."""
    first = (message or b"").partition(b"\n")[0]
    return next((ending for ending in Ending if ending.encode() == first), None)


def _receive(stdout: IO[bytes], messages: queue.SimpleQueue[bytes | None]) -> None:
    """Put the worker's messages into the queue, and None at their end."""
    with contextlib.suppress(OSError, ValueError):
        while (message := read_message(stdout.fileno(), most=MAXIMUM_BYTES + 100)) is not None:
            messages.put(message)
    messages.put(None)


def _send(stdin: IO[bytes], content: bytes) -> None:
    with contextlib.suppress(OSError, ValueError):  # it has died, which _receive reports
        write_message(stdin.fileno(), content)
