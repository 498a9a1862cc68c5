"""Counts a class: for each exercise, how many were right, and which named mistake hit how many students."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from compresslab.checks.exercise import Lab
from compresslab.grading.scores import ExerciseScore, Score

__all__ = ["Tally", "ran_unprotected", "tallies"]


@dataclass(frozen=True)
class Tally:
    """One exercise in a class. ``verdicts`` counts students by verdict, ``mistakes`` by title, most first."""

    name: str
    verdicts: Mapping[str, int]
    mistakes: tuple[tuple[str, int], ...]

    @property
    def wrote(self) -> int:
        """Students whose answer was judged; who wrote nothing, or met a fault of ours, is not in it."""
        return sum(self.verdicts.get(verdict, 0) for verdict in ("right", "wrong", "late"))

    @property
    def unnamed(self) -> int:
        """Students whose answer is wrong in a way that has no name."""
        return self.verdicts.get("wrong", 0) - sum(count for _, count in self.mistakes)

    def share(self, count: int) -> float:
        """So many students as a fraction in [0, 1] of those who wrote the exercise."""
        return count / self.wrote if self.wrote else 0.0


def tallies(results: Mapping[str, Score], lab: Lab) -> tuple[Tally, ...]:
    """One tally an exercise: the lab's in their order, then those that only the results know."""
    met: dict[str, list[ExerciseScore]] = {exercise.name: [] for exercise in lab.exercises}
    for score in results.values():
        for test in score.tests:
            met.setdefault(test.name, []).append(test)
    return tuple(_tally(name, tests) for name, tests in met.items())


def _tally(name: str, tests: list[ExerciseScore]) -> Tally:
    titles = Counter(test.mistake for test in tests if test.verdict == "wrong" and test.mistake)
    by_count = sorted(titles.items(), key=lambda item: (-item[1], item[0]))
    return Tally(name, Counter(test.verdict for test in tests), tuple(by_count))


def ran_unprotected(score: Score) -> bool:
    """Whether a student's code may have run here outside a sandbox, so that the score could be forged."""
    judged = any(test.verdict in ("right", "wrong", "late") for test in score.tests)
    return not score.isolated and (judged or score.status == "graded")
