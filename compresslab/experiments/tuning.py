"""Tuning as data: one setting after another, each along a grid that goes on while its best lies at an edge.

The first setting, as a rule the learning rate, is tried at each value of its grid's start, with the defaults
of the others. Then the next setting is tried at the best so far, and so on. Beyond the start, the next value
is tried only if the best so far is the outermost one: such a run is in the plan, with ``Run.needed``, so the
plan stays fixed, and which of its runs are started follows from the stored results alone. If the best is
still the last value of the whole grid, the grid is too short (``Tuning.at_edge``), unless there are no values
beyond it, such as a share of 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from compresslab.errors import BadSetting
from compresslab.experiments.experiment import Best, BestIs, Run

__all__ = ["Grid", "Tuning", "tune"]


@dataclass(frozen=True)
class Grid:
    """The values of one setting that may be tried, from low to high.

    Attributes:
        setting: its name.
        values: all of them.
        start: those that are tried in any case: some neighbours among the values.
        default: the value in the tries of earlier settings; one of the start.
        bounds: values beyond which there are none, so the best may be one of them.
    """

    setting: str
    values: tuple[float, ...]
    start: tuple[float, ...]
    default: float | None = None
    bounds: tuple[float, ...] = ()

    @property
    def below(self) -> tuple[float, ...]:
        """The values below the start, the nearest first."""
        return self.values[: self.values.index(self.start[0])][::-1]

    @property
    def above(self) -> tuple[float, ...]:
        """The values above the start, the nearest first."""
        return self.values[self.values.index(self.start[-1]) + 1 :]


@dataclass(frozen=True)
class Tuning:
    """A method's tuning runs, and what they decide.

    Attributes:
        grids: one per setting, in the order of the tuning.
        runs: in the order of the plan.
    """

    grids: tuple[Grid, ...]
    runs: tuple[Run, ...]

    @property
    def chosen(self) -> dict[str, Best]:
        """{setting: its value in the best of all tries}."""
        keys = tuple(run.key for run in self.runs)
        return {grid.setting: Best(grid.setting, keys) for grid in self.grids}

    def tried(self, setting: str, results: Mapping[str, Any]) -> list[Any]:
        """Return the values of a setting that were tried, from low to high."""
        return sorted({results[run.key][setting] for run in self.runs if run.key in results})

    def at_edge(self, setting: str, results: Mapping[str, Any]) -> bool:
        """Whether the best value of a setting is the lowest or the highest that was tried, and no bound."""
        grid = next(grid for grid in self.grids if grid.setting == setting)
        tried, best = self.tried(setting, results), self.chosen[setting].value(results)
        return best in (tried[0], tried[-1]) and best not in grid.bounds


def tune(template: Run, grids: Sequence[Grid]) -> Tuning:
    """Return the tuning runs of a method, one setting after another.

    Args:
        template: a try without its tuned settings; its key is GROUP/NAME/…, without setting, value and seed.
        grids: of the settings, in the order in which they are tuned; all but the first have a default.

    Raises:
        BadSetting: a grid's start or default is not among its values.
    """
    runs: list[Run] = []
    for number, grid in enumerate(grids):
        _check(grid, first=number == 0)
        earlier = Tuning(tuple(grids[:number]), tuple(runs))
        later = {other.setting: other.default for other in grids[number + 1 :]}
        plain = replace(
            template,
            settings={**template.settings, **later},
            derived={**template.derived, **earlier.chosen},
        )
        runs += _along(grid, plain, tuple(run.key for run in runs))
    return Tuning(tuple(grids), tuple(runs))


def _along(grid: Grid, plain: Run, earlier: tuple[str, ...]) -> Iterator[Run]:
    """The tries of one setting: the start, without what earlier tries have covered; then outwards."""
    start = [_at(plain, grid, value) for value in grid.start if not (earlier and value == grid.default)]
    yield from start
    keys = (*earlier, *(run.key for run in start))
    for edge, beyond in ((grid.start[0], grid.below), (grid.start[-1], grid.above)):
        so_far = keys
        for value in beyond:
            run = replace(_at(plain, grid, value), needed=BestIs(edge, Best(grid.setting, so_far)))
            yield run
            edge, so_far = value, (*so_far, run.key)


def _at(plain: Run, grid: Grid, value: float) -> Run:
    key = f"{plain.key}/{grid.setting}/{value:g}/{plain.seed}"
    return replace(plain, key=key, settings={**plain.settings, grid.setting: value})


def _check(grid: Grid, *, first: bool) -> None:
    values = grid.values
    neighbours = any(values[i : i + len(grid.start)] == grid.start for i in range(len(values)))
    if list(values) != sorted(set(values)) or not grid.start or not neighbours:
        raise BadSetting(
            f"start must be neighbours among the values of {grid.setting}, from low to high, got "
            f"{grid.start} among {values}; try values[1:5]"
        )
    if not first and grid.default not in grid.start:
        raise BadSetting(
            f"default must be one of the start of {grid.setting}, got {grid.default} and {grid.start}; "
            "earlier settings are tuned at it"
        )
