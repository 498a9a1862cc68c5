"""One call of ``compresslab grade``: which bundle, isolated or not, by whom, one notebook or a class."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from rich.text import Text

from compresslab.checks.exercise import Lab
from compresslab.course import find_lab
from compresslab.errors import BadSetting, NotAvailable
from compresslab.grading.bundle import Bundle, make_bundle, open_bundle
from compresslab.grading.class_run import grade_class
from compresslab.grading.grade import grade
from compresslab.grading.reports.feedback import feedback_html
from compresslab.grading.sandbox.self_test import run_self_test
from compresslab.grading.sandbox.worker_client import WorkerClient
from compresslab.grading.scores import Score, plain, write_results, write_whole
from compresslab.grading.submission.inbox import find_submissions
from compresslab.grading.warm_workers import close_desks
from compresslab.jobs.executor import open_pool

__all__ = [
    "bundle_for",
    "bundle_for_class",
    "class_table",
    "grade_inbox",
    "grade_notebook",
    "is_isolated",
    "push",
    "worst_status",
]

OWN_BUNDLE = ".bundle"  # in the results of a class that was given none: made once, used again


def bundle_for(lab_name: str, folder: Path | None, place: Path) -> Bundle:
    """The bundle in ``folder``; without one, that in ``place``, made when it is not there yet.

    Raises:
        CompressionError: it is another lab's, or can't be opened or made.
    """
    if folder is None and not (place / "bundle.json").exists():
        return make_bundle(find_lab(lab_name), place)
    bundle = open_bundle(folder or place)
    name = bundle.lab.name
    if not lab_name or not (name.startswith(lab_name) or name.endswith(lab_name)):
        raise BadSetting(
            f"the bundle in {bundle.folder} is of lab {name}, not of {lab_name!r}; expected one and the same "
            "lab; name that lab, or give another --bundle or --out"
        )
    return bundle


def bundle_for_class(lab_name: str, folder: Path | None, inbox: Path, out: Path) -> Bundle:
    """As ``bundle_for``; a class that is given none has its own among its results.

    Raises:
        CompressionError: the results would lie among the submissions; or as ``bundle_for``.
    """
    if out.resolve().is_relative_to(inbox.resolve()):
        raise BadSetting(
            f"{out} lies in the inbox, where results would be taken for submissions; expected a folder "
            f"outside {inbox}; give another --out"
        )
    if folder is not None and out.resolve().is_relative_to(folder.resolve()):
        raise BadSetting(
            f"{out} lies in the bundle, which is what it was made; expected a folder outside {folder}; give "
            "another --out"
        )
    return bundle_for(lab_name, folder, out / OWN_BUNDLE)


def is_isolated(*, trusted: bool, several: bool) -> bool:
    """Whether students' code will run in a sandbox: yes, unless that is waived, or can't be for one notebook.

    Raises:
        CompressionError: a class, no isolation here, and nobody has said that it is trusted.
    """
    if trusted:
        return False
    missing = [f"{finding.about}: {finding.words}" for finding in run_self_test() if not finding.holds]
    if missing and several:
        raise NotAvailable(
            f"students' code can't be isolated on this machine ({'; '.join(missing)}); a class is graded in "
            "a sandbox; mend that (compresslab sandbox --check), or trust them all: --trust-submissions"
        )
    return not missing


def grade_notebook(bundle: Bundle, place: Path, out: Path, *, isolated: bool, seed: int | None) -> Score:
    """The score of one notebook, also as ``results.json`` and ``feedback.html`` in a folder."""
    with WorkerClient(bundle, isolated=isolated) as worker:
        score = grade(bundle, place, worker=worker, seed=seed)
    write_whole(out / "feedback.html", feedback_html(place.stem, score, bundle.lab))
    write_results(score, out)
    return score


def grade_inbox(
    bundle: Bundle, inbox: Path, out: Path, *, isolated: bool, jobs: int | None, scheduler: str | None
) -> dict[str, Score]:
    """Every student's score, in the order of the names.

    Raises:
        CompressionError: the inbox can't be read, the results can't be written, nobody answers as scheduler.
    """
    submitted = find_submissions(inbox, bundle.lab.name)
    with open_pool(jobs, scheduler, at_end=close_desks) as pool:
        return grade_class(bundle, submitted, out, pool=pool, isolated=isolated)


def push(results: dict[str, Score], inbox: Path, lab: Lab, course: Path) -> list[str]:
    """Pushes a class into the gradebook of an nbgrader course; what came of it, a line each.

    Raises:
        CompressionError: the course lacks the lab, or its gradebook can't be used.
    """
    from compresslab.grading.nbgrader.gradebook import push_scores

    notebooks = {each.student: each.path for each in find_submissions(inbox, lab.name) if not each.problem}
    pushed = push_scores(results, notebooks, lab, course)
    return [f"{len(pushed.students)} students are in {course / 'gradebook.db'}", *pushed.left_out]


def class_table(results: dict[str, Score], lab: Lab) -> Table:
    """The class for a terminal: a row a student, then the sums."""
    count = {status: sum(score.status == status for score in results.values()) for status in ORDER}
    caption = ", ".join(f"{number} {status}" for status, number in count.items() if number)
    table = Table("student", "status", "points", "message", title=lab.name, caption=caption)
    for student, score in results.items():
        table.add_row(Text(plain(student)), score.status, score.points, Text(plain(score.message)))
    return table


ORDER = ("graded", "needs-review", "failed")  # the later the worse


def worst_status(results: dict[str, Score]) -> str:
    """What the whole class comes to: graded only if everybody is."""
    return max((score.status for score in results.values()), key=ORDER.index, default="graded")
