"""Figures of lab 00: plain functions from numbers to a figure, for a cell or a slider.

Every axis has a label with its unit, the baseline is named, and every figure is readable without colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from compresslab.course.figures.sliders import explore
from compresslab.data.fashion_mnist import CLASSES
from compresslab.data.images import Images
from compresslab.measurement.tables import new_figure

if TYPE_CHECKING:
    import ipywidgets
    from matplotlib.figure import Figure

__all__ = ["convolution_cost", "draw_classes", "draw_convolution_cost", "draw_ratios", "explore_convolution"]


def draw_classes(images: Images) -> Figure:
    """Draw the first image of each class, with its name."""
    figure = new_figure(11, 1.7)
    for label, name in enumerate(CLASSES):
        axes = figure.add_subplot(1, len(CLASSES), label + 1)
        first = int((images.labels == label).nonzero()[0])
        axes.imshow(images.pixels[first, 0].numpy(), cmap="gray_r")
        axes.set_title(name, fontsize=8)
        axes.axis("off")
    return figure


def draw_ratios(ratios: Mapping[str, Sequence[float]], *, truth: float = 1.0) -> Figure:
    """Draw repeated estimates of one ratio, a row of dots per method, and the true ratio as a line."""
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
    """Return the costs of a convolution with ``channels`` inputs and outputs on a square image.

    The padding is kernel // 2.

    >>> convolution_cost(channels=16)
    {'weights': 2304, 'MACs': 1806336, 'output numbers': 12544}
    """
    weights = channels * (channels // groups) * kernel * kernel
    side = (size + 2 * (kernel // 2) - kernel) // stride + 1
    return {"weights": weights, "MACs": weights * side * side, "output numbers": channels * side * side}


def draw_convolution_cost(
    *, channels: int = 16, kernel: int = 3, stride: int = 1, groups: int = 1, size: int = 28
) -> Figure:
    """Draw a convolution's costs as multiples of the plain one: 16 channels, kernel 3, stride 1."""
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


def explore_convolution() -> ipywidgets.VBox:
    """``draw_convolution_cost`` under sliders for channels, kernel, stride and groups."""
    import ipywidgets

    def choose(name: str, values: list[int], value: int) -> ipywidgets.SelectionSlider:
        return ipywidgets.SelectionSlider(options=values, value=value, description=name)

    return explore(
        draw_convolution_cost,
        channels=choose("channels", [16, 32, 64, 128], 16),
        kernel=choose("kernel", [1, 3, 5, 7], 3),
        stride=choose("stride", [1, 2, 4], 1),
        groups=choose("groups", [1, 2, 4, 16], 1),
    )
