"""Tables for a terminal or a notebook, and empty figures to draw in."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Table", "new_figure"]


@dataclass(frozen=True)
class Table:
    """A table of text; the first column has names, the others have numbers.

    >>> print(Table(("layer", "MACs"), (("conv", "1,806,336"), ("head", "1,120"))))
    layer       MACs
    ─────  ─────────
    conv   1,806,336
    head       1,120
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.headings, *self.rows, strict=True)]
        rule = tuple("─" * width for width in widths)
        lines = [_line(cells, widths) for cells in (self.headings, rule, *self.rows)]
        return "\n".join([*lines, *([self.note] if self.note else [])])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(heading)}</th>" for heading in self.headings)
        rows = (
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
            for cells in self.rows
        )
        note = f"<p>{html.escape(self.note)}</p>" if self.note else ""
        return f"<table><tr>{head}</tr>{''.join(rows)}</table>{note}"


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches; matplotlib is loaded only here."""
    import matplotlib.pyplot as plt  # sets up the notebook to display figures, which Figure() does not

    figure = plt.figure(figsize=(width, height), layout="constrained")
    plt.close(figure)  # an open figure would be shown again at the end of the cell
    return figure


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)])
