"""Run students' answers: ``python -P -m compresslab.grading.sandbox.worker isolated USER | fork | once``.

The worker imports torch once; it reads nothing and runs no answer itself. For each exercise it forks a
supervisor. The supervisor reads the job (inputs, the student's definitions, the probe as text) from stdin and
forks once more: that child runs the student's code, in namespaces of its own and without privileges where the
worker stands in a sandbox. The child leaves its answer on a pipe; the supervisor writes it, or how the child
ended, to the worker's stdout, which no student's code holds (``messages.py``).

So each exercise of each student begins in a copy of the same process that has run nothing, and nothing of it
is left afterwards. The worker never sees a seed, a judge, a right answer or a named mistake. Where forking is
not safe (Windows, macOS) the grader starts a worker for each exercise, which runs it ``once``.
"""

from __future__ import annotations
import __future__

import ast
import contextlib
import dataclasses
import inspect
import linecache
import os
import select
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

import torch
import torch.optim

from compresslab.checks.call import Run, TimeUp, error_line, run, run_to_bytes, time_limit
from compresslab.checks.exercise import Case
from compresslab.checks.networks import build
from compresslab.checks.record import MAXIMUM_BYTES, from_bytes
from compresslab.errors import CompressionError
from compresslab.grading.sandbox.limits import MemoryWatchdog, address_space_bytes, set_limits
from compresslab.grading.sandbox.messages import Ending, Mode, Reply, read_message, write_message
from compresslab.grading.sandbox.namespaces import SCRATCH, isolate_next_child
from compresslab.grading.sandbox.notebook_names import (
    Withheld,
    WithheldModule,
    library_names,
    notebook_modules,
    notebook_names,
)
from compresslab.grading.sandbox.privileges import drop_privileges

__all__ = ["MARGIN", "PREPARATION", "main"]

MARGIN = 2.0  # seconds beyond the limits, for what swallows them
RETRY = 1.0  # seconds for the statements below one that took too long
PREPARATION = 5.0  # seconds for the statements that an answer needs, such as the import of a large package
STARTED = b"\x01"  # from the child, before any of the student's code runs
NOT_STARTED = b"\x00"  # instead of that, and then the reason
LENGTH = slice(1, 9)  # of the child's message, which follows that byte
PIPE = 3  # the child's end of the pipe to its supervisor
_FLAGS = __future__.annotations.compiler_flag  # a name missing in an annotation alone is no error


def main(mode: Mode, user: int = 0) -> None:
    """Run one job after the other until stdin ends; in the mode ``once`` run one.

    Args:
        mode: how jobs are run.
        user: whom the student's code runs as where it is isolated; 0 for the worker's own user.
    """
    stdin, stdout = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for pipe in (0, 1, 2) if mode is Mode.ONCE else (0, 1):  # a supervisor's own errors go to the grader
        os.dup2(nothing, pipe)  # whatever is printed from here on is lost
    torch.set_num_threads(1)
    sys.meta_path.insert(0, _ThisCopyOnly())
    write_message(stdout, b"ready")
    if mode is Mode.ONCE:
        reply = _answer(read_message(stdin, most=MAXIMUM_BYTES) or b"")
        write_message(stdout, _message(Ending.OK, reply))
        return
    while True:
        select.select([stdin], [], [])  # the supervisor reads it, not the worker, which stays as it is
        supervisor = os.fork()
        if supervisor == 0:
            _supervise(stdin, stdout, isolated=mode is Mode.ISOLATED, user=user)
        if os.waitpid(supervisor, 0)[1] != 0:
            return


class _ThisCopyOnly:
    """Find ``compresslab``'s modules in this copy or nowhere: an editable install would add the others."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        if not name.startswith("compresslab."):
            return None
        if found := PathFinder.find_spec(name, path):
            return found
        raise WithheldModule(name)


def _message(ending: Ending, content: bytes | bytearray = b"") -> bytes:
    return f"{ending}\n".encode() + content


# The supervisor: one for each exercise, with the worker's privileges; it runs no student's code.


def _supervise(stdin: int, stdout: int, *, isolated: bool, user: int) -> None:
    """Read a job, run it in a child, write what came of it; this process ends here."""
    try:
        job = read_message(stdin, most=MAXIMUM_BYTES)
        if job is not None:
            write_message(stdout, _run_in_child(job, isolated=isolated, user=user))
            os._exit(0)
    except BaseException as error:  # ours, not the student's: the grader reads it
        os.write(2, f"{error_line(error)}\n".encode(errors="replace"))
    finally:
        os._exit(1)


def _run_in_child(job: bytes, *, isolated: bool, user: int) -> bytes:
    seconds = float(from_bytes(job)["seconds"]) + PREPARATION + RETRY + MARGIN
    address_space = address_space_bytes()
    watchdog = MemoryWatchdog() if isolated else None
    if isolated:
        isolate_next_child()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        started = False
        try:
            _keep_only(writing)
            set_limits(seconds, address_space=address_space, isolated=isolated)
            if isolated:
                os.chdir(SCRATCH)
                drop_privileges(user)
            os.write(PIPE, STARTED)
            started = True
            os.dup2(0, 2)
            write_message(PIPE, _answer(job))
        except (OSError, CompressionError) as error:
            if not started:
                os.write(PIPE, NOT_STARTED + error_line(error).encode(errors="replace"))
        finally:
            os._exit(0)  # the supervisor looks at what was written, not at this
    os.close(writing)
    try:
        return _follow(child, reading, time.monotonic() + seconds, watchdog)
    finally:
        _end(child)


def _keep_only(writing: int) -> None:
    """Leave this process no open file but one end of a pipe, and a process group of its own."""
    os.dup2(writing, PIPE)
    os.closerange(PIPE + 1, 4096)
    os.setsid()  # so that a signal to "my group" reaches nobody else


def _follow(child: int, reading: int, deadline: float, watchdog: MemoryWatchdog | None) -> bytes:
    """Return how the child ended and what it wrote, as one message; nothing is waited for after that."""
    left, ended = bytearray(), False
    while time.monotonic() < deadline:
        ended = ended or os.waitpid(child, os.WNOHANG)[0] != 0
        ready = select.select([reading], [], [], 0 if ended else 0.005)[0]
        part = os.read(reading, 1 << 20) if ready else b""
        left += part
        if left[:1] == NOT_STARTED or (ended and not part and not left):
            reason = left[1:].decode(errors="replace") or "its process died"
            raise RuntimeError(f"the sandbox for an answer could not be set up ({reason})")
        known = len(left) >= LENGTH.stop
        size = int.from_bytes(left[LENGTH], "big") if known else MAXIMUM_BYTES
        if size > MAXIMUM_BYTES or len(left) >= LENGTH.stop + size:
            return _message(Ending.OK, left[LENGTH.stop : LENGTH.stop + size])
        if ended and not part:
            return _message(Ending.DIED)
        if watchdog is not None and watchdog.is_exceeded():
            return _message(Ending.MEMORY)
        if ready and not part:
            time.sleep(0.005)  # it has closed the pipe and goes on
    return _message(Ending.LATE)


def _end(child: int) -> None:
    """End the child with all that it started; where it is isolated the kernel ends its namespace with it."""
    with contextlib.suppress(OSError):
        os.killpg(child, signal.SIGKILL)
    with contextlib.suppress(OSError):  # it has ended and was waited for
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# The child: it runs the student's code.


def _answer(job: bytes) -> bytes:
    """Run one exercise in this very process; return the record, or the reason why there is none."""
    try:
        task = from_bytes(job)
        record = run_to_bytes(_run(task["name"], task, task["cases"]))
        if len(record) > MAXIMUM_BYTES - len(f"{Reply.RUN}\n"):
            raise _NoRun(f"your answers are too large to record ({len(record):,} bytes); return less")
        return f"{Reply.RUN}\n".encode() + record
    except _NoRun as reason:
        return f"{Reply.NO}\n{reason}".encode(errors="replace")


class _NoRun(Exception):
    """Why there is no run, as a sentence for the student."""


def _run(name: str, task: dict[str, Any], cases: list[Case]) -> Run:
    probe_space = library_names() | {"build": build}
    exec(compile(task["probe"], "<probe>", "exec", flags=_FLAGS, dont_inherit=True), probe_space)
    answer, failed = _define(name, task)
    done = run(probe_space[task["probe_name"]], cases, answer, seconds=task["seconds"])
    for attempt in done.attempts:
        if attempt.raised in (Withheld.__name__, WithheldModule.__name__):
            raise _NoRun(attempt.words.partition(": ")[2])
    return dataclasses.replace(done, failed=tuple(failed))


def _define(name: str, task: dict[str, Any]) -> tuple[Callable[..., Any], list[str]]:
    """Return the function that the student checked, and a sentence for each statement that failed before.

    Raises:
        _NoRun: it can't be made, or is no function.
    """
    module = types.ModuleType("__main__")  # as in a notebook
    sys.modules["__main__"] = module  # dataclasses look their module up
    names = notebook_names(name, task["published"])
    sys.modules.update(notebook_modules(names))
    vars(module).update(names)
    statements = [each for piece in task["pieces"] for each in _statements(piece)]
    failed: list[str] = []
    for seconds in (PREPARATION, RETRY):  # after a slow statement those below it are tried all the same
        try:
            with time_limit(seconds):
                while statements:
                    failed += _execute(statements.pop(0), vars(module))
        except TimeUp:
            failed.append(
                f"the statements that {name} needs take more than {seconds:g} s; move slow ones elsewhere"
            )
    torch.set_num_threads(1)  # whatever the notebook asks for: an answer may not start many threads
    try:
        answer = _evaluate(task["target"], vars(module))
    except BaseException as error:  # whatever a student's expression may raise
        raise _NoRun(
            failed[0] if failed else f"check.{name}({task['target']}) raises {error_line(error)}"
        ) from None
    if not callable(answer):
        raise _NoRun(f"{name} is a function; yours is a {type(answer).__name__}")
    return answer, failed


def _statements(piece: list[Any]) -> Iterator[tuple[str, ast.stmt]]:
    """Yield the kept statements of a cell, each with the name of the cell's file in messages."""
    cell, text, keep = piece
    filename = f"<{cell}>"
    lines = text.splitlines(keepends=True)
    linecache.cache[filename] = (len(text), None, lines, filename)  # so that a message can quote the line
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    body = compile(text, filename, "exec", flags, dont_inherit=True).body
    yield from ((filename, body[index]) for index in keep)


def _execute(statement: tuple[str, ast.stmt], space: dict[str, Any]) -> Iterator[str]:
    """Execute a statement; yield a sentence if it fails."""
    filename, node = statement
    try:
        flags = _FLAGS | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        alone = ast.Module([node], [])
        _run_code(compile(alone, filename, "exec", flags=flags, dont_inherit=True), space)
    except TimeUp:
        raise
    except BaseException as error:  # whatever a student's statements may raise
        quoted = linecache.getline(filename, node.lineno).strip()
        yield f"{filename[1:-1]} raises {error_line(error)}, in line {node.lineno}: {quoted}"


def _run_code(code: types.CodeType, space: dict[str, Any]) -> None:
    """Run a statement; one that awaits is run to its end, as a notebook's loop would."""
    if not code.co_flags & inspect.CO_COROUTINE:
        exec(code, space)
        return
    coroutine = eval(code, space)
    with contextlib.suppress(StopIteration):
        while True:
            coroutine.send(None)


def _evaluate(target: str, space: dict[str, Any]) -> Any:
    """Return what the student gave to the check."""
    return eval(compile(target, "<check>", "eval", flags=_FLAGS, dont_inherit=True), space)


if __name__ == "__main__":
    main(Mode(sys.argv[1]), *map(int, sys.argv[2:]))
