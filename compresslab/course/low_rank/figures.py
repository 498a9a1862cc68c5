"""Figures of lab 04: singular value spectra, filter banks at a rank, and ranks per layer.

Plain functions from tensors and numbers to a figure, and a widget for the rank of one of them. Accuracy
against cost is drawn by ``course.low_rank.tradeoff_figures``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from compresslab.course.figures.gains import TINT
from compresslab.course.figures.sliders import explore
from compresslab.errors import BadSetting
from compresslab.measurement.tables import new_figure
from compresslab.techniques.low_rank.svd import dropped_error, truncated_svd

if TYPE_CHECKING:
    import ipywidgets
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_filters", "draw_filters_at_rank", "draw_rank_plan", "draw_spectra", "explore_filters"]

MOST, COLUMNS = 0.9, 5  # share of the energy at which spectra are compared; panels per row


def draw_spectra(trained: Mapping[str, Tensor], random: Mapping[str, Tensor]) -> Figure:
    """Draw the share of energy in each layer's largest singular values, beside that of a random matrix.

    Energy is the sum of squares, so a curve does not depend on the norm. Dotted: 90 % of the energy; the
    title has the smallest rank that reaches it, trained and random.

    Args:
        trained: layer → its singular values (rank,), decreasing. Not changed.
        random: the same layers → as many singular values of a random matrix of the same size.

    Raises:
        BadSetting: there is no layer, the two have different layers, or values are not a spectrum.
    """
    if not trained or {*trained} != {*random}:
        raise BadSetting(
            f"trained and random have the same layers, at least one, got {', '.join(trained) or 'none'} and "
            f"{', '.join(random) or 'none'}; take torch.linalg.svdvals of both for each layer"
        )
    columns = min(COLUMNS, len(trained))
    rows = math.ceil(len(trained) / columns)
    figure = new_figure(max(4.6, 2.3 * columns), max(2.9, 0.8 + 1.75 * rows))
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axes, (name, values) in zip(panels, trained.items(), strict=False):
        kept, kept_random = _energy_kept(values, name=name), _energy_kept(random[name], name=name)
        if len(kept) != len(kept_random):
            raise BadSetting(
                f"a layer has as many singular values trained as random, got {len(values)} and "
                f"{len(random[name])} for {name!r}; draw the random matrix in the layer's shape"
            )
        _draw_spectrum(axes, kept, kept_random, name=name)
    for axes in panels[len(trained) :]:
        axes.set_visible(False)
    for axes in panels[max(0, len(trained) - columns) : len(trained)]:
        axes.tick_params(labelbottom=True)  # also above an unused panel
    figure.supxlabel("rank kept, % of the full rank", fontsize=10)
    figure.supylabel("energy kept, % of the sum of squares", fontsize=10)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=3, fontsize=9)
    return figure


def _energy_kept(values: Tensor, *, name: str) -> list[float]:
    """Singular values (rank,) → the percentage of their energy in the first 0, 1, …, rank of them."""
    s = values.detach().double().cpu()
    if s.dim() != 1 or not torch.isfinite(s).all() or (s < 0).any() or (s.diff() > 0).any() or s.sum() == 0:
        raise BadSetting(
            "a spectrum is singular values (rank,), falling, from 0 up and not all 0, got "
            f"{tuple(s.shape)} for {name!r}; torch.linalg.svdvals(weight.flatten(1)) gives one"
        )
    energy = s.square().cumsum(0)
    return [0.0, *(100 * energy / energy[-1]).tolist()]


def _draw_spectrum(axes: Axes, kept: list[float], kept_random: list[float], *, name: str) -> None:
    """Draw two curves from 0 to 100 %; the title has the smallest ranks that reach 90 % of the energy."""
    full = len(kept) - 1
    share = [100 * rank / full for rank in range(full + 1)]
    axes.plot(share, kept, "-", color="black", linewidth=1.6, label="trained")
    axes.plot(share, kept_random, "--", color="0.4", linewidth=1.3, label="random, same size and norm")
    axes.axhline(100 * MOST, color="0.5", linestyle=":", linewidth=1, label=f"{MOST:.0%} of the energy")
    rank, rank_random = (
        next(r for r, k in enumerate(curve) if k >= 100 * MOST) for curve in (kept, kept_random)
    )
    axes.set(xlim=(0, 100), ylim=(0, 104), xticks=(0, 50, 100), yticks=(0, 50, 100))
    axes.set_title(f"{name}\n{MOST:.0%}: rank {rank} of {full}, random {rank_random}", fontsize=8)


def draw_filters(weight: Tensor, versions: Mapping[str, Tensor], *, corner: int = 8) -> Figure:
    """Draw the first kernels of a filter bank and of its approximations, with their relative errors.

    Mid-grey is 0, white positive and black negative, on one scale for all panels.

    Args:
        weight: (out, in, height, width), the original. Not changed.
        versions: name, such as "rank 4" → an approximation in the weight's shape.
        corner: the number of filters and of inputs drawn, from the first on.

    Raises:
        BadSetting: there is no version, one has another shape, or the weight is not a convolution's.
    """
    _check_bank(weight)
    if not versions:
        raise BadSetting("versions has at least one filter bank, got none; try {'rank 4': ...}")
    for name, version in versions.items():
        if version.shape != weight.shape:
            raise BadSetting(
                f"a version has its weight's shape {tuple(weight.shape)}, got {tuple(version.shape)} for "
                f"{name!r}; (second @ first).view_as(weight) brings it there"
            )
    figure = new_figure(0.5 + 2.5 * (1 + len(versions)), 3.2)
    panels = figure.subplots(1, 1 + len(versions), sharex=True, sharey=True)
    for axes, (name, bank) in zip(panels, [("original", weight), *versions.items()], strict=True):
        _draw_bank(axes, bank, weight, corner=corner)
        axes.set_title(name if axes is panels[0] else _with_error(name, bank, weight), fontsize=10)
        axes.set_xlabel("input channel", fontsize=9)
    panels[0].set_ylabel("filter", fontsize=9)
    figure.supxlabel(_legend(weight, corner), fontsize=9)
    return figure


def _check_bank(weight: Tensor) -> None:
    if weight.dim() != 4 or not weight.any():
        raise BadSetting(
            "a filter bank is (out, in, height, width) and not all 0, got "
            f"{tuple(weight.shape)}; give the weight of a trained Conv2d"
        )


def _draw_bank(axes: Axes, bank: Tensor, original: Tensor, *, corner: int) -> None:
    """Draw the corner's kernels as one image, with white lines between them, on the original's scale."""
    reach, (filters, inputs) = _reach(original, corner), _counts(original, corner)
    height, width = original.shape[2:]
    image = bank.detach().float().cpu()[:corner, :corner].transpose(1, 2)  # (filters, height, inputs, width)
    axes.imshow(image.flatten(2).flatten(0, 1).numpy(), cmap="gray", vmin=-reach, vmax=reach)
    white: dict[str, Any] = {"colors": "white", "linewidth": 2}
    axes.hlines([n * height - 0.5 for n in range(1, filters)], -0.5, inputs * width - 0.5, **white)
    axes.vlines([n * width - 0.5 for n in range(1, inputs)], -0.5, filters * height - 0.5, **white)
    for set_ticks, count, size in ((axes.set_yticks, filters, height), (axes.set_xticks, inputs, width)):
        ends = sorted({0, count - 1})  # more tick labels would double the time of a redraw
        set_ticks([n * size + (size - 1) / 2 for n in ends], [*map(str, ends)], fontsize=8)
    axes.tick_params(length=0)


def _counts(weight: Tensor, corner: int) -> tuple[int, int]:
    """The numbers of filters and inputs in the corner."""
    return min(corner, weight.shape[0]), min(corner, weight.shape[1])


def _reach(weight: Tensor, corner: int) -> float:
    """The magnitude drawn as white or black: the 99 % quantile of the corner's magnitudes."""
    drawn = weight.detach()[:corner, :corner].float().abs()
    return max(float(drawn.quantile(0.99)), 1e-12)


def _with_error(name: str, bank: Tensor, weight: Tensor) -> str:
    error = float((bank.detach() - weight.detach()).norm() / weight.detach().norm())
    return f"{name}: error {error:.1%}"


def _legend(weight: Tensor, corner: int) -> str:
    (filters, inputs), reach = _counts(weight, corner), _reach(weight, corner)
    return (
        f"the first {filters} × {inputs} of {weight.shape[0]} × {weight.shape[1]} kernels; "
        f"weight: black −{reach:.2g}, mid-grey 0, white +{reach:.2g}"
    )


def draw_filters_at_rank(weight: Tensor, *, rank: int, corner: int = 8) -> Figure:
    """Draw a filter bank, its best approximation of this rank, and the error and weights of every rank.

    The bank is read as the matrix (out, in · height · width). Ringed: this rank; dotted: the break-even rank,
    above which the two factors have more weights than the bank.

    Args:
        weight: (out, in, height, width). Not changed.
        rank: from 1 to the smaller side of the matrix.
        corner: the number of filters and of inputs drawn, from the first on.

    Raises:
        BadSetting: the weight is not a convolution's, or the rank is impossible for it.
    """
    _check_bank(weight)
    matrix = weight.detach().flatten(1)
    first, second = truncated_svd(matrix, rank=rank)
    bank = (second @ first).view_as(weight)
    figure = new_figure(10.5, 3.9)
    panels = figure.subplot_mosaic(
        [["whole", "bank", "error"], ["whole", "bank", "weights"]], width_ratios=[1, 1, 1.1]
    )
    for name, shown in (("whole", weight), ("bank", bank)):
        _draw_bank(panels[name], shown, weight, corner=corner)
        panels[name].set_xlabel("input channel", fontsize=9)
    panels["bank"].set_yticks(())
    panels["whole"].set_ylabel("filter", fontsize=9)
    panels["whole"].set_title(f"original, rank {min(matrix.shape)}", fontsize=10)
    panels["bank"].set_title(_with_error(f"rank {rank}", bank, weight), fontsize=10)
    figure.supxlabel(_legend(weight, corner), fontsize=9)
    _draw_costs(panels["error"], panels["weights"], matrix, rank=rank)
    return figure


def _draw_costs(above: Axes, below: Axes, matrix: Tensor, *, rank: int) -> None:
    """Draw the error of every rank and, below it, the weights of its factors as a share of the matrix's."""
    rows, columns = matrix.shape
    ranks = range(min(rows, columns) + 1)
    errors = [100 * error for error in dropped_error(matrix).tolist()]
    shares = [100 * r * (rows + columns) / (rows * columns) for r in ranks]
    break_even = rows * columns / (rows + columns)
    for axes, curve in ((above, errors), (below, shares)):
        axes.plot(ranks, curve, color="black", linewidth=1.5)
        axes.plot(rank, curve[rank], "o", color="black", fillstyle="none", markersize=10)
        axes.axvline(break_even, color="black", linestyle=":", linewidth=1)
        axes.set(xlim=(0, ranks[-1]), ylim=(0, 1.06 * max(curve)), yticks=(0, 50, 100))
        axes.locator_params(axis="x", nbins=4, integer=True)
        axes.tick_params(labelsize=8)
    below.axhline(100, color="black", linestyle="--", linewidth=1)
    below.annotate("the whole bank", (0.02 * ranks[-1], 103), fontsize=8)
    edge: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "ha": "right", "va": "top", "fontsize": 8}
    above.annotate(f"break-even {break_even:.1f} ", (break_even, 0.97), **edge)
    above.set_ylabel("relative\nerror, %", fontsize=9)
    above.tick_params(labelbottom=False)
    below.set_ylabel("weights,\n% of the bank's", fontsize=9)
    below.set_xlabel(f"rank (ringed: {rank}, {shares[rank]:.0f} % of the weights)", fontsize=9)


def explore_filters(weight: Tensor, *, corner: int = 8) -> ipywidgets.VBox:
    """``draw_filters_at_rank`` under a slider over its ranks, starting at a quarter of the full rank.

    Raises:
        BadSetting: the weight is not a convolution's.
    """
    import ipywidgets

    _check_bank(weight)
    full = min(weight.flatten(1).shape)
    slider = ipywidgets.IntSlider(
        max(1, full // 4), min=1, max=full, description="rank", continuous_update=False
    )
    return explore(lambda *, rank: draw_filters_at_rank(weight, rank=rank, corner=corner), rank=slider)


def draw_rank_plan(plans: Mapping[str, Mapping[str, int]], *, full: Mapping[str, int]) -> Figure:
    """Draw the share of its full rank that each layer keeps, one panel per plan; hatched: not factorized.

    Args:
        plans: plan, such as "by energy" → layer → rank; a layer that is missing is not factorized.
        full: layer → its full rank, in the order of the bars, from the top.

    Raises:
        BadSetting: there is no plan or no layer, a layer has no full rank, or a rank is impossible.
    """
    if not plans or not full:
        raise BadSetting(
            f"a picture has at least one plan and one layer, got {len(plans)} and {len(full)}; "
            "give {'by energy': {'conv1': 4}} and full={'conv1': 16}"
        )
    for plan, ranks in plans.items():
        for layer, rank in ranks.items():
            if not 1 <= rank <= full.get(layer, 0):
                there = f"1 to {full[layer]}" if layer in full else f"of a layer in {', '.join(full)}"
                raise BadSetting(
                    f"a rank is {there}, got {rank} for {layer!r} in {plan!r}; "
                    "take the plan and the full ranks from one model"
                )
    figure = new_figure(1.8 + 2.6 * len(plans), 1.2 + 0.25 * len(full))
    panels = figure.subplots(1, len(plans), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (name, ranks) in zip(panels, plans.items(), strict=True):
        _draw_plan(axes, ranks, full)
        axes.set_title(name, fontsize=10)
    panels[0].set_yticks(range(len(full)), list(full), fontsize=8)
    panels[0].set(ylabel="layer", xlim=(0, 138), ylim=(len(full) - 0.4, -0.6))
    figure.supxlabel("rank kept, % of the full rank (hatched: the layer is left whole)", fontsize=10)
    return figure


def _draw_plan(axes: Axes, ranks: Mapping[str, int], full: Mapping[str, int]) -> None:
    """Draw one bar per layer, with the rank that it keeps beside it."""
    shares = [100 * ranks.get(layer, whole) / whole for layer, whole in full.items()]
    bars = axes.barh(range(len(full)), shares, 0.7, color=TINT, edgecolor="black", linewidth=0.5)
    for bar, layer in zip(bars, full, strict=True):
        if layer not in ranks:
            bar.set(facecolor="white", hatch="///")
    texts = [f"{ranks[layer]} of {whole}" if layer in ranks else "whole" for layer, whole in full.items()]
    axes.bar_label(bars, texts, padding=3, fontsize=7)
    axes.axvline(100, color="black", linestyle="--", linewidth=1, zorder=0)
    axes.tick_params(left=False)
    axes.set_xticks((0, 50, 100))
