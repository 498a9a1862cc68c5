"""What the comparison has found so far: gains with intervals over seeds, and the tries behind each choice.

A gain is a difference in test accuracy between runs of the same seeds, which see the same views in the same
order; its interval is over seeds. A row with fewer than two seeds has none yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from compresslab.errors import BadSetting
from compresslab.experiments.distillation.comparison.plan import ROWS, Row
from compresslab.measurement.statistics import Interval, gain_over_seeds

__all__ = ["Tried", "difference", "gains", "tries"]

BASELINES = {"own_teacher": "deep_alone"}  # of a row whose student has another architecture


@dataclass(frozen=True)
class Tried:
    """How a setting of a row was chosen.

    Attributes:
        row: its name.
        setting: its name.
        values: those that were tried, from low to high.
        chosen: the best on validation.
        at_edge: whether it is the lowest or the highest of them, and there are values beyond it.
    """

    row: str
    setting: str
    values: tuple[float, ...]
    chosen: float
    at_edge: bool


def gains(results: Mapping[str, Any], task: str) -> dict[str, Interval]:
    """Return the gain of each row over the student alone: {row: interval}, as fractions.

    Args:
        results: of ``EXPERIMENT.load_results``.
        task: a name in TASKS.
    """
    rivals = [(row.name, BASELINES.get(row.name, "alone")) for row in ROWS if row.task == task]
    return {
        name: difference(results, task, name, baseline)
        for name, baseline in rivals
        if name != baseline and len(_seeds(results, task, name, baseline)) > 1
    }


def difference(results: Mapping[str, Any], task: str, row: str, other: str) -> Interval:
    """Return by how much the test accuracy of a row is higher than another's, over the seeds of both.

    Raises:
        BadSetting: the rows have fewer than two seeds in common.
    """
    seeds = _seeds(results, task, row, other)
    if len(seeds) < 2:
        raise BadSetting(
            f"row and other must have two seeds in common, got {row!r} and {other!r} with {len(seeds)}; "
            "run what is missing of the comparison"
        )
    mine, theirs = ([results[f"{task}/{name}/{s}"]["test_accuracy"] for s in seeds] for name in (row, other))
    return gain_over_seeds(mine, theirs)


def tries(results: Mapping[str, Any], task: str) -> list[Tried]:
    """Return how each setting was chosen, of the rows that have a reported run."""
    reported = [row for row in ROWS if row.task == task and row.run(0).key in results]
    return [tried for row in reported for tried in _tries_of(row, results)]


def _tries_of(row: Row, results: Mapping[str, Any]) -> Iterator[Tried]:
    if row.tuning is None:
        return
    for name, best in row.tuning.chosen.items():
        values = tuple(row.tuning.tried(name, results))
        edge = row.tuning.at_edge(name, results)
        yield Tried(row.name, name, values, best.value(results), edge)


def _seeds(results: Mapping[str, Any], task: str, *rows: str) -> list[int]:
    """Return the seeds that all these rows have a result of."""
    by_name = {row.name: row.seeds for row in ROWS if row.task == task}
    seeds = range(min(by_name[name] for name in rows))
    return [seed for seed in seeds if all(f"{task}/{name}/{seed}" in results for name in rows)]
