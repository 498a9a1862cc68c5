"""Report: measurements compared with a baseline, as a table, a figure and JSON.

Every ratio states what it divides and every difference has its interval. The first row compares the baseline
with itself: its speed-up is the noise floor of this machine, against which the others are judged.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from compresslab.errors import BadSetting
from compresslab.measurement.measurement import Measurement, accuracy_drop
from compresslab.measurement.statistics import Interval
from compresslab.measurement.tables import Table, new_figure
from compresslab.measurement.timing import Clock, speedup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Report", "Row", "compare"]

HEADINGS = (
    "model",
    "accuracy",
    "drop, points [95 %]",
    "file, kB",
    "file ratio",
    "MACs, M",
    "MACs ratio",
    "latency, ms",
    "speed-up [95 %]",
    "verdict",
)
MARKERS = "osD^vP*Xh"


@dataclass(frozen=True)
class Row:
    """One model compared with the baseline. Shares are fractions; costs are per sample.

    Attributes:
        name: of the model.
        accuracy: share of correctly classified images.
        drop: the baseline's accuracy minus this model's; negative if accuracy was gained.
        storage_bytes: size of the model's file.
        file_ratio: the baseline's file size / this one, both written by ``storage``.
        macs_per_sample: multiply-accumulates per sample.
        macs_ratio: the baseline's MACs / this model's; None if these are 0.
        latency_ms: median time of a run, batch size 1, one thread.
        speedup: the baseline's time / this model's, measured alternately; batch size 1, one thread.
    """

    name: str
    accuracy: float
    drop: Interval
    storage_bytes: int
    file_ratio: float
    macs_per_sample: int
    macs_ratio: float | None
    latency_ms: float
    speedup: Interval

    @property
    def verdict(self) -> str:
        """The speed-up as a verdict: faster, slower, or no measurable difference."""
        return self.speedup.verdict

    def cells(self) -> tuple[str, ...]:
        """The cells of the row as text, in the order of the table's headings."""
        drop = (100 * value for value in (self.drop.value, self.drop.low, self.drop.high))
        return (
            self.name,
            f"{self.accuracy:.2%}",
            "{:.2f} [{:.2f}, {:.2f}]".format(*(round(value, 2) + 0.0 for value in drop)),  # + 0.0: no "-0.00"
            f"{self.storage_bytes / 1000:,.1f}",
            f"{self.file_ratio:.2f}×",
            f"{self.macs_per_sample / 1e6:,.3f}",
            "–" if self.macs_ratio is None else f"{self.macs_ratio:.2f}×",
            f"{self.latency_ms:.3f}",
            str(self.speedup),
            self.verdict,
        )


@dataclass(frozen=True)
class Report:
    """The rows, baseline first; shown as a table, in a notebook as HTML."""

    rows: tuple[Row, ...]

    def __str__(self) -> str:
        return str(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()

    def _table(self) -> Table:
        return Table(HEADINGS, tuple(row.cells() for row in self.rows), self._note())

    def _note(self) -> str:
        return (
            f"Ratios divide {self.rows[0].name} by the row. Batch 1, one thread. "
            "The first speed-up is the noise floor: a model against itself."
        )

    def to_json(self) -> str:
        """The rows as JSON: plain numbers with units in their names, intervals as value, low and high."""
        rows = [asdict(row) | {"verdict": row.verdict} for row in self.rows]
        return json.dumps({"baseline": self.rows[0].name, "rows": rows}, indent=1)

    def draw(self) -> Figure:
        """Draw accuracy against file size; a dashed line joins the Pareto-optimal models."""
        figure = new_figure(7, 4.5)
        axes = figure.add_subplot()
        for index, row in enumerate(self.rows):
            _draw_point(axes, row, marker=MARKERS[index % len(MARKERS)], baseline=index == 0)
        best = _pareto(self.rows)
        axes.plot(
            [row.storage_bytes / 1000 for row in best],
            [100 * row.accuracy for row in best],
            "--",
            color="0.5",
            zorder=1,
            label="nothing is smaller and better",
        )
        axes.set(xscale="log", xlabel="file, kB (logarithmic)", ylabel="accuracy, % (bar: 95 % of the drop)")
        axes.set_title(
            f"Accuracy against size; filled: {self.rows[0].name}, which the others are held against"
        )
        axes.xaxis.set_major_formatter("{x:g}")
        axes.margins(x=0.2, y=0.15)
        axes.legend(fontsize=8)
        return figure


def compare(
    baseline: Measurement,
    *others: Measurement,
    rounds: int = 25,
    seed: int = 0,
    clock: Clock = time.perf_counter,
) -> Report:
    """Compare measurements with a baseline; each model is timed again, alternately with the baseline.

    Args:
        baseline: the reference of every ratio and difference; its sample is used for timing.
        others: measured on the same images.
        rounds: time ratios, whose median is the speed-up.
        seed: of the bootstrap.
        clock: returns seconds since a fixed moment.

    Raises:
        BadSetting: two measurements have the same name, or their numbers of images differ.
    """
    names = [measured.name for measured in (baseline, *others)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadSetting(
            f"each measurement must have a name of its own, got {twice[0]!r} twice; measure(..., "
            "name=...) sets it"
        )

    def row(other: Measurement) -> Row:
        return Row(
            name=other.name,
            accuracy=other.accuracy,
            drop=accuracy_drop(baseline, other, seed=seed),
            storage_bytes=other.storage_bytes,
            file_ratio=baseline.storage_bytes / other.storage_bytes,
            macs_per_sample=other.macs_per_sample,
            macs_ratio=baseline.macs_per_sample / other.macs_per_sample if other.macs_per_sample else None,
            latency_ms=other.latency_ms,
            speedup=speedup(
                baseline.model, other.model, baseline.sample, rounds=rounds, seed=seed, clock=clock
            ),
        )

    return Report(tuple(row(measured) for measured in (baseline, *others)))


def _pareto(rows: Sequence[Row]) -> list[Row]:
    """The Pareto front of file size and accuracy, smallest file first."""
    best: list[Row] = []
    for row in sorted(rows, key=lambda row: (row.storage_bytes, -row.accuracy)):
        if not best or row.accuracy > best[-1].accuracy:
            best.append(row)
    return best


def _draw_point(axes: Axes, row: Row, *, marker: str, baseline: bool) -> None:
    x, y = row.storage_bytes / 1000, 100 * row.accuracy
    reach = [
        [100 * (row.drop.high - row.drop.value)],
        [100 * (row.drop.value - row.drop.low)],
    ]  # a drop points down
    fill = "black" if baseline else "white"
    axes.errorbar(
        x,
        y,
        reach,
        fmt=marker,
        color="black",
        markerfacecolor=fill,
        markersize=9,
        capsize=3,
    )
    axes.annotate(row.name, (x, y), textcoords="offset points", xytext=(8, 6), fontsize=9)
