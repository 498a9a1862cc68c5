"""Trade-off figures of lab 03: accuracy, speed and bytes against sparsity, and accuracy against a cost.

Plain functions from measured numbers to a figure. Shares are given as fractions; accuracies are drawn in
percent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

from compresslab.course.figures.gains import STYLES, TINT, apart, draw_intervals
from compresslab.errors import BadSetting, check_fraction
from compresslab.measurement.statistics import Interval
from compresslab.measurement.tables import new_figure
from compresslab.techniques.pruning.granularity import check_sparsity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Curve",
    "as_interval",
    "draw_accuracies",
    "draw_accuracy_by_sparsity",
    "draw_csr_break_even",
    "draw_file_bytes",
    "draw_tradeoffs",
]

Curve = Sequence[tuple[float, Interval | float]]  # (sparsity, value) in any order
ZEROS = "sparsity (share of the weights that are zero)"
MARKERS = "sD^vP*Xh"  # of points other than the baseline, which is a filled circle


def draw_accuracy_by_sparsity(curves: Mapping[str, Curve], *, baseline: float) -> Figure:
    """Draw test accuracy against sparsity, one line per criterion or granularity, named at its right end.

    Args:
        curves: name → (sparsity, accuracy or its interval) of each of its networks, fractions.
        baseline: the dense network's test accuracy; the dashed line.

    Raises:
        BadSetting: there is no line, a line has no points, or an accuracy is not a fraction.
    """
    figure = new_figure(7, 3.8)
    draw_accuracies(figure.add_subplot(), curves, baseline=baseline)
    return figure


def draw_accuracies(
    axes: Axes, curves: Mapping[str, Curve], *, baseline: float, chosen: tuple[str, float] | None = None
) -> None:
    """``draw_accuracy_by_sparsity`` on given axes, whose limits may already be set.

    Args:
        axes: to draw on.
        curves: as in ``draw_accuracy_by_sparsity``.
        baseline: as in ``draw_accuracy_by_sparsity``.
        chosen: a curve and one of its sparsities: that point is ringed and the other curves are grey.

    Raises:
        BadSetting: as ``draw_accuracy_by_sparsity``.
    """
    for name, curve in [*curves.items(), ("the baseline", [(0.0, baseline)])]:
        for accuracy in (as_interval(value).value for _, value in curve):
            check_fraction(f"accuracy of {name!r}", accuracy, within="[0, 1]", hint="divide right by all")
    axes.margins(y=0.1)  # space for the baseline's name
    axes.axhline(100 * baseline, color="black", linestyle="--", linewidth=1, zorder=1)
    above: dict[str, Any] = {"xytext": (4, 3), "textcoords": "offset points", "fontsize": 9}
    axes.annotate(
        f"baseline, {baseline:.1%}", (0, 100 * baseline), xycoords=("axes fraction", "data"), **above
    )
    axes.set(xlabel="sparsity (share that is pruned)", ylabel="test accuracy, %\n(bars: 95 % interval)")
    _draw_lines(axes, curves, times=100, alone=chosen[0] if chosen else None)
    if chosen:
        accuracy = as_interval(dict(curves[chosen[0]])[chosen[1]]).value
        axes.plot(chosen[1], 100 * accuracy, "o", color="black", fillstyle="none", markersize=13)


def draw_csr_break_even(points: Mapping[str, Sequence[tuple[float, Interval]]]) -> Figure:
    """Draw the speed-up of a sparse product over the dense one, by sparsity; shaded: slower.

    Args:
        points: product → (sparsity, dense time / sparse time with its interval), in any order.

    Raises:
        BadSetting: there is no line, or a line has no points.
    """
    figure = new_figure(7, 3.6)
    axes = figure.add_subplot()
    ratios = [interval for line in points.values() for _, interval in line]
    axes.set(
        xlabel=ZEROS, ylabel="dense time / sparse time (logarithmic;\nshaded: slower; bars: 95 % interval)"
    )
    lowest, highest = (end(i.value for i in ratios) if ratios else 1.0 for end in (min, max))
    _take_factors(axes, 0.8 * min(lowest, 0.8), 1.25 * max(highest, 1.25))
    axes.axhspan(axes.get_ylim()[0], 1, color="0.93", zorder=0)
    _draw_lines(axes, points, also={"as fast as dense": 1.0})
    return figure


def draw_file_bytes(sizes: Mapping[float, Mapping[str, int]], *, dense: int) -> Figure:
    """Draw a layer's bytes in each sparse format, relative to its dense bytes, by sparsity.

    The broad grey line is the nonzero values alone; a format's distance above it is the cost of its indices.
    A format above the dashed line is larger than the dense file.

    Args:
        sizes: sparsity → format → bytes, from ``storage.sparse.sizes``; "dense" is the dashed line.
        dense: bytes of the layer with all its zeros, above 0.

    Raises:
        BadSetting: there is no sparsity, one is not a fraction, the formats differ between sparsities,
            or the dense bytes are not above 0.
    """
    forms = [name for name in next(iter(sizes.values()), {}) if name != "dense"]
    if not forms or any({*row} - {"dense"} != {*forms} for row in sizes.values()) or dense <= 0:
        found = "; ".join(f"{s:g}: {', '.join(row)}" for s, row in sizes.items())
        raise BadSetting(
            "each sparsity has the bytes of the same forms, and dense bytes are above 0, got "
            f"{found or 'no sparsity'} and {dense} dense bytes; take sizes(tensor) at each sparsity"
        )
    for sparsity in sizes:
        check_sparsity(sparsity)
    figure = new_figure(7, 4.2)
    axes = figure.add_subplot()
    axes.set(xlabel=ZEROS, ylabel="bytes / bytes of the dense layer (logarithmic)")
    shares = [size / dense for row in sizes.values() for size in row.values()]
    _take_factors(axes, 0.8 * min(1 - max(sizes), *shares), 1.25 * max(1.0, *shares))
    sparsities = sorted(sizes)
    axes.plot(sparsities, [1 - s for s in sparsities], color="0.8", linewidth=5, zorder=0)
    curves = {form: [(s, row[form] / dense) for s, row in sizes.items()] for form in forms}
    _draw_lines(axes, curves, also={"dense": 1.0, "values alone": 1 - sparsities[-1]})
    return figure


def draw_tradeoffs(
    points: Mapping[str, tuple[Interval | float, Interval | float]], *, baseline: str, xlabel: str
) -> Figure:
    """Draw test accuracy against a cost, such as a measured time; the dashed line is the Pareto front.

    ``compare(...).draw()`` draws the same figure of measurements against file size.

    Args:
        points: network → (cost, less is better, above 0; accuracy as a fraction), or their intervals.
        baseline: the network that the others are compared with; its mark is filled.
        xlabel: the cost with its unit.

    Raises:
        BadSetting: no point has the baseline's name.
    """
    if baseline not in points:
        raise BadSetting(
            f"baseline is one of the points, got {baseline!r}; there are {', '.join(points) or 'none'}"
        )
    figure = new_figure(8, 4)
    axes = figure.add_subplot()
    intervals = {n: (as_interval(cost), as_interval(accuracy)) for n, (cost, accuracy) in points.items()}
    markers = cycle(MARKERS)
    for name, (x, y) in intervals.items():
        bars: dict[str, Any] = {"xerr": _reach(x), "yerr": _reach(y, times=100)}
        marker, fill = ("o", "black") if name == baseline else (next(markers), TINT)
        style: dict[str, Any] = {
            "color": "black",
            "markerfacecolor": fill,
            "markersize": 8,
            "capsize": 3,
            "linewidth": 1,
        }
        axes.errorbar(x.value, 100 * y.value, **bars, fmt=marker, label=name, **style)
    best = _unbeaten([(x.value, 100 * y.value) for x, y in intervals.values()])
    axes.plot(*zip(*best, strict=True), "--", color="0.5", zorder=1, label="none is cheaper and better")
    axes.set(xlabel=xlabel, ylabel="test accuracy, %\n(bars: 95 % intervals)")
    costs = [x.value for x, _ in intervals.values()]
    if max(costs) > 10 * min(costs):
        axes.set(xscale="log", xlabel=f"{xlabel} (logarithmic)")
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set_title(f"filled: {baseline}, which the others are held against", fontsize=10)
    axes.margins(x=0.12, y=0.1)
    figure.legend(loc="outside right upper", fontsize=9)
    return figure


def as_interval(value: Interval | float) -> Interval:
    """Return the value if it is an interval, else an interval of width 0."""
    return value if isinstance(value, Interval) else Interval(value, value, value)


def _draw_lines(
    axes: Axes,
    curves: Mapping[str, Curve],
    *,
    times: float = 1.0,
    alone: str | None = None,
    also: Mapping[str, float] | None = None,
) -> None:
    """Draw the curves and write their names, and those of ``also``, at the right.

    Args:
        axes: to draw on.
        curves: name → its points.
        times: factor of the values; 100 draws fractions in percent.
        alone: if given, the only curve in black; the others are grey.
        also: further names → their heights.
    """
    if not curves or not all(curves.values()):
        empty = ", ".join(repr(name) for name, curve in curves.items() if not curve)
        raise BadSetting(
            "there is at least one line, and each has a point, got "
            f"{f'none for {empty}; leave it out' if empty else 'no line; give one by its name'}"
        )
    ends = {}
    for style, (name, curve) in zip(cycle(STYLES), curves.items(), strict=False):
        x, values = zip(*sorted(curve, key=lambda point: point[0]), strict=True)
        y = [as_interval(value) for value in values]
        if alone in (None, name):
            draw_intervals(axes, x, y, style="o-" if alone else style, label=name, times=times)
        else:
            axes.plot(x, [times * v.value for v in y], style[1:], color="0.6", linewidth=1, label=name)
        ends[name] = (x[-1], times * y[-1].value)
    right = max(x for x, _ in ends.values())
    _name_ends(axes, ends | {name: (right, height) for name, height in (also or {}).items()})


def _name_ends(axes: Axes, ends: Mapping[str, tuple[float, float]]) -> None:
    """Write the names right of the frame, at the height of their lines or, if crowded, above it.

    A dotted line joins each name to the end of its line.
    """
    axes.get_xlim(), axes.get_ylim()  # the limits are updated only when they are read
    to_frame = axes.transData + axes.transAxes.inverted()
    heights = [float(to_frame.transform(end)[1]) for end in ends.values()]
    inches = axes.get_window_extent().height / axes.figure.dpi
    gap = 13 / (72 * inches)  # height of a line of text, relative to the frame
    pointer = {"arrowstyle": "-", "linestyle": ":", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 4}
    for (name, end), height in zip(ends.items(), apart(heights, gap=gap), strict=True):
        where: dict[str, Any] = {
            "xytext": (1.05, height),
            "textcoords": "axes fraction",
            "va": "center",
            "fontsize": 9,
        }
        axes.annotate(name, end, **where, arrowprops=pointer)


def _take_factors(axes: Axes, low: float, high: float) -> None:
    """Set a logarithmic y axis from low to high for multiples of a baseline, a dashed line at 1."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set(yscale="log", ylim=(low, high))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}×")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.axhline(1, color="black", linestyle="--", linewidth=1, zorder=1)


def _reach(interval: Interval, *, times: float = 1.0) -> list[list[float]]:
    return [[times * (interval.value - interval.low)], [times * (interval.high - interval.value)]]


def _unbeaten(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (cost, accuracy) that no other beats in both, cheapest first."""
    best: list[tuple[float, float]] = []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or accuracy > best[-1][1]:
            best.append((cost, accuracy))
    return best
