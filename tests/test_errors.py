"""The errors speak to a person."""

from compresslab.errors import CompressionError, Unwritten, WrongAnswer


def test_bad_input_can_be_caught_as_a_value_error():
    assert issubclass(CompressionError, ValueError)


def test_a_wrong_answer_is_no_value_error_so_that_a_broken_judge_is_not_mistaken_for_one():
    assert not issubclass(WrongAnswer, ValueError)


def test_a_wrong_answer_prints_its_reason_and_below_it_the_hint_on_offer():
    assert (
        str(WrongAnswer("the mask is all zero", "count the ones")) == "the mask is all zero\ncount the ones"
    )
    assert str(WrongAnswer("the mask is all zero")) == "the mask is all zero"


def test_jupyter_shows_a_wrong_answer_as_a_line_and_not_as_a_traceback():
    assert WrongAnswer("too small", "square it")._render_traceback_() == ["✗ too small", "  square it"]
    assert WrongAnswer("too small")._render_traceback_() == ["✗ too small"]


def test_a_wrong_answer_keeps_the_values_that_a_mistakes_message_names():
    assert WrongAnswer("too small", where=(0, 3), yours=1).details == {"where": (0, 3), "yours": 1}


def test_an_answer_that_is_missing_is_shown_as_one_grey_line():
    assert Unwritten("not written yet")._render_traceback_() == ["\x1b[90mnot written yet\x1b[0m"]
