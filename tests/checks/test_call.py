"""Running: whatever a student's function does becomes data, and never an exception of ours."""

from __future__ import annotations

import contextlib
import math
import signal
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compresslab.checks.call import (
    ALLOWED,
    SHOWN,
    Attempt,
    Run,
    error_line,
    run,
    run_from_bytes,
    run_to_bytes,
)
from compresslab.checks.record import describe, to_bytes
from compresslab.errors import CompressionError

CASES = [("two", {"x": torch.ones(2)}), ("three", {"x": torch.ones(3)})]


def probe(case, written):
    return {"sum": written(case["x"])}


def done(answer, seconds: float = 5.0) -> Run:
    return run(probe, CASES, answer, seconds=seconds)


def test_a_return_is_recorded_for_each_case():
    assert [float(attempt.record["sum"].array) for attempt in done(lambda x: x.sum()).attempts] == [2.0, 3.0]


class Rude(BaseException):
    def __str__(self):
        raise ValueError


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("boom\nbang"), "ValueError: boom"),
        (SystemExit(3), "SystemExit: it calls sys.exit(), exit() or quit()"),
        (Rude(), "Rude"),
        (MemoryError(), "MemoryError"),
        (RecursionError("deep"), "RecursionError: deep"),
    ],
)
def test_whatever_is_raised_becomes_a_sentence(error, words):
    def answer(x):
        raise error

    attempts = done(answer).attempts
    assert [attempt.raised for attempt in attempts] == [type(error).__name__] * 2
    assert attempts[0].words.startswith(words)
    assert error_line(error) == words


def test_the_stop_button_still_stops():
    def answer(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        done(answer)


def test_a_function_that_is_not_written_ends_the_run():
    def answer(x):
        raise NotImplementedError

    assert [attempt.raised for attempt in done(answer).attempts] == ["NotImplementedError"]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there is no alarm here")
def test_an_endless_loop_is_stopped_and_earlier_cases_are_kept():
    def answer(x):
        while len(x) == 3:
            pass
        return 1

    came = done(answer, seconds=0.1)
    assert len(came.attempts) == 1
    assert "did not return within 0.1 s" in came.stopped


def test_prints_are_counted_and_only_their_beginning_is_kept():
    def answer(x):
        print("x" * ALLOWED)
        print("y", file=sys.stderr)

    came = done(answer)
    assert came.characters == 2 * (ALLOWED + 3)
    assert came.printed == "x" * SHOWN


def test_an_input_changed_in_place_is_named_and_the_next_case_is_fresh():
    came = done(lambda x: x.add_(1).sum())
    assert [attempt.changed for attempt in came.attempts] == ["argument 1"] * 2
    assert CASES[0][1]["x"].tolist() == [1, 1]


def test_a_returned_object_that_raises_when_looked_at_is_no_crash():
    class Hostile:
        __class__ = property(lambda self: 1 / 0)

    assert done(lambda x: Hostile()).attempts[0].record["sum"].array is None


records = st.dictionaries(
    st.text(max_size=5),
    st.builds(
        lambda values: torch.tensor(values), st.lists(st.floats(width=32, allow_nan=False), max_size=5)
    ),
    max_size=3,
)


@given(record=records, raised=st.text(max_size=9), printed=st.text(max_size=99), count=st.integers(0, 2**40))
def test_a_run_comes_back_from_its_bytes(record, raised, printed, count):
    described = {name: describe(value) for name, value in record.items()}
    given_ = Run((Attempt(described, raised, "words", "x"), Attempt()), printed, count, "stopped")
    back = run_from_bytes(run_to_bytes(given_))
    assert (back.printed, back.characters, back.stopped) == (printed, count, "stopped")
    assert all(mine.same(theirs) for mine, theirs in zip(back.attempts, given_.attempts, strict=True))


def test_a_hostile_run_keeps_no_more_words_than_it_may():
    long = "z" * 10**5
    back = run_from_bytes(to_bytes([[[{}, long, long, long]], long, 0, long, [long]]))
    texts = (
        back.printed,
        back.stopped,
        *back.failed,
        back.attempts[0].raised,
        back.attempts[0].words,
        back.attempts[0].changed,
    )
    assert {len(text) for text in texts} == {SHOWN}


@pytest.mark.parametrize(
    "tree",
    [
        None,
        5,
        [],
        [[], "", 0, ""],
        [[[]], "", 0, "", []],
        [[[{"x": 1}, "", "", ""]], "", 0, "", []],
        [[], "", 0, "", [5]],
        [5, "", 0, "", []],
        [[], "", math.inf, "", []],
        [[], "", "many", "", []],
        {"a": 1},
    ],
    ids=str,
)
def test_a_run_of_another_form_is_refused_in_a_sentence(tree):
    with pytest.raises(CompressionError, match="another form"):
        run_from_bytes(to_bytes(tree))


trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(trees | st.lists(trees, min_size=5, max_size=5))
def test_any_tree_is_read_as_a_run_or_refused_in_a_sentence(tree):
    with contextlib.suppress(CompressionError):
        assert isinstance(run_from_bytes(to_bytes(tree)), Run)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_in_a_sentence(content):
    with pytest.raises(CompressionError, match="can't be read"):
        run_from_bytes(content)
