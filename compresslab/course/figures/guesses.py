"""Figure of a student's guesses beside the measured values."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import TYPE_CHECKING

from compresslab.errors import BadSetting
from compresslab.measurement.statistics import Interval
from compresslab.measurement.tables import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_guesses"]


def draw_guesses(guesses: Mapping[str, float], measured: Mapping[str, float | Interval]) -> Figure:
    """Draw each guess beside the measured value, as factors on a logarithmic axis; intervals are bars.

    Args:
        guesses: quantity → the student's factor, above 0.
        measured: the same quantities → the measured factor, or its interval.

    Raises:
        BadSetting: a guess is not a positive number.
    """
    for name, guess in guesses.items():
        if isinstance(guess, bool) or not isinstance(guess, numbers.Real) or not 0 < guess < math.inf:
            raise BadSetting(f"a guess is a positive number such as 2.5, got {guess!r} for {name!r}")
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
