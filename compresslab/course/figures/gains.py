"""Figures of gains in accuracy: by method, by cell of the taxonomy, by count and by teacher.

Plain functions from measured intervals to a figure. Gains and accuracies are given as fractions and drawn in
points and percent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

from compresslab.errors import BadSetting
from compresslab.measurement.statistics import Interval
from compresslab.measurement.tables import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "STYLES",
    "TINT",
    "apart",
    "draw_accuracy",
    "draw_by_teacher",
    "draw_gains",
    "draw_intervals",
    "draw_taxonomy",
]

KNOWLEDGE = {  # the rows of the taxonomy
    "response": "what the network answers",
    "feature": "what its layers see",
    "relation": "how it compares images",
}
STRATEGIES = {  # the columns
    "offline": "a fixed teacher",
    "online": "peers that learn together",
    "self": "the student's own family",
}
TINT = (0.45, 0.68, 0.85)  # fills bars and the best cell; black text on it is readable
STYLES = ("o-", "s--", "^:", "D-.", "v-", "P--")  # of series, distinguishable without colour


def draw_gains(gains: Mapping[str, Interval], *, label: str, against: str = "student alone") -> Figure:
    """Draw a bar from low to high for each gain, best first; a bar that covers 0 is hollow.

    Args:
        gains: method → gain, a fraction; drawn in points (hundredths).
        label: of the axis, with its unit, such as "gain in test accuracy, points".
        against: the reference, a dashed line at 0.
    """
    figure = new_figure(7, 1.1 + 0.3 * len(gains))
    axes = figure.add_subplot()
    ranked = _best_first(gains)
    for row, gain in enumerate(ranked.values()):
        fill, dot = ("white", "white") if gain.low <= 0 <= gain.high else (TINT, "black")
        axes.barh(row, 100 * (gain.high - gain.low), 0.5, left=100 * gain.low, color=fill, edgecolor="black")
        axes.plot(100 * gain.value, row, "o", color="black", markersize=5, markerfacecolor=dot)
        axes.annotate(_points(gain), (1.02, row), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    axes.axvline(0, color="black", linestyle="--", linewidth=1, zorder=0)
    axes.annotate(against, (0, 1.02), xycoords=("data", "axes fraction"), ha="center", fontsize=8)
    axes.set_yticks(range(len(ranked)), list(ranked))
    axes.set(xlabel=f"{label}\n(bar: 95 % interval; hollow: covers 0)", ylim=(len(ranked) - 0.4, -0.6))
    axes.use_sticky_edges = False  # keeps a margin between bars and frame
    axes.autoscale(axis="x")
    return figure


def draw_taxonomy(cells: Mapping[tuple[str, str], Mapping[str, Interval]]) -> Figure:
    """Draw the taxonomy of distillation, knowledge × strategy; each cell lists its methods' gains.

    A cell is shaded by its best gain.

    Args:
        cells: (row, column) → method → gain, a fraction; the rows are response, feature and relation, the
            columns offline, online and self. A cell that is not given is drawn empty.

    Raises:
        BadSetting: a cell outside these rows and columns.
    """
    for row, column in cells:
        if row not in KNOWLEDGE or column not in STRATEGIES:
            raise BadSetting(
                f"no cell is called ({row!r}, {column!r}); the rows are {', '.join(KNOWLEDGE)} and "
                f"the columns {', '.join(STRATEGIES)}; the row comes first"
            )
    top = max((gain.value for cell in cells.values() for gain in cell.values()), default=0.0)
    heights = {row: _lines(row, cells) for row in KNOWLEDGE}
    figure = new_figure(10.5, 0.9 + 0.2 * sum(heights.values()))
    axes = figure.add_subplot()
    y = 0
    for row, height in heights.items():
        for x, column in enumerate(STRATEGIES):
            _draw_cell(axes, cells.get((row, column), {}), corner=(x, y), height=height, top=top)
        _head(axes, row, KNOWLEDGE[row], position=(-0.03, y + height / 2), align="right")
        y += height
    for x, (column, how) in enumerate(STRATEGIES.items()):
        _head(axes, column, how, position=(x + 0.5, -0.95), align="center")
    note = "points of test accuracy over the student alone [95 % interval]; darker: a better best method"
    axes.annotate(note, (1.5, y + 0.3), ha="center", va="top", fontsize=8)
    axes.set(xlim=(-0.72, 3.02), ylim=(y + 1.2, -2.2))
    axes.axis("off")
    return figure


def _lines(row: str, cells: Mapping[tuple[str, str], Mapping[str, Interval]]) -> int:
    """The height of a row in lines of text: those of its longest cell, at least two, plus a blank line."""
    return 1 + max(2, *(len(cells.get((row, column), ())) for column in STRATEGIES))


def _head(axes: Axes, name: str, words: str, *, position: tuple[float, float], align: str) -> None:
    """Write a name in bold above its explanation."""
    axes.annotate(f"{name}\n", position, ha=align, va="center", weight="bold")
    axes.annotate(f"\n{words}", position, ha=align, va="center", fontsize=8)


def _draw_cell(
    axes: Axes, methods: Mapping[str, Interval], *, corner: tuple[int, int], height: int, top: float
) -> None:
    """Draw a cell: its methods, best first, shaded from white (no gain) to the tint (the overall best)."""
    x, y = corner
    ranked = _best_first(methods)
    best = max((gain.value for gain in ranked.values()), default=0.0)
    shade = max(best, 0.0) / top if top > 0 else 0.0
    color = [1 - shade * (1 - channel) for channel in TINT]
    hatch = "" if ranked else "//"
    axes.barh(y + height / 2, 1, height, left=x, color=color, edgecolor="black", linewidth=0.8, hatch=hatch)
    width = max(map(len, ranked), default=0)
    text = "\n".join(f"{name:<{width}} {_points(gain)}" for name, gain in ranked.items())
    written = axes.annotate(
        text or "not tried here", (x + 0.5, y + height / 2), ha="center", va="center", fontsize=9
    )
    if ranked:
        written.set_fontfamily("monospace")  # aligns the numbers
    else:
        written.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 2})


def _best_first(gains: Mapping[str, Interval]) -> dict[str, Interval]:
    return dict(sorted(gains.items(), key=lambda item: -item[1].value))


def _points(gain: Interval) -> str:
    """A gain in points, as in +3.1 [2.8, 3.4]."""
    value, low, high = (100 * end for end in (gain.value, gain.low, gain.high))
    return f"{value:+z.1f} [{low:z.1f}, {high:z.1f}]".replace("-", "−")


def draw_accuracy(
    curves: Mapping[str, Sequence[tuple[int, Interval]]], *, against: str = "parameters"
) -> Figure:
    """Draw test accuracy against a count, such as parameters; each line is named at its right end.

    Args:
        curves: series → (count, accuracy as a fraction) of each of its networks, in any order.
        against: the name of the count.
    """
    from matplotlib.ticker import EngFormatter, LogLocator

    figure = new_figure(7, 3.4)
    axes = figure.add_subplot()
    ends = {}
    for style, (name, points) in zip(cycle(STYLES), curves.items(), strict=False):
        counts, accuracies = zip(*sorted(points, key=lambda point: point[0]), strict=True)
        draw_intervals(axes, counts, accuracies, style=style, label=name, times=100)
        ends[name] = (counts[-1], 100 * accuracies[-1].value)
    axes.set(
        xscale="log",
        xlabel=f"{against} (logarithmic; k: thousand, M: million)",
        ylabel="test accuracy, %\n(bars: 95 % interval)",
    )
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter("")
    (first, last), (low, high) = axes.get_xlim(), axes.get_ylim()
    axes.set_xlim(first, last * (last / first) ** 0.25)  # space for the names
    heights = apart([height for _, height in ends.values()], gap=0.07 * (high - low))
    for (name, (count, _)), height in zip(ends.items(), heights, strict=True):
        axes.annotate(name, (count, height), (9, 0), textcoords="offset points", va="center", fontsize=9)
    return figure


def draw_by_teacher(points: Sequence[tuple[str, float, Interval]], *, alone: Interval) -> Figure:
    """Draw the student's test accuracy against its teacher's; dashed, with its interval: the student alone.

    Args:
        points: (teacher, its accuracy, its student's accuracy), all fractions.
        alone: the accuracy of the student without a teacher.
    """
    figure = new_figure(7, 4)
    axes = figure.add_subplot()
    names, teachers, students = zip(*points, strict=True)
    percent = [100 * accuracy for accuracy in teachers]
    axes.axhspan(100 * alone.low, 100 * alone.high, color="0.9", zorder=0)
    axes.axhline(100 * alone.value, color="black", linestyle="--", linewidth=1)
    draw_intervals(axes, percent, students, style="o", label="with a teacher", times=100)
    first, last = axes.get_xlim()
    label_positions, grid = apart(percent, gap=0.04 * (last - first)), ("data", "axes fraction")
    for name, x, student, label_x in zip(names, percent, students, label_positions, strict=True):
        tip, above = (x, 100 * student.high), (label_x, 1.03)
        axes.annotate("", tip, above, textcoords=grid, arrowprops={"arrowstyle": "-", "linestyle": ":"})
        axes.annotate(name, tip, above, textcoords=grid, rotation=35, rotation_mode="anchor", fontsize=9)
    middle = (1.01, 100 * alone.value)
    axes.annotate("student alone", middle, xycoords=("axes fraction", "data"), va="center", fontsize=9)
    axes.set_xlabel("the teacher's test accuracy, %")
    axes.set_ylabel("its student's test accuracy, %\n(bars: 95 % interval)")
    return figure


def draw_intervals(
    axes: Axes, x: Sequence[float], values: Sequence[Interval], *, style: str, label: str, times: float = 1.0
) -> None:
    """Draw a mark and an error bar for each value; ``times=100`` draws fractions in percent."""
    y = [times * v.value for v in values]
    below = [times * (v.value - v.low) for v in values]
    above = [times * (v.high - v.value) for v in values]
    axes.errorbar(
        x,
        y,
        (below, above),
        fmt=style,
        label=label,
        color="black",
        markerfacecolor=TINT,
        capsize=3,
        linewidth=1,
    )


def apart(positions: Sequence[float], *, gap: float) -> list[float]:
    """Return the positions in their order, each raised until it is a gap above the next lower one.

    >>> apart([2.0, 1.0, 1.1], gap=0.5)
    [2.0, 1.0, 1.5]
    """
    moved, lowest = list(positions), -math.inf
    for index in sorted(range(len(positions)), key=positions.__getitem__):
        moved[index] = lowest = max(positions[index], lowest + gap)
    return moved
