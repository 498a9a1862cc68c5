"""Grade one submission: the notebook is never run, and nothing is judged where the student's code runs.

The grader draws the inputs from a secret seed and sends a worker one job per exercise: inputs, the student's
definitions, the probe as text. The worker returns records, which are numbers and texts without pickle; here
judges and named mistakes see those. So a student's code may patch, print, crash or loop: it can only lose the
points of its own exercise.
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

from compresslab.checks.call import Run, error_line, run, run_from_bytes
from compresslab.checks.exercise import Case, Exercise, Lab, draw_cases
from compresslab.checks.judge import NOT_WRITTEN, examine
from compresslab.checks.published import published_module
from compresslab.errors import CompressionError, WrongAnswer
from compresslab.grading.bundle import Bundle, grading_digest, make_bundle
from compresslab.grading.sandbox.messages import Ending, Reply
from compresslab.grading.sandbox.worker_client import FORKS, WorkerClient
from compresslab.grading.scores import ExerciseScore, Score, Status, Verdict
from compresslab.grading.submission.answers import Answer, read_submission
from compresslab.grading.submission.cells import submitted_bytes

__all__ = ["GRADERS_ERROR", "grade", "grade_alone", "grade_content", "ungraded"]

GRADERS_ERROR = "the grader's own error, not the student's"

REVEALED = "revealed: 0 points; write your own to earn them"
DIED = "your code ended its process before it returned (os._exit, a crash, too much memory); let it return"
TOO_MUCH_MEMORY = "your code took more memory than it may have; a right answer needs a small part of that"
UNREADABLE = "your code left a record that can't be read; return numbers or tensors"


def grade(bundle: Bundle, submission: str | Path, *, worker: WorkerClient, seed: int | None = None) -> Score:
    """Return the score of one notebook, whatever the file holds.

    Args:
        bundle: whose exercises are graded.
        submission: the notebook file, whatever its name.
        worker: where the student's code runs.
        seed: of the inputs; by default derived from the bundle's key and the file, so that the same file
            always gets the same score.
    """
    started = time.perf_counter()
    try:
        content = submitted_bytes(Path(submission))
    except CompressionError as error:
        return ungraded(bundle.lab, Status.NEEDS_REVIEW, str(error), time.perf_counter() - started)
    return grade_content(bundle, content, worker=worker, path=Path(submission).name, seed=seed)


def grade_content(
    bundle: Bundle, content: bytes, *, worker: WorkerClient, path: str, seed: int | None = None
) -> Score:
    """Return the score of a notebook's content, as ``grade`` does; messages call the file ``path``."""
    started = time.perf_counter()
    try:
        score = _grade(bundle, content, worker, path, bundle.seed(content) if seed is None else seed)
    except CompressionError as error:
        score = ungraded(bundle.lab, Status.NEEDS_REVIEW, str(error))
    except Exception as error:  # the grader's error: said so, and never a student's zero
        score = ungraded(bundle.lab, Status.FAILED, f"{GRADERS_ERROR}: {error_line(error)}")
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
    """Return the score, as ``grade`` does, with a new bundle and worker, and so with new secret inputs.

    Not isolated: the code has the grader's rights. For one's own notebook, or a trusted one.
    """
    with tempfile.TemporaryDirectory(prefix="compresslab-", ignore_cleanup_errors=True) as place:
        bundle = make_bundle(lab, Path(place))
        with WorkerClient(bundle, isolated=False, fork=fork) as worker:
            return grade(bundle, submission, worker=worker, seed=seed)


def ungraded(lab: Lab, status: Status, message: str, seconds: float = 0.0) -> Score:
    """Return the score of a submission that could not be graded: the reason, for every exercise."""
    tests = tuple(
        ExerciseScore(e.name, Verdict.FAULT, e.points, f"not graded: {message}", bonus=e.bonus)
        for e in lab.exercises
    )
    return Score(lab.name, status, tests, message, seconds)


def _grade(bundle: Bundle, content: bytes, worker: WorkerClient, path: str, seed: int) -> Score:
    lab = bundle.lab
    read = read_submission(content, lab, path=path, skeleton=bundle.skeleton, names=bundle.names)
    tests = tuple(_grade_answer(lab, answer, worker, seed) for answer in read.answers)
    status, message = _summary(tests, read.unread)
    return Score(lab.name, status, tests, message, 0.0, read.notes)


def _grade_answer(lab: Lab, answer: Answer, worker: WorkerClient, seed: int) -> ExerciseScore:
    exercise = lab.exercise(answer.name)
    if answer.problem:
        return _score(exercise, answer, [], None)
    cases = draw_cases(exercise, seed)
    return _score(
        exercise, answer, cases, _outcome(*worker.run(_job(lab, exercise, answer, cases)), exercise)
    )


def _summary(tests: Sequence[ExerciseScore], unread: str) -> tuple[Status, str]:
    faults = [test.name for test in tests if test.verdict == Verdict.FAULT]
    if faults:
        return (
            Status.FAILED,
            f"{GRADERS_ERROR}, in {', '.join(faults)}; the score is not final",
        )
    if unread and any(test.verdict == Verdict.WRONG for test in tests):
        return Status.NEEDS_REVIEW, unread
    written = [test for test in tests if test.verdict != Verdict.UNWRITTEN]
    if written and all(test.verdict == Verdict.LATE for test in written):
        return Status.NEEDS_REVIEW, "every answer that is written ran out of time; somebody should look at it"
    return (
        Status.GRADED,
        f"{sum(test.status == 'passed' for test in tests)} of {len(tests)} exercises are right",
    )


# Judging: from the record of an exercise to its score.


@dataclass(frozen=True)
class _Outcome:
    """What a worker returned for one exercise: a run, or the sentence why there is none."""

    run: Run | None = None
    words: str = ""


def _score(
    exercise: Exercise, answer: Answer, cases: Sequence[Case], outcome: _Outcome | None
) -> ExerciseScore:
    if outcome is None:
        verdict = Verdict.WRONG if answer.written else Verdict.UNWRITTEN
        output, mistake = answer.problem, ""
    elif outcome.run is None:
        verdict, output, mistake = Verdict.WRONG, outcome.words, ""
    else:
        verdict, output, mistake = _judged(exercise, cases, outcome.run)
    return ExerciseScore(exercise.name, verdict, exercise.points, output, mistake, exercise.bonus)


def _judged(exercise: Exercise, cases: Sequence[Case], done: Run) -> tuple[Verdict, str, str]:
    """Return the verdict on a run, the text for the student, and the title of the mistake."""
    raised = {attempt.raised for attempt in done.attempts}
    if raised & {"Revealed", "NotImplementedError"}:
        return Verdict.UNWRITTEN, REVEALED if "Revealed" in raised else NOT_WRITTEN, ""
    try:
        examine(exercise, cases, done)
    except WrongAnswer as wrong:
        verdict = Verdict.LATE if done.stopped else Verdict.WRONG
        hint = f"Hint on offer: {exercise.hints[0].symptom}" if exercise.hints else ""
        words = "\n".join(filter(None, (wrong.reason, *done.failed[:3], hint)))
        return verdict, words, str(wrong.details.get("mistake", ""))
    except Exception as error:  # a judge crashes: on a record that no probe writes, or by an error of ours
        if _accepts_right_answer(exercise, cases):
            return Verdict.WRONG, UNREADABLE, ""
        words = f"the grader's own error, not yours: {error_line(error)}; your teacher will look at it"
        return Verdict.FAULT, words, ""
    return Verdict.RIGHT, exercise.statement, ""


def _accepts_right_answer(exercise: Exercise, cases: Sequence[Case]) -> bool:
    """Whether the judge accepts a right answer to these very cases."""
    try:
        examine(exercise, cases, run(exercise.probe, cases, exercise.right[0], seconds=exercise.seconds))
    except Exception:
        return False
    return True


# Running: what a worker is sent, and what it returned.


def _job(lab: Lab, exercise: Exercise, answer: Answer, cases: Sequence[Case]) -> dict[str, Any]:
    """Return all that a worker is sent: no seed, no judge, no right answer, no mistake."""
    return {
        "name": exercise.name,
        "seconds": exercise.seconds,
        "pieces": [[piece.cell, piece.text, list(piece.keep)] for piece in answer.pieces],
        "target": answer.target,
        "published": {each: published_module(lab.exercise(each)) for each in answer.revealed},
        "probe": textwrap.dedent(inspect.getsource(exercise.probe)),
        "probe_name": exercise.probe.__name__,
        "cases": list(cases),
    }


def _outcome(ending: Ending, left: bytes, exercise: Exercise) -> _Outcome:
    """Read what an answer left, and trust none of it."""
    if ending == Ending.LATE:
        return _Outcome(Run((), stopped=f"your function did not return within {exercise.seconds:g} s"))
    if ending != Ending.OK:
        return _Outcome(words=TOO_MUCH_MEMORY if ending == Ending.MEMORY else DIED)
    reply, _, content = left.partition(b"\n")
    if reply == Reply.NO.encode():
        return _Outcome(words=content[:1_000].decode(errors="replace"))
    try:
        return _Outcome(run_from_bytes(content if reply == Reply.RUN.encode() else b""))
    except CompressionError:
        return _Outcome(words=UNREADABLE)
