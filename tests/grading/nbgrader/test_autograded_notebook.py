"""The notebook to look at: the course's cells, the student's words, the grader's; whatever was handed in."""

from __future__ import annotations

import json
from dataclasses import replace

import nbformat
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_course import LAB, cell, edition, handed_in, score

from compresslab.grading.nbgrader.autograded_notebook import MOST_CELLS, autograded_notebook, final

RELEASED = nbformat.reads(edition(), as_version=4)
ANSWER = "def double(x):\n    return x + x"


def shown(folder, change=lambda book: None, told=None):
    """The notebook made of a changed submission; it is a valid one."""
    book = autograded_notebook(handed_in(folder, change), told or score(), LAB, RELEASED)
    nbformat.validate(book)
    return book


def test_an_honest_submission_stays_as_it_is_but_for_the_outcomes(tmp_path):
    book = shown(tmp_path, told=score("wrong"))
    assert [c.id for c in book.cells] == [c.id for c in RELEASED.cells]
    assert cell(book, "double").source == ANSWER
    assert cell(book, "check-double").outputs[0].text == "0 of 2 points: double is wrong\n"
    assert cell(book, "check-again").outputs[0].text == "1 of 1 points: again is right\n"


def test_locked_cells_and_metadata_are_the_courses(tmp_path):
    def tamper(book):
        cell(book, "check-double").source = "print('full marks')"
        cell(book, "double").metadata = {"tags": ["skip-execution"]}
        book.metadata = {"kernelspec": {"name": "other", "display_name": "x"}}

    book = shown(tmp_path, tamper)
    assert cell(book, "check-double").source == "check.double(double)"
    assert "full marks" not in nbformat.writes(book)
    assert cell(book, "double").metadata == cell(RELEASED, "double").metadata
    assert book.metadata == RELEASED.metadata


def test_outputs_of_the_submission_are_left_out(tmp_path):
    def forge(book):
        forged = {"output_type": "stream", "name": "stdout", "text": "2 of 2 points"}
        for place in book.cells:
            if place.cell_type == "code":
                place.outputs = [forged]

    outputs = [o.text for c in shown(tmp_path, forge, score("wrong")).cells for o in c.get("outputs", ())]
    assert outputs == ["0 of 2 points: double is wrong\n", "1 of 1 points: again is right\n"]


def test_deleted_cells_come_back_where_they_stood(tmp_path):
    def delete(book):
        book.cells = [c for c in book.cells if c.id not in ("check-double", "again")]

    book = shown(tmp_path, delete)
    assert [c.id for c in book.cells if c.metadata.get("nbgrader")] == [
        "double",
        "check-double",
        "again",
        "check-again",
    ]
    assert cell(book, "again").source.startswith("# not in a cell of its own in the submission\ndef again(")


def test_an_answer_in_a_cell_of_another_id_stands_where_the_grader_found_it(tmp_path):
    def retype(book):
        cell(book, "double")["id"] = "mine"

    book = shown(tmp_path, retype)
    assert cell(book, "double").source == ANSWER
    assert [c.source for c in book.cells].count(ANSWER) == 1


def test_an_answer_that_is_no_python_is_shown_in_its_own_cell(tmp_path):
    def slip(book):
        cell(book, "double").source = "def double(x:\n"

    assert cell(shown(tmp_path, slip), "double").source == "def double(x:\n"


def test_the_second_cell_with_an_id_is_kept_as_an_ordinary_one(tmp_path):
    def duplicate(book):
        again = nbformat.from_dict(cell(book, "double"))
        again.source = "def double(x):\n    return 2 * x"
        book.cells += [again, nbformat.from_dict(cell(book, "check-double"))]

    book = shown(tmp_path, duplicate)
    assert "2 * x" in cell(book, "double").source
    assert next(c.id for c in book.cells if c.source == ANSWER).startswith("submitted-")
    assert [c.id for c in book.cells].count("check-double") == 1


def test_a_flood_of_cells_is_cut_and_the_answers_are_not(tmp_path):
    def flood(book):
        text = nbformat.v4.new_markdown_cell("x" * 30_000)
        book.cells = [text, *[nbformat.v4.new_code_cell("1")] * (MOST_CELLS + 50), *book.cells]

    book = shown(tmp_path, flood)
    assert cell(book, "double").source == ANSWER
    assert len(book.cells) == MOST_CELLS + 4  # two answers, and their checks put back
    assert book.cells[0].source.endswith("… cut after 20,000 characters\n```")


def test_text_of_the_student_stands_in_a_fence_that_it_cannot_close(tmp_path):
    def write(book):
        book.cells.append(nbformat.v4.new_markdown_cell("````\n<script>"))

    assert shown(tmp_path, write).cells[-1].source == "`````text\n````\n<script>\n`````"


def test_notes_of_the_grader_stand_on_top_of_a_graded_notebook(tmp_path):
    top = shown(tmp_path, told=score(notes=("cell 3: left out",))).cells[0].source
    assert top == "**The grader says** (graded)\n\n```text\ncell 3: left out\n```"


@pytest.mark.parametrize(
    "content",
    ["", "{}", '{"cells": 3}', '{"cells": [3, null, {"id": []}]}', "[" * 99_999, "\x00\x01"],
    ids=["empty", "object", "number", "no cells", "deep", "bytes"],
)
def test_a_broken_notebook_becomes_the_labs_own_with_a_notice(tmp_path, content):
    place = tmp_path / "ann.ipynb"
    place.write_text(content)
    book = autograded_notebook(place, score(status="needs-review", message="unreadable"), LAB, RELEASED)
    assert "unreadable" in book.cells[0].source
    assert "ann.ipynb" in book.cells[0].source
    assert str(tmp_path) not in book.cells[0].source  # the student reads it
    assert "raise NotImplementedError" in cell(book, "double").source
    assert cell(book, "check-double").outputs[0].text.startswith("not graded yet, a person will look at it")


@pytest.mark.parametrize("what", ["nothing", "a folder", "a link"])
def test_what_is_no_ordinary_file_is_not_opened(tmp_path, what):
    place = tmp_path / "ann.ipynb"
    if what == "a folder":
        place.mkdir()
    elif what == "a link":
        place.symlink_to(handed_in(tmp_path).rename(tmp_path / "eve.ipynb"))
    book = autograded_notebook(place, score(), LAB, RELEASED)
    told = "ann.ipynb does not exist" if what == "nothing" else f"ann.ipynb is {what}"
    assert told in book.cells[0].source
    assert ANSWER not in {c.source for c in book.cells}


def test_a_student_without_a_notebook_gets_the_labs_own():
    assert (
        "there is no notebook of this student"
        in autograded_notebook(None, score(), LAB, RELEASED).cells[0].source
    )


WORDS = st.sampled_from(["cell_type", "id", "source", "metadata", "code", "double", "again", "\ud800", "x ="])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(odd=st.lists(VALUES, max_size=4))
def test_odd_cells_among_good_ones_do_no_harm(tmp_path, odd):
    place = handed_in(tmp_path)
    book = json.loads(place.read_text())
    place.write_text(json.dumps(book | {"cells": [*odd, *book["cells"], *odd]}))
    made = autograded_notebook(place, score(), LAB, RELEASED)
    nbformat.validate(made)
    assert ANSWER in {c.source for c in made.cells}


def test_only_a_graded_exercise_is_final():
    assert [final(score("wrong"), test) for test in score("wrong").tests] == [0.0, 1.0]
    fault = score("fault")
    assert [final(fault, test) for test in fault.tests] == [None, 1.0]
    assert final(replace(fault, status="failed"), fault.tests[1]) is None
    assert final(fault, None) is None
