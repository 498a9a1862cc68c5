"""A score: written whole or not at all, read back or refused in a sentence, shown as it is."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from compresslab.errors import CompressionError
from compresslab.grading.scores import ExerciseScore, Score, plain, read_results, score_table, write_results

SCORE = Score(
    "00_lab",
    "graded",
    (ExerciseScore("first", "right", 2, "it is"), ExerciseScore("second", "wrong", 1, "it is not")),
    "1 of 2 exercises are right",
    0.5,
)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"tests": [{}]}', "\xff"])
def test_what_is_no_score_is_told_so(text, tmp_path):
    place = tmp_path / "results.json"
    place.write_text(text)
    with pytest.raises(CompressionError, match=r"can't be read .*; expected .*; remove it and grade again"):
        read_results(place)


def test_nothing_is_left_beside_the_results_and_no_folder_is_a_sentence(tmp_path):
    place = write_results(SCORE, tmp_path)
    assert list(tmp_path.iterdir()) == [place]
    with pytest.raises(CompressionError, match=r"can't be written .* give another --out"):
        write_results(SCORE, place)


# How it is shown.


def test_the_table_shows_each_exercise_and_the_sum():
    file = io.StringIO()
    Console(file=file, width=120).print(score_table(SCORE))
    shown = file.getvalue()
    assert all(test.name in shown for test in SCORE.tests)
    assert "2 of 3" in shown
    assert "00_lab: graded" in shown


def test_markup_of_a_students_text_is_shown_and_not_obeyed():
    test = ExerciseScore("first", "wrong", 1, "[red]not red[/red] [/bold]")
    file = io.StringIO()
    Console(file=file, width=120).print(score_table(Score("lab", "graded", (test,), "m", 0.1, ("[/x]",))))
    assert "[red]not red[/red]" in file.getvalue()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("\x1b[1;31mred\x1b[0m\x1b]0;title\x07\x07", "red"),
        ("<img src=x onerror=alert(1)><b>bold</b><br/>", "bold"),
        ("<<b>script>alert", "alert"),
        ("a < b and c > d, <class 'int'>, List<int", "a < b and c > d, <class 'int'>, List<int"),
        ("one\ntwo\u202e\u200f\x00\x9b", "one\ntwo"),
    ],
)
def test_texts_are_plain(text, wanted):
    assert plain(text) == wanted


@pytest.mark.parametrize(
    ("before", "after"), [('"status": "graded"', '"status": "of next year"'), ('"right"', '"lucky"')]
)
def test_a_status_or_a_verdict_that_this_kit_does_not_have_is_refused(tmp_path, before, after):
    path = write_results(SCORE, tmp_path)
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(CompressionError, match=r"expected a results\.json of compresslab; remove it"):
        read_results(path)
