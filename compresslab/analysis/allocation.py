"""How much worse is a compressed network, and which layers bear it? A budget goes where it does the least.

Compress one layer alone, in several strengths, and note the *damage* of each. One price for all layers then
says how far each may go:

    d[l, c] = damage of the network with only layer l compressed by choice c,    k[l, c] = what it costs then

    choose c[l]:   Σ d[l, c[l]] small,   Σ k[l, c[l]] ≤ budget

    greedily: from the least damage, always the step of the least (d' - d) / (k - k'), until the budget is met

What is left of the budget after the last step is given back, to the layers that suffer most first. (The exact
choice is a knapsack problem; steps by their price come within one step of it, without a table.) What is left
out: damages of several layers need not add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from compresslab.errors import BadSetting

__all__ = ["Choice", "least_damage"]


class Choice(NamedTuple):
    """One strength of one layer: what it costs (weights, MACs, bytes), and the damage it does alone."""

    cost: int
    damage: float


def least_damage(choices: Mapping[str, Sequence[Choice]], *, budget: int) -> dict[str, int]:
    """Which choice each layer gets, of little summed damage within the budget: {layer's name: its place}.

    Args:
        choices: {layer's name: what it may become, in any order}.
        budget: of the costs of all layers together.

    Raises:
        BadSetting: a budget that even the cheapest choices exceed.

    >>> whole, half = Choice(10, 0.0), Choice(5, 0.2)
    >>> least_damage({"small": [whole, half], "large": [Choice(90, 0.0), Choice(45, 0.3)]}, budget=60)
    {'small': 0, 'large': 1}
    """
    least = sum(min(layer).cost for layer in choices.values())
    if budget < least:
        raise BadSetting(f"budget must be at least {least:,} here, got {budget:,}; try stronger choices")
    layers = list(choices.values())
    picks = [min(layer, key=_harmless) for layer in layers]
    while _cost(picks) > budget:
        step = min(_steps(layers, picks))
        picks[step.layer] = step.to
    picks = _give_back(layers, picks, budget)
    return {name: list(choices[name]).index(pick) for name, pick in zip(choices, picks, strict=True)}


class _Step(NamedTuple):
    """One layer compressed further; the cheapest first."""

    price: float  # damage for each unit of cost saved
    layer: int
    to: Choice


def _steps(layers: Sequence[Sequence[Choice]], picks: Sequence[Choice]) -> Iterator[_Step]:
    for number, (layer, now) in enumerate(zip(layers, picks, strict=True)):
        for to in layer:
            if to.cost < now.cost:
                yield _Step((to.damage - now.damage) / (now.cost - to.cost), number, to)


def _harmless(choice: Choice) -> tuple[float, int]:
    """The least damage comes first, and among equals the cheapest."""
    return choice.damage, choice.cost


def _cost(picks: Sequence[Choice]) -> int:
    return sum(pick.cost for pick in picks)


def _give_back(layers: Sequence[Sequence[Choice]], picks: Sequence[Choice], budget: int) -> list[Choice]:
    """The picks, some milder: what is left of the budget goes to the layers that suffer most."""
    picks = list(picks)
    for number in sorted(range(len(picks)), key=lambda number: -picks[number].damage):
        room = budget - _cost(picks) + picks[number].cost
        picks[number] = min((c for c in layers[number] if c.cost <= room), key=_harmless)
    return picks
