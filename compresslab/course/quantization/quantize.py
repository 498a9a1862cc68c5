"""From floats to integers: divide, round, shift, clamp, and only then cast.

Source: Jacob et al. 2018, arXiv:1712.05877, section 2.1.
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
    """Every x lies within 0.45 of a step from an integer, or exactly on a half, where both are right."""

    def steps(low: int, high: int, *shape: int) -> Tensor:
        """Whole numbers of steps from low to high - 1, and a fraction on either side."""
        whole = torch.randint(low, high, shape, generator=rng)
        side = torch.randint(0, 2, shape, generator=rng) * 2 - 1
        return whole.double() + side * (0.2 + 0.25 * torch.rand(shape, generator=rng))

    def drawn(
        steps: Tensor, zero_point: int, bits: int, dtype: torch.dtype = torch.float32
    ) -> dict[str, Any]:
        scale = float(0.01 + 0.1 * torch.rand((), generator=rng))
        x = (steps * scale).to(dtype)
        return {"x": x, "scale": scale, "zero_point": zero_point, "bits": bits}

    def zero(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=rng))

    ends = torch.tensor([-400.3, -129.7, 127.3, 200.7, 300.3])
    yield "random", drawn(steps(-100, 100, 5, 7), zero(101, 140), 8)
    yield "float64", drawn(steps(-60, 60, 6), zero(90, 160), 8, torch.float64)
    yield "4 bits", drawn(torch.cat([steps(-12, 14, 20), steps(15, 20, 3)]), zero(5, 9), 4)
    yield "2 bits", drawn(steps(-3, 4, 12), 1, 2)
    yield "beyond both ends", drawn(torch.cat([ends, steps(-9, 9, 4)]), zero(60, 100), 8)
    yield "far beyond both ends", drawn(torch.tensor([-1e6 - 0.3, 1.0, 1e6 + 0.3]), zero(90, 160), 8)
    yield "one element", drawn(steps(3, 100, 1), zero(10, 50), 8)
    yield "all zero", drawn(torch.zeros(3, 2), zero(50, 200), 8)
    halves = (torch.arange(-4, 4) + 0.5) * 0.25  # exactly on the half: up, down, to even, all are right
    yield "exactly between two integers", {"x": halves, "scale": 0.25, "zero_point": zero(20, 99), "bits": 8}
    yield "transposed", drawn(steps(-50, 50, 4, 3).t(), zero(60, 99), 8)


def probe(case: dict[str, Any], quantize: Callable[..., Any]) -> dict[str, Any]:
    return {"q": quantize(case["x"], case["scale"], case["zero_point"], bits=case["bits"])}


def judge(case: dict[str, Any], record: Record) -> None:
    read = expect.tensor(record["q"], shape=case["x"].shape, dtype=torch.uint8, what="q")
    q = read.double()
    exact = (case["x"].double() / case["scale"] + case["zero_point"]).clamp(0, 2 ** case["bits"] - 1)
    nearest = (q - exact).abs() < 0.501
    expect.close(q, torch.where(nearest, q, exact.round()), what="q")


def by_formula(x: Tensor, scale: float, zero_point: int, *, bits: int) -> Tensor:
    q = (x / scale).round() + zero_point
    return q.clamp(0, 2**bits - 1).to(torch.uint8)


def by_loop(x: Tensor, scale: float, zero_point: int, *, bits: int) -> Tensor:
    q = [min(max(round(value / scale) + zero_point, 0), 2**bits - 1) for value in x.flatten().tolist()]
    return torch.tensor(q, dtype=torch.uint8).view(x.shape)


def by_reciprocal(x: Tensor, scale: float, zero_point: int, *, bits: int) -> Tensor:
    shifted = x * (1 / scale) + (zero_point + 0.5)  # floor(… + 0.5) rounds halves up
    return torch.minimum(torch.maximum(shifted.floor(), torch.tensor(0)), torch.tensor(2**bits - 1)).byte()


def _stored(q: Tensor, bits: int) -> Tensor:
    return q.clamp(0, 2**bits - 1).to(torch.uint8)


def _cast(q: Tensor) -> Tensor:
    """What a cast to uint8 does on every processor: the lowest eight bits stay."""
    return q.to(torch.int64).to(torch.uint8)


@mistake(
    "casts before it clamps",
    says="your q at {where} is {yours} and should be {wanted}: uint8 wraps round, 256 becomes 0 and -1 "
    "becomes 255, and then there is nothing left to clamp; clamp first, cast last",
)
def cast_first(x: Tensor, scale: float, zero_point: int, *, bits: int) -> Tensor:
    return _cast((x / scale).round() + zero_point).clamp(0, 2**bits - 1)


@mistake(
    "does not clamp",
    says="your q at {where} is {yours} and should be {wanted}: values beyond the range become its end, 0 or "
    "2**bits - 1; a cast alone does not do that",
)
def not_clamped(x: Tensor, scale: float, zero_point: int, *, bits: int) -> Tensor:
    return _cast((x / scale).round() + zero_point)


@mistake(
    "cuts the fraction off",
    says="your q at {where} is {yours} and should be {wanted}: a cast to integers cuts towards zero, which "
    "is wrong by up to a whole step; round() is wrong by half a step at most",
)
def cut_off(x: Tensor, scale: float, zero_point: int, *, bits: int) -> Tensor:
    return _stored((x / scale).to(torch.int32) + zero_point, bits)


@mistake(
    "rounds down",
    says="your q at {where} is {yours} and should be {wanted}: floor and // always go down, so all values "
    "shrink by half a step on average; take the nearest integer",
)
def rounds_down(x: Tensor, scale: float, zero_point: int, *, bits: int) -> Tensor:
    return _stored((x / scale).floor() + zero_point, bits)


@mistake(
    "forgets the zero point",
    says="your q at {where} is {yours} and should be {wanted}: without the zero point all that is negative "
    "becomes 0; add it after rounding",
)
def no_zero_point(x: Tensor, scale: float, zero_point: int, *, bits: int) -> Tensor:
    return _stored((x / scale).round(), bits)


@mistake(
    "subtracts the zero point",
    says="your q at {where} is {yours} and should be {wanted}: the zero point is where 0.0 lands, so x = 0 "
    "gives q = zero_point: add it here, subtract it on the way back",
)
def subtracts(x: Tensor, scale: float, zero_point: int, *, bits: int) -> Tensor:
    return _stored((x / scale).round() - zero_point, bits)


@mistake(
    "adds the zero point to x",
    says="your q at {where} is {yours} and should be {wanted}: the zero point counts steps, x does not; "
    "divide by the scale first, then both are steps",
)
def before_dividing(x: Tensor, scale: float, zero_point: int, *, bits: int) -> Tensor:
    return _stored(((x + zero_point) / scale).round(), bits)


@mistake(
    "adds the zero point after the clamp",
    says="your q at {where} is {yours} and should be {wanted}: you clamp x / scale, which loses all that is "
    "negative, and what you add then may leave the range again; add first, clamp second",
)
def after_the_clamp(x: Tensor, scale: float, zero_point: int, *, bits: int) -> Tensor:
    return _cast((x / scale).round().clamp(0, 2**bits - 1) + zero_point)


@mistake(
    "multiplies by the scale",
    says="your q at {where} is {yours} and should be {wanted}: the scale is the width of a step, and "
    "how many steps fit into x is x / scale",
)
def multiplies(x: Tensor, scale: float, zero_point: int, *, bits: int) -> Tensor:
    return _stored((x * scale).round() + zero_point, bits)


@mistake(
    "clamps to 2**bits",
    says="your q at {where} is {yours} and should be {wanted}: counted from 0, the last of 2**bits integers "
    "is 2**bits - 1; at 8 bits, 256 wraps round to 0",
)
def one_too_many(x: Tensor, scale: float, zero_point: int, *, bits: int) -> Tensor:
    return _cast(((x / scale).round() + zero_point).clamp(0, 2**bits))


@mistake(
    "clamps to the signed range",
    says="your q at {where} is {yours} and should be {wanted}: -2**(bits-1) … 2**(bits-1) - 1 are the signed "
    "integers; this grid is unsigned, 0 … 2**bits - 1",
)
def signed_range(x: Tensor, scale: float, zero_point: int, *, bits: int) -> Tensor:
    q = (x / scale).round() + zero_point
    return _cast(q.clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1))


@mistake(
    "returns floats",
    says="your q holds whole numbers, but as floats, four bytes each: nothing is saved before the cast, "
    ".to(torch.uint8)",
)
def floats(x: Tensor, scale: float, zero_point: int, *, bits: int) -> Tensor:
    return ((x / scale).round() + zero_point).clamp(0, 2**bits - 1)


@mistake(
    "goes all the way back",
    says="you return scale * (q - zero_point), the numbers that the integers stand for; that is the next "
    "step: return the integers q",
)
def dequantized(x: Tensor, scale: float, zero_point: int, *, bits: int) -> Tensor:
    return scale * (floats.answer(x, scale, zero_point, bits=bits) - zero_point)


EXERCISE = Exercise(
    name="quantize",
    points=2,
    minutes=6,
    difficulty=1,
    statement="quantize(x, scale, zero_point, bits) gives each x the nearest of the integers 0 … 2**bits - "
    "1.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_formula, by_loop, by_reciprocal),
    mistakes=(
        cast_first,
        not_clamped,
        cut_off,
        rounds_down,
        no_zero_point,
        subtracts,
        before_dividing,
        after_the_clamp,
        multiplies,
        one_too_many,
        signed_range,
        floats,
        dequantized,
    ),
    hints=(
        Hint(
            "I do not know where to begin",
            "Take one number: 0.26 with steps of 0.1. How many whole steps from zero is it? And which "
            "integer is that, when the integer of zero is 51?",
        ),
        Hint(
            "large values come out small, or negative ones large",
            "Four things, in this order: divide and round, add the zero point, clamp to 0 … 2**bits - 1, "
            "cast. All but the cast happen in floats, where nothing wraps round.",
        ),
        Hint(
            "I am off by one here and there",
            "q = (x / scale).______() + zero_point; then q.clamp(0, ________), then .to(torch.uint8).",
        ),
    ),
)
