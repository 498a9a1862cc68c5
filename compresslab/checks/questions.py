"""Why-questions: multiple choice, checked by machine, with a reason for each wrong option.

A why-question is an exercise like any other: its hole is a function that returns a letter, its mistakes are
the wrong letters, and what a mistake says is why that letter is wrong.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import torch

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Mistake, Record

__all__ = ["question"]


def question(
    *,
    name: str,
    asks: str,
    key: str,
    choices: dict[str, tuple[str, str]],
    hints: tuple[Hint, ...],
    points: int = 1,
    minutes: int = 3,
    difficulty: int = 1,
    bonus: bool = False,
) -> Exercise:
    """An exercise whose answer is a letter.

    Args:
        name: of the function that returns the letter.
        asks: the question, one sentence.
        key: the right letter.
        choices: letter → (the option, the reason why it is wrong); at least five.
        hints: three, as for any exercise.
        points: what the right letter earns.
        minutes: to think.
        difficulty: 1 to 5.
        bonus: beyond the lab's points.
    """
    return Exercise(
        name=name,
        points=points,
        minutes=minutes,
        difficulty=difficulty,
        statement=asks,
        cases=_one_case,
        probe=_probe,
        judge=functools.partial(_judge, key=key, letters=tuple(choices)),
        right=(lambda: key, lambda: f" {key.upper()}) "),
        mistakes=tuple(
            Mistake(f"answers {letter}", feedback, functools.partial(str, letter))
            for letter, (_, feedback) in choices.items()
            if letter != key
        ),
        hints=hints,
        choices=tuple((letter, words) for letter, (words, _) in choices.items()),
        bonus=bonus,
        explanation=f"{key}) {choices[key][0]}",
    )


def _one_case(rng: torch.Generator) -> Iterable[Case]:
    yield "the question", {}


def _probe(case: dict[str, Any], written: Any) -> dict[str, Any]:
    answer = written()
    if type(answer) is str:
        answer = answer.strip(" ().\n\t").lower()  # (d), d) and d. are d
    return {"letter": answer}


def _judge(case: dict[str, Any], record: Record, *, key: str, letters: tuple[str, ...]) -> None:
    letter = expect.choice(record["letter"], among=letters)
    expect.equal(letter, key, what="the right letter")
