"""Grades one submission: never runs the notebook, never judges where the student's code runs.

The grader draws the inputs from a secret seed and sends a worker one job an exercise: inputs, the student's
definitions, the probe as text. The worker leaves records, numbers and words without pickle; judges and named
mistakes see those, here. So a student's code may patch, print, crash or loop as it likes: that can only cost
its own exercise.
"""

from __future__ import annotations

import dataclasses
import inspect
import tempfile
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compresslab.checks.call import Run, run, run_from_bytes, said_by
from compresslab.checks.exercise import Case, Exercise, Lab, draw_cases
from compresslab.checks.judge import NOT_WRITTEN, examine
from compresslab.errors import CompressionError, WrongAnswer
from compresslab.grading.bundle import Bundle, grading_digest, make_bundle
from compresslab.grading.sandbox.worker_client import FORKS, WorkerClient
from compresslab.grading.scores import ExerciseScore, Score
from compresslab.grading.submission.answers import Answer, read_submission
from compresslab.grading.submission.cells import submitted_bytes

__all__ = ["grade", "grade_alone", "grade_content", "ungraded"]

REVEALED = "revealed: 0 points; write your own to earn them"
DIED = "your code ended its process before it returned (os._exit, a crash, too much memory); let it return"
TOO_MUCH = "your code took more memory than there is for it; a right answer needs a small part of that"
UNREADABLE = "your code left a record that can't be read; return numbers or tensors"


def grade(bundle: Bundle, submission: str | Path, *, worker: WorkerClient, seed: int | None = None) -> Score:
    """The score of one notebook; whatever it holds, this returns.

    Args:
        bundle: whose exercises are graded.
        submission: the notebook file, called as it likes.
        worker: where the student's code runs.
        seed: of the inputs; by default it follows from the bundle's key and the file, so that the same file
            always gets the same score.
    """
    started = time.perf_counter()
    try:
        content = submitted_bytes(Path(submission))
    except CompressionError as error:
        return ungraded(bundle.lab, "needs-review", str(error), time.perf_counter() - started)
    return grade_content(bundle, content, worker=worker, path=Path(submission).name, seed=seed)


def grade_content(
    bundle: Bundle, content: bytes, *, worker: WorkerClient, path: str, seed: int | None = None
) -> Score:
    """As ``grade``, of a file's content; ``path`` is what it is called in messages."""
    started = time.perf_counter()
    try:
        score = _grade(bundle, content, worker, path, bundle.seed(content) if seed is None else seed)
    except CompressionError as error:
        score = ungraded(bundle.lab, "needs-review", str(error))
    except Exception as error:  # a fault of ours is said to be ours, and is nobody's zero
        score = ungraded(bundle.lab, "failed", f"the grader's own fault, not the student's: {said_by(error)}")
    return dataclasses.replace(
        score,
        execution_time=time.perf_counter() - started,
        isolated=worker.isolated,
        graded_from=grading_digest(bundle, content, isolated=worker.isolated),
    )


def grade_alone(
    lab: Lab,
    submission: str | Path,
    *,
    seed: int | None = None,
    fork: bool = FORKS,
) -> Score:
    """As ``grade``, with a bundle and worker for this submission alone; its inputs are drawn in secret.

    Without isolation: the code has the grader's rights. For one's own notebook, or a trusted one.
    """
    with tempfile.TemporaryDirectory(prefix="compresslab-", ignore_cleanup_errors=True) as place:
        bundle = make_bundle(lab, Path(place))
        with WorkerClient(bundle, isolated=False, fork=fork) as worker:
            return grade(bundle, submission, worker=worker, seed=seed)


def ungraded(lab: Lab, status: str, message: str, seconds: float = 0.0) -> Score:
    """The score of a submission that could not be graded: no points, and the reason, for every exercise."""
    tests = tuple(
        ExerciseScore(e.name, "fault", e.points, f"not graded: {message}", bonus=e.bonus)
        for e in lab.exercises
    )
    return Score(lab.name, status, tests, message, seconds)


def _grade(bundle: Bundle, content: bytes, worker: WorkerClient, path: str, seed: int) -> Score:
    lab = bundle.lab
    read = read_submission(content, lab, path=path, skeleton=bundle.skeleton, names=bundle.names)
    tests = tuple(_grade_answer(lab.exercise(answer.name), answer, worker, seed) for answer in read.answers)
    status, message = _summary(tests)
    return Score(lab.name, status, tests, message, 0.0, read.notes)


def _grade_answer(exercise: Exercise, answer: Answer, worker: WorkerClient, seed: int) -> ExerciseScore:
    if answer.problem:
        return _mark(exercise, answer, [], None)
    cases = draw_cases(exercise, seed)
    return _mark(exercise, answer, cases, _outcome(*worker.run(_job(exercise, answer, cases)), exercise))


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
        if outcome is not None:
            return mark("wrong", outcome.words)
        return mark("wrong" if answer.written else "unwritten", answer.problem)
    raised = {attempt.raised for attempt in outcome.run.attempts}
    if raised & {"Revealed", "NotImplementedError"}:
        return mark("unwritten", REVEALED if "Revealed" in raised else NOT_WRITTEN)
    try:
        examine(exercise, cases, outcome.run)
    except WrongAnswer as wrong:
        verdict = "late" if outcome.run.stopped else "wrong"
        hint = f"Hint on offer: {exercise.hints[0].symptom}" if exercise.hints else ""
        return mark(verdict, f"{wrong.reason}\n{hint}".strip(), str(wrong.details.get("mistake", "")))
    except Exception as error:  # a judge crashes: of a record that no probe writes, or by a fault of ours
        if _judges(exercise, cases):
            return mark("wrong", UNREADABLE)
        return mark(
            "fault", f"the grader's own fault, not yours: {said_by(error)}; your teacher will look at it"
        )
    return mark("right", exercise.statement)


def _judges(exercise: Exercise, cases: Sequence[Case]) -> bool:
    """Whether the judge knows a right answer to these very cases."""
    try:
        examine(exercise, cases, run(exercise.probe, cases, exercise.right[0], seconds=exercise.seconds))
    except Exception:
        return False
    return True


# Running: what a worker is sent, and what it left.


def _job(exercise: Exercise, answer: Answer, cases: Sequence[Case]) -> dict[str, Any]:
    """All that a worker is told: no seed, no judge, no right answer, no mistake."""
    return {
        "name": exercise.name,
        "seconds": exercise.seconds,
        "pieces": [[piece.cell, piece.text, list(piece.keep)] for piece in answer.pieces],
        "probe": textwrap.dedent(inspect.getsource(exercise.probe)),
        "probe_name": exercise.probe.__name__,
        "cases": list(cases),
    }


def _outcome(end: str, left: bytes, exercise: Exercise) -> _Outcome:
    """Reads what an answer left, and trusts none of it."""
    if end == "late":
        return _Outcome(Run((), stopped=f"your function did not return within {exercise.seconds:g} s"))
    if end != "ok":
        return _Outcome(words=TOO_MUCH if end == "memory" else DIED)
    kind, _, content = left.partition(b"\n")
    if kind == b"no":
        return _Outcome(words=content[:1_000].decode(errors="replace"))
    try:
        return _Outcome(run_from_bytes(content if kind == b"run" else b""))
    except CompressionError:
        return _Outcome(words=UNREADABLE)
