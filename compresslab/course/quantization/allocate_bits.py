"""Mixed precision under a budget: the next bytes go where they remove the most error.

The greedy rule is Dantzig's for the knapsack (1957, "Discrete-variable extremum problems"), one step of a
layer at a time. It is not always the best choice of all: a small step may hide a large one behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """No two upgrades are equally good, so that there is one right answer."""

    def given(
        errors: Sequence[Sequence[float]], sizes: Sequence[Sequence[int]], extra: int
    ) -> dict[str, Any]:
        """The layers in any order, in any units; ``extra``: bytes beyond the cheapest choices."""
        order = torch.randperm(len(errors), generator=rng)
        unit = int(torch.randint(2, 30, (), generator=rng))
        factor = 0.1 + float(torch.rand((), generator=rng))
        scaled = torch.tensor(sizes)[order] * unit
        budget = int(scaled[:, 0].sum()) + extra * unit
        return {"errors": torch.tensor(errors)[order] * factor, "sizes": scaled, "budget": budget}

    def drawn(layers: int, choices: int, share: float) -> dict[str, Any]:
        while True:
            gains = torch.rand(layers, choices - 1, generator=rng) + 0.05
            steps = torch.randint(5, 60, (layers, choices), generator=rng)
            rates = (gains / steps[:, 1:]).flatten().sort().values
            if (rates.diff() > 1e-4 * rates[1:]).all():
                break
        errors = 0.01 + torch.cat([gains.flip(1).cumsum(1).flip(1), torch.zeros(layers, 1)], dim=1)
        return given(errors.tolist(), steps.cumsum(1).tolist(), int(share * int(steps[:, 1:].sum())))

    same = [[10, 20, 30]] * 2
    yield "two upgrades in one layer", given([[9.0, 4.0, 2.0], [3.0, 2.2, 1.9]], [[10, 20, 40]] * 2, 45)
    yield "a small step hides a large one", given([[60.0, 59.0, 9.0], [8.0, 3.0, 1.0]], same, 20)
    yield "the largest gain is not the best buy", given([[12.0, 2.0], [7.0, 1.0]], [[50, 150], [30, 50]], 100)
    yield (
        "the best buy does not fit, another does",
        given([[50.0, 10.0], [16.0, 1.0]], [[60, 140], [40, 90]], 60),
    )
    yield "the worst layer gains the least", given([[90.0, 89.0], [5.0, 1.0]], [[20, 40]] * 2, 25)
    yield "a large layer with a cheap upgrade", given([[4.0, 3.0], [5.0, 4.0]], [[300, 310], [10, 30]], 20)
    yield "an upgrade that makes it worse", given([[3.0, 3.5, 1.0], [2.0, 1.0, 1.0]], same, 40)
    yield "budget for the cheapest alone", drawn(4, 3, 0.0)
    yield "budget for everything", drawn(3, 4, 1.0)
    yield "many layers", drawn(7, 4, 0.5)


def probe(case: dict[str, Any], allocate_bits: Callable[..., Any]) -> dict[str, Any]:
    return {"chosen": allocate_bits(case["errors"], case["sizes"], case["budget"])}


def judge(case: dict[str, Any], record: Record) -> None:
    """Laws first: in the table, in the budget, nothing useful left that fits. Then the order of buying."""
    layers, choices = case["sizes"].shape
    chosen = expect.tensor(
        record["chosen"], shape=(layers,), dtype=torch.int64, what="the choice of each layer"
    )
    low, high = int(chosen.min()), int(chosen.max())
    known = f"a choice is an index, 0 … {choices - 1}; yours go from {low:,} to {high:,}"
    expect.true(low >= 0 and high < choices, known, low=f"{low:,}", high=f"{high:,}")
    left = case["budget"] - int(case["sizes"].gather(1, chosen[:, None]).sum())
    expect.true(left >= 0, f"your choices take {-left:,} bytes more than the budget", over=f"{-left:,}")
    layer = min((layer for _, layer in _offers(case, chosen.tolist(), left)), default=None)
    idle = f"{left:,} bytes are left, enough for an upgrade of layer {layer}"
    expect.true(layer is None, idle, left=f"{left:,}", layer=layer)
    expect.close(chosen, torch.tensor(_bought(case)), what="the choice of layer")


def _offers(case: dict[str, Any], chosen: list[int], left: int) -> list[tuple[Fraction, int]]:
    """(gain per byte, layer) of each upgrade that lowers the error and fits, as exact fractions."""
    errors, sizes = case["errors"].tolist(), case["sizes"].tolist()
    found = []
    for layer, now in enumerate(chosen):
        if now + 1 < len(sizes[layer]):
            gain = Fraction(errors[layer][now]) - Fraction(errors[layer][now + 1])
            price = sizes[layer][now + 1] - sizes[layer][now]
            if gain > 0 and price <= left:
                found.append((gain / price, layer))
    return found


def _bought(case: dict[str, Any]) -> list[int]:
    """The rule as it stands in the text, one purchase a call of ``_offers``."""
    chosen = [0] * len(case["sizes"])
    left = case["budget"] - int(case["sizes"][:, 0].sum())
    while offers := _offers(case, chosen, left):
        layer = max(offers)[1]
        chosen[layer] += 1
        left -= int(case["sizes"][layer, chosen[layer]] - case["sizes"][layer, chosen[layer] - 1])
    return chosen


def by_table(errors: Tensor, sizes: Tensor, budget: int) -> Tensor:
    prices = sizes.diff(dim=1)  # (layers, choices - 1)
    rates = -errors.diff(dim=1) / prices
    chosen = torch.zeros(len(errors), dtype=torch.int64)
    left = budget - int(sizes[:, 0].sum())
    while True:
        best, rate = -1, 0.0
        for layer, now in enumerate(chosen.tolist()):
            fits = now < prices.shape[1] and prices[layer, now] <= left
            if fits and rates[layer, now] > rate:
                best, rate = layer, float(rates[layer, now])
        if best < 0:
            return chosen
        left -= int(prices[best, chosen[best]])
        chosen[best] += 1


def by_masking(errors: Tensor, sizes: Tensor, budget: int) -> Tensor:
    rates = torch.cat([-errors.diff(dim=1) / sizes.diff(dim=1), torch.zeros(len(errors), 1)], dim=1)
    prices = torch.cat([sizes.diff(dim=1), torch.zeros_like(sizes[:, :1])], dim=1)
    places, left = torch.zeros(len(errors), 1, dtype=torch.int64), budget - sizes[:, 0].sum()
    while True:
        now = rates.gather(1, places).where(prices.gather(1, places) <= left, 0.0)
        layer = now.argmax()
        if now[layer] <= 0:
            return places[:, 0]
        left = left - prices[layer, places[layer]]
        places[layer] += 1


def _buys(
    errors: Tensor,
    sizes: Tensor,
    budget: int,
    *,
    score: Callable[..., float] | None = None,
    fits: Callable[..., bool] = lambda before, after, budget: after <= budget,
    patient: bool = True,
    least: float = 0.0,
    highest: int = 99,
) -> Tensor:
    """The greedy rule with one thing changed: what is best, fits, or gains, how high a layer may go."""
    e, s, chosen = errors.tolist(), sizes.tolist(), [0] * len(errors)
    score = score or (lambda e, s, c: (e[c] - e[c + 1]) / (s[c + 1] - s[c]))
    while True:
        spent = sum(row[c] for row, c in zip(s, chosen, strict=True))
        offers = [
            (score(e[i], s[i], c), fits(spent, spent - s[i][c] + s[i][c + 1], budget), i)
            for i, c in enumerate(chosen)
            if c + 1 < min(len(s[i]), highest + 1) and e[i][c] - e[i][c + 1] > least
        ]
        offers = [offer for offer in offers if offer[1] or not patient]
        if not offers or not max(offers)[1]:
            return torch.tensor(chosen)
        chosen[max(offers)[2]] += 1


@mistake(
    "ignores the budget",
    says="you upgrade as long as the error falls, and are {over} bytes over the budget; what does not fit "
    "is no offer",
)
def ignores_budget(errors, sizes, budget):
    return _buys(errors, sizes, budget, fits=lambda *_: True)


@mistake(
    "asks for the budget too late",
    says="your last upgrade took you {over} bytes over the budget: ask whether it fits before you take it",
)
def overshoots(errors, sizes, budget):
    return _buys(errors, sizes, budget, fits=lambda before, after, budget: before < budget)


@mistake(
    "stops at the first upgrade that does not fit",
    says="you stop although {left} bytes are left and layer {layer} has an upgrade that fits: leave out "
    "what is too large and take the best of the others",
)
def stops_early(errors, sizes, budget):
    return _buys(errors, sizes, budget, patient=False)


@mistake(
    "takes the largest gain, whatever it costs",
    says="the choice of layer {where} should be {wanted} and is {yours}: you take what lowers the error "
    "most; per byte something smaller does more",
)
def largest_gain(errors, sizes, budget):
    return _buys(errors, sizes, budget, score=lambda e, s, c: e[c] - e[c + 1])


@mistake(
    "divides by the whole size",
    says="the choice of layer {where} should be {wanted} and is {yours}: you divide the gain by all bytes "
    "of the new choice; the upgrade costs only those that come on top",
)
def whole_size(errors, sizes, budget):
    return _buys(errors, sizes, budget, score=lambda e, s, c: (e[c] - e[c + 1]) / s[c + 1])


@mistake(
    "upgrades the layer with the largest error",
    says="the choice of layer {where} should be {wanted} and is {yours}: you feed the layer that is worst "
    "now; what counts is how much it gains",
)
def largest_error(errors, sizes, budget):
    return _buys(errors, sizes, budget, score=lambda e, s, c: e[c])


@mistake(
    "upgrades each layer once at most",
    says="layer {layer} could still go up in the {left} bytes that are left: once upgraded, a layer offers "
    "its next step",
)
def once_each(errors, sizes, budget):
    return _buys(errors, sizes, budget, highest=1)


@mistake(
    "takes upgrades that gain nothing",
    says="the choice of layer {where} should be {wanted} and is {yours}: this upgrade fits, but its error "
    "is no lower, so its bytes are wasted",
)
def gains_nothing(errors, sizes, budget):
    return _buys(errors, sizes, budget, least=-float("inf"))


@mistake(
    "starts from the most expensive",
    says="the choice of layer {where} should be {wanted} and is {yours}: you start at the top and give "
    "back what hurts least; the rule here starts at the cheapest and buys, and the two may end differently",
)
def from_the_top(errors, sizes, budget):
    chosen = [sizes.shape[1] - 1] * len(sizes)
    while sum(int(sizes[i, c]) for i, c in enumerate(chosen)) > budget:
        losses = [
            (float(errors[i, c - 1] - errors[i, c]) / int(sizes[i, c] - sizes[i, c - 1]), i)
            for i, c in enumerate(chosen)
            if c
        ]
        chosen[min(losses)[1]] -= 1
    return torch.tensor(chosen)


@mistake(
    "returns bytes for indices",
    says="your answer goes from {low} to {high}: those are bytes; return which choice it is, counted from 0",
)
def returns_bytes(errors, sizes, budget):
    return sizes.gather(1, by_table(errors, sizes, budget)[:, None])[:, 0]


EXERCISE = Exercise(
    name="allocate_bits",
    points=3,
    minutes=20,
    difficulty=4,
    bonus=True,
    statement="allocate_bits(errors, sizes, budget) spends bytes where each removes the most error, within "
    "the budget.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_table, by_masking),
    mistakes=(
        ignores_budget,
        overshoots,
        stops_early,
        largest_gain,
        whole_size,
        largest_error,
        once_each,
        gains_nothing,
        from_the_top,
        returns_bytes,
    ),
    hints=(
        Hint(
            "I do not know where to begin",
            "Start with the cheapest choice everywhere, and write a loop that makes one upgrade a round. "
            "Which upgrades are on offer in a round, and what makes one of them the best?",
        ),
        Hint(
            "I am over the budget, or bytes are left that would have bought something",
            "Of layer i at choice c: gain = errors[i, c] - errors[i, c + 1], price = sizes[i, c + 1] - "
            "sizes[i, c]. On offer if there is a choice c + 1, gain > 0 and price ≤ what is left; end when "
            "the list is empty.",
        ),
        Hint(
            "it fits the budget, and another layer was upgraded than in the solution",
            "best = the layer with the largest ____ / ____, of those on offer in this round; "
            "look at all of them anew after each upgrade",
        ),
    ),
)
