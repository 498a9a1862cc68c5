"""A class: every submission of an inbox becomes a score on disk, and none is lost on the way.

Each submission is one task of a pool of workers. Its result is written the moment that it ends, whole or not
at all, by this process alone; so an interrupted class goes on where it was, and a changed notebook or bundle
is graded anew. Whatever happens to one submission is said in its own score.
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

from compresslab.checks.call import said_by
from compresslab.errors import BadSetting, CompressionError
from compresslab.grading.bundle import Bundle, grading_digest
from compresslab.grading.grade import ungraded
from compresslab.grading.reports.feedback import feedback_html
from compresslab.grading.reports.reports import write_reports
from compresslab.grading.scores import (
    RESULTS,
    Score,
    read_results,
    score_of,
    write_results,
    write_whole,
)
from compresslab.grading.submission.cells import submitted_bytes
from compresslab.grading.submission.inbox import Submitted
from compresslab.grading.warm_workers import grade_at_desk
from compresslab.jobs.executor import Pool, WorkerDied, run_all

__all__ = ["STUDENTS", "grade_class"]

STUDENTS = "students"  # in the results: a folder a student


def grade_class(
    bundle: Bundle,
    submitted: Sequence[Submitted],
    out: Path,
    *,
    pool: Pool,
    isolated: bool,
    task: Callable[..., bytes] = grade_at_desk,
) -> dict[str, Score]:
    """Every student's score, in the order of the names; on disk too, with feedback and the class's reports.

    A result that is there already is kept if it came from the same bundle, bytes and isolation, unless the
    grader itself had failed. On a terminal a bar shows how far the class is.

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
    _refuse_namesakes(submitted)
    grading = _Grading(bundle, out, isolated)
    results = {each.student: score for each in submitted if (score := grading.settled(each)) is not None}
    missing = [each for each in submitted if each.student not in results]
    handed = pool.send_folder(bundle.folder) if missing else None

    def start(executor: Executor, each: Submitted) -> Future:
        return executor.submit(task, handed, bundle.digest, *grading.read(each), isolated)

    bar = tqdm(desc=bundle.lab.name, total=len(submitted), initial=len(results), unit="student", disable=None)
    with bar, closing(run_all(missing, start, pool)) as ended:
        for each, outcome in ended:
            results[each.student] = grading.keep(each, grading.score(each, outcome))
            bar.update()
    ordered = dict(sorted(results.items()))
    write_reports(ordered, bundle.lab, out)
    return ordered


@dataclass(frozen=True)
class _Grading:
    """One class being graded; ``digests`` says which bytes of a student were handed out."""

    bundle: Bundle
    out: Path
    isolated: bool
    digests: dict[str, str] = field(default_factory=dict)

    def settled(self, each: Submitted) -> Score | None:
        """The score of what needs no task: a problem, or a result that is there; None where there is none."""
        if each.problem:
            return self.keep(each, self.ungraded("needs-review", each.problem))
        try:
            self.read(each)
        except CompressionError as error:
            return self.keep(each, self.ungraded("needs-review", str(error)))
        try:
            there = read_results(self.out / STUDENTS / each.student / RESULTS)
        except CompressionError:  # none yet, or a damaged one
            return None
        if there.lab != self.bundle.lab.name:
            raise BadSetting(
                f"{self.out} holds results of lab {there.lab}, this is {self.bundle.lab.name}; expected a "
                "folder for each lab; give another --out"
            )
        same = there.graded_from == self.digests[each.student]
        return there if same and there.status in ("graded", "needs-review") else None

    def read(self, each: Submitted) -> tuple[str, bytes]:
        """The name and the bytes of the submitted file, as they are now."""
        content = submitted_bytes(each.path)
        self.digests[each.student] = grading_digest(self.bundle, content, isolated=self.isolated)
        return each.path.name, content

    def score(self, each: Submitted, outcome: Any) -> Score:
        """What a task has returned, or a sentence about what has become of it; such a one is tried again."""
        if isinstance(outcome, WorkerDied):
            return self.ungraded(
                "needs-review", f"{outcome}; somebody should look at it; grade again to retry"
            )
        try:
            if isinstance(outcome, Exception):
                raise outcome
            score = score_of(json.loads(outcome))
        except Exception as error:  # a fault of ours is said to be ours, and is nobody's zero
            return self.ungraded("failed", f"the grader's own fault, not the student's: {said_by(error)}")
        return dataclasses.replace(score, graded_from=self.digests[each.student])

    def keep(self, each: Submitted, score: Score) -> Score:
        """The score, written; its ``results.json`` last, since that says that all is there."""
        folder = self.out / STUDENTS / each.student
        write_whole(folder / "feedback.html", feedback_html(each.student, score, self.bundle.lab))
        write_results(score, folder)
        return score

    def ungraded(self, status: str, message: str) -> Score:
        return dataclasses.replace(ungraded(self.bundle.lab, status, message), isolated=self.isolated)


def _refuse_namesakes(submitted: Sequence[Submitted]) -> None:
    student, times = Counter(each.student for each in submitted).most_common(1)[0] if submitted else ("", 0)
    if times > 1:
        raise BadSetting(
            f"{student} is there {times} times; expected one submission a student; name them apart"
        )
