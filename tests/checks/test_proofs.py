"""The six proofs, for every exercise of every lab; and the proof that each of them can fail."""

from __future__ import annotations

import dataclasses
import inspect
import re

import made_lab
import pytest
import torch

from compresslab.checks import expect
from compresslab.checks.exercise import Hint, draw_cases, mistake
from compresslab.checks.judge import NOT_WRITTEN, check_answer
from compresslab.checks.proofs import (
    GARBAGE,
    garbage_runs,
    idle_statements,
    kills,
    problems_with_garbage,
    problems_with_parts,
    problems_with_right_answers,
)
from compresslab.course import all_labs
from compresslab.errors import WrongAnswer

EXERCISES = [exercise for lab in all_labs() for exercise in lab.exercises]
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: f"{e.lab}:{e.name}")


def not_written(*positional, **named):
    raise NotImplementedError("your code goes here")


# The six proofs


@each_exercise
def test_1_the_hole_as_shipped_is_told_that_it_is_not_written_yet(exercise):
    with pytest.raises(WrongAnswer) as caught:
        check_answer(exercise, not_written)
    assert caught.value.reason == NOT_WRITTEN


@each_exercise
def test_2_every_right_answer_passes_on_200_seeds(exercise):
    assert problems_with_right_answers(exercise, range(200)) == []


@each_exercise
def test_3_every_mistake_fails_on_every_seed_with_its_own_message(exercise):
    kill = kills(exercise, range(40))
    assert kill.problems == ()
    assert kill.mistakes == kill.killed == kill.own_message


@each_exercise
def test_4_no_statement_of_the_judge_can_be_deleted(exercise):
    assert idle_statements(exercise, range(2)) == []


@each_exercise
def test_5_garbage_is_refused_with_a_sentence_of_its_own(exercise):
    assert problems_with_garbage(exercise) == []


@each_exercise
def test_6_an_exercise_judges_the_same_whatever_was_judged_before(exercise):
    for other in EXERCISES:
        if other is not exercise:
            with pytest.raises(WrongAnswer):
                check_answer(other, not_written)
            break
    check_answer(exercise, exercise.right[0])


# What an exercise has to have


@each_exercise
def test_an_exercise_is_complete(exercise):
    assert problems_with_parts(exercise) == []
    assert 1 <= exercise.difficulty <= 5
    assert exercise.points >= 1
    assert exercise.minutes >= 1
    assert exercise.seconds <= 30


@each_exercise
def test_the_statement_is_one_sentence(exercise):
    assert re.search(r"[.?]$", exercise.statement)
    assert not re.search(r"[.?!] [A-Z]", exercise.statement)


@each_exercise
def test_names_are_unique_and_say_something(exercise):
    titles = [named.title for named in exercise.mistakes]
    symptoms = [hint.symptom for hint in exercise.hints]
    assert len(set(titles)) == len(titles)
    assert len(set(symptoms)) == len(symptoms)
    assert all([*titles, *symptoms, *(hint.text for hint in exercise.hints)])


@each_exercise
def test_no_hint_gives_a_right_answer_away(exercise):
    """The third hint has a blank; none holds a line of the shortest right answer that says it all."""
    if not exercise.choices:
        assert "__" in exercise.hints[2].text
        body = [
            line.strip() for line in inspect.getsource(exercise.right[0]).splitlines()[1:] if line.strip()
        ]
        assert not any(body[-1] in hint.text for hint in exercise.hints)


@each_exercise
def test_cases_are_named_and_drawn_anew_from_each_seed(exercise):
    titles = [title for title, _ in draw_cases(exercise, 0)]
    assert all(titles)
    assert repr(draw_cases(exercise, 3)) == repr(draw_cases(exercise, 3))


@each_exercise
def test_the_first_right_answer_can_be_revealed(exercise):
    assert "return" in inspect.getsource(exercise.right[0]) or exercise.choices


@pytest.mark.parametrize("lab", all_labs(), ids=lambda lab: lab.name)
def test_a_lab_has_six_to_eight_core_exercises_of_its_own(lab):
    assert len(lab.exercises) >= 6
    names = [exercise.name for exercise in lab.exercises]
    assert len(set(names)) == len(names)


# Each proof can fail


def spoiled(**changes):
    return dataclasses.replace(made_lab.EXERCISE, **changes)


def test_the_made_exercise_passes_every_proof():
    made = made_lab.EXERCISE
    assert problems_with_right_answers(made, range(20)) == []
    assert kills(made, range(20)).problems == ()
    assert problems_with_garbage(made) == []
    assert idle_statements(made, range(2)) == []


def the_same(rng):
    yield "one", {"x": 1.0}
    yield "two", {"x": 2.0}


def only_one(rng):
    yield "one", {"x": float(torch.rand((), generator=rng))}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"right": ()}, "double: 0 of at least 2 right answers"),
        ({"mistakes": made_lab.EXERCISE.mistakes[:3]}, "double: 3 of at least 4 mistakes"),
        ({"hints": ()}, "double: 0 of 3 hints"),
        ({"cases": lambda rng: iter(())}, "double: cases draws no input"),
        ({"cases": only_one}, "double: 1 of at least 2 named cases"),
        ({"cases": the_same}, "double: cases are the same for every seed, so they can be learned by heart"),
    ],
)
def test_a_part_that_is_missing_is_named(changes, says):
    assert says in problems_with_parts(spoiled(**changes))
    assert problems_with_parts(made_lab.EXERCISE) == []


def test_proof_2_finds_a_right_answer_that_is_rejected():
    strange = spoiled(right=(made_lab.by_product, made_lab.squares.answer))
    found = problems_with_right_answers(strange, [7])
    assert found[0].startswith("double: right answer 1 is rejected on seed 7: the answer is")


def test_proof_2_hears_the_judge_and_not_a_mistakes_words():
    """A right answer that equals a mistake is told so as well: both cannot be."""
    twin = mistake("is right", says="no")(made_lab.by_sum)
    assert kills(spoiled(mistakes=(twin,)), [0]).killed == 0


def test_proof_3_finds_a_weak_judge():
    def weak(case, record):
        expect.number(record["twice"])

    found = kills(spoiled(judge=weak), range(3))
    assert (found.mistakes, found.killed) == (4, 0)
    assert "double: 'squares' passes on seed 0" in found.problems


def test_proof_3_finds_a_mistake_that_passes_on_some_seeds_only():
    def sometimes(rng):
        for title, inputs in made_lab.cases(rng):
            yield title, inputs | {"easy": inputs["x"] > -1.5}

    def lenient(case, record):
        twice = expect.number(record["twice"])
        expect.true(case["easy"] or twice == 2 * case["x"], "wrong")

    found = kills(spoiled(cases=sometimes, judge=lenient), range(20))
    assert 0 == found.killed < len(found.problems)


def test_proof_3_finds_two_mistakes_that_cannot_be_told_apart():
    again = mistake("squares by product", says="another text")(lambda x: x * x)
    found = kills(spoiled(mistakes=(*made_lab.EXERCISE.mistakes, again)), [0])
    assert (found.killed, found.own_message) == (5, 3)


def test_proof_3_finds_two_mistakes_with_one_message():
    again = mistake("adds three", says="you halve")(lambda x: x + 3)
    found = kills(spoiled(mistakes=(*made_lab.EXERCISE.mistakes, again)), [0])
    assert "double: two mistakes share the message 'you halve'" in found.problems


def test_proof_3_finds_a_message_with_a_gap():
    vague = mistake("adds nine", says="you got {nonsense}")(lambda x: x + 9)
    found = kills(spoiled(mistakes=(vague,)), [0])
    assert found.own_message == 0
    assert "a gap" in found.problems[0]


def test_proof_4_finds_an_idle_statement():
    assert idle_statements(spoiled(judge=idle_judge), range(2)) == [
        "double: the judge can do without: expect.true(True, 'never')"
    ]


def idle_judge(case, record):
    twice = expect.number(record["twice"])
    expect.true(True, "never")
    expect.close(twice, case["x"] + case["x"])


def test_proof_5_finds_a_judge_that_lets_garbage_pass():
    found = problems_with_garbage(spoiled(judge=lambda case, record: None))
    assert any("garbage (None) is told 'that it passes'" in problem for problem in found)


def test_proof_5_finds_a_judge_that_crashes():
    def crashes(case, record):
        return 1 / record["twice"].array

    found = problems_with_garbage(spoiled(judge=crashes))
    assert any("crashes the judge" in problem for problem in found)


def test_proof_5_tries_every_kind_of_garbage():
    assert set(garbage_runs(made_lab.EXERCISE)) == set(GARBAGE) - {"changes its input"}


def test_a_hint_has_a_symptom():
    assert Hint("too small", "look").symptom == "too small"
