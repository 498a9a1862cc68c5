"""One threshold for the whole network: the smallest weights go, wherever they are.

Source: Frankle and Carbin 2019, "The lottery ticket hypothesis", arXiv:1803.03635, which prunes its deeper
networks so; Han et al. 2015, arXiv:1506.02626, gives each layer a threshold of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """How many weights go is chosen first, and the sparsity made from it. Equal weights have equal signs."""

    def given(weights: list[Tensor], drop: int, beyond: float = 0.0) -> dict[str, Any]:
        """``sparsity * n`` is this far beyond the whole number."""
        n = sum(w.numel() for w in weights)
        return {"weights": weights, "drop": drop, "sparsity": (drop + beyond) / n}

    def layer(size: float, *shape: int) -> Tensor:
        """Magnitudes from once to twice this size; the largest is negative."""
        w = (1 + 0.9 * torch.rand(shape, generator=rng)) * size
        w = torch.where(torch.rand(shape, generator=rng) < 0.5, w, -w)
        w.view(-1)[int(torch.randint(w.numel(), (), generator=rng))] = -2 * size
        return w

    def mixed(*shape: int, values: tuple[float, ...]) -> Tensor:
        places = torch.randint(len(values), shape, generator=rng)
        places.view(-1)[: len(values)] = torch.arange(len(values))
        return torch.tensor(values)[places]

    out, inputs = (int(size) for size in torch.randint(3, 6, (2,), generator=rng))
    three = [layer(0.1, 2, 4), layer(10.0, 3, 2), layer(1.0, 4, 4)]
    yield "three layers of different size", given(three, 14)
    yield "a share that rounds up", given([layer(1.0, inputs, 3), layer(0.7, 4, inputs)], 5, -0.3)
    network = [layer(0.3, out, 2, 2, 2), layer(0.2, out, out), layer(0.5, 10, out)]
    yield "Conv2d and Linear, float64", given([w.double() for w in network], 20 + out * out)
    yield "a layer that goes altogether", given([layer(1.0, out, inputs), layer(0.01, 2, 3)], 9)
    turned = [layer(0.9, inputs, out).T, layer(1.1, out, 4).T]
    yield "transposed weights", given(turned, 2 * out)
    lone = layer(1.0, 3, 3)
    lone[0, 0] = -10  # against it the others look small, and against their mean they do not
    yield "one weight far larger than the rest", given([lone, torch.tensor([0.21, -1.0]).repeat(2, 2)], 4)
    yield "one layer", given([layer(1.0, out, inputs)], out + inputs)
    tied = [mixed(2, 4, values=(0.5, -0.25)), mixed(3, 3, values=(-0.25, 1.0)), mixed(4, values=(0.5, 2.0))]
    few = sum(int((w == -0.25).sum()) for w in tied)
    yield "equal weights in two layers, where the cut is", given(tied, few - 1)
    yield "all zero", given([torch.zeros(2, 3), torch.zeros(5)], 4)
    yield "sparsity 0", given([layer(1.0, 3, 2), layer(2.0, 2, 2)], 0)


def probe(case: dict[str, Any], global_masks: Callable[..., Any]) -> dict[str, Any]:
    """Equal weights may be chosen among at will: those that stay are written down as the last of them."""
    weights, masks = case["weights"], global_masks(case["weights"], sparsity=case["sparsity"])
    plain = isinstance(masks, list | tuple) and all(isinstance(mask, torch.Tensor) for mask in masks)
    wanted = [(w.shape, torch.bool) for w in weights]
    if plain and [(mask.shape, mask.dtype) for mask in masks] == wanted:
        kind = torch.cat([w.flatten() for w in weights]).unique(return_inverse=True)[1]
        kept = torch.cat([mask.flatten() for mask in masks])
        ordered = torch.empty_like(kept)
        ordered[kind.argsort(stable=True)] = kept[(2 * kind + kept).argsort(stable=True)]
        pieces = ordered.split([w.numel() for w in weights])
        masks = [piece.view(w.shape) for piece, w in zip(pieces, weights, strict=True)]
    return {"masks": masks}


def judge(case: dict[str, Any], record: Record) -> None:
    """Two laws leave one answer, up to ties: the count, and that nothing dropped outweighs what stays."""
    weights, came = case["weights"], record["masks"]
    items = came.items or ()
    found = f"a {came.type} of {len(items)} entries" if items else expect.came(came)
    expect.true(
        came.type in ("list", "tuple") and len(items) == len(weights),
        f"the answer is a list of {len(weights)} masks, one for each layer; yours is {found}",
        found=found,
    )
    gone: list[tuple[float, int, int]] = []  # magnitude, layer, and place in it of each weight that goes
    here: list[tuple[float, int, int]] = []  # and of each that stays
    for at, (w, item) in enumerate(zip(weights, items, strict=True)):
        mask = expect.tensor(item, shape=w.shape, dtype=torch.bool, what=f"the mask of layer {at}")
        for place, (size, stays) in enumerate(
            zip(w.flatten().tolist(), mask.flatten().tolist(), strict=True)
        ):
            (here if stays else gone).append((abs(size), at, place))
    wanted, yours, n = case["drop"], len(gone), len(gone) + len(here)
    expect.true(
        yours == wanted,
        f"{wanted} of all {n} weights go (False in a mask); in yours {yours} do",
        yours=yours,
        wanted=wanted,
        n=n,
    )
    lost, left = _place(weights, max(gone, default=(0.0, 0, 0))), _place(weights, min(here))
    expect.true(
        not gone or max(gone)[0] <= min(here)[0],
        f"you drop {lost} and keep {left}, which is nearer to zero",
        gone=lost,
        here=left,
    )


def _place(weights: list[Tensor], found: tuple[float, int, int]) -> str:
    _, at, place = found
    where = [int(index) for index in torch.unravel_index(torch.tensor(place), weights[at].shape)]
    return f"weights[{at}]{where} = {float(weights[at].flatten()[place]):.3g}"


def by_one_mask(weights: list[Tensor], *, sparsity: float) -> list[Tensor]:
    sizes = torch.cat([w.abs().flatten() for w in weights])  # (all weights,)
    mask = torch.ones(len(sizes), dtype=torch.bool)
    mask[sizes.argsort()[: round(sparsity * len(sizes))]] = False
    pieces = mask.split([w.numel() for w in weights])
    return [piece.view(w.shape) for piece, w in zip(pieces, weights, strict=True)]


def by_list(weights, *, sparsity):
    ranked = sorted(
        (abs(size), layer, place)
        for layer, w in enumerate(weights)
        for place, size in enumerate(w.flatten().tolist())
    )
    masks = [torch.ones(w.numel(), dtype=torch.bool) for w in weights]
    for _, layer, place in ranked[: round(sparsity * len(ranked))]:
        masks[layer][place] = False
    return [mask.reshape(w.shape) for mask, w in zip(masks, weights, strict=True)]


def by_threshold(weights, *, sparsity):
    sizes = torch.cat([w.square().reshape(-1) for w in weights])
    drop = round(sparsity * len(sizes))
    threshold = sizes.sort(descending=True).values[len(sizes) - drop - 1]  # the smallest that stays
    spare = drop - int((sizes < threshold).sum())  # of those that equal it, so many go
    masks = []
    for w in weights:
        equal = (w.square() == threshold).flatten()
        gone = equal & (equal.cumsum(0) <= spare)
        spare -= int(gone.sum())
        masks.append((w.square() >= threshold) & ~gone.view(w.shape))
    return masks


def by_parts(
    weights, *, sparsity, score=torch.abs, rank=torch.argsort, count=lambda sparsity, n: sparsity * n
):
    """Right as it stands; many a mistake is one of its parts replaced."""
    scores = torch.cat([score(w).flatten() for w in weights])
    mask = torch.ones(len(scores), dtype=torch.bool)
    mask[rank(scores)[: round(count(sparsity, len(scores)))]] = False
    return _pieces(mask, weights)


def _pieces(mask: Tensor, weights: list[Tensor]) -> list[Tensor]:
    pieces = mask.split([w.numel() for w in weights])
    return [piece.view(w.shape) for piece, w in zip(pieces, weights, strict=True)]


def _threshold(weights: list[Tensor], sparsity: float) -> Tensor:
    """The magnitude of the last weight to go."""
    sizes = torch.cat([w.abs().flatten() for w in weights])
    return sizes.kthvalue(round(sparsity * len(sizes))).values


per_layer = mistake(
    "ranks each layer on its own",
    says="you drop {gone} and keep {here}: each of your layers loses the same share; here all layers stand "
    "in one line, and a layer of small weights loses more: concatenate before you rank",
)(lambda weights, *, sparsity: [by_parts([w], sparsity=sparsity)[0] for w in weights])


@mistake(
    "takes the mean of the layers' thresholds",
    says="{wanted} of all {n} weights go, and in your masks {yours} do: the mean of the layers' thresholds "
    "is not the threshold of all weights together; concatenate them and rank once",
)
def mean_threshold(weights, *, sparsity):
    drops = [round(sparsity * w.numel()) for w in weights]
    thresholds = [w.abs().flatten().sort().values[max(k - 1, 0)] for k, w in zip(drops, weights, strict=True)]
    return [w.abs() > sum(thresholds) / len(thresholds) for w in weights]


by_largest = mistake(
    "divides each layer by its largest weight",
    says="you drop {gone} and keep {here}: after each layer is divided by its largest weight no layer is "
    "small any more, and that is what one threshold is to find out; rank the magnitudes as they are",
)(partial(by_parts, score=lambda w: w.abs() / w.abs().max().clamp(min=1e-9)))

by_mean = mistake(
    "divides each layer by its mean",
    says="you drop {gone} and keep {here}: after each layer is divided by its mean magnitude all layers look "
    "alike; that is another criterion; rank the magnitudes as they are",
)(partial(by_parts, score=lambda w: w.abs() / w.abs().mean().clamp(min=1e-9)))

mixed_order = mistake(
    "takes the pieces in another order",
    says="you drop {gone} and keep {here}: the long mask is in one order, and you cut it up in another, so "
    "that layers get each other's pieces; keep the order of the list in both",
)(
    lambda weights, *, sparsity: _pieces(
        torch.cat([m.flatten() for m in by_list(weights[::-1], sparsity=sparsity)]), weights
    )
)

offset = mistake(
    "cuts every piece from the beginning",
    says="{wanted} of all {n} weights go, and in your masks {yours} do: every layer gets the beginning of "
    "the long mask; where the piece of one layer ends, the next one's begins",
)(
    lambda weights, *, sparsity: [
        torch.cat([m.flatten() for m in by_parts(weights, sparsity=sparsity)])[: w.numel()].view(w.shape)
        for w in weights
    ]
)

unsorted = mistake(
    "leaves the weights in their sorted order",
    says="you drop {gone} and keep {here}: you drop the first places of the list, not the smallest weights; "
    "argsort() says where the smallest came from: mask[order[:k]] = False",
)(partial(by_parts, rank=lambda scores: torch.arange(len(scores))))

signed = mistake(
    "forgets abs()",
    says="you drop {gone} and keep {here}: without abs() the most negative weight is taken for the least; a "
    "large negative weight matters as much as a large positive one",
)(partial(by_parts, score=lambda w: w))

largest = mistake(
    "drops the largest",
    says="you drop {gone} and keep {here}: these are the largest magnitudes, the ones that matter; the "
    "smallest go first",
)(partial(by_parts, rank=lambda scores: scores.argsort(descending=True)))

percent = mistake(
    "takes the fraction for percent",
    says="{wanted} of all {n} weights go, and in your masks {yours} do: sparsity is a fraction, so there is "
    "nothing to divide by 100",
)(partial(by_parts, count=lambda sparsity, n: sparsity / 100 * n))

kept_share = mistake(
    "takes the share that stays for the share that goes",
    says="{wanted} of all {n} weights go, and in your masks {yours} do, which is how many should stay: "
    "sparsity is the share of zeros",
)(partial(by_parts, count=lambda sparsity, n: n - round(sparsity * n)))

floor = mistake(
    "cuts the fraction off",
    says="{wanted} of all {n} weights go, and in your masks {yours} do: int() and // round down, also from "
    "6.99; use round()",
)(partial(by_parts, count=lambda sparsity, n: int(sparsity * n)))

inverted = mistake(
    "turns the masks round",
    says="{wanted} of all {n} weights go, and in your masks {yours} do: True is a weight that stays, and "
    "yours is True where one goes",
)(lambda weights, *, sparsity: [~mask for mask in by_parts(weights, sparsity=sparsity)])

all_tied = mistake(
    "drops all that equal the threshold",
    says="{wanted} of all {n} weights go, and in your masks {yours} do: w.abs() > threshold drops all that "
    "equal it, in whichever layer (and at sparsity 0 there is no kthvalue(0)); take an argsort's first k",
)(lambda weights, *, sparsity: [w.abs() > _threshold(weights, sparsity) for w in weights])

one_too_few = mistake(
    "writes >= for >",
    says="{wanted} of all {n} weights go, and in your masks {yours} do: the k-th smallest is the last one to "
    "go, and >= keeps it",
)(lambda weights, *, sparsity: [w.abs() >= _threshold(weights, sparsity) for w in weights])

one_mask = mistake(
    "returns one long mask",
    says="you return {found}, one mask for all layers: cut it up, and give each piece its layer's shape",
)(lambda weights, *, sparsity: torch.cat([m.flatten() for m in by_parts(weights, sparsity=sparsity)]))


EXERCISE = Exercise(
    name="global_masks",
    points=2,
    minutes=10,
    difficulty=2,
    statement="global_masks(weights, sparsity=…) drops the smallest weights of all layers together.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_one_mask, by_list, by_threshold),
    mistakes=(
        per_layer,
        mean_threshold,
        by_largest,
        by_mean,
        mixed_order,
        offset,
        unsorted,
        signed,
        largest,
        percent,
        kept_share,
        floor,
        inverted,
        all_tied,
        one_too_few,
        one_mask,
    ),
    hints=(
        Hint(
            "every layer loses the same share",
            "Then you rank inside each layer. Think of all weights of the network in one long line: where "
            "must the layers come together, before the ranking or after it?",
        ),
        Hint(
            "I have one long mask, and need one for each layer",
            "Two layers (out, in) and (10, out) make a line of out · in + 10 · out magnitudes, and its mask "
            "is as long. mask.split([sizes]) cuts it up, in the same order; view(w.shape) folds each piece.",
        ),
        Hint("I do not know how to join them", "sizes = torch.____([w.abs().flatten() for w in weights])"),
    ),
)
