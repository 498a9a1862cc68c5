"""The lab's pictures: plain functions from numbers to a figure, which a cell shows and a widget may call.

Every axis is labelled with its unit, the baseline is named, and no picture needs its colours to be read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from compresslab.data.fashion_mnist import CLASSES
from compresslab.data.images import Images
from compresslab.errors import CompressionError
from compresslab.measurement.statistics import Interval
from compresslab.measurement.tables import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["convolution_cost", "draw_classes", "draw_convolution_cost", "draw_guesses", "draw_ratios"]


def draw_classes(images: Images) -> Figure:
    """The first image of each class, with its name."""
    figure = new_figure(11, 1.7)
    for place, name in enumerate(CLASSES):
        axes = figure.add_subplot(1, len(CLASSES), place + 1)
        first = int((images.labels == place).nonzero()[0])
        axes.imshow(images.pixels[first, 0].numpy(), cmap="gray_r")
        axes.set_title(name, fontsize=8)
        axes.axis("off")
    return figure


def draw_guesses(guesses: Mapping[str, float], measured: Mapping[str, float | Interval]) -> Figure:
    """Each guess beside what was measured, as factors on a logarithmic axis; an interval is drawn as a bar.

    Args:
        guesses: what → the student's factor, above 0.
        measured: the same names → the measured factor, or its interval.

    Raises:
        CompressionError: a guess that is no positive number.
    """
    for name, guess in guesses.items():
        if isinstance(guess, bool) or not isinstance(guess, int | float) or not 0 < guess < math.inf:
            raise CompressionError(f"a guess is a positive number such as 2.5, got {guess!r} for {name!r}")
    figure = new_figure(7, 1.1 + 0.7 * len(guesses))
    axes = figure.add_subplot()
    for row, (name, guess) in enumerate(guesses.items()):
        truth = measured[name]
        value, low, high = (
            (truth.value, truth.low, truth.high) if isinstance(truth, Interval) else (truth,) * 3
        )
        axes.plot([1, guess], [row - 0.15] * 2, color="0.5", linewidth=1, linestyle="--")
        axes.plot(guess, row - 0.15, "o", color="black", fillstyle="none", markersize=9, label="your guess")
        axes.plot([low, high], [row + 0.15] * 2, color="0.6", linewidth=5, solid_capstyle="butt")
        axes.plot(value, row + 0.15, "s", color="black", markersize=7, label="measured")
        axes.annotate(f"   {guess:.3g}×", (guess, row - 0.15), va="center")
        axes.annotate(f"   {value:.2f}×", (max(value, high), row + 0.15), va="center")
    axes.axvline(1, color="black", linestyle=":", linewidth=1)
    ends = [
        1.0,
        *guesses.values(),
        *(value.low if isinstance(value, Interval) else value for value in measured.values()),
    ]
    axes.set(xscale="log", xlim=(0.6 * min(ends), 3 * max(ends)), ylim=(len(guesses) - 0.5, -0.5))
    axes.xaxis.set_major_formatter("{x:g}×")
    axes.xaxis.set_minor_formatter("")
    axes.set_yticks(range(len(guesses)), list(guesses))
    axes.set_xlabel("times the baseline's (logarithmic; dotted: no change; grey: 95 % interval)")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[:2], labels[:2], loc="center right", fontsize=8)
    return figure


def draw_ratios(ratios: Mapping[str, Sequence[float]], *, truth: float = 1.0) -> Figure:
    """Repeated estimates of one ratio, a row of dots a method: how far each strays from the truth."""
    figure = new_figure(7, 0.8 + 0.55 * len(ratios))
    axes = figure.add_subplot()
    for row, (name, values) in enumerate(ratios.items()):
        axes.plot(
            values, [row] * len(values), "o" if row % 2 else "x", color="black", fillstyle="none", label=name
        )
    axes.axvline(truth, color="black", linestyle=":", linewidth=1)
    axes.set_yticks(range(len(ratios)), list(ratios))
    axes.set_ylim(-0.6, len(ratios) - 0.4)
    axes.set_xlabel(f"estimated speed-up (dotted: the truth, {truth:g})")
    return figure


def convolution_cost(
    *, channels: int, kernel: int = 3, stride: int = 1, groups: int = 1, size: int = 28
) -> dict[str, int]:
    """Costs of a convolution from ``channels`` to ``channels`` on a square image, padded by kernel // 2.

    >>> convolution_cost(channels=16)
    {'weights': 2304, 'MACs': 1806336, 'output numbers': 12544}
    """
    weights = channels * (channels // groups) * kernel * kernel
    side = (size + 2 * (kernel // 2) - kernel) // stride + 1
    return {"weights": weights, "MACs": weights * side * side, "output numbers": channels * side * side}


def draw_convolution_cost(
    *, channels: int = 16, kernel: int = 3, stride: int = 1, groups: int = 1, size: int = 28
) -> Figure:
    """This convolution's costs as factors of the plain one: 16 channels, kernel 3, stride 1, one group."""
    plain = convolution_cost(channels=16, size=size)
    cost = convolution_cost(channels=channels, kernel=kernel, stride=stride, groups=groups, size=size)
    figure = new_figure(7, 2.2)
    axes = figure.add_subplot()
    for row, name in enumerate(cost):
        factor = cost[name] / plain[name]
        axes.barh(row, factor, 0.6, color=("0.2", "0.5", "0.8")[row], edgecolor="black")
        axes.annotate(f" {cost[name]:,}  ({factor:.3g}×)", (factor, row), va="center")
    axes.axvline(1, color="black", linestyle=":", linewidth=1)
    axes.set(
        xscale="log",
        xlim=(1 / 300, 2000),
        xlabel="times the plain 3 × 3 convolution (logarithmic; dotted: equal)",
    )
    axes.xaxis.set_major_formatter("{x:g}×")
    axes.set_yticks(range(len(cost)), list(cost))
    axes.invert_yaxis()
    axes.set_title(
        f"{channels} channels, {kernel} × {kernel}, stride {stride}, groups {groups}, image {size} × {size}"
    )
    return figure
