"""A share for each layer: the budget is met where a weight less does the least damage.

A greedy rule, one step of one layer at a time; it is not always the best choice of all, for a dear step may
hide a cheap one behind it.

Source: a threshold by each layer's sensitivity: Han et al. 2015, arXiv:1506.02626; the scan, layer by layer:
Li et al. 2016, "Pruning filters for efficient ConvNets", arXiv:1608.08710.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import Tensor

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]

Table = Sequence[Sequence[float]]  # (layers, choices)


def cases(rng: torch.Generator) -> Iterator[Case]:
    """No two prices are equal, so that there is one right answer; each mistake has a case that shows it."""

    def given(damages: Table, weights: list[int], sparsities: list[float], budget: int) -> dict[str, Any]:
        """The layers in any order, the damage in any unit."""
        order = torch.randperm(len(weights), generator=rng)
        unit = 0.1 + float(torch.rand((), generator=rng))
        scaled = torch.tensor(damages, dtype=torch.float64)[order] * unit
        mixed = [weights[layer] for layer in order.tolist()]
        return {"damages": scaled, "weights": mixed, "sparsities": sparsities, "budget": budget}

    def drawn(layers: int, sparsities: list[float], share: float) -> dict[str, Any]:
        """Layers of any size; ``share`` of what can go does."""
        extra = torch.rand(layers, len(sparsities), generator=rng, dtype=torch.float64) + 0.02
        damages = extra.cumsum(1) - extra[:, :1]
        weights = (2 * torch.randint(25, 450, (layers,), generator=rng)).tolist()  # half of it is whole
        most = sum(round(sparsities[-1] * n) for n in weights)
        return given(damages.tolist(), weights, sparsities, sum(weights) - int(share * most))

    halves = [0.0, 0.5, 0.9]
    yield "the last step saves more than it must", given([[0, 1, 4], [0, 3, 9]], [400, 200], halves, 350)
    yield "a large layer and a small one", given([[0, 2, 7], [0, 1, 1.5]], [900, 100], halves, 560)
    worst: Table = [[0, 8, 8.5, 9], [0, 2, 5, 9]]
    yield "the worst layer bears the next step", given(worst, [100, 100], [0.0, 0.6, 0.8, 0.9], 70)
    yield "a dear step hides a cheap one", given([[0, 50, 51], [0, 20, 50]], [100, 100], halves, 80)
    yield "a short step", given([[0, 1, 1.5], [0, 1.2, 3]], [100, 100], [0.0, 0.6, 0.7], 85)
    yield "the budget is met exactly", given([[0, 1, 9], [0, 2, 8]], [100, 300], halves, 250)
    yield "shares of weights that round up", given([[0, 1, 5], [0, 2, 9]], [7, 11], [0.0, 0.4, 0.9], 11)
    yield "a damage that falls", given([[0, 4, 3], [0, 3, 9]], [100, 100], halves, 90)
    yield "the budget is large enough", given([[0, 1, 2.5], [0, 3, 9]], [50, 60], halves, 110)
    yield "every layer goes to its last choice", drawn(3, [0.0, 0.5, 0.7, 0.8], 1.0)
    yield "one layer", given([[0, 0.1, 0.4, 2]], [200], [0.0, 0.3, 0.6, 0.9], 100)
    yield "many layers", drawn(7, [0.0, 0.3, 0.5, 0.7, 0.8, 0.9], 0.6)


def probe(case: dict[str, Any], sparsities_under_budget: Callable[..., Any]) -> dict[str, Any]:
    given = [case[name] for name in ("damages", "weights", "sparsities", "budget")]
    return {"sparsities": sparsities_under_budget(*given)}


def judge(case: dict[str, Any], record: Record) -> None:
    """Laws first: sparsities that there are, within the budget. Then every layer's own, by ``_wanted``."""
    came, weights, offered = record["sparsities"], case["weights"], case["sparsities"]
    items = came.items or ()
    found = f"a {came.type} of {len(items)} entries" if items else expect.came(came)
    expect.true(
        came.type in ("list", "tuple") and len(items) == len(weights),
        f"the answer is a list of {len(weights)} sparsities, one for each layer; yours is {found}",
    )
    given = [expect.number(item, what=f"the sparsity of layer {at}") for at, item in enumerate(items)]
    yours = [min(offered, key=lambda one: abs(one - s)) for s in given]
    strange = next((s for s, one in zip(given, yours, strict=True) if abs(s - one) > 1e-6), None)
    no_choice = f"{strange} is in your list and is none of the sparsities {offered}"
    expect.true(strange is None, no_choice, strange=strange, offered=offered)
    kept, wanted = sum(n - round(s * n) for n, s in zip(weights, yours, strict=True)), _wanted(case)
    at = next((at for at, s in enumerate(yours) if s != wanted[at]), 0)
    details = {"layer": at, "yours": yours[at], "wanted": wanted[at]}
    over = f"{kept} weights stay with your sparsities, and the budget is {case['budget']}"
    expect.true(kept <= case["budget"], over, kept=kept, budget=case["budget"], **details)
    apart = f"the sparsity of layer {at} is {wanted[at]}; yours is {yours[at]}"
    expect.true(yours == wanted, apart, **details)


def _steps(case: dict[str, Any]) -> Iterator[tuple[Fraction, int, int, int]]:
    """(the dearest price up to it, layer, choice, weights that it saves) of every step."""
    for layer, (row, n) in enumerate(zip(case["damages"].tolist(), case["weights"], strict=True)):
        gone = [round(s * n) for s in case["sparsities"]]
        saved = [after - before for before, after in itertools.pairwise(gone)]
        extra = [Fraction(after) - Fraction(before) for before, after in itertools.pairwise(row)]
        waits = itertools.accumulate((d / k for d, k in zip(extra, saved, strict=True)), max)
        yield from ((wait, layer, c, k) for c, (wait, k) in enumerate(zip(waits, saved, strict=True), 1))


def _wanted(case: dict[str, Any]) -> list[float]:
    """No rounds: a step waits for the dearest of its layer up to it; sorted so, as many go as it takes."""
    queue = sorted(_steps(case))
    left = itertools.accumulate((step[3] for step in queue), lambda a, k: a - k, initial=sum(case["weights"]))
    count = next(count for count, kept in enumerate(left) if kept <= case["budget"])
    taken = [layer for _, layer, _, _ in queue[:count]]
    return [case["sparsities"][taken.count(layer)] for layer in range(len(case["weights"]))]


def by_steps(damages: Tensor, weights: list[int], sparsities: list[float], budget: int) -> list[float]:
    kept = [[n - round(s * n) for s in sparsities] for n in weights]
    picks = [0] * len(weights)
    while sum(row[c] for row, c in zip(kept, picks, strict=True)) > budget:
        prices = {
            layer: float(damages[layer, c + 1] - damages[layer, c]) / (kept[layer][c] - kept[layer][c + 1])
            for layer, c in enumerate(picks)
            if c + 1 < len(sparsities)
        }
        picks[min(prices, key=lambda layer: prices[layer])] += 1
    return [sparsities[c] for c in picks]


def by_tensors(damages, weights, sparsities, budget):
    gone = torch.tensor([[round(s * n) for s in sparsities] for n in weights])
    never = torch.full((len(weights), 1), torch.inf)
    prices = torch.cat([damages.diff(dim=1) / gone.diff(dim=1), never], dim=1)
    places = torch.zeros(len(weights), 1, dtype=torch.int64)
    while sum(weights) - gone.gather(1, places).sum() > budget:
        places[prices.gather(1, places).argmin()] += 1
    return [sparsities[c] for c in places.flatten()]


def by_merging(damages, weights, sparsities, budget):
    def steps(layer):
        n, row = weights[layer], damages[layer].tolist()
        for c, (s, t) in enumerate(itertools.pairwise(sparsities)):
            saved = round(t * n) - round(s * n)
            yield (row[c + 1] - row[c]) / saved, layer, saved, t

    answer, kept = [sparsities[0]] * len(weights), sum(weights)
    for _, layer, saved, s in heapq.merge(*map(steps, range(len(weights)))):  # the least of all next steps
        if kept <= budget:
            break
        answer[layer], kept = s, kept - saved
    return answer


def by_parts(
    damages,
    weights,
    sparsities,
    budget,
    *,
    price=lambda d, k, s, now, to: (d[to] - d[now]) / (k[now] - k[to]),
    far=lambda later: later[:1],
    whole=round,
    enough=lambda kept, budget, total: kept <= budget,
    early=False,
):
    """Right as it stands; many a mistake is one of its parts replaced."""
    rows, picks = damages.tolist(), [0] * len(weights)
    kept = [[n - whole(s * n) for s in sparsities] for n in weights]

    def stay(picks):
        return sum(row[c] for row, c in zip(kept, picks, strict=True))

    while not enough(stay(picks), budget, sum(weights)):
        offers = [
            (price(rows[layer], kept[layer], sparsities, c, to), [*picks[:layer], to, *picks[layer + 1 :]])
            for layer, c in enumerate(picks)
            for to in far(range(c + 1, len(sparsities)))
        ]
        if not offers or (early and stay(min(offers)[1]) < budget):
            break
        picks = min(offers)[1]
    return [sparsities[c] for c in picks]


_HERE = "the sparsity of layer {layer} should be {wanted} and yours is {yours}: "

not_divided = mistake(
    "does not divide by the weights saved",
    says=_HERE + "you take the step of the least extra damage, however little it saves; divide the damage by "
    "the weights that the step saves",
)(partial(by_parts, price=lambda d, k, s, now, to: d[to] - d[now]))

total_damage = mistake(
    "takes the whole damage for the extra one",
    says=_HERE + "you price a step by all the damage that is there after it; the layer suffers a part of it "
    "already: subtract that",
)(partial(by_parts, price=lambda d, k, s, now, to: d[to] / (k[now] - k[to])))

ignores_sizes = mistake(
    "forgets how large the layers are",
    says=_HERE + "you divide by the change of the sparsity, and half of a large layer is more than half of a "
    "small one; divide by weights",
)(partial(by_parts, price=lambda d, k, s, now, to: (d[to] - d[now]) / (s[to] - s[now])))

dearest = mistake(
    "takes the dearest step",
    says=_HERE + "you sort the wrong way round, and begin with the step that hurts most; min, not max",
)(partial(by_parts, price=lambda d, k, s, now, to: (d[now] - d[to]) / (k[now] - k[to])))

jumps = mistake(
    "jumps over a choice",
    says=_HERE + "you let a layer go to any later choice at once; a step goes to the next one, and then all "
    "layers are compared again",
)(partial(by_parts, far=lambda later: later))

to_the_end = mistake(
    "takes a layer to its last choice at once",
    says=_HERE + "the layer that bears it best goes all the way with you; its second step may cost more than "
    "another layer's first: compare after each step",
)(partial(by_parts, far=lambda later: later[-1:]))

once_each = mistake(
    "takes one step in each layer at most",
    says=_HERE + "a layer that has made a step may make the next one too",
)(partial(by_parts, far=lambda later: [c for c in later if c == 1]))

stops_early = mistake(
    "stops before the step that meets the budget",
    says="{kept} weights stay with your sparsities, and the budget is {budget}, the most that may stay: take "
    "the last step too, though it may save more than it must",
)(partial(by_parts, early=True))

one_more = mistake(
    "writes >= for >",
    says=_HERE + "the budget was met, to the weight, and you took one more step; go on while more than the "
    "budget stay, not as many",
)(partial(by_parts, enough=lambda kept, budget, total: kept < budget))

what_goes = mistake(
    "takes the budget for what goes",
    says=_HERE + "you prune until as many weights are gone as the budget says; it says how many may stay",
)(partial(by_parts, enough=lambda kept, budget, total: total - kept >= budget))

rounds_down = mistake(
    "rounds down",
    says=_HERE
    + "int() and // cut off what follows the point, and the count is off by a weight; of n weights "
    "round(s · n) go",
)(partial(by_parts, whole=int))


@mistake(
    "gives every layer the same share",
    says=_HERE + "one share for all never looks at the damages; a layer that bears more spares the others",
)
def same_share(damages, weights, sparsities, budget):
    met = [s for s in sparsities if sum(n - round(s * n) for n in weights) <= budget]
    return [met[0]] * len(weights)


@mistake(
    "sorts all steps once",
    says=_HERE + "you sorted all steps beforehand, and took a layer's later step before its earlier one; on "
    "offer is only each layer's next",
)
def sorted_once(damages, weights, sparsities, budget):
    gone = torch.tensor([[round(s * n) for s in sparsities] for n in weights])
    picks = torch.zeros(len(weights), 1, dtype=torch.int64)
    for place in (damages.diff(dim=1) / gone.diff(dim=1)).flatten().argsort().tolist():
        if sum(weights) - gone.gather(1, picks).sum() > budget:
            layer, c = divmod(place, len(sparsities) - 1)
            picks[layer] = max(int(picks[layer]), c + 1)
    return [sparsities[c] for c in picks.flatten()]


@mistake(
    "returns the places of the sparsities",
    says="{strange} is in your list: it says which choice it is; return the sparsity, one of {offered}",
)
def places(damages, weights, sparsities, budget):
    return [sparsities.index(s) for s in by_steps(damages, weights, sparsities, budget)]


EXERCISE = Exercise(
    name="sparsities_under_budget",
    points=3,
    minutes=18,
    difficulty=4,
    bonus=True,
    statement="sparsities_under_budget(damages, weights, sparsities, budget) prunes each layer as far as it "
    "bears, until the budget is met.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_steps, by_tensors, by_merging),
    mistakes=(
        not_divided,
        total_damage,
        ignores_sizes,
        dearest,
        jumps,
        to_the_end,
        once_each,
        stops_early,
        one_more,
        what_goes,
        rounds_down,
        same_share,
        sorted_once,
        places,
    ),
    hints=(
        Hint(
            "I do not know where to begin",
            "Every layer starts dense. Write a loop that makes one layer one choice sparser a round. What "
            "must be known of each layer's next step to say which of them is the best bargain?",
        ),
        Hint(
            "it fits the budget, and another layer was pruned than in the solution",
            "At choice c, n - round(sparsities[c] · n) weights of a layer stay. The price of its step is "
            "(damages[l, c + 1] - damages[l, c]) / (kept at c - kept at c + 1), one number. Price all layers "
            "anew in each round, but for those at their last choice.",
        ),
        Hint(
            "I have the prices, {layer: price}, and do not know how to take the best",
            "picks[min(prices, key=lambda layer: ________)] += 1",
        ),
    ),
)
