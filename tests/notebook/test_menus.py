"""On a student's desk: check, hint, reveal, yours; each speaks in sentences and nobody gets stuck."""

from __future__ import annotations

import pytest
from made_lab import EXERCISE, LAB

from compresslab.course import all_labs
from compresslab.errors import CompressionError, Unwritten, WrongAnswer
from compresslab.notebook import lab
from compresslab.notebook import menus as desks


@pytest.fixture
def desk(monkeypatch):
    monkeypatch.setattr(desks, "find_lab", lambda name: LAB)
    return lab("90_made")


def by_hand(x):
    return x + x


def test_a_right_answer_is_told_the_statement_and_its_points(desk, capsys):
    desk.check.double(by_hand)
    assert capsys.readouterr().out == "✓ double(x) is twice x.  (2 points)\n"


def test_a_wrong_answer_raises_one_line_and_the_hint_on_offer(desk):
    with pytest.raises(WrongAnswer) as caught:
        desk.check.double(lambda x: x / 2)
    assert caught.value._render_traceback_() == [
        "✗ you halve (case: negative)",
        "  Hint on offer: hint.double() - symptom 1",
    ]


def not_written(x):
    raise NotImplementedError("your code goes here")


def test_an_unwritten_hole_is_no_error_but_a_grey_line_worth_nothing(desk, capsys):
    outcome = desk.check.double(not_written)
    assert repr(outcome) == "0"
    assert outcome._repr_html_() == (
        '<span style="color: gray">double: not written yet: replace the line that raises '
        "NotImplementedError  (0 of 2 points)</span>"
    )
    assert capsys.readouterr().out == ""


def test_a_function_whose_body_is_taken_out_again_is_no_longer_yours(desk):
    desk.check.double(by_hand)
    desk.check.double(not_written)
    with pytest.raises(Unwritten):
        desk.yours.double(3)


def test_a_cell_that_needs_what_is_not_written_ends_in_one_grey_line(desk):
    with pytest.raises(Unwritten) as caught:
        desk.yours.double(3)
    assert caught.value._render_traceback_() == [
        "\x1b[90mthis cell uses your double: write it and run its check, or call reveal.double()\x1b[0m"
    ]


def test_what_the_student_prints_is_shown(desk, capsys):
    def chatty(x):
        print("at", x > 0)
        return 2 * x

    desk.check.double(chatty)
    assert capsys.readouterr().out.startswith("at False\nat True\n✓")


def test_hints_come_one_after_the_other_and_the_last_one_stays(desk, capsys):
    for wanted in ("1 of 3: symptom 1", "2 of 3: symptom 2", "3 of 3: symptom 3", "3 of 3: symptom 3"):
        desk.hint.double()
        assert f"Hint {wanted}" in capsys.readouterr().out


def test_any_hint_can_be_asked_for_by_its_number(desk, capsys):
    desk.hint.double(2)
    assert "help 2" in capsys.readouterr().out
    with pytest.raises(WrongAnswer, match="step must be 1 to 3 for double, got 4"):
        desk.hint.double(4)


def test_the_offer_moves_on_with_the_hints(desk, capsys):
    offers = []
    for _ in range(4):
        with pytest.raises(WrongAnswer) as caught:
            desk.check.double(lambda x: 0.0)
        offers.append(caught.value.hint)
        desk.hint.double()
    assert [offer.split(" - ")[-1] for offer in offers[:3]] == ["symptom 1", "symptom 2", "symptom 3"]
    assert "reveal.double() gives you a working one" in offers[3]


def test_yours_is_the_function_whose_check_passed(desk):
    with pytest.raises(WrongAnswer, match=r"write it and run its check, or call reveal.double\(\)"):
        desk.yours.double(3)
    desk.check.double(by_hand)
    assert desk.yours.double is by_hand


def test_yours_is_gone_when_a_later_answer_fails(desk):
    desk.check.double(by_hand)
    with pytest.raises(WrongAnswer):
        desk.check.double(lambda x: x)
    with pytest.raises(WrongAnswer, match="this cell uses your double"):
        desk.yours.double(3)


def test_a_revealed_function_works_and_earns_nothing(desk, capsys):
    answer = desk.reveal.double()
    assert capsys.readouterr().out.endswith("def double(x):\n    return 2 * x\n\n")
    assert desk.yours.double(4) == 8
    outcome = desk.check.double(answer)
    assert outcome.reason.startswith("double is the revealed one: it works, for 0 points")
    assert repr(outcome) == "0"


def test_a_revealed_question_shows_its_answer_in_words(capsys):
    desk = lab("00_measuring")
    assert desk.reveal.why_zeros_cost()() == "d"
    assert "d) A dense tensor stores each of its entries" in capsys.readouterr().out


def test_an_own_answer_goes_before_the_revealed_one(desk):
    desk.reveal.double()
    desk.check.double(by_hand)
    assert desk.yours.double is by_hand


def test_tab_completes_the_names_and_a_wrong_one_names_them(desk):
    assert dir(desk.check) == ["double"]
    with pytest.raises(AttributeError, match="'treble' is no exercise of 90_made; there are double"):
        _ = desk.hint.treble


def test_a_menu_answers_to_no_hidden_name(desk):
    assert not hasattr(desk.check, "_repr_html_")


def test_two_desks_do_not_share_what_was_done(desk):
    desk.check.double(by_hand)
    with pytest.raises(WrongAnswer):
        lab("90_made").yours.double(1)


@pytest.mark.parametrize("chosen", all_labs(), ids=lambda chosen: chosen.name)
def test_every_lab_has_a_desk_that_names_its_exercises(chosen):
    assert dir(lab(chosen.name).check) == sorted(exercise.name for exercise in chosen.exercises)


def test_a_lab_that_does_not_exist_names_those_that_do():
    with pytest.raises(CompressionError, match="no labs are called '99'; there are 00_measuring"):
        lab("99")


def test_the_exercise_made_up_here_is_the_one_on_the_desk(desk):
    assert desk.check.double is not None
    assert [exercise.judge for exercise in LAB.exercises] == [EXERCISE.judge]
    assert [exercise.lab for exercise in LAB.exercises] == [LAB.name]
