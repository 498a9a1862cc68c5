"""The error of every rank at once, read off the singular values that are dropped.

Source: Eckart and Young 1936, "The approximation of one matrix by another of lower rank".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """Weights of either side longer, most of them a power of ten away from 1."""

    def drawn(rows: int, columns: int, size: float = 1.0) -> dict[str, Tensor]:
        return {"weight": size * torch.randn(rows, columns, generator=rng, dtype=torch.float64)}

    rows, columns = (int(size) for size in torch.randint(4, 7, (2,), generator=rng))
    yield "more inputs than outputs", drawn(rows, columns + 3)
    yield "more outputs than inputs", drawn(rows + 3, columns - 1)
    yield "square", drawn(4, 4)
    yield "large weights", drawn(3, 5, 100)
    yield "small weights", drawn(5, 3, 0.01)
    yield "transposed in memory", {"weight": drawn(5, 4)["weight"].T}
    yield "rank 1", {"weight": drawn(4, 1)["weight"] @ drawn(1, 3)["weight"]}
    yield "one output", drawn(1, 5)
    yield "equal singular values, float32", {"weight": torch.diag(torch.tensor([2.0, -2.0, 2.0, 2.0]))}


def probe(case: dict[str, Any], dropped_error: Callable[..., Any]) -> dict[str, Any]:
    """Errors below 1e-7 are rounding and written down as 0."""
    errors = dropped_error(case["weight"])
    if isinstance(errors, torch.Tensor) and errors.is_floating_point():
        errors = torch.where(errors.abs() < 1e-7, 0, errors)
    return {"errors": errors}


def judge(case: dict[str, Any], record: Record) -> None:
    """What the exercise spares: every W_r, as W projected on the r main directions of its outputs."""
    weight = case["weight"]
    ranks = min(weight.shape) + 1
    yours = expect.tensor(record["errors"], shape=(ranks,), dtype=weight.dtype, what="the vector of errors")
    w = weight.double()
    directions = torch.linalg.eigh(w @ w.T)[1].flip(1)  # the main one first
    kept = [directions[:, :rank] for rank in range(ranks)]
    wanted = torch.stack([(w - main @ (main.T @ w)).norm() for main in kept]) / w.norm()
    expect.close(yours, wanted, tolerance=1e-6, what="the error")


def by_tails(weight: Tensor) -> Tensor:
    squares = torch.linalg.svdvals(weight).square()
    dropped = squares.flip(0).cumsum(0).flip(0)  # (min,), of ranks 0, 1, …, min - 1
    return torch.cat([dropped, dropped.new_zeros(1)]).div(squares.sum()).sqrt()


def by_loop(weight: Tensor) -> Tensor:
    s = torch.linalg.svd(weight)[1]
    return torch.stack([s[rank:].norm() / weight.norm() for rank in range(len(s) + 1)])


def by_what_is_kept(weight: Tensor) -> Tensor:
    whole = weight.square().sum()
    kept = torch.zeros(min(weight.shape) + 1, dtype=weight.dtype)
    kept[1:] = torch.linalg.svdvals(weight).square().cumsum(0) / whole
    return (1 - kept).clamp(min=0).sqrt()


ERROR = "the error at {where}, counted from rank 0, is {wanted}; yours is {yours}: "


def _over_ranks(weight, measure):
    s = torch.linalg.svdvals(weight)
    return torch.stack([torch.as_tensor(measure(s, rank), dtype=s.dtype) for rank in range(len(s) + 1)])


@mistake(
    "forgets the root",
    says=f"{ERROR}that is the dropped share of the energy, an error squared; a norm has a root over its sum",
)
def squared(weight):
    return by_tails(weight).square()


@mistake(
    "does not divide by the norm",
    says=f"{ERROR}that is ‖W - W_r‖ itself; divided by ‖W‖ it can be compared between layers, and rank 0 "
    "has 1",
)
def absolute(weight):
    return by_tails(weight) * weight.norm()


@mistake(
    "adds up s, not s²",
    says=f"{ERROR}you added up the dropped singular values themselves; in a Frobenius norm it is their "
    "squares",
)
def not_squared(weight):
    return _over_ranks(weight, lambda s, rank: s[rank:].sum() / s.sum())


@mistake(
    "adds up roots",
    says=f"{ERROR}the root of a sum is not the sum of roots: you added the dropped s and divided by the "
    "norm of all",
)
def sum_over_norm(weight):
    return _over_ranks(weight, lambda s, rank: s[rank:].sum() / s.norm())


@mistake(
    "measures what is kept",
    says=f"{ERROR}yours rises with the rank, as it is the norm of what is kept; the error is of what is "
    "dropped",
)
def kept(weight):
    return _over_ranks(weight, lambda s, rank: s[:rank].norm() / s.norm())


@mistake(
    "takes one minus the kept norm",
    says=f"{ERROR}norms do not add up to 1, their squares do: the root comes after 1 minus the kept share "
    "of s²",
)
def one_minus_norm(weight):
    return _over_ranks(weight, lambda s, rank: 1 - s[:rank].norm() / s.norm())


@mistake(
    "takes only the next singular value",
    says=f"{ERROR}you looked only at the largest dropped one, which is the error in the spectral norm; in "
    "the Frobenius norm all dropped ones count",
)
def next_alone(weight):
    return _over_ranks(weight, lambda s, rank: s[rank] / s.norm() if rank < len(s) else 0)


@mistake(
    "takes the spectral norm throughout",
    says=f"{ERROR}you divided the next singular value by the largest: that is the spectral norm, right for "
    "another question; ours adds up the squares of all entries",
)
def spectral(weight):
    return _over_ranks(weight, lambda s, rank: s[rank] / s[0] if rank < len(s) else 0)


@mistake(
    "divides by the largest singular value",
    says=f"{ERROR}the norm of the dropped ones is right, and it is divided by the largest s; the norm of "
    "all is wanted",
)
def over_largest(weight):
    return _over_ranks(weight, lambda s, rank: s[rank:].norm() / s[0])


@mistake(
    "drops the largest first",
    says=f"{ERROR}you drop the largest singular values; they are sorted from large to small, and the first "
    "ones stay",
)
def largest_first(weight):
    return _over_ranks(weight, lambda s, rank: s[: len(s) - rank].norm() / s.norm())


@mistake(
    "begins with the full rank",
    says=f"{ERROR}your errors rise, as they begin with the full rank; entry r is the error of rank r",
)
def reversed_order(weight):
    return by_tails(weight).flip(0)


@mistake(
    "is one rank ahead",
    says=f"{ERROR}that is the error of one rank less: entry 1 keeps one singular value, and only what "
    "follows is lost",
)
def one_ahead(weight):
    errors = by_tails(weight)
    return torch.cat([errors[:1], errors[:-1]])


@mistake(
    "leaves out rank 0",
    says="rank 0 is missing: W_0 is all zero, and its error, 1, is the first entry; there is one rank more "
    "than there are singular values",
)
def without_zero(weight):
    return by_tails(weight)[1:]


@mistake(
    "leaves out the full rank",
    says="the full rank is missing: it drops nothing, and its error, 0, is the last entry; there is one "
    "rank more than there are singular values",
)
def without_full(weight):
    return by_tails(weight)[:-1]


@mistake(
    "returns a list",
    says="your errors are right and come as a list of floats; torch.stack or torch.tensor makes one tensor "
    "of them",
)
def as_list(weight):
    return by_tails(weight).tolist()


EXERCISE = Exercise(
    name="dropped_error",
    points=1,
    minutes=7,
    difficulty=2,
    bonus=True,
    statement="dropped_error(weight) is the relative error of every rank, from the singular values alone.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_tails, by_loop, by_what_is_kept),
    mistakes=(
        squared,
        absolute,
        not_squared,
        sum_over_norm,
        kept,
        one_minus_norm,
        next_alone,
        spectral,
        over_largest,
        largest_first,
        reversed_order,
        one_ahead,
        without_zero,
        without_full,
        as_list,
    ),
    hints=(
        Hint(
            "I do not see how to do it without building W_r",
            "W - W_r has singular values too: those that were dropped. And the sum of all squared entries "
            "of a matrix is the sum of its squared singular values.",
        ),
        Hint(
            "the vector is one entry too short",
            "svdvals(weight) is (min,), s_0 ≥ s_1 ≥ …; the errors are (min + 1,): rank 0 drops every s, "
            "rank min none. error[r]² = (s_r² + s_{r+1}² + …) / (sum of all s²).",
        ),
        Hint(
            "only the last step is missing",
            "torch.stack([s[____:].norm() / s.norm() for r in range(len(s) + 1)])",
        ),
    ),
)
