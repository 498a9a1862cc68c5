"""Layer profile: each layer's parameters, bytes, MACs and latency, as a table and as a bar chart.

Each layer with MACs has its own row, in execution order; the others are summed by kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from compresslab.errors import BadSetting
from compresslab.measurement.costs import LayerCost
from compresslab.measurement.tables import Table, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_layers", "layer_table"]


def layer_table(costs: Sequence[LayerCost]) -> Table:
    """Return the table of each layer's parameters, file bytes, MACs and milliseconds, with their sums.

    Raises:
        BadSetting: there are no layers.
    """
    rows = {**_bars(costs), "all layers": tuple(map(sum, zip(*_bars(costs).values(), strict=True)))}
    return Table(
        ("layer", "parameters", "bytes in the file", "MACs", "latency, ms"),
        tuple(
            (name, *(f"{n:,}" for n in numbers[:3]), f"{numbers[3]:.3f}") for name, numbers in rows.items()
        ),
        "One image, one thread; a layer without MACs is summed with its kind.",
    )


def draw_layers(costs: Sequence[LayerCost]) -> Figure:
    """Draw each layer's share of the parameters, file bytes, MACs and time, in four panels.

    Raises:
        BadSetting: there are no layers.
    """
    bars = _bars(costs)
    figure = new_figure(12, 1.2 + 0.22 * len(bars))
    panels = figure.subplots(1, 4, sharey=True)
    titles = ("parameters", "storage bytes", "MACs", "latency, ms")
    for column, (axes, title) in enumerate(zip(panels, titles, strict=True)):
        amounts = [costs_of_row[column] for costs_of_row in bars.values()]
        whole = sum(amounts)
        shares = [100 * amount / whole if whole else 0.0 for amount in amounts]
        drawn = axes.barh(range(len(bars)), shares, color="0.6", edgecolor="black", linewidth=0.5)
        axes.bar_label(drawn, [f"{share:.1f}" if share else "0" for share in shares], padding=2, fontsize=7)
        axes.set(xlabel=f"share of {title.split(',')[0]}, %", xlim=(0, 1.2 * max(shares) or 1))
        axes.set_title(
            f"{title}: {whole:,.3f}" if isinstance(whole, float) else f"{title}: {whole:,}", fontsize=10
        )
    panels[0].set_yticks(range(len(bars)), list(bars), fontsize=8)
    panels[0].set_ylabel("layer, in the order they run")
    panels[0].invert_yaxis()
    return figure


def _bars(costs: Sequence[LayerCost]) -> dict[str, tuple[int, int, int, float]]:
    """{label: (parameters, storage bytes, MACs, ms)}: layers with MACs, then the others summed by kind."""
    if not costs:
        raise BadSetting(
            "costs must have at least one layer, got none; layer_costs(model, inputs) makes them"
        )
    groups: dict[str, list[LayerCost]] = {f"{c.name} ({c.kind})": [c] for c in costs if c.macs}
    for cost in costs:
        if not cost.macs:
            groups.setdefault(f"all {cost.kind}", []).append(cost)
    return {
        label.removeprefix("all ") if len(group) == 1 else f"{label} ({len(group)})": (
            sum(cost.parameters for cost in group),
            sum(cost.storage_bytes for cost in group),
            sum(cost.macs for cost in group),
            sum(cost.latency_ms for cost in group),
        )
        for label, group in groups.items()
    }
