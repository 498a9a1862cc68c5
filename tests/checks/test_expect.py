"""The words a judge is written in: each refuses what is wrong in a sentence that says what came."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from compresslab.checks import expect
from compresslab.checks.record import describe
from compresslab.errors import WrongAnswer


def reason(reader, *arguments, **settings):
    with pytest.raises(WrongAnswer) as caught:
        reader(*arguments, **settings)
    return caught.value.reason


@pytest.mark.parametrize("value", [3, np.int32(3), torch.tensor(3), torch.tensor([3])])
def test_a_whole_number_comes_in_many_types(value):
    read = expect.whole_number(describe(value))
    assert read == 3
    assert type(read) is int


@pytest.mark.parametrize(
    ("value", "came"),
    [
        (3.0, "a float (3.0)"),
        (True, "a bool (True)"),
        (None, "None (did you forget the return?)"),
        ("3", "a str"),
        ([3], "a list"),
        (torch.ones(2, dtype=torch.int64), "a Tensor of shape (2,)"),
        (object(), "a object"),
    ],
)
def test_what_is_no_whole_number_is_named(value, came):
    assert (
        reason(expect.whole_number, describe(value)) == f"the answer is a whole number (int); yours is {came}"
    )


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), torch.tensor(2.0), torch.tensor([[2.0]])])
def test_a_number_comes_in_many_types(value):
    assert expect.number(describe(value)) == 2.0


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (math.nan, "is NaN; look for"),
        (-math.inf, "is infinite"),
        (1.5, "lies between 0 and 1; yours is 1.5"),
        (None, "None"),
        (True, "a bool"),
        (1j, "one number"),
        (torch.ones(2), "shape (2,)"),
    ],
)
def test_what_is_no_number_in_the_range_is_named(value, says):
    assert says in reason(expect.number, describe(value), low=0, high=1, what="the share")


def test_a_tensor_is_read_as_it_is():
    value = torch.randn(2, 3, dtype=torch.float64)
    assert torch.equal(expect.tensor(describe(value), shape=(2, 3), dtype=torch.float64), value)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.ones((2, 2)), "is a torch tensor of shape (2, 2); yours is a ndarray of shape (2, 2)"),
        (torch.ones(4), "has the shape (2, 2); yours has (4,)"),
        (torch.ones(2, 2, dtype=torch.float64), "is float32; yours is float64"),
        (torch.tensor([[1.0, 2.0], [math.nan, 1.0]]), "has NaN in it, first at (1, 0)"),
        (None, "yours is None"),
    ],
)
def test_what_is_no_such_tensor_is_named(value, says):
    assert says in reason(expect.tensor, describe(value), shape=(2, 2), dtype=torch.float32)


def test_a_choice_forgives_case_spaces_and_brackets():
    assert expect.choice(describe(" B) "), among="abc") == "b"
    assert expect.choice(describe("faster"), among=("Faster", "slower")) == "Faster"


@pytest.mark.parametrize(
    ("value", "says"), [("d", "yours is 'd'"), (1, "yours is a int"), ("", "yours is ''")]
)
def test_another_choice_is_told_which_there_are(value, says):
    words = reason(expect.choice, describe(value), among="abc")
    assert "one of 'a', 'b', 'c'" in words
    assert says in words


def test_parts_are_counted():
    assert [part.text for part in expect.parts(describe((1, 2)), count=2)] == ["1", "2"]
    assert "yours has 1 entries" in reason(expect.parts, describe([1]), count=2)
    assert "yours is a dict" in reason(expect.parts, describe({1: 2}), count=2)


def test_a_law_that_does_not_hold_gives_its_reason():
    expect.true(True, "fine")
    assert reason(expect.true, False, "more is kept than asked") == "more is kept than asked"


def test_equal_shows_large_numbers_with_commas():
    assert reason(expect.equal, 1234, 5678) == "the answer is 5,678; yours is 1,234"
    assert reason(expect.equal, "a", "b", what="the letter") == "the letter is 'b'; yours is 'a'"


def test_close_is_relative_for_large_and_absolute_for_small_numbers():
    expect.close(1e6 + 1, 1e6, tolerance=1e-5)
    expect.close(1e-6, 0.0, tolerance=1e-5)
    assert "yours is 1.1" in reason(expect.close, 1.1, 1.0)
    assert "yours is 1e-05" in reason(expect.close, 1e-5, 0.0, tolerance=1e-6)


def test_close_shows_the_first_entry_that_is_apart():
    yours, wanted = torch.zeros(2, 3), torch.zeros(2, 3)
    yours[1, 0], yours[1, 2] = 5, 7
    with pytest.raises(WrongAnswer) as caught:
        expect.close(yours, wanted)
    assert caught.value.reason == "the answer at [1, 0] is 0; yours is 5"
    assert caught.value.details["where"] == (1, 0)


@pytest.mark.parametrize("yours", [math.nan, math.inf, -math.inf])
def test_no_number_that_is_not_finite_is_close_to_one_that_is(yours):
    assert "yours is" in reason(expect.close, yours, 1.0)
    assert "yours is" in reason(expect.close, torch.tensor([1.0, yours]), torch.ones(2))


def test_tensors_of_two_shapes_are_never_close():
    assert "shape" in reason(expect.close, torch.ones(3), torch.ones(1))


def test_a_tensor_may_be_held_against_one_number():
    expect.close(torch.ones(2, 2), 1.0)
    assert "at [1, 1] is 1; yours is 3" in reason(expect.close, torch.tensor([[1.0, 1.0], [1.0, 3.0]]), 1.0)
