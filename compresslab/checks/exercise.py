"""An exercise is data: inputs, what to record, how to judge it, right answers, named mistakes, hints.

A module of a lab's folder in ``course`` holds one exercise, from top to bottom as below. The modules
``call`` and ``judge`` run it, in the notebook, in the tests and in the grader: an author writes no plumbing.

    def cases(rng): ...                 yields (title, dict of plain values and tensors)
    def probe(case, written): ...       calls the student's function; returns {name: value}
    def judge(case, record): ...        sees the record alone; raises WrongAnswer, or returns nothing
    def by_loop(...): ...               a right answer; and another, written differently
    @mistake("forgets abs()", says="…") a wrong answer that real students write, with its diagnosis
    EXERCISE = Exercise(...)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch

from compresslab.checks.record import Recorded

__all__ = ["Case", "Exercise", "Hint", "Lab", "Mistake", "Record", "draw_cases", "mistake"]

Case = tuple[str, dict[str, Any]]
Record = dict[str, Recorded]


@dataclass(frozen=True)
class Hint:
    """One step of help. Its title is a symptom, so that students can recognise their problem in it."""

    symptom: str
    text: str


@dataclass(frozen=True)
class Mistake:
    """A wrong answer with a name. ``says`` may use the judge's details: ``{where}``, ``{yours}``, …"""

    title: str
    says: str
    answer: Callable[..., Any]


def mistake(title: str, *, says: str) -> Callable[[Callable[..., Any]], Mistake]:
    """Turn the wrong function below it into a named mistake."""
    return lambda answer: Mistake(title, says, answer)


@dataclass(frozen=True)
class Exercise:
    """Everything about one hole of a lab.

    Args:
        name: of the function that the student writes.
        points: what a right answer earns.
        minutes: how long the average student takes.
        difficulty: 1 (a line that follows from the text) to 5 (an evening).
        statement: one sentence; it is also what a passed check prints.
        cases: a seeded generator of inputs, the edge cases among them by name.
        probe: runs where the student's code runs. Self-contained: it uses its arguments, ``torch``, ``nn``,
            ``np``, ``math`` and ``build`` (a network from plain data), and imports nothing. Where an answer
            is meant to change its arguments, it forgets the note of that: ``answer.changed = ""``.
        judge: pure; a law or an independent oracle.
        right: at least two right answers, written differently; the first one is what ``reveal`` hands over.
        mistakes: at least four, each with a message of its own.
        hints: three: a nudge, the formula with its shapes, one line with a blank.
        seconds: how long all cases together may run.
        choices: of a why-question, letter → text; printed above the hole.
        bonus: on top of the lab's points and minutes, for students who want more.
        explanation: what a passed check prints where the statement is a question.
        lab: the lab's folder; the ``Lab`` that lists the exercise sets it.
    """

    name: str
    points: int
    minutes: int
    difficulty: int
    statement: str
    cases: Callable[[torch.Generator], Iterable[Case]]
    probe: Callable[[dict[str, Any], Callable[..., Any]], dict[str, Any]]
    judge: Callable[[dict[str, Any], Record], None]
    right: tuple[Callable[..., Any], ...]
    mistakes: tuple[Mistake, ...]
    hints: tuple[Hint, ...]
    seconds: float = 10.0
    choices: tuple[tuple[str, str], ...] = ()
    bonus: bool = False
    explanation: str = ""
    lab: str = ""


@dataclass(frozen=True)
class Lab:
    """A lab: its folder's name, what it is about, and its exercises in the order of the notebook.

    ``answers`` are all modules and packages of compresslab in which an answer can be found, in full: the
    grader's worker cannot import them, nor anything that needs them.
    """

    name: str
    title: str
    about: str
    objectives: tuple[str, ...]
    prerequisites: tuple[str, ...]
    exercises: tuple[Exercise, ...]
    answers: tuple[str, ...]

    def __post_init__(self) -> None:
        exercises = tuple(replace(exercise, lab=self.name) for exercise in self.exercises)
        object.__setattr__(self, "exercises", exercises)

    @property
    def minutes(self) -> int:
        """What the core exercises take; bonus ones come on top."""
        return sum(exercise.minutes for exercise in self.exercises if not exercise.bonus)

    @property
    def points(self) -> int:
        """What the core exercises earn; bonus ones come on top."""
        return sum(exercise.points for exercise in self.exercises if not exercise.bonus)

    def exercise(self, name: str) -> Exercise:
        """Return the exercise of this name.

        Raises:
            KeyError: the lab has none.
        """
        return {exercise.name: exercise for exercise in self.exercises}[name]


def draw_cases(exercise: Exercise, seed: int) -> list[Case]:
    """Draw the exercise's inputs for one seed; the same seed draws the same inputs."""
    return list(exercise.cases(torch.Generator().manual_seed(seed)))
