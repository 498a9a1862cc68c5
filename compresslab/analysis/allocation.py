"""Allocation under a budget: how far to compress each layer, so that the network loses least.

Each layer l may become one of several choices c, with a cost k[l, c] (weights, MACs, bytes) and a sensitivity
s[l, c]: how much worse the network is with only that layer compressed so (``analysis.sensitivity``).

    choose c[l]:   Σ s[l, c[l]] least,   Σ k[l, c[l]] ≤ budget

This is the *multiple-choice knapsack problem*. Three ways to solve it:

- **allocate_exactly**, by dynamic programming: the best choices of the first l layers within B need only the
  best ones of the first l - 1. It takes a table of layers × budget, so the budget must be a small number.
- **allocate_greedily**, from the least sensitive choices downwards: always the step of the lowest price
  (s' - s) / (k - k'), until the budget is met; what is left of the budget after the last step goes back to
  the most sensitive layers. It needs no table, and comes within one step of the best.
- **allocate_units**, from nothing upwards, where each layer buys equal units that gain less and less, as it
  buys ranks: always the unit of the highest gain per cost that the budget still allows.

What is left out: the sensitivities of several layers need not add up.

Source: the price rule: Dantzig 1957, "Discrete-variable extremum problems"; the program over the bits of the
layers: Yao et al. 2020, "HAWQ-V3", arXiv:2011.10680.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from compresslab.errors import BadSetting

__all__ = ["Choice", "allocate_exactly", "allocate_greedily", "allocate_units"]

Name = TypeVar("Name")  # of a layer


class Choice(NamedTuple):
    """One strength of one layer: what it costs (weights, MACs, bytes), and the sensitivity to it alone."""

    cost: int
    sensitivity: float


def allocate_exactly(choices: Mapping[Name, Sequence[Choice]], *, budget: int) -> dict[Name, int]:
    """The choice of each layer with the least sum of sensitivities within the budget: {layer: its index}.

    Args:
        choices: {layer: what it may become, in any order}, with costs of 0 or more.
        budget: of the costs of all layers together.

    Raises:
        BadSetting: a budget that even the cheapest choices exceed.

    >>> layer = [Choice(10, 60.0), Choice(20, 59.0), Choice(30, 9.0)]
    >>> other = [Choice(10, 8.0), Choice(20, 3.0), Choice(30, 1.0)]
    >>> allocate_exactly({"a": layer, "b": other}, budget=40)
    {'a': 2, 'b': 0}
    """
    _check_budget(choices, budget)
    best = torch.zeros(budget + 1, dtype=torch.float64)  # best[B]: the least sum of the layers so far, in B
    picks: dict[Name, Tensor] = {}  # the index in each B
    for name, layer in choices.items():
        best, picks[name] = _with_layer(best, layer)
    chosen: dict[Name, int] = {}
    for name in reversed(list(choices)):
        chosen[name] = int(picks[name][budget])
        budget -= choices[name][chosen[name]].cost
    return {name: chosen[name] for name in choices}


def _with_layer(best: Tensor, layer: Sequence[Choice]) -> tuple[Tensor, Tensor]:
    """The least sums with one layer more, and its choice in each: both (budget + 1,)."""
    sums = torch.full((len(layer), len(best)), torch.inf, dtype=torch.float64)
    for row, choice in zip(sums, layer, strict=True):
        if choice.cost < len(best):  # it leaves B - cost to the layers before
            row[choice.cost :] = best[: len(best) - choice.cost] + choice.sensitivity
    least = sums.min(dim=0)
    return least.values, least.indices


def allocate_greedily(choices: Mapping[Name, Sequence[Choice]], *, budget: int) -> dict[Name, int]:
    """A choice for each layer with a small sum of sensitivities within the budget: {layer: its index}.

    Args:
        choices: {layer: what it may become, in any order}.
        budget: of the costs of all layers together.

    Raises:
        BadSetting: a budget that even the cheapest choices exceed.

    >>> whole, half = Choice(10, 0.0), Choice(5, 0.2)
    >>> allocate_greedily({"small": [whole, half], "large": [Choice(90, 0.0), Choice(45, 0.3)]}, budget=60)
    {'small': 0, 'large': 1}
    """
    _check_budget(choices, budget)
    layers = list(choices.values())
    picks = [min(layer, key=_least_sensitive) for layer in layers]
    while _cost(picks) > budget:
        step = min(_steps(layers, picks))
        picks[step.layer] = step.to
    picks = _give_back(layers, picks, budget)
    return {name: list(choices[name]).index(pick) for name, pick in zip(choices, picks, strict=True)}


class _Step(NamedTuple):
    """One layer compressed further; the cheapest first."""

    price: float  # sensitivity per unit of cost saved
    layer: int
    to: Choice


def _steps(layers: Sequence[Sequence[Choice]], picks: Sequence[Choice]) -> Iterator[_Step]:
    for index, (layer, now) in enumerate(zip(layers, picks, strict=True)):
        for to in layer:
            if to.cost < now.cost:
                yield _Step((to.sensitivity - now.sensitivity) / (now.cost - to.cost), index, to)


def _least_sensitive(choice: Choice) -> tuple[float, int]:
    """Sort by sensitivity, and among equals by cost."""
    return choice.sensitivity, choice.cost


def _give_back(layers: Sequence[Sequence[Choice]], picks: Sequence[Choice], budget: int) -> list[Choice]:
    """The picks, some milder: what is left of the budget goes to the most sensitive layers."""
    picks = list(picks)
    for index in sorted(range(len(picks)), key=lambda index: -picks[index].sensitivity):
        left = budget - _cost(picks) + picks[index].cost
        picks[index] = min((c for c in layers[index] if c.cost <= left), key=_least_sensitive)
    return picks


def allocate_units(gains: Sequence[Sequence[float]], costs: Sequence[int], *, budget: int) -> list[int]:
    """How many units each layer gets, bought one by one where the next gains most per cost.

    Within one unit of the best, and the best where all costs are equal.

    Args:
        gains: of each layer, what its first unit gains, its second, …: falling.
        costs: of each layer, what one unit costs.
        budget: of all units together.

    >>> allocate_units([[16.0, 1.0], [4.0]], [1, 1], budget=2)
    [1, 1]
    """
    offers = sorted(  # as gains fall, a layer's own come in their order
        (-gain / cost, layer, cost)
        for layer, (falling, cost) in enumerate(zip(gains, costs, strict=True))
        for gain in falling
    )
    units = [0] * len(costs)
    for _, layer, cost in offers:
        if cost <= budget:
            units[layer], budget = units[layer] + 1, budget - cost
    return units


def _check_budget(choices: Mapping[Name, Sequence[Choice]], budget: int) -> None:
    least = sum(min(layer).cost for layer in choices.values())
    if budget < least:
        raise BadSetting(f"budget must be at least {least:,} here, got {budget:,}; try stronger choices")


def _cost(picks: Sequence[Choice]) -> int:
    return sum(pick.cost for pick in picks)
