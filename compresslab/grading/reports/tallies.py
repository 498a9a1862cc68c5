"""Count a class: for each exercise, how many were right, and how many students made which named mistake."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from compresslab.checks.exercise import Lab
from compresslab.grading.scores import ExerciseScore, Score, Status, Verdict

__all__ = ["Tally", "ran_unprotected", "tallies"]

JUDGED = (Verdict.RIGHT, Verdict.WRONG, Verdict.LATE)


@dataclass(frozen=True)
class Tally:
    """One exercise in a class. ``verdicts`` counts students by verdict, ``mistakes`` by title, most first."""

    name: str
    verdicts: Mapping[Verdict, int]
    mistakes: tuple[tuple[str, int], ...]

    @property
    def wrote(self) -> int:
        """Students whose answer was judged; not those who wrote nothing, or met an error of the grader."""
        return sum(self.verdicts.get(verdict, 0) for verdict in JUDGED)

    @property
    def unnamed(self) -> int:
        """Students whose answer is wrong without being a named mistake."""
        return self.verdicts.get(Verdict.WRONG, 0) - sum(count for _, count in self.mistakes)

    def share(self, count: int) -> float:
        """Return a number of students as a fraction in [0, 1] of those who wrote the exercise."""
        return count / self.wrote if self.wrote else 0.0


def tallies(results: Mapping[str, Score], lab: Lab) -> tuple[Tally, ...]:
    """Return one tally per exercise: the lab's in their order, then those that only the results have."""
    met: dict[str, list[ExerciseScore]] = {exercise.name: [] for exercise in lab.exercises}
    for score in results.values():
        for test in score.tests:
            met.setdefault(test.name, []).append(test)
    return tuple(_tally(name, tests) for name, tests in met.items())


def _tally(name: str, tests: list[ExerciseScore]) -> Tally:
    titles = Counter(test.mistake for test in tests if test.verdict == Verdict.WRONG and test.mistake)
    by_count = sorted(titles.items(), key=lambda item: (-item[1], item[0]))
    return Tally(name, Counter(test.verdict for test in tests), tuple(by_count))


def ran_unprotected(score: Score) -> bool:
    """Whether a student's code may have run outside a sandbox, so that the score could be forged."""
    judged = any(test.verdict in JUDGED for test in score.tests)
    return not score.isolated and (judged or score.status == Status.GRADED)
