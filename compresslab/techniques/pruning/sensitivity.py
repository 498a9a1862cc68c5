"""Which layers bear pruning? Prune one at a time and look at the damage; then give each the share it bears.

Some layers lose nine weights in ten and nobody notices, others answer wrongly at once. A *sensitivity scan*
prunes each layer alone, to each share, and notes how much that hurts. Under a budget of weights, one price of
a weight for all layers then says how far each may go:

    d[l, s] = damage of the network with only layer l pruned to s,    k[l, s] = n[l] - round(s · n[l]) stay

    choose s[l]:   Σ d[l, s[l]] small,   Σ k[l, s[l]] ≤ budget

    greedily: from the least damage, always the step of the least (d' - d) / (k - k'), until the budget is met

What is left of the budget after the last step is given back, to the layers that suffer most first. (The exact
choice is a knapsack problem, as for bits; steps by their price come within one step of it, without a table.)

What it saves: accuracy at the same number of weights. What it costs: as many evaluations as layers times
shares. What is left out: that damages of several layers need not add up; fine-tuning, which mends some layers
better than others; and that a weight costs more MACs in an early layer.

Source: thresholds by a layer's sensitivity: Han, Pool, Tran and Dally 2015, arXiv:1506.02626; the scan,
layer by layer, and its picture: Li et al. 2016, "Pruning filters for efficient ConvNets", arXiv:1608.08710.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from compresslab.clock import evaluating
from compresslab.data import Images
from compresslab.errors import CompressionError
from compresslab.techniques.pruning.granularity import check_sparsity, local_masks, magnitudes
from compresslab.techniques.pruning.masking import masked
from compresslab.techniques.pruning.schedule import Score, Select
from compresslab.training import accuracy

__all__ = ["Damage", "accuracy_lost", "answers_moved", "scan_sensitivity", "sparsities_under_budget"]

Damage = Callable[[nn.Module], float]  # a pruned network → how much worse it is


def accuracy_lost(model: nn.Module, images: Images) -> Damage:
    """The damage as the model's accuracy less the pruned one's, in [-1, 1]; validation images."""
    before = accuracy(model, images)
    return lambda pruned: before - accuracy(pruned, images)


@torch.no_grad()
def answers_moved(model: nn.Module, inputs: Tensor) -> Damage:
    """The damage as mean KL(softmax z ‖ softmax z'), in nats, z the model's logits and z' the pruned one's.

    It needs no labels, and sees changes that are too small to turn an answer over.

    Args:
        model: in whatever mode; it runs in evaluation mode and is left alone.
        inputs: validation images (m, 1, 28, 28), a few hundred.

    Raises:
        CompressionError: no images.
    """
    if len(inputs) == 0:
        raise CompressionError(
            "inputs are images, at least one, got none; try validation.first(500).inputs()"
        )
    with evaluating(model):
        before = model(inputs).log_softmax(dim=1)  # (m, classes)

    def damage(pruned: nn.Module) -> float:
        with evaluating(pruned):
            after = pruned(inputs).log_softmax(dim=1)
        return float(F.kl_div(after, before, reduction="batchmean", log_target=True))

    return damage


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
        CompressionError: a sparsity out of range, or nothing to prune.
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
        CompressionError: a budget that even the largest sparsities exceed.

    >>> damages = {"small": [0.0, 0.2], "large": [0.0, 0.3]}
    >>> sparsities_under_budget(damages, {"small": 10, "large": 90}, sparsities=(0.0, 0.5), budget=60)
    {'small': 0.0, 'large': 0.5}
    """
    choices = [
        [_Choice(weights[name] - round(s * weights[name]), d, s) for s, d in zip(sparsities, ds, strict=True)]
        for name, ds in damages.items()
    ]
    least = sum(min(layer).kept for layer in choices)
    if budget < least:
        raise CompressionError(
            f"budget is at least {least:,} weights here, got {budget:,}; try larger sparsities"
        )
    picks = [min(layer, key=_harmless) for layer in choices]
    while _kept(picks) > budget:
        step = min(_steps(choices, picks))
        picks[step.layer] = step.to
    picks = _give_back(choices, picks, budget)
    return dict(zip(damages, (pick.sparsity for pick in picks), strict=True))


class _Choice(NamedTuple):
    """One sparsity of one layer."""

    kept: int  # weights
    damage: float
    sparsity: float


class _Step(NamedTuple):
    """One layer made sparser; the cheapest first."""

    price: float  # damage for each weight saved
    layer: int
    to: _Choice


def _steps(choices: Sequence[Sequence[_Choice]], picks: Sequence[_Choice]) -> Iterator[_Step]:
    for number, (layer, now) in enumerate(zip(choices, picks, strict=True)):
        for to in layer:
            if to.kept < now.kept:
                yield _Step((to.damage - now.damage) / (now.kept - to.kept), number, to)


def _harmless(choice: _Choice) -> tuple[float, int]:
    """The least damage comes first, and among equals the fewest weights."""
    return choice.damage, choice.kept


def _kept(picks: Sequence[_Choice]) -> int:
    return sum(pick.kept for pick in picks)


def _give_back(choices: Sequence[Sequence[_Choice]], picks: Sequence[_Choice], budget: int) -> list[_Choice]:
    """The picks, some milder: what is left of the budget goes to the layers that suffer most."""
    picks = list(picks)
    for number in sorted(range(len(picks)), key=lambda number: -picks[number].damage):
        room = budget - _kept(picks) + picks[number].kept
        picks[number] = min((c for c in choices[number] if c.kept <= room), key=_harmless)
    return picks
