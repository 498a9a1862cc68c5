"""Figures of lab 01: quantization grids, clipping error, channel ranges, errors and layer sensitivity.

Plain functions from tensors to a figure, and a widget for the settings of one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compresslab.course.figures.sliders import explore
from compresslab.errors import BadSetting
from compresslab.measurement.tables import new_figure
from compresslab.techniques.quantization import (
    channel_range,
    dequantize,
    fake_quantize,
    least_squares,
    min_max,
    percentile,
    quantize,
    scale_and_zero_point,
)

if TYPE_CHECKING:
    import ipywidgets
    from matplotlib.figure import Figure

__all__ = [
    "draw_channels",
    "draw_clipping",
    "draw_errors",
    "draw_grid",
    "draw_sensitivity",
    "explore_grid",
    "grid_error",
]

RULES: Mapping[str, Callable[[Tensor, int, bool], tuple[Tensor, Tensor]]] = {
    "min and max": lambda w, bits, symmetric: min_max(w),
    "percentile": lambda w, bits, symmetric: percentile(w, share=0.999),
    "least squares": lambda w, bits, symmetric: least_squares(
        w, bits=bits, symmetric=symmetric, candidates=40
    ),
}


def grid_error(
    weight: Tensor, *, bits: int, symmetric: bool = True, per_channel: bool = False, rule: str = "min and max"
) -> tuple[float, Tensor]:
    """Return a weight's root mean squared quantization error, and the values of the (first channel's) grid.

    Args:
        weight: (out, ...), not changed.
        bits: 2 to 8.
        symmetric: whether zero is in the middle of the grid.
        per_channel: whether each output channel has its own scale, from its minimum and maximum.
        rule: determines the range of the whole tensor: a key of ``RULES``.

    Raises:
        BadSetting: the rule is unknown.
    """
    if rule not in RULES:
        raise BadSetting(f"no rule is called {rule!r}; there are {', '.join(RULES)}")
    low, high = channel_range(weight) if per_channel else RULES[rule](weight, bits, symmetric)
    scale, zero_point = scale_and_zero_point(low, high, bits=bits, symmetric=symmetric)
    rounded = fake_quantize(weight, scale, zero_point, bits=bits, signed=symmetric)
    lowest = 1 - 2 ** (bits - 1) if symmetric else 0
    steps = torch.arange(lowest, lowest + 2**bits - (1 if symmetric else 0))
    first = dequantize(steps, scale.reshape(-1)[0], zero_point.reshape(-1)[0])
    return float((weight - rounded).square().mean().sqrt()), first


def draw_grid(
    weight: Tensor,
    *,
    bits: int = 4,
    symmetric: bool = True,
    per_channel: bool = False,
    rule: str = "min and max",
) -> Figure:
    """Draw a weight's histogram and the grid that it is rounded to; per channel, the first channel's grid."""
    error, grid = grid_error(weight, bits=bits, symmetric=symmetric, per_channel=per_channel, rule=rule)
    figure = new_figure(7, 2.6)
    axes = figure.add_subplot()
    counts, edges = torch.histogram(weight.flatten(), bins=100)
    axes.stairs(counts.tolist(), edges.tolist(), fill=True, color="0.75")
    axes.vlines(grid.tolist(), 0, 0.25 * float(counts.max()), color="black", linewidth=0.8)
    axes.set(xlabel=f"weight (black: the {len(grid)} values of the grid)", ylabel="weights in the bin")
    axes.set_title(f"{bits} bits: root mean squared error {error:.2g}", fontsize=10)
    return figure


def draw_clipping(samples: Tensor, *, bits: int = 4) -> Figure:
    """Draw the rounding error, the clipping error and their sum against the clipping threshold."""
    top = float(samples.abs().max())
    thresholds = torch.linspace(0.02, 1.0, 80) * top
    rounding, cutting = zip(*(_two_errors(samples, float(t), bits) for t in thresholds), strict=True)
    both = [a + b for a, b in zip(rounding, cutting, strict=True)]
    best = min(range(len(both)), key=both.__getitem__)
    figure = new_figure(7, 2.8)
    axes = figure.add_subplot()
    lines = {"rounding": (rounding, "--"), "cutting off": (cutting, ":"), "both": (both, "-")}
    for name, (values, style) in lines.items():
        axes.plot(thresholds, values, style, color="black", label=name)
    least = (float(thresholds[best]), both[best])
    axes.plot(*least, "o", color="black", fillstyle="none", markersize=9, label="least")
    axes.set(xlabel="threshold: values beyond ± this are cut off", ylabel="mean squared error", yscale="log")
    axes.set_ylim(bottom=min(both) / 10)
    axes.set_title(f"{bits} bits; min and max would take the right end", fontsize=10)
    axes.legend(fontsize=8)
    return figure


def _two_errors(samples: Tensor, threshold: float, bits: int) -> tuple[float, float]:
    """The mean squared errors of the values inside the threshold (rounding) and beyond it (clipping)."""
    scale = torch.tensor(threshold / (2 ** (bits - 1) - 1))
    error = (samples - dequantize(quantize(samples, scale, 0, bits=bits, signed=True), scale, 0)).square()
    beyond = samples.abs() > threshold
    return float((error * ~beyond).mean()), float((error * beyond).mean())


def draw_channels(weight: Tensor) -> Figure:
    """Draw the range of each output channel, widest first, and the range of the whole tensor."""
    low, high = (end.flatten() for end in channel_range(weight))
    order = (high - low).argsort(descending=True)
    figure = new_figure(7, 2.6)
    axes = figure.add_subplot()
    axes.vlines(range(len(order)), low[order].tolist(), high[order].tolist(), color="0.4", linewidth=2)
    for end in (float(low.min()), float(high.max())):
        axes.axhline(end, color="black", linestyle=":", linewidth=1)
    axes.set_xlabel("output channel, widest first (dotted: the range of the whole tensor)")
    axes.set_ylabel("range of the weights")
    return figure


def draw_errors(errors: Mapping[str, float], *, label: str) -> Figure:
    """Draw one bar per layer, in execution order."""
    figure = new_figure(7, 0.9 + 0.2 * len(errors))
    axes = figure.add_subplot()
    bars = axes.barh(range(len(errors)), list(errors.values()), color="0.6", edgecolor="black", linewidth=0.5)
    axes.bar_label(bars, [f"{error:.2g}" for error in errors.values()], padding=2, fontsize=7)
    axes.set_yticks(range(len(errors)), list(errors), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.margins(x=0.12)
    return figure


def draw_sensitivity(moved: Mapping[str, Mapping[int, float]]) -> Figure:
    """Draw each layer's sensitivity: how far quantizing it alone, to each bit width, moves the predictions.

    Args:
        moved: layer → bits → mean KL divergence of the predictions, in nats.
    """
    figure = new_figure(7, 1.2 + 0.2 * len(moved))
    axes = figure.add_subplot()
    bits: Sequence[int] = sorted({b for row in moved.values() for b in row})
    for marker, b in zip("vo^sD", bits, strict=False):
        nats = [row.get(b, float("nan")) for row in moved.values()]
        axes.plot(nats, range(len(moved)), marker, color="black", fillstyle="none", label=f"{b} bits")
    axes.set_yticks(range(len(moved)), list(moved), fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("how far the answers move when this layer alone is quantized: KL divergence, nats")
    axes.legend(fontsize=8)
    return figure


def explore_grid(weight: Tensor) -> ipywidgets.VBox:
    """``draw_grid`` under widgets for its settings: bits, symmetry, granularity, rule for the range."""
    import ipywidgets

    return explore(
        lambda **settings: draw_grid(weight, **settings),
        bits=ipywidgets.SelectionSlider(options=list(range(2, 9)), value=4, description="bits"),
        symmetric=ipywidgets.Checkbox(value=True, description="symmetric"),
        per_channel=ipywidgets.Checkbox(value=False, description="a scale per channel"),
        rule=ipywidgets.Dropdown(options=list(RULES), value="min and max", description="range of all"),
    )
