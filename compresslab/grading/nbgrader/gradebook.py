"""Enter a class's scores into nbgrader's gradebook, so that its formgrader can be used for hand grading.

    push_scores(results, notebooks, lab, course)     →  course/gradebook.db
                                                        course/autograded/STUDENT/LAB/LAB.ipynb

A score that is not final (needs-review, failed, an exercise with an error of the grader's) is not a zero: it
stays open, marked for grading by hand. What a person has entered (scores, comments, extra credit) is kept.

nbgrader has no bonus points: its ``max_score`` counts the bonus exercises, ``Score.max_score`` does not. The
scores themselves are the same. ``nbgrader generate_feedback`` overwrites a file only with ``--force``.
"""

from __future__ import annotations

import contextlib
import copy
import os
import sysconfig
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any
from unicodedata import category

import nbformat
from nbformat import NotebookNode

from compresslab.checks.exercise import Lab
from compresslab.errors import CompressionError, DamagedFile
from compresslab.grading.nbgrader.autograded_notebook import autograded_notebook, final
from compresslab.grading.scores import Score, Verdict, plain, write_whole

__all__ = ["Pushed", "push_scores"]

CONFIG = "nbgrader_config.py"
LONGEST_NAME = 128  # characters, of a student in nbgrader's database
LONGEST_PART = 255  # bytes, of a folder's name
SIGNS = " .,@+'()=~&_-"


@dataclass(frozen=True)
class Pushed:
    """The students whose scores are in the gradebook now, and a sentence for each other student."""

    students: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def push_scores(
    results: Mapping[str, Score], notebooks: Mapping[str, Path], lab: Lab, course: str | Path
) -> Pushed:
    """Enter the scores into the gradebook and write the notebooks; a second time changes nothing.

    Args:
        results: student → score.
        notebooks: student → the submitted file; a student without one gets the lab's notebook with a notice.
        lab: the lab that was graded.
        course: the folder of nbgrader's course, with ``labs/`` and (or it is made) ``gradebook.db``.

    Raises:
        CompressionError: the course lacks the lab, or its gradebook can't be used.
    """
    directory = _course_directory(Path(course))
    released = _released(directory, lab)
    problems = {student: _problem(student, score, released, lab) for student, score in results.items()}
    students = tuple(student for student in results if not problems[student])
    with _gradebook(directory) as gradebook:
        _enter_lab(gradebook, released, lab, directory)
        for student in students:
            book = autograded_notebook(notebooks.get(student), results[student], lab, released)
            path = directory.format_path(directory.autograded_directory, student, lab.name)
            write_whole(Path(path, f"{lab.name}.ipynb"), nbformat.writes(book) + "\n")
            _enter_score(gradebook, student, results[student], directory)
    return Pushed(students, tuple(problem for problem in problems.values() if problem))


# The course


def _course_directory(course: Path) -> Any:
    """Return the course as nbgrader sees it: this kit's settings, then those of its own configuration."""
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config.loader import PyFileConfigLoader

    from compresslab.grading.nbgrader.settings import course_settings

    settings = course_settings()
    if (course / CONFIG).is_file():
        settings.merge(PyFileConfigLoader(CONFIG, path=str(course)).load_config())
    return CourseDirectory(config=settings, root=str(course.resolve()))


def _released(directory: Any, lab: Lab) -> NotebookNode:
    """Read the students' edition, with nbgrader's metadata on its holes and checks."""
    path = Path(directory.format_path(directory.release_directory, ".", lab.name), f"{lab.name}.ipynb")
    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError) as error:
        raise DamagedFile(
            f"{directory.root} is not a course with {lab.name} ({path.name}: {str(error)[:100]}); expected "
            f"the folder that holds {CONFIG} and labs/; give it, or run compresslab build {lab.name} in it"
        ) from error


def _checks(released: NotebookNode) -> dict[str, float]:
    """Return the points of each exercise in the course, by its name."""
    marks = [cell.metadata.get("nbgrader", {}) for cell in released.cells]
    return {m["grade_id"].removeprefix("check_"): float(m["points"]) for m in marks if m.get("grade")}


def _problem(student: str, score: Score, released: NotebookNode, lab: Lab) -> str:
    """Return why a score can't go into the gradebook, or an empty text."""
    if not _is_usable(student):
        return (
            f"{plain(student)!r} is left out: nbgrader makes folders and URLs of names; expected "
            f"letters, digits, spaces and {SIGNS.strip()}, {LONGEST_NAME} at most, a letter or digit "
            "first and no full stop last; rename the submission and grade again"
        )
    if score.lab != lab.name:
        return f"{student} is left out: the score is of {score.lab}; expected {lab.name}; push it as that lab"
    points = _checks(released)
    for test in score.tests:
        if points.get(test.name) != test.max_score:
            return (
                f"{student} is left out: graded with {test.name} at {test.max_score:g} points, and the "
                f"course has it at {points.get(test.name, 0):g}; expected the same edition of {lab.name}; "
                "make the bundle of this course and grade again"
            )
    return ""


def _is_usable(name: str) -> bool:
    """Whether nbgrader can make a folder, a URL and a row of it; in any script, with any form of accents."""
    known = all(sign.isalnum() or sign in SIGNS or category(sign).startswith("M") for sign in name)
    fits = len(name) <= LONGEST_NAME and len(name.encode(errors="repath")) <= LONGEST_PART
    return known and fits and name[:1].isalnum() and name[-1] not in " ."


# The database, by nbgrader's own interface


@contextlib.contextmanager
def _gradebook(directory: Any) -> Iterator[Any]:
    """The course's gradebook, made if it is missing; whatever it says comes out as one sentence."""
    from nbgrader.api import Gradebook, InvalidEntry, MissingEntry
    from sqlalchemy.exc import SAWarning, SQLAlchemyError

    try:
        with _programs(), warnings.catch_warnings():
            warnings.simplefilter("ignore", SAWarning)  # nbgrader queries while it builds a submission
            _read_tables(directory.db_url)
            with Gradebook(directory.db_url, directory.course_id) as gradebook:
                yield gradebook
    except CompressionError:
        raise
    except (SQLAlchemyError, InvalidEntry, MissingEntry, CalledProcessError, OSError, RuntimeError) as error:
        raise DamagedFile(
            f"the gradebook of {directory.root} can't be used ({str(error).partition(chr(10))[0][:200]}); "
            "expected one of this nbgrader, not in use elsewhere, whose lab has the cells of today's; back "
            "it up, then run nbgrader db upgrade, or push into a fresh course folder"
        ) from error


def _read_tables(url: str) -> None:
    """Asks the database for its tables: nbgrader begins so too, but leaves a connection open if it fails."""
    from sqlalchemy import create_engine, inspect
    from sqlalchemy.pool import NullPool

    inspect(create_engine(url, poolclass=NullPool)).get_table_names()


@contextlib.contextmanager
def _programs() -> Iterator[None]:
    """Puts this environment's programs on PATH: nbgrader calls ``alembic`` by its bare name."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), before])
    try:
        yield
    finally:
        os.environ["PATH"] = before


def _enter_lab(gradebook: Any, released: NotebookNode, lab: Lab, directory: Any) -> None:
    """The assignment with its notebook, grade cells, solution cells and source cells."""
    from nbgrader.preprocessors import SaveCells

    gradebook.update_or_create_assignment(lab.name)
    names = {"notebook": lab.name, "assignment": lab.name, "db_url": directory.db_url}
    SaveCells().preprocess(copy.deepcopy(released), {"nbgrader": names})


def _enter_score(gradebook: Any, student: str, score: Score, directory: Any) -> None:
    gradebook.update_or_create_student(student)
    gradebook.update_or_create_submission(score.lab, student, **_handed_in(student, score.lab, directory))
    book = gradebook.find_submission_notebook(score.lab, score.lab, student)
    tests = {test.name: test for test in score.tests}
    for grade in book.grades:
        _enter_grade(grade, final(score, tests.get(grade.name.removeprefix("check_"))))
    for comment in book.comments:
        test = tests.get(comment.name)
        comment.auto_comment = "No response." if test and test.verdict == Verdict.UNWRITTEN else None
    gradebook.db.commit()


def _enter_grade(grade: Any, score: float | None) -> None:
    """Without a person's score, an open one waits for it; with one, only another score asks to look again."""
    if grade.manual_score is None:
        grade.needs_manual_grade = score is None
    elif grade.auto_score != score:
        grade.needs_manual_grade = True
    grade.auto_score = score


def _handed_in(student: str, lab_name: str, directory: Any) -> dict[str, Any]:
    """When nbgrader collected the submission; if it did, formgrader compares this with its own note."""
    path = directory.format_path(directory.submitted_directory, student, lab_name)
    with contextlib.suppress(OSError, ValueError, OverflowError, AttributeError):  # the last: nbgrader's slip
        when = directory.get_existing_timestamp(path)
        return {"timestamp": when} if when else {}
    return {}
