"""What ``compresslab grade`` does, for one notebook or for a class: ``grade_notebook`` and ``grade_inbox``.

Both take the same ``Request``. Which bundle grades it, and whether the students' code runs in a sandbox, is
decided here; what is printed is the command line's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from compresslab.checks.exercise import Lab
from compresslab.course import find_lab
from compresslab.errors import BadSetting, CompressionError, DamagedFile, NotAvailable
from compresslab.grading.bundle import Bundle, make_bundle, open_bundle
from compresslab.grading.class_task import close_graders
from compresslab.grading.grade import grade
from compresslab.grading.grade_class import grade_class
from compresslab.grading.reports.feedback import feedback_html
from compresslab.grading.sandbox.self_test import run_self_test
from compresslab.grading.sandbox.worker_client import WorkerClient
from compresslab.grading.scores import Score, Status, plain, write_results, write_whole
from compresslab.grading.submission.entries import entry_at
from compresslab.grading.submission.inbox import Submitted, find_submissions
from compresslab.jobs.executor import open_pool
from compresslab.storage.atomic import write_bytes

__all__ = [
    "ClassOptions",
    "GradedClass",
    "Request",
    "bundle_for",
    "bundle_for_inbox",
    "class_table",
    "grade_inbox",
    "grade_notebook",
    "is_isolated",
    "push_class",
    "refuse_contradictions",
    "worst_status",
]

OWN_BUNDLE = ".bundle"  # in the results of a class for which no bundle was given: made once, used again


@dataclass(frozen=True)
class Request:
    """What is graded, and where the results go.

    Args:
        lab_name: the lab, or the beginning or end of its name.
        submission: a notebook, or a folder or zip with a notebook or folder for each student.
        out: the folder of the results.
        bundle: the folder that ``compresslab bundle`` made; None to make one.
        trusted: whether students' code may run without a sandbox.
    """

    lab_name: str
    submission: Path
    out: Path
    bundle: Path | None = None
    trusted: bool = False

    @property
    def is_class(self) -> bool:
        """Whether it is a folder or a zip of submissions; a link to one is a submission, and refused."""
        return not self.submission.is_symlink() and (
            self.submission.is_dir() or entry_at(self.submission).is_zip
        )


@dataclass(frozen=True)
class ClassOptions:
    """What only a class has: how many processes or which Dask scheduler, and an nbgrader course."""

    jobs: int | None = None
    scheduler: str | None = None
    gradebook: Path | None = None


@dataclass(frozen=True)
class GradedClass:
    """The scores of a class, by student in the order of the names, and the lab they are of."""

    results: Mapping[str, Score]
    lab: Lab


def refuse_contradictions(request: Request, options: ClassOptions, *, seed: int | None) -> None:
    """Raise if the submission does not exist, or an option does not go with its kind.

    Raises:
        CompressionError: with the option and what to do instead.
    """
    if not request.submission.exists() and not request.submission.is_symlink():
        raise DamagedFile(
            f"{request.submission} does not exist; expected a notebook, or a folder of them; check its name"
        )
    if options.gradebook is not None and not (options.gradebook / "nbgrader_config.py").is_file():
        raise DamagedFile(
            f"--gradebook {options.gradebook} is not an nbgrader course; expected a folder with "
            "nbgrader_config.py; copy the kit's"
        )
    if request.is_class and seed is not None:
        raise BadSetting(
            "--seed is for one notebook, got a folder; the seeds of a class follow from its bundle; leave "
            "--seed out"
        )
    if not request.is_class and options != ClassOptions():
        raise BadSetting(
            "--gradebook, --scheduler and --jobs are for a folder of submissions, got one file; put it into "
            "a folder, name it after the student, and give the folder"
        )


def is_isolated(request: Request) -> bool:
    """Whether students' code will run in a sandbox: unless it is trusted, or one notebook and there is none.

    Raises:
        CompressionError: it is a class that is not trusted, and this machine has no working sandbox.
    """
    if request.trusted:
        return False
    missing = [f"{finding.about}: {finding.words}" for finding in run_self_test() if not finding.holds]
    if missing and request.is_class:
        raise NotAvailable(
            f"students' code can't be isolated on this machine ({'; '.join(missing)}); a class is graded in "
            "a sandbox; find out what is missing with compresslab sandbox --check, or trust all students: "
            "--trust-submissions"
        )
    return not missing


# One notebook.


def grade_notebook(request: Request, *, isolated: bool, seed: int | None = None) -> Score:
    """Grade one notebook; write ``results.json`` and ``feedback.html`` into the folder of the results.

    Raises:
        CompressionError: the bundle can't be opened or made, or the results can't be written.
    """
    with tempfile.TemporaryDirectory(prefix="compresslab-") as scratch:
        bundle = bundle_for(request, Path(scratch))
        with WorkerClient(bundle, isolated=isolated) as worker:
            score = grade(bundle, request.submission, worker=worker, seed=seed)
    write_whole(request.out / "feedback.html", feedback_html(request.submission.stem, score, bundle.lab))
    write_results(score, request.out)
    return score


# A class.


def grade_inbox(request: Request, options: ClassOptions, *, isolated: bool) -> GradedClass:
    """Grade all submissions of an inbox; write each result as it is ready, and the class's reports.

    Raises:
        CompressionError: the inbox can't be read, the bundle can't be opened or made, the results can't be
            written, or no scheduler answers.
    """
    bundle = bundle_for_inbox(request)
    submitted = find_submissions(request.submission, bundle.lab.name)
    with open_pool(options.jobs, options.scheduler, at_end=close_graders) as pool:
        results = grade_class(bundle, submitted, request.out, pool=pool, isolated=isolated)
    return GradedClass(results, bundle.lab)


def push_class(graded: GradedClass, inbox: Path, course: Path) -> list[str]:
    """Enter a class into the gradebook of an nbgrader course; return what was done, one line each.

    Raises:
        CompressionError: the course lacks the lab, or its gradebook can't be used.
    """
    from compresslab.grading.nbgrader.gradebook import push_scores

    submitted = find_submissions(inbox, graded.lab.name)
    with tempfile.TemporaryDirectory(prefix="compresslab-") as scratch:
        notebooks = {e.student: _on_disk(e, Path(scratch)) for e in submitted if not e.problem}
        pushed = push_scores(graded.results, notebooks, graded.lab, course)
    return [f"{len(pushed.students)} students are in {course / 'gradebook.db'}", *pushed.left_out]


def _on_disk(each: Submitted, scratch: Path) -> Path:
    """Return where a submitted file lies; one in a zip is written into a folder under a name of ours."""
    if each.archive is None:
        return each.path
    place = scratch / f"{len(list(scratch.iterdir()))}.ipynb"
    try:
        write_bytes(place, each.content())
    except CompressionError:  # as when it was graded: nbgrader's notebook says that there is none
        return each.path
    return place


def class_table(graded: GradedClass) -> Table:
    """The class for a terminal: one row per student, then how many have which status."""
    results = graded.results
    count = {status: sum(score.status == status for score in results.values()) for status in Status}
    caption = ", ".join(f"{number} {status}" for status, number in count.items() if number)
    table = Table("student", "status", "points", "message", title=graded.lab.name, caption=caption)
    for student, score in results.items():
        table.add_row(Text(plain(student)), score.status, score.points, Text(plain(score.message)))
    return table


def worst_status(results: Mapping[str, Score]) -> Status:
    """Return the status of the whole class: graded only if everybody is."""
    return max((score.status for score in results.values()), key=list(Status).index, default=Status.GRADED)


# The bundle.


def bundle_for(request: Request, own: Path) -> Bundle:
    """Return the bundle of the request; without one, that in the folder ``own``, made if it does not exist.

    Raises:
        CompressionError: it is another lab's, or can't be opened or made.
    """
    if request.bundle is None and not (own / "bundle.json").exists():
        return make_bundle(find_lab(request.lab_name), own)
    bundle = open_bundle(request.bundle or own)
    name, wanted = bundle.lab.name, request.lab_name
    if not wanted or not (name.startswith(wanted) or name.endswith(wanted)):
        raise BadSetting(
            f"the bundle in {bundle.folder} is of lab {name}, not of {wanted!r}; expected one and the same "
            "lab; name that lab, or give another --bundle or --out"
        )
    return bundle


def bundle_for_inbox(request: Request) -> Bundle:
    """Return the bundle of a class; one that is made lies among the results, and is used again.

    Raises:
        CompressionError: the results would lie in the inbox or in the bundle; or as ``bundle_for``.
    """
    inbox, bundle, out = request.submission, request.bundle, request.out
    if out.resolve().is_relative_to(inbox.resolve()):
        raise BadSetting(
            f"--out {out} is inside the inbox, where results would be taken for submissions; choose a folder "
            f"outside {inbox}"
        )
    if bundle is not None and out.resolve().is_relative_to(bundle.resolve()):
        raise BadSetting(
            f"--out {out} is inside the bundle, and a bundle must not change; choose a folder outside "
            f"{bundle}"
        )
    return bundle_for(request, out / OWN_BUNDLE)
