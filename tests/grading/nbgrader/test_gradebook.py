"""nbgrader's gradebook after a push: the scores, what waits for a person, and notebooks that harm nobody."""

from __future__ import annotations

import os
import shutil
import sqlite3
import warnings
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from made_course import LAB, cell, edition, handed_in, score

from compresslab.authoring.editions import nbgrader_settings
from compresslab.errors import CompressionError
from compresslab.grading.nbgrader.gradebook import push_scores

with warnings.catch_warnings():  # nbgrader's dependencies announce removals that are not ours to mend
    warnings.simplefilter("ignore")
    from nbgrader.api import Gradebook
    from nbgrader.apps.api import NbGraderAPI
    from nbgrader.coursedir import CourseDirectory

ROOT = Path(__file__).parents[3]
NAME = LAB.name


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A course whose gradebook knows the lab and nobody yet; making a gradebook takes seconds."""
    folder = tmp_path_factory.mktemp("fresh")
    (folder / "labs" / NAME).mkdir(parents=True)
    (folder / "labs" / NAME / f"{NAME}.ipynb").write_text(edition())
    (folder / "nbgrader_config.py").write_text((ROOT / "nbgrader_config.py").read_text())
    assert push_scores({}, {}, LAB, folder).students == ()
    return folder


@pytest.fixture
def course(fresh, tmp_path):
    return Path(shutil.copytree(fresh, tmp_path / "course"))


def grade_of(course, student, exercise="double"):
    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        return book.find_grade(f"check_{exercise}", NAME, NAME, student).to_dict()


def edit(course, student, **values):
    """What formgrader does when a person enters a score."""
    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        grade = book.find_grade("check_double", NAME, NAME, student)
        for name, value in values.items():
            setattr(grade, name, value)
        book.find_comment("double", NAME, NAME, student).manual_comment = "well tried"
        book.db.commit()


def written(course, student="ann"):
    book = nbformat.read(course / "autograded" / student / NAME / f"{NAME}.ipynb", as_version=4)
    nbformat.validate(book)
    return book


def feedback(course, student="ann"):
    """The page that ``nbgrader generate_feedback`` makes."""
    with warnings.catch_warnings():  # nbconvert and traitlets announce removals that are not ours to mend
        warnings.simplefilter("ignore")
        settings = nbgrader_settings()
        api = NbGraderAPI(coursedir=CourseDirectory(config=settings, root=str(course)), config=settings)
        done = api.generate_feedback(NAME, student)
        api.gradebook.close()
    assert done["success"], done
    return (course / "feedback" / student / NAME / f"{NAME}.html").read_text()


# Scores


def test_the_scores_are_nbgraders_with_the_bonus_on_both_sides(course, tmp_path):
    pushed = push_scores({"ann": score(), "Böb 2": score("wrong")}, {"ann": handed_in(tmp_path)}, LAB, course)
    assert pushed.students == ("ann", "Böb 2")
    assert pushed.left_out == ()
    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        totals = {s.student.id: (s.score, s.max_score) for s in book.assignment_submissions(NAME)}
        assert not book.find_submission(NAME, "ann").needs_manual_grade
    assert totals == {"ann": (3.0, 3.0), "Böb 2": (1.0, 3.0)}
    assert (score().score, score().max_score) == (3.0, 2.0)


def test_a_gradebook_is_made_where_the_environments_programs_are_not_on_the_path(course, monkeypatch):
    (course / "gradebook.db").unlink()
    monkeypatch.setenv("PATH", os.defpath)  # an environment that nobody activated: no alembic on it
    push_scores({"ann": score()}, {}, LAB, course)
    assert grade_of(course, "ann")["auto_score"] == 2.0
    assert os.environ["PATH"] == os.defpath


@pytest.mark.parametrize("status", ["needs-review", "failed"])
def test_a_score_that_is_not_final_waits_for_a_person_and_is_no_zero(course, status, tmp_path):
    (tmp_path / "ann.ipynb").write_text("no notebook")
    results = {"ann": score("late", "late", status, "nobody could read it")}
    push_scores(results, {"ann": tmp_path / "ann.ipynb"}, LAB, course)
    for exercise in ("double", "again"):
        grade = grade_of(course, "ann", exercise)
        assert (grade["auto_score"], grade["needs_manual_grade"]) == (None, True)
    top = written(course).cells[0].source
    assert status in top
    assert "nobody could read it" in top
    assert "ann.ipynb is not a notebook" in top


def test_only_the_exercise_that_the_grader_failed_at_waits(course):
    push_scores({"ann": score("fault", "wrong")}, {}, LAB, course)
    assert grade_of(course, "ann")["auto_score"] is None
    assert grade_of(course, "ann", "again")["auto_score"] == 0.0


def test_pushed_twice_nothing_changes(course, tmp_path):
    arguments = ({"ann": score("wrong")}, {"ann": handed_in(tmp_path)}, LAB, course)
    push_scores(*arguments)
    before = [grade_of(course, "ann"), written(course)]
    push_scores(*arguments)
    assert [grade_of(course, "ann"), written(course)] == before
    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        assert len(book.students) == len(book.assignment_submissions(NAME)) == 1


def test_what_a_person_entered_is_kept(course):
    push_scores({"ann": score("wrong")}, {}, LAB, course)
    edit(course, "ann", manual_score=1.5, extra_credit=0.5, needs_manual_grade=False)
    push_scores({"ann": score("wrong")}, {}, LAB, course)
    kept = grade_of(course, "ann")
    assert (kept["manual_score"], kept["extra_credit"], kept["needs_manual_grade"]) == (1.5, 0.5, False)
    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        assert book.find_comment("double", NAME, NAME, "ann").comment == "well tried"


def test_another_score_than_the_person_saw_asks_to_look_again(course):
    push_scores({"ann": score("wrong")}, {}, LAB, course)
    edit(course, "ann", manual_score=1.5, needs_manual_grade=False)
    push_scores({"ann": score("right")}, {}, LAB, course)
    grade = grade_of(course, "ann")
    assert (grade["auto_score"], grade["manual_score"], grade["needs_manual_grade"]) == (2.0, 1.5, True)


def test_an_unwritten_hole_is_commented_as_nbgrader_does(course):
    push_scores({"ann": score("unwritten")}, {}, LAB, course)
    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        assert book.find_comment("double", NAME, NAME, "ann").comment == "No response."
        assert book.find_comment("again", NAME, NAME, "ann").comment is None


def test_the_time_of_a_collected_submission_is_taken_over(course):
    folder = course / "submitted" / "ann" / NAME
    folder.mkdir(parents=True)
    (folder / "timestamp.txt").write_text("2026-03-01 12:00:00 UTC")
    push_scores({"ann": score()}, {}, LAB, course)
    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        assert str(book.find_submission(NAME, "ann").timestamp) == "2026-03-01 12:00:00"
    (folder / "timestamp.txt").write_text("yesterday, I think")
    push_scores({"ann": score()}, {}, LAB, course)


# Notebooks


def test_feedback_shows_scores_outcomes_answers_and_comments(course, tmp_path):
    push_scores({"ann": score("wrong")}, {"ann": handed_in(tmp_path)}, LAB, course)
    edit(course, "ann", extra_credit=0.5)
    page = feedback(course)
    assert "(Score: 1.5 / 3.0)" in page
    assert "0 of 2 points: double is wrong" in page
    assert "1 of 1 points: again is right" in page
    assert "well tried" in page


HOSTILE = "<script>alert(1)</script>\n[x](javascript:alert(2))\n```\n<img src=x onerror=alert(3)>\n$$<b>$$"


def test_nothing_of_a_submission_runs_in_a_teachers_browser(course, tmp_path):
    def attack(book):
        for kind in ("markdown", "raw", "strange"):
            book.cells.append(
                {"cell_type": kind, "metadata": {"raw_mimetype": "text/html"}, "source": HOSTILE}
            )
        cell(book, "double").outputs = [
            {"output_type": "display_data", "metadata": {}, "data": {"text/html": "<script>alert(4)"}}
        ]
        book.cells[0].attachments = {"a.svg": {"image/svg+xml": "<svg onload=alert(5)>"}}

    spoilt = replace(score(notes=(HOSTILE,)), tests=(replace(score().tests[0], output=HOSTILE),))
    push_scores({"ann": spoilt}, {"ann": handed_in(tmp_path, change=attack)}, LAB, course)
    page = feedback(course)
    assert "&lt;script&gt;alert(1)" in page  # shown, as typed
    for trap in ("<script>alert", 'href="javascript:', "<img src=x", "<svg onload", "alert(4)"):
        assert trap not in page


# What can't be pushed


ODD = (
    "",
    ".hidden",
    "..",
    "a/b",
    "a\\b",
    "a*",
    "[a]",
    "{a}",
    "-x",
    "a ",
    "a.",
    "a\nb",
    "a" * 129,
    "界" * 100,
    "a<b>",
)


def test_names_that_make_no_folder_are_left_out_and_named(course):
    pushed = push_scores(dict.fromkeys((*ODD, "ann"), score()), {}, LAB, course)
    assert pushed.students == ("ann",)
    assert len(pushed.left_out) == len(ODD)
    says = "is left out: nbgrader makes folders and URLs of names; expected letters"
    assert all(says in sentence for sentence in pushed.left_out)
    assert pushed.left_out[3].startswith("'a/b' is")
    assert [path.name for path in (course / "autograded").iterdir()] == ["ann"]


@pytest.mark.parametrize("name", ["Jose\u0301", "हिन्दी", "O'Brien, Ann (2)", "a.b@c.org", "王"])
def test_names_of_any_script_are_kept_as_they_are(course, name):
    assert push_scores({name: score()}, {}, LAB, course).students == (name,)
    assert grade_of(course, name)["auto_score"] == 2.0
    assert written(course, name)


def test_another_labs_score_is_left_out(course):
    pushed = push_scores({"ann": replace(score(), lab="01_other")}, {}, LAB, course)
    assert pushed.left_out == (
        "ann is left out: the score is of 01_other; expected 90_made; push it as that lab",
    )


def test_another_editions_points_are_left_out(course):
    other = replace(score(), tests=(replace(score().tests[0], max_score=5.0),))
    pushed = push_scores({"ann": other}, {}, LAB, course)
    assert (
        "graded with double at 5 points, and the course has it at 2; expected the same" in pushed.left_out[0]
    )


def test_a_folder_that_is_no_course_is_refused(tmp_path):
    with pytest.raises(
        CompressionError, match=r"is not a course with 90_made .* expected the folder that holds"
    ):
        push_scores({"ann": score()}, {}, LAB, tmp_path)


def test_a_damaged_gradebook_is_refused_in_words(course):
    (course / "gradebook.db").write_bytes(b"this is no database, but long enough to look like one" * 40)
    with pytest.raises(
        CompressionError, match=r"can't be used .*; expected one of this nbgrader.*; back it up"
    ):
        push_scores({"ann": score()}, {}, LAB, course)


def test_a_damaged_gradebook_is_left_without_an_open_connection(course, monkeypatch):
    connect, opened = sqlite3.dbapi2.connect, []

    def watched(*arguments, **settings):
        opened.append(connect(*arguments, **settings))
        return opened[-1]

    monkeypatch.setattr(sqlite3.dbapi2, "connect", watched)
    (course / "gradebook.db").write_bytes(b"no database" * 200)
    with pytest.raises(CompressionError, match="can't be used"):
        push_scores({"ann": score()}, {}, LAB, course)
    assert opened
    for connection in opened:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.cursor()


def test_a_lab_whose_cells_changed_after_the_first_push_is_refused(course):
    push_scores({"ann": score()}, {}, LAB, course)
    place = course / "labs" / NAME / f"{NAME}.ipynb"
    book = nbformat.read(place, as_version=4)
    book.cells = [c for c in book.cells if c.id not in ("again", "check-again")]
    nbformat.write(book, place)
    with pytest.raises(CompressionError, match="Cannot add or remove cells"):
        push_scores({"ann": score()}, {}, LAB, course)
