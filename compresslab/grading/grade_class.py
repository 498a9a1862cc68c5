"""Grade a class: every submission becomes a result on disk, and none is lost.

Each submission is one task of a pool of workers. Its result is written as soon as the task ends, complete or
not at all, by this process alone. So an interrupted class continues where it was, and a notebook or a bundle
that has changed is graded again. Whatever goes wrong with one submission is reported in its own score.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from compresslab.checks.call import error_line
from compresslab.errors import BadSetting, CompressionError
from compresslab.grading.bundle import Bundle, grading_digest
from compresslab.grading.class_task import grade_task
from compresslab.grading.grade import GRADERS_ERROR, ungraded
from compresslab.grading.reports.feedback import feedback_html
from compresslab.grading.reports.reports import write_reports
from compresslab.grading.scores import (
    RESULTS,
    Score,
    Status,
    read_results,
    score_of,
    write_results,
    write_whole,
)
from compresslab.grading.submission.inbox import Submitted
from compresslab.jobs.executor import Pool, WorkerDied, run_all

__all__ = ["STUDENTS", "grade_class"]

STUDENTS = "students"  # in the results: one folder per student


def grade_class(
    bundle: Bundle,
    submitted: Sequence[Submitted],
    out: Path,
    *,
    pool: Pool,
    isolated: bool,
    task: Callable[..., bytes] = grade_task,
) -> dict[str, Score]:
    """Return each student's score, in the order of the names; write results, feedback and reports.

    An existing result is kept if it came from the same bundle, file and isolation, unless the grader itself
    had failed. On a terminal a bar shows the progress.

    Args:
        bundle: of the lab.
        submitted: what ``find_submissions`` found.
        out: the folder of the results; ``students/NAME/`` in it for each student.
        pool: what runs the tasks.
        isolated: whether the students' code runs in a sandbox.
        task: what the pool runs; only a test has its own.

    Raises:
        CompressionError: the results can't be written, or two submissions have one student's name.
    """
    _refuse_duplicates(submitted)
    grading = _ClassGrading(bundle, out, isolated)
    results = {each.student: score for each in submitted if (score := grading.without_task(each)) is not None}
    missing = [each for each in submitted if each.student not in results]
    sent = pool.send_folder(bundle.folder) if missing else None

    def submit(executor: Executor, each: Submitted) -> Future:
        return executor.submit(task, sent, bundle.digest, *grading.read(each), isolated)

    bar = tqdm(desc=bundle.lab.name, total=len(submitted), initial=len(results), unit="student", disable=None)
    with bar, closing(run_all(missing, submit, pool)) as ended:
        for each, outcome in ended:
            results[each.student] = grading.write(each, grading.score(each, outcome))
            bar.update()
    ordered = dict(sorted(results.items()))
    write_reports(ordered, bundle.lab, out)
    return ordered


@dataclass(frozen=True)
class _ClassGrading:
    """A class that is being graded; ``digests`` keeps, per student, which bytes were sent to a task."""

    bundle: Bundle
    out: Path
    isolated: bool
    digests: dict[str, str] = field(default_factory=dict)

    def without_task(self, each: Submitted) -> Score | None:
        """Return the score of a submission that needs no task: it has a problem, or a result; else None."""
        if each.problem:
            return self.write(each, self.ungraded(Status.NEEDS_REVIEW, each.problem))
        try:
            self.read(each)
        except CompressionError as error:
            return self.write(each, self.ungraded(Status.NEEDS_REVIEW, str(error)))
        try:
            existing = read_results(self.out / STUDENTS / each.student / RESULTS)
        except CompressionError:  # none yet, or a damaged one
            return None
        if existing.lab != self.bundle.lab.name:
            raise BadSetting(
                f"--out {self.out} holds results of lab {existing.lab}, this is {self.bundle.lab.name}; "
                "expected a folder for each lab; give another --out"
            )
        same = existing.graded_from == self.digests[each.student]
        if not same or existing.status == Status.FAILED:
            return None
        return existing if _noted(existing, each) == existing else self.write(each, existing)

    def read(self, each: Submitted) -> tuple[str, bytes]:
        """Return the name and the bytes of the submitted file, as they are now."""
        content = each.content()
        self.digests[each.student] = grading_digest(self.bundle, content, isolated=self.isolated)
        return each.name, content

    def score(self, each: Submitted, outcome: Any) -> Score:
        """Return the score that a task returned, or one that says what went wrong, to be tried again."""
        if isinstance(outcome, WorkerDied):
            return self.ungraded(
                Status.NEEDS_REVIEW, f"{outcome}; somebody should look at it; grade again to retry"
            )
        try:
            if isinstance(outcome, Exception):
                raise outcome
            score = score_of(json.loads(outcome))
        except Exception as error:  # the grader's error: said so, and never a student's zero
            return self.ungraded(Status.FAILED, f"{GRADERS_ERROR}: {error_line(error)}")
        return dataclasses.replace(score, graded_from=self.digests[each.student])

    def write(self, each: Submitted, score: Score) -> Score:
        """Write feedback and ``results.json``, that one last: where it exists, the result is complete."""
        folder = self.out / STUDENTS / each.student
        score = _noted(score, each)
        write_whole(folder / "feedback.html", feedback_html(each.student, score, self.bundle.lab))
        write_results(score, folder)
        return score

    def ungraded(self, status: Status, message: str) -> Score:
        return dataclasses.replace(ungraded(self.bundle.lab, status, message), isolated=self.isolated)


def _noted(score: Score, each: Submitted) -> Score:
    """Return the score with a note which of a student's submissions was graded, if there were several."""
    if not each.note or each.note in score.notes:
        return score
    return dataclasses.replace(
        score, message=f"{score.message}; {each.note}", notes=(each.note, *score.notes)
    )


def _refuse_duplicates(submitted: Sequence[Submitted]) -> None:
    student, times = Counter(each.student for each in submitted).most_common(1)[0] if submitted else ("", 0)
    if times > 1:
        raise BadSetting(
            f"the student {student} has {times} submissions; expected one per student; rename the others"
        )
