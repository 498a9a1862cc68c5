"""Figures of lab 03: pruning masks, histograms of pruned weights, and the sensitivity of layers.

Plain functions from tensors and numbers to a figure, and a widget for the settings of one of them. Curves
against sparsity are drawn by ``course.pruning.tradeoff_figures``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compresslab.course.figures.gains import TINT
from compresslab.course.figures.sliders import explore
from compresslab.course.pruning.tradeoff_figures import Curve, as_interval, draw_accuracies
from compresslab.errors import BadSetting
from compresslab.experiments.pruning.methods import GRANULARITIES
from compresslab.measurement.tables import new_figure
from compresslab.techniques.pruning.granularity import group_mask

if TYPE_CHECKING:
    import ipywidgets
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "draw_granularities",
    "draw_pruning",
    "draw_sensitivity",
    "draw_weight_histograms",
    "explore_pruning",
]

DARK = (0.03, 0.12, 0.25)  # the largest weight; the smallest kept weight has the tint, none is white


def draw_granularities(weight: Tensor, masks: Mapping[str, Tensor], *, corner: int = 8) -> Figure:
    """Draw the first kernels of a weight under several masks: darker is larger, white is pruned.

    Args:
        weight: (out, in, height, width), or (out, in), where a kernel is one weight. Not changed.
        masks: granularity → a bool mask in the weight's shape.
        corner: the number of filters and of inputs drawn, from the first on.

    Raises:
        BadSetting: there is no mask, a mask has another shape or dtype, or the weight has neither two
            nor four dimensions.
    """
    if not masks:
        raise BadSetting("masks has at least one mask, got none; try {'fine': fine_grained_mask(...)}")
    figure = new_figure(max(5.2, 0.6 + 2.2 * len(masks)), 3)
    panels = figure.subplots(1, len(masks), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (name, mask) in zip(panels, masks.items(), strict=True):
        _draw_mask(axes, weight, mask, name=name, corner=corner)
        axes.set_xlabel("input channel", fontsize=9)
    panels[0].set_ylabel("filter", fontsize=9)
    shown, whole = (" × ".join(map(str, sizes)) for sizes in ((_counts(weight, corner)), weight.shape[:2]))
    figure.supxlabel(
        f"the first {shown} of {whole} kernels; white: pruned, darker: larger magnitude", fontsize=9
    )
    return figure


def _counts(weight: Tensor, corner: int) -> tuple[int, int]:
    """The numbers of filters and inputs in the corner."""
    return min(corner, weight.shape[0]), min(corner, weight.shape[1])


def _draw_mask(axes: Axes, weight: Tensor, mask: Tensor, *, name: str, corner: int) -> None:
    """Draw the corner's kernels as one image, with thin lines between them; the title has the share left."""
    if mask.shape != weight.shape or mask.dtype != torch.bool:
        raise BadSetting(
            f"a mask is bool, of its weight's shape {tuple(weight.shape)}, got {name!r} with "
            f"{tuple(mask.shape)} {mask.dtype}; group_mask(magnitude(weight), ...) makes one"
        )
    size, there = _corner(weight.detach().float().abs().cpu(), corner), _corner(mask.cpu(), corner)
    shade = size[..., None] / size.max().clamp_min(1e-30)  # (filters · height, inputs · width, 1)
    ink = torch.lerp(torch.tensor(TINT), torch.tensor(DARK), shade)
    axes.imshow(ink.where(there[..., None], 1.0).numpy(), interpolation="nearest")
    sides = ((axes.set_yticks, axes.axhline, len(there)), (axes.set_xticks, axes.axvline, there.shape[1]))
    for (set_ticks, draw_line, length), count in zip(sides, _counts(weight, corner), strict=True):
        step = length // count  # a kernel's height or width
        for index in range(1, count):
            draw_line(index * step - 0.5, color="0.55", linewidth=0.7)
        middles = [index * step + (step - 1) / 2 for index in range(count)]
        set_ticks(middles, list(map(str, range(count))), fontsize=7)
    axes.tick_params(length=0)
    axes.set_title(f"{name}: {mask.float().mean():.1%} left", fontsize=10)


def _corner(values: Tensor, corner: int) -> Tensor:
    """(out, in, height, width) or (out, in) → the first kernels arranged as (out · height, in · width)."""
    if values.dim() not in (2, 4):
        raise BadSetting(
            f"a weight is (out, in) or (out, in, height, width), got {tuple(values.shape)}; "
            "give a Conv2d's or a Linear's"
        )
    kernels = values if values.dim() == 4 else values[:, :, None, None]
    return kernels[:corner, :corner].transpose(1, 2).flatten(2).flatten(0, 1)


def draw_weight_histograms(before: Tensor, pruned: Tensor, tuned: Tensor) -> Figure:
    """Draw histograms of the nonzero weights as trained, pruned and fine-tuned, one above the other.

    Dashed: ± the threshold, the smallest magnitude that pruning left. Each panel has its own vertical scale.

    Args:
        before: trained weights of any shape: of one layer, or of all layers concatenated. Not changed.
        pruned: the same weights after pruning, 0 where pruned.
        tuned: the same weights after fine-tuning.

    Raises:
        BadSetting: the numbers of weights differ, or pruning left none.
    """
    stages = {"trained": before, "pruned": pruned, "fine-tuned": tuned}
    flat = {name: w.detach().flatten().float().cpu() for name, w in stages.items()}
    if len({len(w) for w in flat.values()}) > 1:
        counts = ", ".join(f"{len(w):,} {name}" for name, w in flat.items())
        raise BadSetting(f"the weights are the same ones three times, got {counts}; give one layer's")
    alive = {name: w[w != 0] for name, w in flat.items()}
    if len(alive["pruned"]) == 0:
        raise BadSetting("pruned has weights that are not zero, got none; try a smaller sparsity")
    threshold = float(alive["pruned"].abs().min())
    reach = max(float(w.abs().max()) for w in flat.values())
    edges = _edges(reach, threshold)
    figure = new_figure(7, 4.6)
    panels = figure.subplots(3, 1, sharex=True)
    for axes, (name, w) in zip(panels, alive.items(), strict=True):
        heights, _ = torch.histogram(w, edges)
        axes.stairs(heights.tolist(), edges.tolist(), fill=True, facecolor=TINT, edgecolor="black")
        for end in (-threshold, threshold):
            axes.axvline(end, color="black", linestyle="--", linewidth=0.8)
        zeros = len(flat[name]) - len(w)
        axes.set_title(f"{name}: {len(w):,} weights and {zeros:,} zeros (not drawn)", fontsize=10)
    figure.supylabel("weights in the bin", fontsize=10)
    panels[-1].set_xlabel(f"weight (dashed: ±{threshold:.3g}, the smallest magnitude that pruning left)")
    return figure


def _edges(reach: float, threshold: float) -> Tensor:
    """Return edges of about 120 bins from -reach to reach; a threshold wider than a bin is an edge."""
    width = reach / 60
    if threshold > width:
        width = threshold * (1 - 1e-6) / round(threshold / width)  # -threshold lies beyond the edge
    count = int(reach / width) + 1
    return width * torch.arange(-count, count + 1)


def draw_sensitivity(
    losses: Mapping[str, Sequence[float]],
    sparsities: Sequence[float],
    *,
    weights: Mapping[str, int],
    unit: str = "KL divergence, nats",
) -> Figure:
    """Draw the effect of pruning each layer alone, by sparsity, beside the number of its weights.

    Args:
        losses: {layer: one loss of quality per sparsity}, from ``scan_sensitivity``.
        sparsities: the shares that were pruned, as fractions.
        weights: {layer: how many it has}.
        unit: of the losses, with its name.

    Raises:
        BadSetting: no layer, a layer without its number of weights, or not one loss per sparsity.
    """
    for name, found in losses.items():
        if name not in weights or len(found) != len(sparsities):
            raise BadSetting(
                f"each layer must have a number of weights and {len(sparsities)} losses, one per sparsity, "
                f"got {weights.get(name, 'no number')} and {len(found)} for {name!r}; take both from a model"
            )
    if not losses:
        raise BadSetting("losses must have at least one layer, got none; scan_sensitivity makes them")
    figure = new_figure(3.2 + 0.8 * len(sparsities), 1.3 + 0.27 * len(losses))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[len(sparsities), 3])
    _draw_heat(left, list(losses.values()))
    left.set_xticks(range(len(sparsities)), [f"{s:g}" for s in sparsities])
    left.set(xlabel=f"sparsity of this layer alone\n(cells: {unit})", ylabel="layer, in the order they run")
    left.set_yticks(range(len(losses)), list(losses), fontsize=8)
    amounts = [weights[name] for name in losses]
    bars = right.barh(range(len(amounts)), amounts, 0.7, color=TINT, edgecolor="black", linewidth=0.5)
    right.bar_label(bars, [f"{amount:,}" for amount in amounts], padding=3, fontsize=8)
    right.tick_params(left=False, labelleft=False)
    right.locator_params(axis="x", nbins=4)
    right.set(xlabel="weights", xlim=(0, 1.5 * max(amounts)))
    right.xaxis.set_major_formatter(lambda amount, place: f"{amount / 1000:g}k" if amount else "0")
    return figure


def _draw_heat(axes: Axes, rows: Sequence[Sequence[float]]) -> None:
    """Draw a heat map with its numbers; shades follow their square root, white from 0 down."""
    top = max(max(value for row in rows for value in row), 1e-12)
    shades = [[(max(value, 0.0) / top) ** 0.5 for value in row] for row in rows]
    axes.imshow(shades, cmap="Greys", vmin=0, vmax=1.15, aspect="auto")
    for y, (row, dark) in enumerate(zip(rows, shades, strict=True)):
        for x, (value, shade) in enumerate(zip(row, dark, strict=True)):
            color = "white" if shade > 0.65 else "black"
            text = f"{value:z.3f}".replace("-", "−")
            axes.annotate(text, (x, y), ha="center", va="center", fontsize=8, color=color)


Recorded = Mapping[tuple[str, str], Curve]  # (criterion, granularity) → its curve


def draw_pruning(
    weight: Tensor,
    recorded: Recorded,
    *,
    scores: Mapping[str, Tensor],
    baseline: float,
    criterion: str,
    granularity: str,
    sparsity: float,
) -> Figure:
    """Draw one layer under a mask, beside the recorded accuracy of the network with all layers pruned so.

    Black: the curve of this criterion and granularity, with the chosen point ringed; grey: the criterion's
    other granularities.

    Args:
        weight: of the layer, (out, in, height, width) or (out, in). Not changed.
        recorded: {(criterion, granularity): [(sparsity, test accuracy), …]}, fractions.
        scores: {criterion: scores of the layer's weights, in their shape}.
        baseline: the dense network's test accuracy.
        criterion: one that has scores.
        granularity: a key of ``GRANULARITIES``.
        sparsity: one that was recorded for both.

    Raises:
        BadSetting: the criterion has no scores, or the point was not recorded.
    """
    curve = dict(recorded.get((criterion, granularity), ()))
    if criterion not in scores or granularity not in GRANULARITIES or sparsity not in curve:
        there = ", ".join(f"({c!r}, {g!r})" for c, g in recorded if c in scores and g in GRANULARITIES)
        at = f", for this pair at {', '.join(f'{s:g}' for s in sorted(curve))}" if curve else ""
        raise BadSetting(
            f"what is drawn was recorded and has scores, got {criterion!r}, {granularity!r} at {sparsity}; "
            f"choose among {there or 'none'}{at}"
        )
    figure = new_figure(9.5, 3.6)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.35])
    mask = group_mask(scores[criterion], GRANULARITIES[granularity], sparsity=sparsity)
    _draw_mask(left, weight, mask, name=f"this layer, {granularity}", corner=8)
    left.set(xlabel="input channel (white: pruned)", ylabel="filter")
    every = [100 * as_interval(accuracy).value for line in recorded.values() for _, accuracy in line]
    right.set_ylim(min(every) - 5, 100 * baseline + 9)  # independent of the choice
    curves = {name: line for (asked, name), line in recorded.items() if asked == criterion}
    draw_accuracies(right, curves, baseline=baseline, chosen=(granularity, sparsity))
    accuracy = as_interval(curve[sparsity]).value
    right.set_title(f"all layers, by {criterion}: {accuracy:.1%} at {sparsity:g}", fontsize=10)
    return figure


def explore_pruning(
    weight: Tensor, recorded: Recorded, *, scores: Mapping[str, Tensor], baseline: float
) -> ipywidgets.VBox:
    """``draw_pruning`` under widgets for its three settings; sparsities are those that all curves share.

    Raises:
        BadSetting: nothing was recorded, or the curves share no sparsity.
    """
    import ipywidgets

    shared = sorted(
        set.intersection(*({s for s, _ in curve} for curve in recorded.values())) if recorded else ()
    )
    if not shared:
        raise BadSetting(
            f"recorded has curves that share a sparsity, got {len(recorded)} curves that share none; "
            "record all at the same sparsities"
        )

    def choose(index: int, name: str) -> ipywidgets.Dropdown:
        return ipywidgets.Dropdown(options=list(dict.fromkeys(k[index] for k in recorded)), description=name)

    return explore(
        lambda **settings: draw_pruning(weight, recorded, scores=scores, baseline=baseline, **settings),
        granularity=choose(1, "granularity"),
        criterion=choose(0, "criterion"),
        sparsity=ipywidgets.SelectionSlider(
            options=shared, value=shared[len(shared) // 2], description="sparsity"
        ),
    )
