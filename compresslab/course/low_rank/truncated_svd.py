"""The nearest matrix of a rank as two thin layers, each with its share of the singular values.

Sources: Eckart and Young 1936, "The approximation of one matrix by another of lower rank"; for networks:
Denton, Zaremba, Bruna, LeCun and Fergus 2014, "Exploiting linear structure within convolutional networks for
efficient evaluation", arXiv:1404.0736.
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

Layers = tuple[Tensor, Tensor]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """Singular values well apart, so that one matrix is the nearest; the ranks that are refused come last."""

    def drawn(rows: int, columns: int) -> Tensor:
        """A matrix in float64 whose largest singular value is 4 to 6, each further one 0.45 to 0.65 of it."""
        one, other = (torch.randn(n, n, generator=rng, dtype=torch.float64) for n in (rows, columns))
        steps = 0.45 + 0.2 * torch.rand(min(rows, columns), generator=rng, dtype=torch.float64)
        steps[0] = 4 + 4 * (steps[0] - 0.45) * 2.5
        middle = torch.zeros(rows, columns, dtype=torch.float64)
        middle.diagonal().copy_(steps.cumprod(0))
        return torch.linalg.qr(one).Q @ middle @ torch.linalg.qr(other).Q.T

    def more(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=rng))

    def given(title: str, weight: Tensor, rank: int) -> Case:
        return title, {"weight": weight, "rank": rank, "allowed": 1 <= rank <= min(weight.shape)}

    yield given("more inputs than outputs", drawn(4, more(6, 8)), more(2, 3))
    yield given("more outputs than inputs", drawn(more(7, 9), 5), more(2, 3))
    yield given("square, rank 1", drawn(5, 5), 1)
    yield given("transposed in memory", drawn(6, 4).T, 2)
    yield given("one output", drawn(1, 5), 1)
    yield given("the full rank", drawn(3, 6), 3)
    yield given("all zero, float32", torch.zeros(3, 4), 2)
    yield given("rank 0", drawn(4, 3), 0)
    yield given("a negative rank", drawn(5, 6), -1)
    yield given("a rank above the number of inputs", drawn(6, 3), 5)
    yield given("a rank above the number of outputs", drawn(3, 6), 4)
    yield given("a rank above both", drawn(3, 4), 6)


def probe(case: dict[str, Any], truncated_svd: Callable[..., Any]) -> dict[str, Any]:
    """A pair of vectors may change its sign: in each row of first the largest entry is made positive."""
    try:
        layers = truncated_svd(case["weight"], rank=case["rank"])
    except Exception as error:
        if case["allowed"]:
            raise
        return {"layers": None, "raised": type(error).__name__}
    pair = isinstance(layers, tuple) and len(layers) == 2
    if pair and all(isinstance(w, torch.Tensor) and w.dim() == 2 and w.numel() for w in layers):
        first, second = layers
        if len(first) == second.shape[1]:
            signs = first.gather(1, first.abs().argmax(dim=1, keepdim=True)).sign()  # (rank, 1)
            signs = torch.where(signs == 0, 1, signs)
            layers = first * signs, second * signs.T
    return {"layers": layers, "raised": ""}


def judge(case: dict[str, Any], record: Record) -> None:
    """No SVD: the weight projected on the main directions of its outputs; then the lengths."""
    weight, rank, raised = case["weight"], case["rank"], record["raised"].text
    outputs, inputs = weight.shape
    if not case["allowed"]:
        came = f"raises {raised}" if raised else "does not"
        expect.true(
            raised == "ValueError",
            f"a rank of {rank} raises ValueError, as a ({outputs}, {inputs}) weight has the ranks 1 to "
            f"{min(outputs, inputs)}; yours {came}",
            rank=rank,
            largest=min(outputs, inputs),
            outputs=outputs,
            inputs=inputs,
        )
        return
    one, other = expect.parts(record["layers"], count=2)
    dtype = weight.dtype
    first = expect.tensor(one, shape=(rank, inputs), dtype=dtype, what="first, of two entries,")
    second = expect.tensor(other, shape=(outputs, rank), dtype=dtype, what="second, of two entries,")
    w = weight.double()
    squares, directions = torch.linalg.eigh(w @ w.T)  # of the outputs, the smallest first
    main = directions[:, -rank:]
    expect.close(second @ first, main @ main.T @ w, tolerance=1e-4, what="second @ first")
    shared = squares[-rank:].clamp(min=0).sqrt()
    lengths = torch.cat([_lengths(first), _lengths(second.T)])
    expect.close(
        lengths,
        torch.cat([shared, shared]),
        tolerance=1e-4,
        what="the squared length of the rows of first, sorted, and then of the columns of second, sorted,",
    )


def _lengths(rows: Tensor) -> Tensor:
    return rows.square().sum(dim=1).sort().values


def by_svd(weight: Tensor, *, rank: int) -> Layers:
    if not 1 <= rank <= min(weight.shape):
        raise ValueError(f"rank is 1 to {min(weight.shape)}, got {rank}")
    u, s, vt = torch.linalg.svd(weight, full_matrices=False)
    root = s[:rank].sqrt()
    return root[:, None] * vt[:rank], u[:, :rank] * root


def by_one_symmetric_matrix(weight: Tensor, *, rank: int) -> Layers:
    """The eigenvalues of [[0, W], [Wᵀ, 0]] are s and -s, its eigenvectors (u, v) / √2 and (u, -v) / √2."""
    outputs, inputs = weight.shape
    if rank < 1 or rank > outputs or rank > inputs:
        raise ValueError("no such rank")
    whole = weight.new_zeros(outputs + inputs, outputs + inputs)
    whole[:outputs, outputs:], whole[outputs:, :outputs] = weight, weight.T
    values, vectors = torch.linalg.eigh(whole)
    both = vectors[:, -rank:] * (2 * values[-rank:].clamp(min=0)).sqrt()
    return both[outputs:].T, both[:outputs]


def by_pairs(weight: Tensor, *, rank: int) -> Layers:
    """The same from the transposed weight, one pair of vectors after the other."""
    if rank not in range(1, min(weight.shape) + 1):
        raise ValueError(rank)
    v, s, ut = torch.linalg.svd(weight.T)
    rows = [v[:, k] * s[k].sqrt() for k in range(rank)]
    columns = [ut[k] * s[k].sqrt() for k in range(rank)]
    return torch.stack(rows), torch.stack(columns, dim=1)


def _by_parts(
    weight,
    *,
    rank,
    left=torch.sqrt,
    right=torch.sqrt,
    full=False,
    allowed=lambda weight, rank: 1 <= rank <= min(weight.shape),
    kept=lambda values, rank: slice(rank),
    rows=lambda vt, kept: vt[kept],
):
    """Right as it stands; many a mistake is one of its parts replaced; left and right: what S becomes."""
    if not allowed(weight, rank):
        raise ValueError(rank)
    u, s, vt = torch.linalg.svd(weight, full_matrices=full)
    places = kept(s, rank)
    return right(s[places])[:, None] * rows(vt, places), u[:, places] * left(s[places])


PRODUCT = "second @ first at {where} should be {wanted} and yours is {yours}: "

s_twice = mistake(
    "applies S twice",
    says=f"{PRODUCT}you gave all of S to each layer, and the product has S²; the square root in each makes "
    "one S",
)(partial(_by_parts, left=torch.clone, right=torch.clone))

s_never = mistake(
    "leaves S out",
    says=f"{PRODUCT}U @ Vᵀ alone makes every direction equally long; the lengths are the singular values",
)(partial(_by_parts, left=torch.ones_like, right=torch.ones_like))

root_once = mistake(
    "puts the root of S into second alone",
    says=f"{PRODUCT}only second carries √S, so that √S is missing; first is √S · Vᵀ, not Vᵀ",
)(partial(_by_parts, right=torch.ones_like))

root_once_in_first = mistake(
    "puts the root of S into first alone",
    says=f"{PRODUCT}only first carries √S, so that √S is missing; second is U · √S, not U",
)(partial(_by_parts, left=torch.ones_like))

s_left = mistake(
    "gives all of S to second",
    says="the product is right, and the sizes are not: {wanted} is wanted and yours is {yours}; all of S "
    "went to second. Half of it, the root, belongs to each, so that both layers have weights of like size",
)(partial(_by_parts, left=torch.clone, right=torch.ones_like))

s_right = mistake(
    "gives all of S to first",
    says="the product is right, and the sizes are not: {wanted} is wanted and yours is {yours}; all of S "
    "went to first. Half of it, the root, belongs to each, so that both layers have weights of like size",
)(partial(_by_parts, left=torch.ones_like, right=torch.clone))

v_for_vt = mistake(
    "takes Vᵀ for V",
    says=f"{PRODUCT}torch.linalg.svd gives Vᵀ, with the singular vectors in its rows; Vᵀ[:, :rank].T takes "
    "columns",
)(partial(_by_parts, full=True, rows=lambda vt, kept: vt[:, kept].T))

v_for_vt_thin = mistake(
    "takes the thin Vᵀ for V",
    says="first has another shape than (rank, in): with full_matrices=False the third result is Vᵀ, (min, "
    "in), so its first rows are wanted and you took its first columns",
)(partial(_by_parts, rows=lambda vt, kept: vt[:, kept].T))

smallest = mistake(
    "keeps the smallest singular values",
    says=f"{PRODUCT}you kept the last singular values, the smallest; torch sorts them from large to small",
)(partial(_by_parts, kept=lambda values, rank: slice(len(values) - rank, None)))

without_check = mistake(
    "lets the slice cut the rank",
    says="a ({outputs}, {inputs}) weight has the ranks 1 to {largest}, and {rank} came: a slice takes what "
    "there is, without a word; raise ValueError, so that nobody believes in a rank that was never there",
)(partial(_by_parts, allowed=lambda weight, rank: True))


@mistake(
    "clips the rank silently",
    says="a rank of {rank} was asked for, there are 1 to {largest}, and you quietly took the nearest: the "
    "caller would never learn of it; raise ValueError",
)
def clipped(weight, *, rank):
    return by_svd(weight, rank=max(1, min(rank, *weight.shape)))


only_above = mistake(
    "refuses only what is too large",
    says="rank {rank} came through: ranks begin at 1. A layer with 0 numbers in between says nothing, and "
    "-1 counts from the end of a slice; raise ValueError for both",
)(partial(_by_parts, allowed=lambda weight, rank: rank <= min(weight.shape)))

only_below = mistake(
    "refuses only what is too small",
    says="rank {rank} came through, and a ({outputs}, {inputs}) weight has no more than {largest} singular "
    "values: raise ValueError above that too",
)(partial(_by_parts, allowed=lambda weight, rank: rank >= 1))

longer_side = mistake(
    "allows ranks up to the longer side",
    says="rank {rank} came through: a ({outputs}, {inputs}) weight has as many singular values as its "
    "shorter side, {largest}; min, not max",
)(partial(_by_parts, allowed=lambda weight, rank: 1 <= rank <= max(weight.shape)))

full_refused = mistake(
    "refuses the full rank",
    says="the full rank is allowed too, and loses nothing: the ranks are 1 to min(out, in), with both ends",
)(partial(_by_parts, allowed=lambda weight, rank: 1 <= rank < min(weight.shape)))


@mistake(
    "swaps U and V",
    says="you made the layers of weight.T: first reads the inputs, so it is made of Vᵀ, (rank, in); second "
    "writes the outputs and is made of U, (out, rank)",
)
def swapped(weight, *, rank):
    return by_svd(weight.T, rank=rank)


@mistake(
    "returns second before first",
    says="your two layers stand in the wrong order: first, (rank, in), is the one that the input meets "
    "first, although in the product second @ first it stands on the right",
)
def wrong_order(weight, *, rank):
    return by_svd(weight, rank=rank)[::-1]


@mistake(
    "multiplies the two again",
    says="you return second @ first, one matrix of the old size; keep the two apart, they are where the "
    "saving is",
)
def product(weight, *, rank):
    first, second = by_svd(weight, rank=rank)
    return second @ first


EXERCISE = Exercise(
    name="truncated_svd",
    points=2,
    minutes=10,
    difficulty=2,
    statement="truncated_svd(weight, rank=…) makes two thin layers of one: the nearest matrix of that rank.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_svd, by_one_symmetric_matrix, by_pairs),
    mistakes=(
        s_twice,
        s_never,
        root_once,
        root_once_in_first,
        s_left,
        s_right,
        v_for_vt,
        v_for_vt_thin,
        smallest,
        without_check,
        clipped,
        only_above,
        only_below,
        longer_side,
        full_refused,
        swapped,
        wrong_order,
        product,
    ),
    hints=(
        Hint(
            "second @ first has the right directions and the wrong size",
            "The product must hold S once. If each of two factors brings the same share of it, how large is "
            "the share?",
        ),
        Hint(
            "the shapes do not fit",
            "u, s, vt = torch.linalg.svd(weight, full_matrices=False) are (out, min), (min,) and (min, in), "
            "the largest singular value first. Of vt the first rank rows are wanted, each times √s: (rank, "
            "in). Of u the first rank columns, each times √s: (out, rank).",
        ),
        Hint(
            "only the last step is missing",
            "root = s[:rank].sqrt(); return root[:, None] * vt[:rank], u[________] * root; and before all "
            "that a ValueError, unless 1 <= rank <= min(weight.shape)",
        ),
    ),
)
