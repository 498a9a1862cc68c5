"""Runs students' answers, a process each.

The job is a folder: ``job.json`` (sources and limits) and ``NAME.cases``. What comes back is ``NAME.run``,
records without pickle, or ``NAME.words``, the sentence why there is no run. The worker never sees a seed, a
judge, a right answer or a mistake. It imports torch once and forks for each exercise, so that a student's
endless loop, crash or patched builtin ends with that child. What became of each child is told on the worker's
own stdout, which no child holds:

    started NAME
    ended NAME ok | died | late

Where forking is not safe (Windows, macOS) the grader starts a worker an exercise, which runs it ``here``.
"""

from __future__ import annotations
import __future__

import ast
import contextlib
import ctypes
import json
import linecache
import math
import os
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from compresslab.classroom.exercise import Case
from compresslab.classroom.networks import build
from compresslab.classroom.recording import MAXIMUM_BYTES, from_bytes
from compresslab.classroom.running import Run, run, run_to_bytes, said_by

__all__ = ["MARGIN", "Revealed", "main"]

MARGIN = 2.0  # seconds beyond an exercise's own limit: for its definitions, and for what swallows the limit
MAXIMUM_MEMORY = 8 * 2**30  # bytes of address space, beside what torch itself has mapped
_FLAGS = __future__.annotations.compiler_flag  # a name missing in an annotation alone costs nobody anything


def main(folder: Path, names: Sequence[str], *, fork: bool) -> None:
    """Runs these exercises of the job in their order."""
    progress = os.fdopen(os.dup(1), "w", buffering=1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)  # whatever is printed from here on goes nowhere
    torch.set_num_threads(1)
    job = json.loads((folder / "job.json").read_text())
    _hide(job["hidden"])
    for name in names:
        progress.write(f"started {name}\n")
        task = job["exercises"][name]
        if fork:
            end = _in_a_child(folder, name, task, nothing, progress.fileno())
        else:
            os.dup2(nothing, 2)
            _limit(task["seconds"])
            _here(folder, name, task)
            end = "ok"
        progress.write(f"ended {name} {end}\n")


def _hide(modules: Sequence[str]) -> None:
    """Takes the answers away: importing these modules fails, and no package holds them or their names."""
    for module in modules:
        sys.modules[module] = None  # type: ignore[assignment]
    for package in [value for name, value in sys.modules.items() if name.startswith("compresslab") and value]:
        for name, value in list(vars(package).items()):
            home = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "")
            if home in modules:
                delattr(package, name)


def _in_a_child(folder: Path, name: str, task: dict[str, Any], nothing: int, progress: int) -> str:
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            os.close(progress)
            os.dup2(nothing, 2)
            _limit(task["seconds"])
            _here(folder, name, task)
            os._exit(0)
        finally:
            os._exit(1)
    with contextlib.suppress(OSError):  # the child may have done it, or be gone
        os.setpgid(child, child)
    end = _wait(child, task["seconds"] + MARGIN)
    with contextlib.suppress(OSError):  # also whatever it left running in its group
        os.killpg(child, signal.SIGKILL)
    if end == "late":
        os.waitpid(child, 0)
    return end


def _wait(child: int, seconds: float) -> str:
    """How the child ended: ``ok``, ``died``, or ``late`` when it still runs after so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return "ok" if status == 0 else "died"
        time.sleep(0.003)
    return "late"


def _limit(seconds: float) -> None:
    """Limits on memory, file size and processor time, where there are such; and no life after the worker."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    with contextlib.suppress(ImportError):
        import resource

        processor = math.ceil(seconds + MARGIN) + 1
        limits = {"AS": _mapped() + MAXIMUM_MEMORY, "FSIZE": MAXIMUM_BYTES, "CPU": processor, "CORE": 0}
        for limit, most in limits.items():
            with contextlib.suppress(AttributeError, OSError, ValueError):
                resource.setrlimit(getattr(resource, f"RLIMIT_{limit}"), (most, most))


def _mapped() -> int:
    """Bytes of address space in use already: torch's libraries alone may take several GB of it."""
    with contextlib.suppress(OSError, ValueError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _here(folder: Path, name: str, task: dict[str, Any]) -> None:
    """Runs one exercise in this very process and writes the record, or the reason why there is none."""
    try:
        cases = from_bytes((folder / f"{name}.cases").read_bytes())
        record = run_to_bytes(_run(name, task, cases))
        if len(record) > MAXIMUM_BYTES:
            raise _NoRun(f"your answers are too large to record ({len(record):,} bytes); return less")
        _write(folder / f"{name}.run", record)
    except _NoRun as words:
        _write(folder / f"{name}.words", str(words).encode(errors="replace"))


class _NoRun(Exception):
    """Why there is no run, as a sentence for the student."""


def _write(place: Path, content: bytes) -> None:
    unfinished = place.with_suffix(".unfinished")
    unfinished.write_bytes(content)
    os.replace(unfinished, place)


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
    main(Path(sys.argv[1]), sys.argv[3:], fork=sys.argv[2] == "fork")
