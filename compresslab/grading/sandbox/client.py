"""The grader's side of a worker: starts it, sends it one exercise after the other, outlives its deaths."""

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
from compresslab.grading.bundle import Bundle
from compresslab.grading.sandbox.bubblewrap import free_user, sandbox_command, shown_at
from compresslab.grading.sandbox.messages import read_frame, write_frame
from compresslab.grading.sandbox.worker import MARGIN
from compresslab.jobs.openmp import POLICY, passive

__all__ = ["FORKS", "Workers"]

START_UP = 60.0  # seconds within which a worker has imported torch, on a slow disk too
FORKS = sys.platform.startswith("linux")  # elsewhere a fork after importing torch is not safe, or not there
MODULE = "compresslab.grading.sandbox.worker"
ENDS = (b"ok", b"died", b"late", b"memory")


class Workers:
    """Runs the answers of one lab, each in a process of its own; ``with`` ends what is left.

    One worker at a time: warm, never-run, started when it is first needed and again when it has died.

    Args:
        bundle: whose copy of the package the worker sees.
        isolated: whether it runs in a sandbox. Without one a student's code has the rights of the grader.
        fork: whether one worker serves all exercises, or each has a worker of its own.
    """

    def __init__(self, bundle: Bundle, *, isolated: bool, fork: bool = FORKS) -> None:
        self.bundle = bundle
        self.isolated = isolated
        self.fork = fork
        self._process: subprocess.Popen[bytes] | None = None
        self._complaints: IO[bytes] | None = None
        self._heard = 0  # bytes of its complaints that are none
        self._threads: list[threading.Thread] = []
        self._messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, job: Mapping[str, Any]) -> tuple[str, bytes]:
        """How an exercise ended (ok, died, late, memory) and what it left.

        A worker that dies of it, or beside it, is started anew and asked once more: no answer pays for a
        worker that somebody else has killed.

        Raises:
            RuntimeError: no worker starts here.
        """
        content, complaint = to_bytes(dict(job)), ""
        for _ in range(2):
            if self._process is None:
                self._start()
            message = self._ask(content, float(job["seconds"]) + 3 * MARGIN)
            how, _, left = (message or b"").partition(b"\n")
            if how in ENDS:
                if not self.fork:
                    self.close()
                return how.decode(), left
            complaint = self.close()
            if message == b"" and not self.fork:  # a keeper would have said so itself
                return "late", b""
        if complaint:
            raise RuntimeError(f"the worker can't run an answer ({complaint})")
        return "died", b""

    def command(self) -> list[str]:
        """The command line of a worker; ``-P`` keeps files that a student writes from being imported."""
        worker = ["-P", "-m", MODULE]
        if not self.isolated:
            return [sys.executable, *worker, "fork" if self.fork else "here"]
        inner = [str(shown_at(Path(sys.executable))), *worker, "rooms", str(free_user())]
        return sandbox_command(self.bundle.worker, inner)

    def processes(self) -> int:
        """How many processes there are below the grader's, of this worker; where /proc tells."""
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
        """Starts a worker and waits until it has imported torch."""
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 (close() does)
        self._process = subprocess.Popen(
            self.command(),
            env=self._environment(),
            cwd=tempfile.gettempdir(),
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
        )
        self._messages, self._heard = queue.SimpleQueue(), 0
        self._beside(_listen, self._process.stdout, self._messages)
        with contextlib.suppress(queue.Empty):
            if self._messages.get(timeout=START_UP) == b"ready":
                # what an import says is no complaint
                self._heard = os.fstat(self._complaints.fileno()).st_size
                return
        raise RuntimeError(f"the worker did not start ({self.close() or 'no word from it'})")

    def _beside(self, work: Callable[..., None], *arguments: object) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        self._threads[-1].start()

    def _environment(self) -> dict[str, str]:
        """What a worker needs of ours; a student's code has no business with the rest."""
        keep = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR")
        ours = {name: os.environ[name] for name in keep if name in os.environ}
        fixed = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
        return ours | fixed | {POLICY: passive()[POLICY], "PYTHONPATH": str(self.bundle.worker.resolve())}

    def _ask(self, content: bytes, seconds: float) -> bytes | None:
        """The worker's message; None when it died, nothing when it fell silent."""
        assert self._process is not None
        self._beside(_send, self._process.stdin, content)
        try:
            return self._messages.get(timeout=seconds)
        except queue.Empty:
            return b""

    def close(self) -> str:
        """Ends the worker and all that it started; the last line that it complained with."""
        process, complaints = self._process, self._complaints
        self._process = self._complaints = None
        if process is None or complaints is None:
            return ""
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        while self._threads:
            self._threads.pop().join(MARGIN)  # before its pipe's number is somebody else's
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        with complaints:
            complaints.seek(self._heard)
            return "".join(complaints.read().decode(errors="replace").strip().splitlines()[-1:])


def _listen(stdout: IO[bytes], messages: queue.SimpleQueue[bytes | None]) -> None:
    """Hands on the worker's messages, and None at their end."""
    with contextlib.suppress(OSError, ValueError):
        while (message := read_frame(stdout.fileno(), most=MAXIMUM_BYTES + 100)) is not None:
            messages.put(message)
    messages.put(None)


def _send(stdin: IO[bytes], content: bytes) -> None:
    with contextlib.suppress(OSError, ValueError):  # it has died: the listener says so
        write_frame(stdin.fileno(), content)
