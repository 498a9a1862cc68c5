"""Call a student's function on an exercise's inputs and record what happened, without judging it.

Everything that the function does becomes data: what it returned, what it raised and where, whether it changed
its input, how much it printed, whether it returned in time. The same code runs in the notebook and in the
grader's worker process.
"""

from __future__ import annotations

import contextlib
import io
import linecache
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from compresslab.checks.exercise import Case, Record
from compresslab.checks.record import Recorded, describe, from_bytes, same, to_bytes
from compresslab.checks.withheld_calls import WithheldCalls
from compresslab.errors import DamagedFile

__all__ = ["Attempt", "Run", "TimeUp", "error_line", "run", "run_from_bytes", "run_to_bytes", "time_limit"]

SHOWN = 2_000  # characters of a student's own prints that are kept
ALLOWED = 1_000_000  # characters that may be printed at all


@dataclass(frozen=True)
class Attempt:
    """One case: the record, or why there is none.

    ``raised`` is the exception's class and ``words`` a sentence about it; ``changed`` names the argument that
    the function changed in place.
    """

    record: Record = field(default_factory=dict)
    raised: str = ""
    words: str = ""
    changed: str = ""

    def same(self, other: Attempt) -> bool:
        """Whether both attempts are equal, up to rounding."""
        alike = (self.raised, self.changed, self.record.keys()) == (
            other.raised,
            other.changed,
            other.record.keys(),
        )
        return alike and all(same(self.record[name], other.record[name]) for name in self.record)


@dataclass(frozen=True)
class Run:
    """The attempts on all cases, or on those before it stopped; ``stopped`` says why.

    ``failed`` quotes the statements that failed before the function was called, where a notebook was rebuilt;
    ``called`` names what it called and a lab withholds.
    """

    attempts: tuple[Attempt, ...]
    printed: str = ""
    characters: int = 0
    stopped: str = ""
    failed: tuple[str, ...] = ()
    called: str = ""


def run(
    probe: Callable[..., dict[str, Any]],
    cases: Sequence[Case],
    answer: Callable[..., Any],
    *,
    seconds: float,
    calls: WithheldCalls | None = None,
) -> Run:
    """Call ``probe(case, answer)`` on every case, within ``seconds`` altogether, and record what happens.

    Args:
        probe: of the exercise.
        cases: its inputs.
        answer: the student's function.
        seconds: the limit.
        calls: notes what the function calls and should not.
    """
    attempts: list[Attempt] = []
    calls = calls or WithheldCalls()
    sink = _Sink()
    stopped = ""
    try:
        with time_limit(seconds), _captured(sink):
            for _, inputs in cases:
                attempts.append(_attempt(probe, inputs, answer, calls))
                if attempts[-1].raised == "NotImplementedError":
                    break
    except TimeUp:
        stopped = f"your function did not return within {seconds:g} s"
    return Run(tuple(attempts), sink.getvalue(), sink.characters, stopped, called=calls.called)


def _attempt(
    probe: Callable[..., dict[str, Any]],
    inputs: dict[str, Any],
    answer: Callable[..., Any],
    calls: WithheldCalls,
) -> Attempt:
    watched = _Watched(answer, calls)
    try:
        values = probe(_copy(inputs), watched)
        return Attempt(
            record={name: describe(value) for name, value in values.items()}, changed=watched.changed
        )
    except (TimeUp, KeyboardInterrupt):  # the limit's, and the stop button's
        raise
    except BaseException as error:  # whatever else a student's code may raise
        return Attempt(raised=type(error).__name__, words=_sentence(error, answer))


class _Watched:
    """The student's function, and the name of the first argument that it changed in place."""

    def __init__(self, answer: Callable[..., Any], calls: WithheldCalls) -> None:
        self.answer = answer
        self.calls = calls
        self.changed = ""

    def __call__(self, *positional: Any, **named: Any) -> Any:
        arguments = {f"argument {place + 1}": value for place, value in enumerate(positional)} | named
        before = {name: _state(value) for name, value in arguments.items()}
        with self.calls:
            result = self.answer(*positional, **named)
        for name, value in arguments.items():
            if not self.changed and not same(before[name], _state(value)):
                self.changed = name
        return result


def _state(value: Any) -> Recorded:
    """Return a record of all that a function could change in a value."""
    if isinstance(value, nn.Module):
        hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in value.modules())
        modes = [module.training for module in value.modules()]
        return describe([dict(value.state_dict()), hooks, modes])
    if isinstance(value, torch.Tensor | list | tuple | dict):
        return describe(value)
    return Recorded("untouchable")


def _copy(value: Any) -> Any:
    """Return a copy of a case for one call; a tensor keeps its strides: transposed stays transposed."""
    if isinstance(value, torch.Tensor):
        return value.clone(memory_format=torch.preserve_format)
    if isinstance(value, dict):
        return {key: _copy(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copy(entry) for entry in value)
    return value


def error_line(error: BaseException) -> str:
    """Return an exception in one line, ``ValueError: boom``; never raises itself."""
    if isinstance(error, SystemExit):
        return "SystemExit: it calls sys.exit(), exit() or quit()"
    try:
        words = str(error).splitlines()[0][:200] if str(error) else ""
    except Exception:  # a student's exception may fail to print
        words = ""
    return type(error).__name__ + (f": {words}" if words else "")


def _sentence(error: BaseException, answer: Callable[..., Any]) -> str:
    """Return ``ValueError: … , in line 3 of your cell: return a / b``, without our files' traceback."""
    said = error_line(error)
    code = getattr(answer, "__code__", None)
    own = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if code is not None and f.filename == code.co_filename
    ]
    if not own:
        return said
    line = linecache.getline(own[-1].filename, own[-1].lineno or 0).strip()
    return f"{said}, in line {own[-1].lineno} of your cell" + (f": {line}" if line else "")


class _Sink(io.StringIO):
    """Keeps the beginning of what is printed, and counts the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.characters = 0

    def write(self, text: str) -> int:
        left = max(0, SHOWN - self.characters)
        self.characters += len(text)
        super().write(text[:left])
        return len(text)


@contextlib.contextmanager
def _captured(sink: _Sink) -> Iterator[None]:
    with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class TimeUp(BaseException):
    """Not an Exception, so that a student's ``except Exception`` does not swallow it."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise ``TimeUp`` in the main thread after this many seconds.

    Without an alarm signal (on Windows, or in another thread) nothing is raised: there Jupyter's stop button
    or the grader's own limit ends an endless loop.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: object) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.5)  # again, in case a bare except swallowed the first
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_to_bytes(done: Run) -> bytes:
    """Return a run as the bytes of one file without pickle."""
    attempts = [
        [dict(attempt.record), attempt.raised, attempt.words, attempt.changed] for attempt in done.attempts
    ]
    return to_bytes([attempts, done.printed, done.characters, done.stopped, list(done.failed)])


def run_from_bytes(content: bytes) -> Run:
    """Read the run that ``run_to_bytes`` wrote.

    Raises:
        CompressionError: the content is not such a file, or not of the form that it declares.
    """
    tree = from_bytes(content, trusted=False)
    try:
        attempts, printed, characters, stopped, failed = tree
        read = tuple(_read_attempt(*entry) for entry in attempts)
        return Run(read, _text(printed), int(characters), _text(stopped), tuple(map(_text, failed)))
    except (TypeError, ValueError, OverflowError) as error:
        raise DamagedFile(
            f"a record has another form than a worker writes ({error}); expected attempts, prints and a "
            "reason to stop; grade the submission again"
        ) from error


def _read_attempt(record: Any, raised: Any, words: Any, changed: Any) -> Attempt:
    if not isinstance(record, dict) or not all(isinstance(value, Recorded) for value in record.values()):
        raise TypeError("an attempt holds records alone")
    named = {str(name): value for name, value in record.items()}
    return Attempt(named, _text(raised), _text(words), _text(changed))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text is a {type(value).__name__}")
    return value[:SHOWN]
