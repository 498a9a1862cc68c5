"""Which layers bear pruning? Prune one at a time and look at the damage; then give each the share it bears.

Some layers lose nine weights in ten and nobody notices, others answer wrongly at once. A *sensitivity scan*
prunes each layer alone, to each share, and notes how much that hurts. Under a budget of weights, one price of
a weight for all layers then says how far each may go:

    d[l, s] = damage of the network with only layer l pruned to s,    k[l, s] = n[l] - round(s · n[l]) stay

    choose s[l]:   Σ d[l, s[l]] small,   Σ k[l, s[l]] ≤ budget       (see ``compresslab.analysis.allocation``)

What it saves: accuracy at the same number of weights. What it costs: as many evaluations as layers times
shares. What is left out: that damages of several layers need not add up; fine-tuning, which mends some layers
better than others; and that a weight costs more MACs in an early layer.

Source: thresholds by a layer's sensitivity: Han, Pool, Tran and Dally 2015, arXiv:1506.02626; the scan,
layer by layer, and its picture: Li et al. 2016, "Pruning filters for efficient ConvNets", arXiv:1608.08710.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn
from tqdm.auto import tqdm

from compresslab.analysis.allocation import Choice, least_damage
from compresslab.analysis.sensitivity import Damage
from compresslab.techniques.pruning.granularity import check_sparsity, local_masks, magnitudes
from compresslab.techniques.pruning.masks import masked
from compresslab.techniques.pruning.schedule import Score, Select

__all__ = ["scan_sensitivity", "sparsities_under_budget"]


def scan_sensitivity(
    model: nn.Module,
    damage: Damage,
    *,
    sparsities: Sequence[float],
    score: Score = magnitudes,
    select: Select = local_masks,
) -> dict[str, list[float]]:
    """What each layer does when it alone is pruned: {layer's name: one damage a sparsity}.

    Args:
        model: with at least one Conv2d or Linear layer; left alone.
        damage: pruned network → how much worse it is, as ``accuracy_lost`` and ``answers_moved`` make it.
        sparsities: the shares to try, each 0 ≤ sparsity < 1.
        score: asked once, of the model as it is.
        select: scores → masks; ``functools.partial(local_masks, granularity=channel)`` scans channels.

    Raises:
        BadSetting: a sparsity out of range, or nothing to prune.
    """
    for sparsity in sparsities:
        check_sparsity(sparsity)
    scores = score(model)
    bar = tqdm(total=len(scores) * len(sparsities), desc="sensitivity", unit="run", leave=False)

    def alone(name: str, sparsity: float) -> float:
        bar.update()
        return damage(masked(model, select({name: scores[name]}, sparsity=sparsity)))

    with bar:
        return {name: [alone(name, sparsity) for sparsity in sparsities] for name in scores}


def sparsities_under_budget(
    damages: Mapping[str, Sequence[float]],
    weights: Mapping[str, int],
    *,
    sparsities: Sequence[float],
    budget: int,
) -> dict[str, float]:
    """A sparsity for each layer, of little summed damage within the budget: {layer's name: sparsity}.

    ``local_masks(scores, sparsity=…)`` takes the result.

    Args:
        damages: {layer's name: one damage a sparsity}, from ``scan_sensitivity``.
        weights: {layer's name: how many it has}.
        sparsities: the shares that were tried; with 0.0 among them a layer may be spared.
        budget: weights that may stay, in all these layers together.

    Raises:
        BadSetting: a budget that even the largest sparsities exceed.

    >>> damages = {"small": [0.0, 0.2], "large": [0.0, 0.3]}
    >>> sparsities_under_budget(damages, {"small": 10, "large": 90}, sparsities=(0.0, 0.5), budget=60)
    {'small': 0.0, 'large': 0.5}
    """
    choices = {
        name: [
            Choice(weights[name] - round(s * weights[name]), d) for s, d in zip(sparsities, ds, strict=True)
        ]
        for name, ds in damages.items()
    }
    picks = least_damage(choices, budget=budget)
    return {name: sparsities[place] for name, place in picks.items()}
