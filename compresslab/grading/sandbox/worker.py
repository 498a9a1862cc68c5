"""Runs students' answers: ``python -P -m compresslab.grading.sandbox.worker rooms USER | fork | here``.

The worker imports torch once, reads nothing and runs nothing. For each exercise it forks a keeper; the keeper
reads the job (inputs, the student's definitions, the probe as text) from stdin and forks once more for the
student's code, in a room of its own (``confinement.py``) where the worker stands in a sandbox. What comes
back, on a pipe and then on the worker's own stdout, which no student's code holds, is one message a job:

    ok      a record without pickle, or the sentence why there is none
    died    the process ended before it had written one
    late    it still ran when its time was over
    memory  it took more than there is

So each exercise, of each student, begins in the same never-run process, and nothing of it outlives it. The
worker never sees a seed, a judge, a right answer or a mistake. Where forking is not safe (Windows, macOS) the
grader starts a worker an exercise, which runs it ``here``.
"""

from __future__ import annotations
import __future__

import ast
import contextlib
import linecache
import math
import os
import select
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.optim
from torch import nn

from compresslab.checks.call import Run, run, run_to_bytes, said_by
from compresslab.checks.exercise import Case
from compresslab.checks.networks import build
from compresslab.checks.record import MAXIMUM_BYTES, from_bytes
from compresslab.grading.sandbox.messages import read_frame, write_frame

if TYPE_CHECKING:
    from compresslab.grading.sandbox import limits as confinement

__all__ = ["MARGIN", "Revealed", "main"]

MARGIN = 2.0  # seconds beyond an exercise's own limit: for its definitions, and for what swallows the limit
READY = b"\x01"  # from the child, before any of the student's code runs
_FLAGS = __future__.annotations.compiler_flag  # a name missing in an annotation alone costs nobody anything


def main(how: str, user: int = 0) -> None:
    """Runs one exercise after the other, until stdin ends; ``here`` runs one."""
    stdin, stdout = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for pipe in (0, 1, 2) if how == "here" else (0, 1):  # a keeper's own complaints are told
        os.dup2(nothing, pipe)  # whatever is printed from here on goes nowhere
    torch.set_num_threads(1)
    sys.meta_path.insert(0, _OnlyWhatIsHere())
    write_frame(stdout, b"ready")
    if how == "here":
        write_frame(stdout, b"ok\n" + _answer(read_frame(stdin, most=MAXIMUM_BYTES) or b""))
        return
    while True:
        select.select([stdin], [], [])  # the keeper reads it, not the worker: it stays as it is
        keeper = os.fork()
        if keeper == 0:
            _keep(stdin, stdout, rooms=how == "rooms", user=user)
        if os.waitpid(keeper, 0)[1] != 0:
            return


class _OnlyWhatIsHere:
    """Finds ``compresslab``'s modules in this copy or nowhere: an editable install would add the others."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        if not name.startswith("compresslab."):
            return None
        if found := PathFinder.find_spec(name, path):
            return found
        raise ModuleNotFoundError(f"No module named {name!r} for an answer", name=name)


def _keep(stdin: int, stdout: int, *, rooms: bool, user: int) -> None:
    """The keeper: reads a job, has it run in a child, tells what came of it; its process ends here."""
    try:
        job = read_frame(stdin, most=MAXIMUM_BYTES)
        if job is not None:
            write_frame(stdout, _keep_one(job, rooms=rooms, user=user))
            os._exit(0)
    except BaseException as error:  # ours, not the student's: it is the grader's to hear
        os.write(2, f"{said_by(error)}\n".encode(errors="replace"))
    finally:
        os._exit(1)


def _keep_one(job: bytes, *, rooms: bool, user: int) -> bytes:
    from compresslab.grading.sandbox import limits as confinement  # Linux alone

    seconds = float(from_bytes(job)["seconds"]) + MARGIN
    mapped = confinement.mapped()
    watch = confinement.Watch() if rooms else None
    if rooms:
        confinement.make_room()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(writing, 3)
            os.closerange(4, 4096)
            os.setsid()  # so that a signal to "my group" reaches nobody else
            confinement.limit(seconds, mapped=mapped, rooms=rooms)
            if rooms:
                confinement.give_up_rights(user)
            os.write(3, READY)
            os.dup2(0, 2)
            write_frame(3, _answer(job))
        except OSError as error:
            os.write(2, f"{said_by(error)}\n".encode(errors="replace"))
        finally:
            os._exit(0)  # the keeper looks at what was written, not at this
    os.close(writing)
    try:
        return _follow(child, reading, time.monotonic() + seconds, watch)
    finally:
        with contextlib.suppress(OSError):
            os.killpg(child, signal.SIGKILL)
        with contextlib.suppress(OSError):  # it has gone and was waited for
            os.kill(child, signal.SIGKILL)  # the first process of a room: with it goes every other
            os.waitpid(child, 0)


def _follow(child: int, reading: int, deadline: float, watch: confinement.Watch | None) -> bytes:
    """How the child ended and what it wrote, as one message; nothing is waited for after that."""
    left, ended = bytearray(), False
    while time.monotonic() < deadline:
        ended = ended or os.waitpid(child, os.WNOHANG)[0] != 0
        ready = select.select([reading], [], [], 0 if ended else 0.005)[0]
        part = os.read(reading, 1 << 20) if ready else b""
        left += part
        size = int.from_bytes(left[1:9], "big") if len(left) >= 9 else MAXIMUM_BYTES
        if size > MAXIMUM_BYTES or len(left) >= 9 + size:
            return b"ok\n" + left[9 : 9 + size]
        if ended and not part and not left:
            raise RuntimeError("no room could be made for an answer")
        if ended and not part:
            return b"died\n"
        if watch is not None and watch.too_much():
            return b"memory\n"
        if ready and not part:
            time.sleep(0.005)  # it has closed the pipe and goes on
    return b"late\n"


def _answer(job: bytes) -> bytes:
    """Runs one exercise in this very process: ``run`` and the record, or ``no`` and the reason why."""
    try:
        task = from_bytes(job)
        record = run_to_bytes(_run(task["name"], task, task["cases"]))
        if len(record) > MAXIMUM_BYTES - 4:
            raise _NoRun(f"your answers are too large to record ({len(record):,} bytes); return less")
        return b"run\n" + record
    except _NoRun as words:
        return b"no\n" + str(words).encode(errors="replace")


class _NoRun(Exception):
    """Why there is no run, as a sentence for the student."""


def _run(name: str, task: dict[str, Any], cases: list[Case]) -> Run:
    probe_space = _names() | {"build": build}
    exec(compile(task["probe"], "<probe>", "exec", flags=_FLAGS, dont_inherit=True), probe_space)
    answer, failures = _define(name, task["pieces"])
    done = run(probe_space[task["probe_name"]], cases, answer, seconds=task["seconds"])
    if failures and any(attempt.raised == "NameError" for attempt in done.attempts):
        raise _NoRun(failures[0])  # an import that fails here explains the name that is missing later
    return done


def _names() -> dict[str, Any]:
    """What probes and answers may use without an import."""
    return {"torch": torch, "nn": nn, "np": np, "math": math, "F": nn.functional, "Tensor": torch.Tensor}


def _define(name: str, pieces: list[Any]) -> tuple[Callable[..., Any], list[str]]:
    """The student's function, and a sentence for each definition of another cell that failed.

    Raises:
        _NoRun: a definition of the hole itself failed, or what it defines is no function.
    """
    module = types.ModuleType("submission")
    sys.modules["submission"] = module  # dataclasses look their module up
    vars(module).update(_names(), reveal=_Reveal())
    *others, hole = pieces
    failures = [words for piece in others for words in _execute(piece, vars(module))]
    for words in _execute(hole, vars(module)):
        raise _NoRun(words)
    answer = vars(module).get(name)
    if not callable(answer):
        raise _NoRun(f"{name} is a function; yours is a {type(answer).__name__}")
    return answer, failures


def _execute(piece: list[Any], space: dict[str, Any]) -> Iterator[str]:
    """Executes the kept statements of a cell, and yields a sentence for each that fails."""
    cell, text, keep = piece
    filename = f"<{cell}>"
    lines = text.splitlines(keepends=True)
    linecache.cache[filename] = (len(text), None, lines, filename)  # so that a message can quote the line
    body = ast.parse(text).body
    for statement in (body[place] for place in keep):
        try:
            alone = ast.Module([statement], [])
            exec(compile(alone, filename, "exec", flags=_FLAGS, dont_inherit=True), space)
        except BaseException as error:  # whatever a student's definitions may raise
            quoted = linecache.getline(filename, statement.lineno).strip()
            yield f"{cell} raises {said_by(error)}, in line {statement.lineno}: {quoted}"


class Revealed(Exception):
    """The hole asks for the published answer: that works in the notebook, and earns nothing here."""


class _Reveal:
    """``reveal.X()`` as in the notebook, but what it hands over only says that it was revealed."""

    def __getattr__(self, name: str) -> Callable[[], Callable[..., Any]]:
        def revealed(*_: Any, **__: Any) -> Any:
            raise Revealed(name)

        return lambda: revealed


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
