"""A lab's menus in the notebook: ``check``, ``hint``, ``reveal`` and ``yours``, one name per exercise.

from compresslab.notebook import lab
check, hint, reveal, yours = lab("00_measuring")

check.count_parameters(count_parameters)    passes with a sentence, or raises one clean line; a hole that
                                            is not written yet gives a grey line, which counts 0
hint.count_parameters()                     the next of three hints
reveal.count_parameters()                   a working function, for 0 points, so that nobody is stuck
yours.count_parameters(model)               the student's own function, once its check passed
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from compresslab.checks.exercise import Exercise, Lab
from compresslab.checks.judge import check_answer
from compresslab.checks.published import published_source
from compresslab.course import find_lab
from compresslab.errors import Unwritten, WrongAnswer

__all__ = ["Menus", "NoPoints", "hint_text", "lab", "menus_of"]


class Menus(NamedTuple):
    """The four menus of a lab, to be unpacked in this order."""

    check: Any
    hint: Any
    reveal: Any
    yours: Any


def lab(name: str) -> Menus:
    """Return the four menus of a lab, such as ``00_measuring``.

    Raises:
        BadSetting: there is no such lab.
    """
    return menus_of(find_lab(name))


def menus_of(chosen: Lab) -> Menus:
    """Return the four menus of a lab that is at hand already."""
    state = _State(chosen)
    return Menus(*(_Menu(chosen, action) for action in (state.check, state.hint, state.reveal, state.yours)))


@dataclass(frozen=True)
class NoPoints:
    """What a check returns if there is nothing to judge: one grey line in the notebook, and the number 0.

    nbgrader reads a check cell's result as its points, and a cell that prints and returns nothing as full
    marks; so the text form is ``0`` and nothing else.
    """

    reason: str

    def __repr__(self) -> str:
        return "0"

    def _repr_html_(self) -> str:
        return f'<span style="color: gray">{html.escape(self.reason)}</span>'


class _Menu:
    """An object with one attribute per exercise, so that Tab completes their names."""

    def __init__(self, chosen: Lab, action: Callable[[Exercise], Any]) -> None:
        self._lab = chosen
        self._action = action

    def __getattr__(self, name: str) -> Any:
        try:
            exercise = self._lab.exercise(name)
        except KeyError:
            raise AttributeError(
                f"{name!r} is no exercise of {self._lab.name}; there are {', '.join(dir(self))}"
            ) from None
        return self._action(exercise)

    def __dir__(self) -> list[str]:
        return [exercise.name for exercise in self._lab.exercises]


class _State:
    """The answers passed and revealed, and the hints seen, since the kernel started."""

    def __init__(self, chosen: Lab) -> None:
        self.lab = chosen
        self.passed: dict[str, Callable[..., Any]] = {}
        self.revealed: dict[str, Callable[..., Any]] = {}
        self.hints_seen: dict[str, int] = {}

    def check(self, exercise: Exercise) -> Callable[[Any], NoPoints | None]:
        def check(answer: Any) -> NoPoints | None:
            if answer is not None and answer is self.revealed.get(exercise.name):
                return NoPoints(_revealed(exercise))
            try:
                done = check_answer(exercise, answer, answers=self.lab.answers)
            except Unwritten as unwritten:
                self.passed.pop(exercise.name, None)
                return NoPoints(f"{exercise.name}: {unwritten.reason}  (0 of {_points(exercise)})")
            except WrongAnswer as wrong:
                self.passed.pop(exercise.name, None)
                raise WrongAnswer(wrong.reason, self._offer(exercise), **wrong.details) from None
            if done.printed:
                print(done.printed.rstrip() + (" …" if done.characters > len(done.printed) else ""))
            self.passed[exercise.name] = answer
            print(f"✓ {exercise.explanation or exercise.statement}  ({_points(exercise)})")
            return None

        return check

    def hint(self, exercise: Exercise) -> Callable[..., None]:
        def hint(step: int | None = None) -> None:
            count = len(exercise.hints)
            if step is None:
                step = min(self.hints_seen.get(exercise.name, 0) + 1, count)
            if step not in range(1, count + 1):
                raise WrongAnswer(f"step must be 1 to {count} for {exercise.name}, got {step}")
            self.hints_seen[exercise.name] = max(step, self.hints_seen.get(exercise.name, 0))
            print(hint_text(exercise, step))

        return hint

    def reveal(self, exercise: Exercise) -> Callable[[], Callable[..., Any]]:
        def reveal() -> Callable[..., Any]:
            answer = exercise.right[0]
            self.revealed[exercise.name] = answer
            shown = exercise.explanation or published_source(exercise)
            print(f"{exercise.name}, revealed (0 points):\n\n{shown}")
            return answer

        return reveal

    def yours(self, exercise: Exercise) -> Callable[..., Any]:
        written = self.passed.get(exercise.name) or self.revealed.get(exercise.name)
        if written is None:
            name = exercise.name
            raise Unwritten(
                f"this cell uses your {name}: write it and run its check, or call reveal.{name}()"
            )
        return written

    def _offer(self, exercise: Exercise) -> str:
        """Return the next hint's title, which is a symptom; the hint itself takes a call."""
        seen = self.hints_seen.get(exercise.name, 0)
        if seen >= len(exercise.hints):
            return f"All hints seen; reveal.{exercise.name}() gives you a working one, for 0 points."
        return f"Hint on offer: hint.{exercise.name}() - {exercise.hints[seen].symptom}"


def hint_text(exercise: Exercise, step: int) -> str:
    """Return a hint as a student reads it, in the notebook and in the shell: its symptom, then its text."""
    chosen = exercise.hints[step - 1]
    text = textwrap.fill(chosen.text, 100, initial_indent="    ", subsequent_indent="    ")
    return f"Hint {step} of {len(exercise.hints)}: {chosen.symptom}\n\n{text}"


def _points(exercise: Exercise) -> str:
    return f"{exercise.points} point" + ("s" if exercise.points != 1 else "")


def _revealed(exercise: Exercise) -> str:
    earn = f"Write your own to earn {_points(exercise)}."
    return f"{exercise.name} is the revealed one: it works, for 0 points. {earn}"
