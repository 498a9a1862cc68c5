"""Sensitivity to pruning: prune one layer at a time; then give each layer the sparsity that it bears.

Some layers lose nine weights in ten and the answers stay, others answer wrongly at once. The scan prunes each
layer alone, to each sparsity, and measures the network (``compresslab.analysis.sensitivity``). Under a budget
of weights, one price of a weight for all layers then says how far each may go:

    d[l, s] = sensitivity to layer l pruned to s,    k[l, s] = n[l] - round(s · n[l]) weights stay

    choose s[l]:   Σ d[l, s[l]] small,   Σ k[l, s[l]] ≤ budget       (``allocate_greedily``)

What it saves: accuracy at the same number of weights. What it costs: as many evaluations as layers times
sparsities. What is left out: that the sensitivities of several layers need not add up; fine-tuning, which
helps some layers more than others; and that a weight costs more MACs in an early layer.

Source: thresholds by a layer's sensitivity: Han, Pool, Tran and Dally 2015, arXiv:1506.02626; the scan,
layer by layer, and its picture: Li et al. 2016, "Pruning filters for efficient ConvNets", arXiv:1608.08710.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from compresslab.analysis.allocation import Choice, allocate_greedily
from compresslab.analysis.sensitivity import Measure, scan
from compresslab.techniques.pruning.granularity import check_sparsity, local_masks, magnitudes
from compresslab.techniques.pruning.masks import masked
from compresslab.techniques.pruning.schedule import Score, Select

__all__ = ["scan_sensitivity", "sparsities_under_budget"]


def scan_sensitivity(
    model: nn.Module,
    measure: Measure,
    *,
    sparsities: Sequence[float],
    score: Score = magnitudes,
    select: Select = local_masks,
) -> dict[str, list[float]]:
    """Measure the network with each layer pruned alone: {layer's name: one sensitivity per sparsity}.

    Args:
        model: with at least one Conv2d or Linear layer; left alone.
        measure: pruned network → how much worse it is, as ``output_sensitivity`` makes it.
        sparsities: the shares to try, each 0 ≤ sparsity < 1.
        score: asked once, of the model as it is.
        select: scores → masks; ``functools.partial(local_masks, granularity=channel)`` scans channels.

    Raises:
        BadSetting: a sparsity out of range, or nothing to prune.
    """
    for sparsity in sparsities:
        check_sparsity(sparsity)
    scores = score(model)

    def prune(name: str, sparsity: float) -> nn.Module:
        return masked(model, select({name: scores[name]}, sparsity=sparsity))

    return scan(scores, sparsities, prune, measure)


def sparsities_under_budget(
    sensitivities: Mapping[str, Sequence[float]],
    weights: Mapping[str, int],
    *,
    sparsities: Sequence[float],
    budget: int,
) -> dict[str, float]:
    """A sparsity for each layer, with a small sum of sensitivities within the budget: {name: sparsity}.

    ``local_masks(scores, sparsity=…)`` takes the result.

    Args:
        sensitivities: {layer's name: one per sparsity}, from ``scan_sensitivity``.
        weights: {layer's name: how many it has}.
        sparsities: the shares that were tried; with 0.0 among them a layer may be spared.
        budget: weights that may stay, in all these layers together.

    Raises:
        BadSetting: a budget that even the largest sparsities exceed.

    >>> sensitivities = {"small": [0.0, 0.2], "large": [0.0, 0.3]}
    >>> sparsities_under_budget(sensitivities, {"small": 10, "large": 90}, sparsities=(0.0, 0.5), budget=60)
    {'small': 0.0, 'large': 0.5}
    """
    choices = {
        name: [
            Choice(weights[name] - round(s * weights[name]), found)
            for s, found in zip(sparsities, row, strict=True)
        ]
        for name, row in sensitivities.items()
    }
    picks = allocate_greedily(choices, budget=budget)
    return {name: sparsities[index] for name, index in picks.items()}
