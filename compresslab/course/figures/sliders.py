"""Sliders around plain drawing functions. Each widget has a static twin in the cell above it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from compresslab.course.measuring.figures import draw_convolution_cost

if TYPE_CHECKING:
    import ipywidgets
    from matplotlib.figure import Figure

__all__ = ["explore", "explore_convolution"]


def explore(draw: Callable[..., Figure], **settings: ipywidgets.ValueWidget) -> ipywidgets.VBox:
    """A picture under its sliders; it is drawn again whenever one moves.

    Args:
        draw: keyword settings → a figure.
        settings: one ipywidget for each setting of ``draw``.
    """
    import io

    import ipywidgets

    picture = ipywidgets.Image(format="png", layout=ipywidgets.Layout(align_self="flex-start"))

    def redraw(change: Any = None) -> None:
        file = io.BytesIO()
        figure = draw(**{name: widget.value for name, widget in settings.items()})
        figure.savefig(file, format="png", dpi=80)
        picture.value = file.getvalue()

    for widget in settings.values():
        widget.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox([*settings.values(), picture])


def explore_convolution() -> ipywidgets.VBox:
    """What a convolution costs, by its channels, kernel, stride and groups, beside a plain 3 × 3."""
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
