"""Trade-off figures of lab 04: error by rank, accuracy by MACs, measured speed-up by MACs.

Plain functions from measured numbers to a figure. A MAC ratio is the baseline's MACs / the network's: 4 means
4× lower MACs. Accuracies are given as fractions and drawn in percent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compresslab.course.figures.gains import STYLES, TINT, draw_intervals
from compresslab.course.pruning.tradeoff_figures import MARKERS, Curve, draw_accuracies
from compresslab.errors import BadSetting
from compresslab.measurement.statistics import Interval
from compresslab.measurement.tables import new_figure

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

__all__ = ["draw_accuracy_by_macs", "draw_cancellation", "draw_errors_by_rank", "draw_speedups"]

FEWER = "baseline's MACs / the network's (logarithmic)"


def draw_errors_by_rank(
    errors: Mapping[str, Tensor | Sequence[float]],
    *,
    ranks: Sequence[int] | None = None,
    break_even: float | None = None,
    measured: str = "outputs",
) -> Figure:
    """Draw the relative error of one layer against its rank, one line per factorization.

    Args:
        errors: factorization, such as "plain" or "whitened" → one relative error per rank. Not changed.
        ranks: of the errors, increasing; by default 0, 1, 2, …, as in ``svd.dropped_error``.
        break_even: the rank from which the factors are no smaller than the layer: a dotted line.
        measured: the quantity that has the error, such as "outputs" or "weights".

    Raises:
        BadSetting: there is no line, not one error per rank, or an error is negative or not finite.
    """
    lines = {name: torch.as_tensor(values).detach().double().cpu() for name, values in errors.items()}
    if not lines:
        raise BadSetting("errors has at least one line, got none; try {'plain': dropped_error(weight)}")
    ranks = range(next(iter(lines.values())).numel()) if ranks is None else ranks
    for name, line in lines.items():
        _check_errors(line, len(ranks), name=name)
    figure = new_figure(7, 3.8)
    axes = figure.add_subplot()
    for style, (name, line) in zip(cycle(STYLES), lines.items(), strict=False):
        every = max(1, len(ranks) // 12)  # marks at all of many ranks would hide the line
        values = (100 * line).tolist()
        axes.plot(
            ranks,
            values,
            style,
            color="black",
            markerfacecolor=TINT,
            markevery=every,
            linewidth=1.2,
            label=name,
        )
    if break_even is not None:
        axes.axvline(break_even, color="black", linestyle=":", linewidth=1.2)
        edge = "break-even: smaller to the left "
        where = (break_even, 1.02)
        axes.annotate(edge, where, xycoords=("data", "axes fraction"), ha="center", fontsize=9)
    axes.set(xlabel="rank", ylabel=f"relative error of the {measured}, %")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=9)
    return figure


def _check_errors(line: Tensor, count: int, *, name: str) -> None:
    if line.shape != (count,) or count == 0:
        raise BadSetting(
            f"each line has one error a rank, {count} here, got {tuple(line.shape)} for {name!r}; "
            "measure all at the same ranks"
        )
    if not torch.isfinite(line).all() or (line < 0).any():
        raise BadSetting(
            f"a relative error is a number from 0 up, got {line.tolist()} for {name!r}; "
            "divide the norm of the difference by the norm of the original"
        )


def draw_accuracy_by_macs(
    before: Mapping[str, Curve], after: Mapping[str, Curve], *, baseline: float
) -> Figure:
    """Draw test accuracy against the MAC ratio, one line per method, before and after fine-tuning.

    Each panel has its own scale of accuracies; the dashed line is the same in both.

    Args:
        before: method, such as "tucker" → (MAC ratio, accuracy or its interval), in any order.
        after: the same methods → the same values of their fine-tuned networks.
        baseline: the original network's test accuracy, a fraction.

    Raises:
        BadSetting: before and after have different methods, there is no line, a line has no points, a
            ratio is not above 0, or an accuracy is not a fraction.
    """
    if {*before} != {*after}:
        raise BadSetting(
            f"before and after have the same lines, got {', '.join(before) or 'none'} and "
            f"{', '.join(after) or 'none'}; give both from the same networks"
        )
    after = {name: after[name] for name in before}  # so that a line has one style in both panels
    stages = {"before fine-tuning": before, "after fine-tuning (its own scale)": after}
    points = [(n, ratio) for curves in stages.values() for n, curve in curves.items() for ratio, _ in curve]
    _check_ratios(points)
    ratios = [ratio for _, ratio in points]
    figure = new_figure(10.5, 3.8)
    panels = figure.subplots(1, 2, sharex=True)
    for axes, (title, curves) in zip(panels, stages.items(), strict=True):
        axes.set(xscale="log", xlim=(min([1.0, *ratios]) / 1.06, 1.06 * max([2.0, *ratios])))
        _take_ratios(axes.xaxis)
        draw_accuracies(axes, curves, baseline=baseline)
        axes.set_xlabel(FEWER)
        axes.set_title(title, fontsize=10)
    panels[1].set_ylabel("")
    return figure


def draw_cancellation(paths: Mapping[str, Sequence[float]], *, sweeps: Sequence[int]) -> Figure:
    """Draw the size of CP's components relative to the size of their sum, by sweep, one line per variant.

    Args:
        paths: variant, such as "no ridge" → ``cp.cancellation`` after each of these sweeps.
        sweeps: of alternating least squares, increasing.

    Raises:
        BadSetting: there is no line or no sweep, or not one number above 0 per sweep.
    """
    if not paths or not len(sweeps):
        raise BadSetting(
            f"there is at least one line and one sweep, got {len(paths)} and {len(sweeps)}; "
            "try {'no ridge': [1.2, 1.9]} and sweeps=[1, 2]"
        )
    for name, line in paths.items():
        if len(line) != len(sweeps) or not all(0 < value < math.inf for value in line):
            raise BadSetting(
                f"each line has one number above 0 for each of {len(sweeps)} sweeps, got {list(line)} for "
                f"{name!r}; try cancellation(factors)"
            )
    figure = new_figure(7, 3.6)
    axes = figure.add_subplot()
    for style, (name, line) in zip(cycle(STYLES), paths.items(), strict=False):
        axes.plot(sweeps, line, style, color="black", markerfacecolor=TINT, linewidth=1.2, label=name)
    axes.axhline(1, color="black", linestyle=":", linewidth=1)
    axes.annotate("components at right angles", (sweeps[-1], 1), ha="right", va="bottom", fontsize=9)
    axes.set(xlabel="sweeps", ylabel="size of the components /\nsize of their sum", ylim=(0, None))
    axes.legend(fontsize=9)
    return figure


def draw_speedups(points: Mapping[str, tuple[float, Interval]]) -> Figure:
    """Draw networks' measured speed-ups against their MAC ratios.

    On the diagonal, time falls as much as MACs do; the distance from it shows MACs saved without saving time.
    A hollow mark's interval covers 1: no measurable difference.

    Args:
        points: network → (MAC ratio, measured speed-up over the baseline with its interval).

    Raises:
        BadSetting: there is no point, or a ratio or a speed-up is not above 0.
    """
    if not points:
        raise BadSetting("points has at least one network, got none; try {'tucker': (2.8, speedup())}")
    _check_ratios([(name, end) for name, (ratio, i) in points.items() for end in (ratio, i.low, i.high)])
    figure = new_figure(8.6, 4.4)
    axes = figure.add_subplot()
    axes.set(xscale="log", yscale="log", xlabel=FEWER)
    axes.set_ylabel("baseline's time / the network's (logarithmic;\nbars: 95 % interval; hollow: covers 1)")
    ends = [end for ratio, i in points.values() for end in (ratio, i.low, i.high)]
    low, high = min(0.8, *ends) / 1.1, max(2.0, *ends) * 1.15
    axes.set(xlim=(low, high), ylim=(low, high))
    axes.plot((low, high), (low, high), "--", color="black", linewidth=1, zorder=1)
    axes.axhline(1, color="black", linestyle=":", linewidth=1, zorder=1)
    for marker, (name, (ratio, interval)) in zip(cycle("o" + MARKERS), points.items(), strict=False):
        if interval.value < ratio:
            axes.plot((ratio, ratio), (interval.value, ratio), "-", color="0.8", linewidth=4, zorder=0)
        label = f"{name}: {ratio:.1f}× fewer MACs,\n{interval} × faster"
        draw_intervals(axes, [ratio], [interval], style=marker, label=label)
        if interval.verdict == "no measurable difference":
            axes.containers[-1][0].set_markerfacecolor("white")
    for axis in (axes.xaxis, axes.yaxis):
        _take_ratios(axis)
    middle = math.sqrt(low * high)
    axes.annotate("ideal: time falls as MACs do", (middle / 1.03, middle), ha="right", fontsize=9)
    axes.annotate("no gain", (high / 1.02, 1), ha="right", va="bottom", fontsize=9)
    axes.set_title("grey: MACs that were saved, but not their time", fontsize=10)
    figure.legend(loc="outside right upper", fontsize=9)
    return figure


def _check_ratios(ratios: Sequence[tuple[str, float]]) -> None:
    for name, ratio in ratios:
        if not 0 < ratio < math.inf:
            raise BadSetting(
                f"a ratio is the baseline's amount / the network's, above 0, got {ratio:g} for {name!r}; "
                "a quarter of the MACs is 4"
            )


def _take_ratios(axis: Axis) -> None:
    """Set the ticks of a logarithmic axis to 1×, 2×, 4×, … without minor ticks."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_major_locator(LogLocator(base=2))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}×")
