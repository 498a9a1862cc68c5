"""The student's page: every text of the lab that helps, none that gives away, no tag that a student wrote."""

from __future__ import annotations

import dataclasses
import inspect
from collections import Counter
from html.parser import HTMLParser

import pytest

from compresslab.course import find_lab
from compresslab.grading.reports.feedback import feedback_html
from compresslab.grading.reports.html import VERDICTS, html_page, visible
from compresslab.grading.scores import ExerciseScore, Score

LAB = find_lab("00_measuring")
FIRST = LAB.exercises[0]
HOSTILE = (
    "<script>alert(1)</script>\x1b[31m'\"><img src=x onerror=y>\x00]]>&lt;"
    "\uffff\ud800\u202e{{ 7 * 7 }}</main><b"
)
HINTED = f"you count 7\nHint on offer: {FIRST.hints[0].symptom}"


class Page(HTMLParser):
    """The tags of a page with their attributes, and the text that a reader sees."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)
        self.close()
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        self.attributes += attributes

    def handle_data(self, data):
        self.text += data


def score(verdict="wrong", output=HINTED, *, status="graded", message="0 of 1 are right", notes=(), **more):
    tests = (ExerciseScore(more.pop("name", FIRST.name), verdict, 1, output, **more),)
    return Score(LAB.name, status, tests, message, 0.1, notes)


def page(given: Score, student: str = "Ana") -> Page:
    return Page(feedback_html(student, given, LAB))


def test_a_wrong_answer_gets_statement_points_reason_mistake_and_the_first_hint():
    text = page(score(mistake="counts buffers too")).text
    ours = ("wrong · 0 of 1 point", "you count 7", "A known mistake: counts buffers too")
    for words in (*ours, FIRST.statement, FIRST.hints[0].symptom, FIRST.hints[0].text):
        assert text.count(words) == 1, words
    assert "Hint on offer" not in text


@pytest.mark.parametrize("verdict", ["wrong", "late", "unwritten"])
def test_the_hint_waits_behind_a_click_for_whoever_is_not_there_yet(verdict):
    assert page(score(verdict)).tags["details"] == 1


@pytest.mark.parametrize("verdict", ["right", "fault"])
def test_no_hint_is_offered_where_the_student_has_nothing_to_mend(verdict):
    assert page(score(verdict, FIRST.statement)).tags["details"] == 0


def test_a_right_answer_is_told_once_what_it_does():
    assert page(score("right", FIRST.statement)).text.count(FIRST.statement) == 1


def test_a_question_shows_its_choices_and_explains_itself_only_to_whoever_is_right():
    question = next(exercise for exercise in LAB.exercises if exercise.choices)
    right = page(score("right", question.statement, name=question.name)).text
    wrong = page(score("wrong", "think of a file", name=question.name)).text
    assert all(f"({letter}) {text}" in wrong for letter, text in question.choices)
    assert right.count(question.explanation) == wrong.count(question.explanation) + 1


def test_neither_test_source_nor_reference_code_is_on_the_page():
    whole = tuple(ExerciseScore(e.name, "wrong", e.points, "not yet") for e in LAB.exercises)
    text = page(Score(LAB.name, "graded", whole, "", 0.1)).text
    secrets = [part for e in LAB.exercises if not e.choices for part in (e.judge, e.probe, e.cases, *e.right)]
    for part in secrets:
        lines = [line.strip() for line in inspect.getsource(part).splitlines()]
        assert not [line for line in lines if len(line) > 20 and line in text]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("graded", "Everything that you handed in was checked"),
        ("needs-review", "Your teacher sees this. The reason may tell you"),
        ("failed", "The grader failed, not your work"),
    ],
)
def test_each_status_is_said_in_words_and_only_a_graded_score_looks_final(status, words):
    text = page(score(status=status, message="page 3 is torn")).text
    assert words in text
    assert "page 3 is torn" in text
    assert ("– of 1 points, not final" in text) == (status != "graded")


def test_a_reason_that_concerns_every_exercise_is_said_once():
    text = page(score("fault", "not graded: no JSON", status="needs-review", message="no JSON")).text
    assert text.count("no JSON") == 1
    assert "– of 1 point" in text


def test_what_was_left_out_is_listed_and_no_heading_without_it():
    heading = "What was left out of your notebook"
    assert "cell 3: the import is left out" in page(score(notes=("cell 3: the import is left out",))).text
    assert heading in page(score(notes=("x",))).text
    assert heading not in page(score()).text


def test_an_exercise_that_the_lab_does_not_have_is_shown_as_it_is():
    text = page(score("wrong", "so it was", name="of_last_year", bonus=True)).text
    assert all(words in text for words in ("of_last_year", "wrong", "so it was", "bonus point"))


def test_a_submission_without_exercises_still_has_a_page():
    assert "could not be read" in page(Score(LAB.name, "needs-review", (), "no JSON", 0.1)).text


def test_no_tag_or_attribute_on_the_page_comes_from_a_student():
    def spoken(words: str) -> Page:
        test = ExerciseScore(words, "wrong", 1, words, words)
        return page(Score(LAB.name, "graded", (test,), words, 0.1, (words,)), words)

    hostile, tame = spoken(HOSTILE), spoken("tame")
    assert (hostile.tags, hostile.attributes) == (tame.tags, tame.attributes)
    assert "<script>alert(1)</script>" in hostile.text  # the name is read as it is
    assert not set("\x00\x1b\ud800\u202e") & set(hostile.text)
    assert "{{ 7 * 7 }}" in hostile.text


def test_the_page_runs_nothing_and_loads_nothing():
    found = page(score())
    assert not {"script", "img", "link", "iframe", "object"} & set(found.tags)
    assert not {"src", "href"} & {name for name, _ in found.attributes}
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in found.attributes
    assert "url(" not in found.text
    assert "@import" not in found.text


def test_every_verdict_has_a_sign_of_its_own_that_needs_no_colour():
    assert len({sign for sign, _ in VERDICTS.values()}) == len(VERDICTS)
    assert all(sign in page(score(verdict)).text for verdict, (sign, _) in VERDICTS.items())


def test_a_page_is_compiled_once_and_not_for_every_student(monkeypatch):
    page(score())
    monkeypatch.setattr("jinja2.Environment.from_string", lambda *_: pytest.fail("compiled again"))
    assert "Feedback for Bo" in page(score(), "Bo").text


def test_a_frame_without_the_values_it_names_is_refused():
    with pytest.raises(Exception, match="'student' is undefined"):
        html_page("{{ student }}", "", title="none")


def test_names_that_look_alike_stay_apart():
    assert len({visible(name) for name in ("Ana", "Ana\u200b", "Ana\n", "Ana\udcff", "An\u202ea")}) == 5
    assert visible("Łukasz Müller (2) عمر") == "Łukasz Müller (2) عمر"


def test_long_words_of_a_student_are_cut():
    long = dataclasses.replace(score(), message="a" * 100_000)
    assert len(feedback_html("Ana", long, LAB)) < 20_000
