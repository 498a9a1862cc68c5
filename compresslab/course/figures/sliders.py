"""Sliders for plain drawing functions. The cell above each widget shows a static version of its figure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ipywidgets
    from matplotlib.figure import Figure

__all__ = ["explore"]


def explore(draw: Callable[..., Figure], **settings: ipywidgets.ValueWidget) -> ipywidgets.VBox:
    """Return a widget of sliders above a figure, which is drawn again after each change.

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
