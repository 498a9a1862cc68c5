"""A mask by magnitude: the weights nearest to zero go, exactly as many as asked for.

Source: Han, Pool, Tran and Dally 2015, "Learning both weights and connections for efficient neural networks",
arXiv:1506.02626.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """How many weights go is chosen first, and the sparsity made from it. Equal weights have equal signs."""

    def given(weight: Tensor, drop: int, beyond: float = 0.0) -> dict[str, Any]:
        """``sparsity * n`` is this far beyond the whole number."""
        return {"weight": weight, "drop": drop, "sparsity": (drop + beyond) / weight.numel()}

    def drawn(*shape: int) -> Tensor:
        """Weights of either sign; the largest magnitude is negative."""
        w = torch.randn(shape, generator=rng)
        w.view(-1)[int(torch.randint(w.numel(), (), generator=rng))] = -2 * w.abs().max() - 1
        return w

    def mixed(values: Tensor) -> Tensor:
        return values[torch.randperm(len(values), generator=rng)]

    rows, columns = (int(size) for size in torch.randint(4, 7, (2,), generator=rng))
    n = rows * columns
    signs = torch.randint(0, 2, (4, 5), generator=rng) * 2.0 - 1
    signs[0, 0] = -1
    magnitudes = (0.5 + 0.4 * torch.rand(4, 5, generator=rng)) * torch.tensor([[1.0], [0.02], [0.3], [0.1]])
    magnitudes[0, 0] += 0.5
    yield "rows of different size", given(signs * magnitudes, 8)
    yield "a share that rounds up", given(drawn(rows, columns), n - 4, -0.3)
    yield "a share that rounds down", given(drawn(columns, rows), 3, 0.3)
    yield "Conv2d, float64", given(drawn(3, 2, 3, 3).double(), 31)
    yield "transposed", given(drawn(rows, columns).T, n // 2)
    low, high = 0.1 * torch.rand(4, generator=rng), drawn(6).abs() + 0.5
    tied = mixed(torch.cat([low, torch.full((6,), -0.25), high]))
    yield "equal weights where the cut is", given(tied.view(4, 4), 7)
    sparse = mixed(torch.cat([torch.zeros(9), drawn(7) + 0.01]))
    yield "zeros from an earlier pruning", given(sparse.view(2, 8), 5)
    yield "all zero", given(torch.zeros(3, 4), 4)
    yield "all weights equal", given(torch.full((10,), -0.5), 9)
    yield "sparsity 0", given(drawn(3, 5), 0)
    yield "one weight, and 0.3 of it", given(drawn(1), 0, 0.3)


def probe(case: dict[str, Any], magnitude_mask: Callable[..., Any]) -> dict[str, Any]:
    """Equal weights may be chosen among at will: those that stay are written down as the last of them."""
    mask, weight = magnitude_mask(case["weight"], sparsity=case["sparsity"]), case["weight"]
    if isinstance(mask, torch.Tensor) and mask.dtype == torch.bool and mask.shape == weight.shape:
        kind = weight.flatten().unique(return_inverse=True)[1]
        kept = mask.flatten()
        ordered = torch.empty_like(kept)
        ordered[kind.argsort(stable=True)] = kept[(2 * kind + kept).argsort(stable=True)]
        mask = ordered.view(weight.shape)
    return {"mask": mask}


def judge(case: dict[str, Any], record: Record) -> None:
    """Two laws leave one answer, up to ties: the count, and that nothing dropped outweighs what stays."""
    w, wanted = case["weight"].double(), case["drop"]
    mask = expect.tensor(record["mask"], shape=w.shape, dtype=torch.bool, what="the mask")
    yours = int((~mask).sum())
    expect.true(
        yours == wanted,
        f"{wanted} of the {w.numel()} weights go (False in the mask); in yours {yours} do",
        yours=yours,
        wanted=wanted,
        n=w.numel(),
    )
    lost, left = torch.where(mask, -1.0, w.abs()), torch.where(mask, w.abs(), math.inf)
    gone, here = (_place(at, w) for at in (lost.argmax(), left.argmin()))
    expect.true(
        bool(lost.max() <= left.min()),
        f"you drop {gone} and keep {here}, which is nearer to zero",
        gone=gone,
        here=here,
    )


def _place(at: Tensor, w: Tensor) -> str:
    where = [int(index) for index in torch.unravel_index(at, w.shape)]
    return f"weight{where} = {float(w.flatten()[at]):.3g}"


def by_order(weight: Tensor, *, sparsity: float) -> Tensor:
    lowest_first = weight.abs().flatten().argsort()
    mask = torch.ones(weight.numel(), dtype=torch.bool)
    mask[lowest_first[: round(sparsity * weight.numel())]] = False
    return mask.view(weight.shape)


def by_topk(weight: Tensor, *, sparsity: float) -> Tensor:
    keep = weight.numel() - round(sparsity * weight.numel())
    stay = weight.square().reshape(-1).topk(keep).indices
    return torch.zeros(weight.numel()).index_fill(0, stay, 1.0).bool().reshape(weight.shape)


def by_threshold(weight: Tensor, *, sparsity: float) -> Tensor:
    drop = round(sparsity * weight.numel())
    if drop == 0:
        return torch.ones_like(weight, dtype=torch.bool)
    threshold = weight.abs().flatten().kthvalue(drop).values
    below, equal = weight.abs() < threshold, weight.abs() == threshold
    turn = equal.flatten().cumsum(0).view(weight.shape)  # 1 for the first of the equal ones, 2 for the next
    return ~(below | (equal & (turn <= drop - below.sum())))


def _without(scores: Tensor, drop: int) -> Tensor:
    """All True, but for so many of the lowest scores."""
    mask = torch.ones(scores.numel(), dtype=torch.bool)
    mask[scores.flatten().argsort()[:drop]] = False
    return mask.view(scores.shape)


def _count(weight: Tensor, sparsity: float) -> int:
    return round(sparsity * weight.numel())


@mistake(
    "forgets abs()",
    says="you drop {gone} and keep {here}: a mask without abs() takes the most negative weight for the "
    "least; a large negative weight matters as much as a large positive one, so rank weight.abs()",
)
def signed(weight, *, sparsity):
    return _without(weight, _count(weight, sparsity))


@mistake(
    "takes the fraction for percent",
    says="{wanted} of the {n} weights go, and in your mask {yours} do: sparsity is a fraction, so there is "
    "nothing to divide by 100",
)
def percent(weight, *, sparsity):
    return _without(weight.abs(), round(sparsity / 100 * weight.numel()))


@mistake(
    "drops all that equal the threshold",
    says="{wanted} weights go, and in your mask {yours} do: several are as small as the last one to go, and "
    "weight.abs() > threshold drops them all; take the first round(sparsity · n) of the argsort instead",
)
def all_tied(weight, *, sparsity):
    drop = _count(weight, sparsity)
    threshold = weight.abs().flatten().kthvalue(drop).values if drop else -1
    return weight.abs() > threshold


@mistake(
    "drops all that equal the threshold, and asks for the 0th smallest",
    says="{wanted} weights go, and in your mask {yours} do: a threshold drops all that are equal to it, and "
    "at sparsity 0 kthvalue(0) raises, for it counts from 1; the first k places of an argsort do neither",
)
def all_tied_unguarded(weight, *, sparsity):
    return weight.abs() > weight.abs().flatten().kthvalue(_count(weight, sparsity)).values


@mistake(
    "keeps all that equal the threshold",
    says="{wanted} weights go, and in your mask {yours} do: several equal the smallest one to stay, and "
    "weight.abs() >= threshold keeps them all; take the first round(sparsity · n) of the argsort instead",
)
def none_tied(weight, *, sparsity):
    return weight.abs() >= weight.abs().flatten().sort().values[_count(weight, sparsity)]


@mistake(
    "writes > for >=",
    says="{wanted} weights go, and in your mask {yours} do: sorted[k] is the first weight to stay, since "
    "places count from 0, and > drops it too",
)
def one_too_many(weight, *, sparsity):
    return weight.abs() > weight.abs().flatten().sort().values[_count(weight, sparsity)]


@mistake(
    "writes >= for >",
    says="{wanted} weights go, and in your mask {yours} do: the k-th smallest is the last one to go, and >= "
    "keeps it",
)
def one_too_few(weight, *, sparsity):
    drop = _count(weight, sparsity)
    threshold = weight.abs().flatten().kthvalue(drop).values if drop else -1
    return weight.abs() >= threshold


@mistake(
    "asks for a quantile",
    says="{wanted} weights go, and in your mask {yours} do: a quantile lies between two weights, counts the "
    "gaps between them (n - 1, not n), and drops a weight even at sparsity 0; count the weights",
)
def quantile(weight, *, sparsity):
    return weight.abs() > weight.abs().flatten().quantile(sparsity)


@mistake(
    "compares the weights with the sparsity",
    says="{wanted} of the {n} weights go, and in your mask {yours} do: sparsity says how many go, not how "
    "small they are; rank the magnitudes",
)
def as_threshold(weight, *, sparsity):
    return weight.abs() > sparsity


@mistake(
    "drops the largest",
    says="you drop {gone} and keep {here}: these are the largest magnitudes, the ones that matter; an "
    "argsort begins with the smallest, a topk with the largest",
)
def largest(weight, *, sparsity):
    return _without(-weight.abs(), _count(weight, sparsity))


@mistake(
    "turns the mask round",
    says="{wanted} of the {n} weights go, and in your mask {yours} do: True is a weight that stays, and "
    "yours is True where one goes",
)
def inverted(weight, *, sparsity):
    return ~_without(weight.abs(), _count(weight, sparsity))


@mistake(
    "takes the share that stays for the share that goes",
    says="{wanted} of the {n} weights go, and in your mask {yours} do, which is how many should stay: "
    "sparsity is the share of zeros, the higher the fewer are left",
)
def kept_share(weight, *, sparsity):
    return _without(weight.abs(), weight.numel() - _count(weight, sparsity))


@mistake(
    "cuts the fraction off",
    says="{wanted} weights go, and in your mask {yours} do: int() rounds down, also from 6.99; use round()",
)
def floor(weight, *, sparsity):
    return _without(weight.abs(), int(sparsity * weight.numel()))


@mistake(
    "ranks each row on its own",
    says="you drop {gone} and keep {here}: sort, argsort and topk work along the last dimension, so each of "
    "your rows loses the same share; flatten() first, and the layer is ranked as a whole",
)
def by_row(weight, *, sparsity):
    drop = round(sparsity * weight.shape[-1])
    return torch.ones_like(weight).scatter(-1, weight.abs().argsort()[..., :drop], 0.0).bool()


@mistake(
    "leaves the weights in their sorted order",
    says="you drop {gone} and keep {here}: your mask fits the sorted weights, whose first places are the "
    "smallest; argsort() says where they came from: mask[order[:k]] = False",
)
def unsorted(weight, *, sparsity):
    return (torch.arange(weight.numel()) >= _count(weight, sparsity)).view(weight.shape)


@mistake("returns ones and zeros", says="your mask is right in numbers, but a mask is bool: True stays")
def floats(weight, *, sparsity):
    return by_order(weight, sparsity=sparsity).to(weight.dtype)


@mistake("returns the pruned weight", says="you return the weight with zeros in it; return the mask alone")
def pruned(weight, *, sparsity):
    return weight * by_order(weight, sparsity=sparsity)


EXERCISE = Exercise(
    name="magnitude_mask",
    points=2,
    minutes=10,
    difficulty=2,
    statement="magnitude_mask(weight, sparsity=…) drops exactly the share asked for, smallest |w| first.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_order, by_topk, by_threshold),
    mistakes=(
        signed,
        percent,
        all_tied,
        all_tied_unguarded,
        none_tied,
        one_too_many,
        one_too_few,
        quantile,
        as_threshold,
        largest,
        inverted,
        kept_share,
        floor,
        by_row,
        unsorted,
        floats,
        pruned,
    ),
    hints=(
        Hint(
            "the count is right, until some weights are equal",
            "A threshold can't tell equal weights apart: it drops all of them or none. A list of places in "
            "order of magnitude can: it has exactly one first, one second, one third.",
        ),
        Hint(
            "I have the order and do not know how to make a mask of it",
            "order = weight.abs().flatten().argsort() is (n,), places, the smallest first. Begin with a mask "
            "(n,) of True, put False at the first round(sparsity · n) places, give it weight's shape.",
        ),
        Hint("only the last step is missing", "mask[order[:________]] = False"),
    ),
)
