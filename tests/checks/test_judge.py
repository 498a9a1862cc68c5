"""A check says what is wrong in the right order, names the mistake it equals, shows no file of ours."""

from __future__ import annotations

import dataclasses
import random

import made_lab
import pytest
import torch

from compresslab.checks.call import Run, run
from compresslab.checks.exercise import draw_cases
from compresslab.checks.judge import NOT_WRITTEN, check_answer, equal_runs, examine, run_mistakes
from compresslab.errors import WrongAnswer

DOUBLE = made_lab.EXERCISE


def refused(answer, exercise=DOUBLE, seed=0):
    with pytest.raises(WrongAnswer) as caught:
        check_answer(exercise, answer, seed=seed)
    return caught.value


def test_a_right_answer_passes_and_leaves_its_run():
    done = check_answer(DOUBLE, lambda x: x + x)
    assert len(done.attempts) == len(draw_cases(DOUBLE, 0))


@pytest.mark.parametrize("seed", [0, 1, 2**31])
def test_any_seed_will_do(seed):
    check_answer(DOUBLE, lambda x: 2 * x, seed=seed)


@pytest.mark.parametrize("named", DOUBLE.mistakes, ids=lambda named: named.title)
def test_a_mistake_is_told_its_own_words_and_the_case(named):
    wrong = refused(named.answer)
    assert wrong.reason.startswith(named.says.split("{")[0])
    assert wrong.reason.endswith("(case: negative)")
    assert wrong.details["mistake"] == named.title


def test_a_mistake_written_in_another_way_is_recognised():
    assert refused(lambda x: pow(x, 2)).reason.startswith("you square:")


def test_a_mistakes_words_are_filled_with_the_students_value():
    x = draw_cases(DOUBLE, 0)[0][1]["x"]
    assert f"you square: {x * x:.6g} is" in refused(lambda x: x**2).reason


def test_another_wrong_answer_is_told_the_law_with_both_values():
    wrong = refused(lambda x: 3 * x)
    assert wrong.reason.startswith("the answer is -")
    assert "; yours is -" in wrong.reason
    assert "mistake" not in wrong.details


def test_a_hole_that_is_not_written_is_told_so():
    def hole(x):
        raise NotImplementedError

    assert refused(hole).reason == NOT_WRITTEN


def test_what_the_function_raises_is_told_with_its_line():
    def fails(x):
        return x / 0

    reason = refused(fails).reason
    assert "your function raises ZeroDivisionError" in reason
    assert "return x / 0" in reason


def test_a_function_that_exits_is_told_so():
    assert "calls sys.exit()" in refused(lambda x: exit()).reason


def test_a_function_that_never_returns_is_stopped():
    def endless(x):
        while True:
            pass

    reason = refused(endless, dataclasses.replace(DOUBLE, seconds=0.1)).reason
    assert (
        reason
        == "your function did not return within 0.1 s; look for a loop that never ends (case: negative)"
    )


def test_a_function_that_prints_without_end_is_told_so():
    def loud(x):
        print("x" * 600_000)
        return 2 * x

    assert refused(loud).reason.startswith("your function printed 1,200,002 characters")


def test_a_function_that_changes_its_input_is_told_which():
    summing = dataclasses.replace(
        DOUBLE,
        cases=lambda rng: iter([("three", {"x": torch.ones(3)})]),
        probe=lambda case, written: {"twice": written(case["x"])},
        mistakes=(),
    )

    def careless(x):
        x += 1
        return 6.0

    assert refused(careless, summing).reason.startswith("your function changes its input (argument 1)")


@pytest.mark.parametrize("answer", [None, 3, "double"])
def test_what_is_no_function_is_told_so(answer):
    assert refused(answer).reason == f"double is a function; yours is a {type(answer).__name__}"


def test_a_run_that_left_too_few_records_does_not_pass():
    cases = draw_cases(DOUBLE, 0)
    done = run(DOUBLE.probe, cases, lambda x: 2 * x, seconds=1)
    with pytest.raises(WrongAnswer, match="only 1 of 2 cases left a record"):
        examine(DOUBLE, cases, Run(done.attempts[:1]))


def test_the_records_of_another_seed_do_not_pass():
    old, new = draw_cases(DOUBLE, 0), draw_cases(DOUBLE, 1)
    done = run(DOUBLE.probe, old, lambda x: 2 * x, seconds=1)
    with pytest.raises(WrongAnswer):
        examine(DOUBLE, new, done)


def test_mistakes_that_somebody_ran_already_are_not_run_again():
    cases = draw_cases(DOUBLE, 0)
    mistakes = run_mistakes(DOUBLE, cases)
    broken = dataclasses.replace(
        DOUBLE, mistakes=tuple(dataclasses.replace(m, answer=None) for m in DOUBLE.mistakes)
    )
    with pytest.raises(WrongAnswer, match="you halve"):
        examine(broken, cases, mistakes["halves"], mistakes=mistakes)


def test_a_run_equals_itself_and_a_stopped_one_equals_none():
    cases = draw_cases(DOUBLE, 0)
    one, other = (
        run(DOUBLE.probe, cases, answer, seconds=1) for answer in (lambda x: 2 * x, lambda x: x + x)
    )
    assert equal_runs(one, other)
    assert not equal_runs(one, dataclasses.replace(other, stopped="too late"))
    assert not equal_runs(one, Run(one.attempts[:1]))


def test_a_check_leaves_the_random_numbers_of_the_notebook_alone():
    torch.manual_seed(3)
    random.seed(3)
    before = torch.get_rng_state(), random.getstate()
    check_answer(DOUBLE, lambda x: 2 * x)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
