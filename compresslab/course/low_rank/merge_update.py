"""A low-rank update merged into the weight it was trained beside: one layer again, the same function.

Source: Hu et al. 2021, "LoRA: low-rank adaptation of large language models", arXiv:2106.09685.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """Square layers, where a transposed update fits too; and ranks, widths and alphas that all differ."""

    def drawn(outs: int, ins: int, rank: int, alpha: float) -> dict[str, Any]:
        weight, a, b = (
            torch.randn(shape, generator=rng, dtype=torch.float64)
            for shape in ((outs, ins), (rank, ins), (outs, rank))
        )
        return {"weight": weight, "a": a, "b": b, "alpha": alpha}

    yield "a rank as large as the layer", drawn(3, 3, 3, 2.0)
    yield "a square layer", drawn(4, 4, 2, 3.0)
    yield "more inputs than outputs", drawn(3, 5, 2, 16.0)
    yield "more outputs than inputs", drawn(6, 4, 3, 1.5)
    yield "rank 1", drawn(4, 3, 1, 2.5)
    yield "alpha equals the rank", drawn(4, 5, 2, 2.0)
    yield "alpha is 0", drawn(3, 4, 2, 0.0)
    fresh = drawn(3, 5, 2, 8.0)
    yield "before training, when b is 0", fresh | {"b": torch.zeros_like(fresh["b"])}
    single = drawn(4, 5, 2, 8.0)  # in quarters, whose products are exact in float32, however written
    yield (
        "float32",
        single | {name: ((4 * single[name]).round() / 4).float() for name in ("weight", "a", "b")},
    )
    turned = drawn(4, 6, 3, 6.0)
    yield "not contiguous", turned | {name: turned[name].T.contiguous().T for name in ("weight", "a", "b")}


def probe(case: dict[str, Any], merge_update: Callable[..., Any]) -> dict[str, Any]:
    return {"merged": merge_update(case["weight"], case["a"], case["b"], alpha=case["alpha"])}


def judge(case: dict[str, Any], record: Record) -> None:
    """The law itself: for every single input, what the layer and the update beside it give together."""
    weight, a, b = (case[name].double() for name in ("weight", "a", "b"))
    merged = expect.tensor(record["merged"], shape=weight.shape, what="the merged weight")
    units = torch.eye(weight.shape[1], dtype=torch.float64)
    answers = [weight @ x + case["alpha"] * (b @ (a @ x)) / len(a) for x in units]
    expect.close(merged, torch.stack(answers, dim=1), what="the merged weight")


def by_matrices(weight: Tensor, a: Tensor, b: Tensor, *, alpha: float) -> Tensor:
    return weight + alpha / a.shape[0] * (b @ a)


def by_components(weight: Tensor, a: Tensor, b: Tensor, *, alpha: float) -> Tensor:
    merged, rank = weight.clone(), len(a)
    for row, column in zip(a, b.T, strict=True):
        merged += torch.outer(column, row) * (alpha / rank)
    return merged


def by_addmm(weight: Tensor, a: Tensor, b: Tensor, *, alpha: float) -> Tensor:
    return torch.addmm(weight, b, a, alpha=alpha / b.shape[1])


def _scaled(weight: Tensor, a: Tensor, b: Tensor, *, alpha: float, scale: Callable[..., float]) -> Tensor:
    return weight + scale(alpha, *b.shape, a.shape[1]) * (b @ a)  # scale(alpha, out, r, in)


_HERE = "the merged weight at {where} should be {wanted} and yours is {yours}: "

not_divided = mistake(
    "does not divide alpha by the rank",
    says=_HERE + "you scale by alpha; the scale is alpha / r, so that a new rank does not need a new alpha",
)(partial(_scaled, scale=lambda alpha, outs, rank, ins: alpha))

not_scaled = mistake(
    "forgets the scale",
    says=_HERE + "you add b · a as it is; while it was trained it was multiplied by alpha / r, and so it has "
    "to be here",
)(partial(_scaled, scale=lambda alpha, outs, rank, ins: 1.0))

alpha_forgotten = mistake(
    "forgets alpha",
    says=_HERE + "you scale by 1 / r; the scale is alpha / r",
)(partial(_scaled, scale=lambda alpha, outs, rank, ins: 1 / rank))

turned_round = mistake(
    "divides the rank by alpha",
    says=_HERE + "the scale is alpha / r and not r / alpha: alpha 0 switches the update off",
)(partial(_scaled, scale=lambda alpha, outs, rank, ins: rank / alpha if alpha else math.inf))

root = mistake(
    "divides by the root of the rank",
    says=_HERE + "you scale by alpha / √r, as a later variant of the method does; here it is alpha / r",
)(partial(_scaled, scale=lambda alpha, outs, rank, ins: alpha / math.sqrt(rank)))

by_inputs = mistake(
    "divides by the number of inputs",
    says=_HERE + "you divide by the number of inputs; r is the rank, the side that a and b share: a.shape[0]",
)(partial(_scaled, scale=lambda alpha, outs, rank, ins: alpha / ins))

by_outputs = mistake(
    "divides by the number of outputs",
    says=_HERE + "you divide by the number of outputs, the length of b; r is the rank: len(a), or b.shape[1]",
)(partial(_scaled, scale=lambda alpha, outs, rank, ins: alpha / outs))

twice = mistake(
    "scales a and b",
    says=_HERE + "alpha / r is in it twice, once with a and once with b; scale their product, once",
)(partial(_scaled, scale=lambda alpha, outs, rank, ins: (alpha / rank) ** 2))

subtracted = mistake(
    "subtracts the update",
    says=_HERE + "you are as far off on the other side of the old weight: the update is added",
)(partial(_scaled, scale=lambda alpha, outs, rank, ins: -alpha / rank))


@mistake(
    "replaces the weight",
    says=_HERE + "that is the update alone; what was learned before stays in weight: add the two",
)
def replaced(weight, a, b, *, alpha):
    return alpha / len(a) * (b @ a)


@mistake(
    "multiplies a by b",
    says=_HERE + "a @ b is (r, r) and fits only where the rank is as large as the layer; an input meets a "
    "first and b then, so the weight is b @ a, (out, r) · (r, in)",
)
def swapped(weight, a, b, *, alpha):
    return weight + alpha / len(a) * (a @ b)


@mistake(
    "adds the update transposed",
    says=_HERE + "your update is (in, out), b · a lying on its side; a weight is (out, in), and b @ a is so "
    "without a transpose",
)
def transposed(weight, a, b, *, alpha):
    return weight + alpha / len(a) * (a.T @ b.T)


@mistake(
    "changes the weight in place",
    says="the sum is right, but the given weight is another one now: += writes into it, and whoever wants to "
    "take the update out again, or put another one in, has lost the old; write weight + …",
)
def in_place(weight, a, b, *, alpha):
    weight += alpha / len(a) * (b @ a)
    return weight


EXERCISE = Exercise(
    name="merge_update",
    points=1,
    minutes=6,
    difficulty=1,
    bonus=True,
    statement="merge_update(weight, a, b, alpha=…) is one weight that does what the weight and its low-rank "
    "update do together.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_matrices, by_components, by_addmm),
    mistakes=(
        not_divided,
        not_scaled,
        alpha_forgotten,
        turned_round,
        root,
        by_inputs,
        by_outputs,
        twice,
        subtracted,
        replaced,
        swapped,
        transposed,
        in_place,
    ),
    hints=(
        Hint(
            "I do not see how two paths can become one weight",
            "One path gives weight · x, the other a scaled b · (a · x), and their results are added. Both "
            "are linear in x: take x out of the brackets, and what is left in them is the merged weight.",
        ),
        Hint(
            "right before training, wrong after it",
            "The update is alpha / r · (b · a): (out, r) · (r, in) gives (out, in), the shape of weight. r "
            "is the side that b and a share, and the scale comes in once.",
        ),
        Hint("only the scale is missing", "weight + alpha / a.shape[____] * (b @ a)"),
    ),
)
