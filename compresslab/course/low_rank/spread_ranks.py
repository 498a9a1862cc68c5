"""A budget of MACs spread over layers: each rank goes where it takes away the most error for its price.

What a rank takes away is its singular value squared (Eckart and Young 1936). The rule is greedy: where
layers differ in price, the last MACs of the budget may not be spent in the best way of all.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import Tensor

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """No two ranks are an equal bargain, so that there is one right answer; each mistake has its case."""

    def given(spectra: list[list[float]], costs: list[int], left: int) -> dict[str, Any]:
        """The layers in any order, errors in any unit; ``left`` is what remains with rank 1 everywhere."""
        order = torch.randperm(len(costs), generator=rng).tolist()
        unit = 0.5 + float(torch.rand((), generator=rng))
        scaled = [unit * torch.tensor(spectra[layer], dtype=torch.float64) for layer in order]
        return {"spectra": scaled, "costs": [costs[layer] for layer in order], "budget": sum(costs) + left}

    def drawn(layers: int, most: int, share: float) -> dict[str, Any]:
        """Spectra of any length that fall; ``share`` of what full ranks cost is there to be spent."""
        sizes = torch.randint(2, most + 1, (layers,), generator=rng).tolist()
        steps = [torch.rand(size, generator=rng, dtype=torch.float64) + 0.05 for size in sizes]
        costs = torch.randint(5, 90, (layers,), generator=rng).tolist()
        full = sum(cost * (size - 1) for cost, size in zip(costs, sizes, strict=True))
        return given([step.cumsum(0).flip(0).tolist() for step in steps], costs, int(share * full))

    yield "a dear layer with large values", given([[9, 4, 1], [5, 1.5, 1.2], [2, 0.3]], [4, 1, 3], 4)
    yield "a cheap layer is the better bargain", given([[8, 4, 3], [6, 3, 2, 1]], [8, 1], 8)
    yield "the best bargain does not fit", given([[9, 8, 7], [5, 2, 1, 0.5]], [10, 2], 7)
    yield "a steep layer and a flat one", given([[10, 1, 0.5, 0.2], [4, 3, 2.5, 2]], [3, 3], 6)
    yield "dear and with less to give", given([[8, 4, 1], [6, 3.5, 1]], [2, 4], 5)
    yield "much left, a little at a time", given([[6, 5, 0.2, 0.1], [6, 4, 3.9, 3.8]], [2, 2], 2)
    yield "a layer that matters little", given([[8, 7, 6, 5], [0.5, 0.1]], [4, 4], 8)
    yield "a small layer with a share of its own", given([[8, 6, 5, 4], [3, 2.9, 2.8]], [5, 5], 10)
    yield "the budget is met exactly", given([[7, 5, 3], [6, 4, 1]], [6, 5], 11)
    yield "rank 1 is all there is", given([[7, 5], [6, 4, 1]], [6, 5], 0)
    yield "every rank fits", given([[7, 5, 4], [6, 3]], [6, 5], 40)
    yield "one layer", given([[5, 4, 3, 2]], [7], 15)
    yield "layers of rank 1", given([[5.0], [4, 3], [2.0]], [3, 7, 2], 9)
    yield "many layers", drawn(6, 8, 0.5)
    several = drawn(4, 6, 0.4)
    yield "float32", several | {"spectra": [spectrum.float() for spectrum in several["spectra"]]}


def probe(case: dict[str, Any], spread_ranks: Callable[..., Any]) -> dict[str, Any]:
    return {"ranks": spread_ranks(case["spectra"], case["costs"], case["budget"])}


def judge(case: dict[str, Any], record: Record) -> None:
    """Laws first: ranks that there are, within the budget. Then every layer's own, by ``_wanted``."""
    came, costs, wanted = record["ranks"], case["costs"], _wanted(case)
    items = came.items or ()
    found = f"a {came.type} of {len(items)} entries" if items else expect.came(came)
    expect.true(
        came.type in ("list", "tuple") and len(items) == len(costs),
        f"the answer is a list of {len(costs)} ranks, one for each layer; yours is {found}",
    )
    yours = [expect.whole_number(item, what=f"the rank of layer {at}") for at, item in enumerate(items)]
    sizes = [len(spectrum) for spectrum in case["spectra"]]
    lost = next((at for at, rank in enumerate(yours) if not 1 <= rank <= sizes[at]), 0)
    outside = f"layer {lost} has ranks 1 to {sizes[lost]}; yours is {yours[lost]}"
    at = next((at for at, rank in enumerate(yours) if rank != wanted[at]), 0)
    details = {"layer": at, "yours": yours[at], "wanted": wanted[at]}
    expect.true(1 <= yours[lost] <= sizes[lost], outside, lost=lost, rank=yours[lost], **details)
    spent = sum(rank * cost for rank, cost in zip(yours, costs, strict=True))
    over = f"your ranks cost {spent} MACs, and the budget is {case['budget']}"
    expect.true(spent <= case["budget"], over, spent=spent, budget=case["budget"], **details)
    apart = f"the rank of layer {at} is {wanted[at]}; yours is {yours[at]}"
    expect.true(yours == wanted, apart, **details)


def _wanted(case: dict[str, Any]) -> list[int]:
    """No rounds: all ranks in one list, the best bargain first; what does not fit now never will."""
    layers = list(enumerate(zip(case["spectra"], case["costs"], strict=True)))
    offers = [
        (Fraction(s) ** 2 / cost, layer) for layer, (row, cost) in layers for s in row.double()[1:].tolist()
    ]
    ranks, left = [1] * len(layers), case["budget"] - sum(case["costs"])
    for _, layer in sorted(offers, reverse=True):
        if case["costs"][layer] <= left:
            ranks[layer], left = ranks[layer] + 1, left - case["costs"][layer]
    return ranks


def by_rounds(spectra: list[Tensor], costs: list[int], budget: int) -> list[int]:
    ranks, left = [1] * len(costs), budget - sum(costs)
    while True:
        gains = {
            layer: float(spectrum[ranks[layer]]) ** 2 / costs[layer]
            for layer, spectrum in enumerate(spectra)
            if ranks[layer] < len(spectrum) and costs[layer] <= left
        }
        if not gains:
            return ranks
        best = max(gains, key=lambda layer: gains[layer])
        ranks[best] += 1
        left -= costs[best]


def by_tensors(spectra, costs, budget):
    table = torch.nn.utils.rnn.pad_sequence([s**2 for s in spectra], batch_first=True)  # (layers, most)
    prices = torch.tensor(costs)
    table = torch.cat([table, torch.zeros(len(costs), 1, dtype=table.dtype)], dim=1) / prices[:, None]
    ranks = torch.ones(len(costs), 1, dtype=torch.int64)
    while True:
        fits = (ranks * prices[:, None]).sum() + prices <= budget
        gains = table.gather(1, ranks).squeeze(1) * fits
        if not gains.any():
            return ranks.flatten().tolist()
        ranks[gains.argmax()] += 1


def by_heap(spectra, costs, budget):
    ranks, left = [1 for _ in costs], budget - sum(costs)
    values = [(s.double() ** 2 / cost).tolist() for s, cost in zip(spectra, costs, strict=True)]
    heap = [(-row[1], layer) for layer, row in enumerate(values) if len(row) > 1]
    heapq.heapify(heap)
    while heap:
        _, layer = heapq.heappop(heap)
        if costs[layer] <= left:
            left -= costs[layer]
            ranks[layer] += 1
            if ranks[layer] < len(values[layer]):
                heapq.heappush(heap, (-values[layer][ranks[layer]], layer))
    return ranks


def by_parts(
    spectra,
    costs,
    budget,
    *,
    gain=lambda s, r, cost: s[r] ** 2 / cost,
    start=1,
    fits=lambda cost, left: cost <= left,
    paid=sum,
    last=0,
    early=False,
):
    """Right as it stands; many a mistake is one of its parts replaced."""
    rows, ranks, left = [s.tolist() for s in spectra], [start] * len(costs), budget - paid(costs)
    while True:
        offers = [
            (gain(row, ranks[layer], costs[layer]), layer)
            for layer, row in enumerate(rows)
            if ranks[layer] < len(row) - last and (early or fits(costs[layer], left))
        ]
        if not offers or not fits(costs[max(offers)[1]], left):
            return ranks
        best = max(offers)[1]
        ranks[best], left = ranks[best] + 1, left - costs[best]


_HERE = "the rank of layer {layer} should be {wanted} and yours is {yours}: "

not_squared = mistake(
    "takes s for s²",
    says=_HERE + "you compare singular values; the squared error falls by the square of the one that a rank "
    "brings in",
)(partial(by_parts, gain=lambda s, r, cost: s[r] / cost))

cost_ignored = mistake(
    "ignores the cost",
    says=_HERE + "you take the largest s², whatever it costs; for the price of one rank in a dear layer a "
    "cheap one may get several: divide by the cost",
)(partial(by_parts, gain=lambda s, r, cost: s[r] ** 2))

multiplied = mistake(
    "multiplies by the cost",
    says=_HERE + "with s² · cost a layer looks better the dearer it is; error per MAC is s² / cost",
)(partial(by_parts, gain=lambda s, r, cost: s[r] ** 2 * cost))

always_first = mistake(
    "always looks at s[0]",
    says=_HERE + "you compare each layer's largest value, in every round; rank 1 has it already, and what "
    "the next rank adds is s[r], less each time",
)(partial(by_parts, gain=lambda s, r, cost: s[0] ** 2 / cost))

one_behind = mistake(
    "looks at the value that the layer has already",
    says=_HERE + "you compare s[r - 1], which the layer has with its r ranks; counted from 0, the next one "
    "is s[r]",
)(partial(by_parts, gain=lambda s, r, cost: s[r - 1] ** 2 / cost))

whole_tail = mistake(
    "compares all the error that is left",
    says=_HERE + "you add up all that the layer has lost, s[r]² + s[r + 1]² + …; one more rank brings back "
    "the first of them alone",
)(partial(by_parts, gain=lambda s, r, cost: sum(value**2 for value in s[r:]) / cost))

own_share = mistake(
    "measures each layer by itself",
    says=_HERE + "you divide by the layer's whole energy, and a layer that matters little looks as important "
    "as any; the spectra are scaled for comparison already",
)(partial(by_parts, gain=lambda s, r, cost: s[r] ** 2 / cost / sum(value**2 for value in s)))

smallest = mistake(
    "takes the worst bargain",
    says=_HERE + "you sort the wrong way round, and give where it helps least; max, not min",
)(partial(by_parts, gain=lambda s, r, cost: -(s[r] ** 2) / cost))

stops_early = mistake(
    "stops at the first that does not fit",
    says=_HERE + "the best bargain was too dear for what was left, and you stopped; a cheaper layer's next "
    "rank may fit still: choose among those that do",
)(partial(by_parts, early=True))

one_too_many = mistake(
    "overspends with the last rank",
    says="your ranks cost {spent} MACs, and the budget is {budget}: you go on as long as something is left; "
    "ask before each step whether that rank's cost fits",
)(partial(by_parts, fits=lambda cost, left: left > 0))

first_ranks_free = mistake(
    "does not count the first ranks",
    says="your ranks cost {spent} MACs, and the budget is {budget}: rank 1 of each layer is not for nothing; "
    "begin with budget - sum(costs)",
)(partial(by_parts, paid=lambda costs: 0))

strictly = mistake(
    "writes < for <=",
    says=_HERE + "one more rank would have spent the budget to the last MAC, and that is allowed: <=",
)(partial(by_parts, fits=lambda cost, left: cost < left))

never_full = mistake(
    "never gives a layer its last rank",
    says=_HERE + "there was budget for all ranks of this layer; it has as many as its spectrum has values: "
    "r < len(spectrum)",
)(partial(by_parts, last=1))

from_zero = mistake(
    "starts at rank 0",
    says="layer {lost} has rank {rank}, and nothing gets through a layer of rank 0: each starts at rank 1, "
    "paid from the budget, however little it matters",
)(partial(by_parts, start=0, paid=lambda costs: 0))


@mistake(
    "returns what was added",
    says=_HERE + "you count the ranks that were added; the one that each layer started with is missing",
)
def added(spectra, costs, budget):
    return [rank - 1 for rank in by_rounds(spectra, costs, budget)]


@mistake(
    "gives every layer the same rank",
    says=_HERE + "one rank for all, the largest that the budget allows, never looks at the spectra; where "
    "they fall fast a low rank is enough, and spares the others",
)
def same_rank(spectra, costs, budget):
    fitting = [
        ranks
        for r in range(1, max(map(len, spectra)) + 1)
        if sum(map(int.__mul__, costs, ranks := [min(r, len(s)) for s in spectra])) <= budget
    ]
    return fitting[-1]


EXERCISE = Exercise(
    name="spread_ranks",
    points=2,
    minutes=12,
    difficulty=3,
    statement="spread_ranks(spectra, costs, budget) gives each layer ranks as long as they fit, the best "
    "bargain first.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_rounds, by_tensors, by_heap),
    mistakes=(
        not_squared,
        cost_ignored,
        multiplied,
        always_first,
        one_behind,
        whole_tail,
        own_share,
        smallest,
        stops_early,
        one_too_many,
        first_ranks_free,
        strictly,
        never_full,
        from_zero,
        added,
        same_rank,
    ),
    hints=(
        Hint(
            "I do not know where to begin",
            "Every layer starts at rank 1, and the budget has paid for that. Write a loop that buys one rank "
            "a round. Which layers may still buy, and what does each of them get for a MAC?",
        ),
        Hint(
            "it fits the budget, and another layer was given more than in the solution",
            "With r ranks a layer has s[0] … s[r - 1]; the next takes s[r]² of error away and costs "
            "costs[l]: s[r]² / costs[l], one number for each layer with r < len(s) and costs[l] ≤ left. "
            "Compute them anew in each round.",
        ),
        Hint(
            "I have the gains, {layer: gain}, and do not know how to go on",
            "best = max(gains, key=gains.get); ranks[best] += 1; left -= ________",
        ),
    ),
)
