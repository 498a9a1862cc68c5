"""Grades one submission: never runs the notebook, never judges where the student's code runs.

The grader draws the inputs from a secret seed, writes a job folder (inputs, the student's definitions, probes
as text) and starts a worker on it. The worker leaves records, numbers and words without pickle; judges and
named mistakes see those, here. So a student's code may patch, print, crash or loop as it likes: that can only
cost its own exercise.

What is left out: real isolation. A worker runs with the rights of whoever grades; ``worker_command`` is the
one place that builds its command line, where a sandbox can be put around it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import os
import queue
import secrets
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from compresslab.classroom.checking import NOT_WRITTEN, examine
from compresslab.classroom.exercise import Case, Exercise, Lab, draw_cases
from compresslab.classroom.grading.scores import EXIT_CODES, ExerciseScore, Score, score_table, write_results
from compresslab.classroom.grading.submission import Answer, Submission, read_submission
from compresslab.classroom.grading.worker import MARGIN
from compresslab.classroom.recording import MAXIMUM_BYTES, to_bytes
from compresslab.classroom.running import Run, run_from_bytes, said_by
from compresslab.errors import CompressionError, Wrong

__all__ = ["EXIT_CODES", "ExerciseScore", "Score", "grade", "score_table", "worker_command", "write_results"]

START_UP = 60.0  # seconds within which a worker has imported torch, on a slow disk too
FORKS = sys.platform.startswith("linux")  # elsewhere a fork after importing torch is not safe, or not there
REVEALED = "revealed: 0 points; write your own to earn them"
DIED = "your code ended its process before it returned (os._exit, a crash, too much memory); let it return"


def grade(lab: Lab, submission: str | Path, *, seed: int | None = None, fork: bool = FORKS) -> Score:
    """The score of one notebook; whatever it holds, this returns.

    Args:
        lab: whose exercises are graded.
        submission: the notebook file, called as it likes.
        seed: of the inputs; drawn in secret unless given. The same seed gives the same score.
        fork: whether one worker forks for every exercise, or each exercise has a worker of its own.
    """
    started = time.perf_counter()
    try:
        read = read_submission(submission, lab)
    except CompressionError as error:
        score = _ungraded(lab, "needs-review", str(error))
    else:
        try:
            score = _grade(lab, read, secrets.randbits(63) if seed is None else seed, fork)
        except Exception as error:  # a fault of ours is said to be ours, and is nobody's zero
            score = _ungraded(lab, "failed", f"the grader's own fault, not the student's: {said_by(error)}")
    return dataclasses.replace(score, execution_time=time.perf_counter() - started)


def _ungraded(lab: Lab, status: str, message: str) -> Score:
    tests = tuple(
        ExerciseScore(e.name, "fault", e.points, f"not graded: {message}", bonus=e.bonus)
        for e in lab.exercises
    )
    return Score(lab.name, status, tests, message, 0.0)


def _grade(lab: Lab, read: Submission, seed: int, fork: bool) -> Score:
    written = [answer for answer in read.answers if not answer.problem]
    cases = {answer.name: draw_cases(lab.exercise(answer.name), seed) for answer in written}
    outcomes = _run_answers(lab, written, cases, fork)
    tests = tuple(
        _mark(lab.exercise(answer.name), answer, cases.get(answer.name, []), outcomes.get(answer.name))
        for answer in read.answers
    )
    status, message = _summary(tests)
    return Score(lab.name, status, tests, message, 0.0, read.notes)


def _summary(tests: Sequence[ExerciseScore]) -> tuple[str, str]:
    faults = [test.name for test in tests if test.verdict == "fault"]
    if faults:
        return (
            "failed",
            f"the grader's own fault, not the student's, in {', '.join(faults)}; the score is not final",
        )
    written = [test for test in tests if test.verdict != "unwritten"]
    if written and all(test.verdict == "late" for test in written):
        return "needs-review", "every answer that is written ran out of time; somebody should look at it"
    return "graded", f"{sum(test.status == 'passed' for test in tests)} of {len(tests)} exercises are right"


# Judging: the record of an exercise becomes its score.


@dataclass(frozen=True)
class _Outcome:
    """What a worker left of one exercise: a run, or the sentence why there is none."""

    run: Run | None = None
    words: str = ""


def _mark(
    exercise: Exercise, answer: Answer, cases: Sequence[Case], outcome: _Outcome | None
) -> ExerciseScore:
    def mark(verdict: str, output: str, mistake: str = "") -> ExerciseScore:
        return ExerciseScore(exercise.name, verdict, exercise.points, output, mistake, exercise.bonus)

    if outcome is None or outcome.run is None:
        return mark("unwritten", answer.problem) if outcome is None else mark("wrong", outcome.words)
    raised = {attempt.raised for attempt in outcome.run.attempts}
    if raised & {"Revealed", "NotImplementedError"}:
        return mark("unwritten", REVEALED if "Revealed" in raised else NOT_WRITTEN)
    try:
        examine(exercise, cases, outcome.run)
    except Wrong as wrong:
        verdict = "late" if outcome.run.stopped else "wrong"
        hint = f"Hint on offer: {exercise.hints[0].symptom}" if exercise.hints else ""
        return mark(verdict, f"{wrong.reason}\n{hint}".strip(), str(wrong.details.get("mistake", "")))
    except Exception as error:  # a judge that crashes is our fault, whatever it was given
        return mark(
            "fault", f"the grader's own fault, not yours: {said_by(error)}; your teacher will look at it"
        )
    return mark("right", exercise.statement)


# Running: a job folder, workers until each exercise has had its turn, and what they left.


def worker_command(folder: Path, names: Sequence[str], *, fork: bool) -> list[str]:
    """The command line of a worker; ``-P`` keeps files that a student writes from being imported."""
    how = "fork" if fork else "here"
    return [sys.executable, "-P", "-m", "compresslab.classroom.grading.worker", str(folder), how, *names]


def _run_answers(
    lab: Lab, answers: Sequence[Answer], cases: Mapping[str, Sequence[Case]], fork: bool
) -> dict[str, _Outcome]:
    limits = {answer.name: lab.exercise(answer.name).seconds for answer in answers}
    ends: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="compresslab-", ignore_cleanup_errors=True) as place:
        folder = Path(place)
        _write_job(folder, lab, answers, cases)
        while waiting := [name for name in limits if name not in ends]:
            ends |= _run_worker(folder, waiting if fork else waiting[:1], limits, fork)
        return {name: _collect(folder, name, ends[name], limits[name]) for name in limits}


def _write_job(
    folder: Path, lab: Lab, answers: Sequence[Answer], cases: Mapping[str, Sequence[Case]]
) -> None:
    tasks = {}
    for answer in answers:
        exercise = lab.exercise(answer.name)
        tasks[answer.name] = {
            "seconds": exercise.seconds,
            "pieces": [[piece.cell, piece.text, piece.keep] for piece in answer.pieces],
            "probe": textwrap.dedent(inspect.getsource(exercise.probe)),
            "probe_name": exercise.probe.__name__,
        }
        (folder / f"{answer.name}.cases").write_bytes(to_bytes(list(cases[answer.name])))
    hidden = ["compresslab.classroom.desk", "compresslab.classroom.exercises", *lab.answers]
    (folder / "job.json").write_text(json.dumps({"hidden": hidden, "exercises": tasks}))


def _run_worker(
    folder: Path, names: Sequence[str], limits: Mapping[str, float], fork: bool
) -> dict[str, str]:
    """How each exercise that this worker came to has ended: ok, died or late.

    Raises:
        RuntimeError: the worker came to none.
    """
    with tempfile.TemporaryFile() as complaints:
        worker = subprocess.Popen(
            worker_command(folder, names, fork=fork), cwd=folder, env=_environment(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints, start_new_session=True,
        )  # fmt: skip
        try:
            ends = _follow(worker.stdout, names, limits)  # type: ignore[arg-type]
        finally:
            _kill(worker)
        if not ends:
            complaints.seek(0)
            last = complaints.read().decode(errors="replace").strip().splitlines()[-1:]
            raise RuntimeError(f"the worker did not start ({''.join(last) or 'no word from it'})")
        return ends


def _follow(progress: IO[str], names: Sequence[str], limits: Mapping[str, float]) -> dict[str, str]:
    """Reads the worker's progress, until it ends or falls silent for longer than it may."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in progress:
                lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    ends: dict[str, str] = {}
    running = ""
    while len(ends) < len(names):
        try:
            line = lines.get(timeout=limits[running] + 2 * MARGIN if running else START_UP)
        except queue.Empty:
            return ends | ({running: "late"} if running else {})
        match line.split():
            case ["started", name] if name in names:
                running = name
            case ["ended", name, end] if name == running:
                ends[name] = end
                running = ""
            case []:
                return ends | ({running: "died"} if running else {})
    return ends


def _kill(worker: subprocess.Popen[str]) -> None:
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.kill()
    worker.wait()
    if worker.stdout is not None:
        worker.stdout.close()


def _environment() -> dict[str, str]:
    """What a worker needs of ours; a student's code has no business with the rest."""
    keep = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR")
    ours = {name: os.environ[name] for name in keep if name in os.environ}
    root = str(Path(__file__).resolve().parents[2])
    return ours | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def _collect(folder: Path, name: str, end: str, seconds: float) -> _Outcome:
    """Reads what the worker left, and trusts none of it."""
    if end == "late":
        return _Outcome(Run((), stopped=f"your function did not return within {seconds:g} s"))
    record = _left(folder / f"{name}.run") if end == "ok" else None
    if record is not None:
        try:
            return _Outcome(run_from_bytes(record))
        except CompressionError:
            return _Outcome(words="your code left a record that can't be read; return numbers or tensors")
    words = _left(folder / f"{name}.words") if end == "ok" else None
    return _Outcome(words=DIED if words is None else words[:1_000].decode(errors="replace"))


def _left(place: Path) -> bytes | None:
    """The content of an ordinary file of a bearable size, never of a link."""
    flags = (
        os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    try:
        with open(os.open(place, flags), "rb") as file:
            ordinary = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            content = file.read(MAXIMUM_BYTES + 1) if ordinary else b""
    except OSError:
        return None
    return content if ordinary and len(content) <= MAXIMUM_BYTES else None
