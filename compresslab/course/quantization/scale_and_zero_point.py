"""The affine grid of a range: how wide one step is, and which integer stands for 0.0.

Source: Jacob et al. 2018, arXiv:1712.05877, section 2.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]

Grid = tuple[float, int]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """No zero point lies near a half, so that all ways to round agree."""

    def drawn(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=rng))

    def around_zero(bits: int, part: float, size: float = 1.0) -> dict[str, Any]:
        """Low lies a whole number of steps and this part of one below zero."""
        levels, scale = 2**bits - 1, drawn(0.01, 0.05) * size
        below = int(torch.randint(1, levels - 1, (), generator=rng)) + part
        return {"low": -below * scale, "high": (levels - below) * scale, "bits": bits}

    near, far = drawn(0.5, 2.0), drawn(3.0, 5.0)
    yield "zero inside, 8 bits", around_zero(8, drawn(0.6, 0.9))
    yield "zero inside, 4 bits", around_zero(4, drawn(0.1, 0.4))
    yield "zero inside, 2 bits", around_zero(2, drawn(0.6, 0.9))
    yield "all positive", {"low": near, "high": far, "bits": 8}
    yield "all negative", {"low": -far, "high": -near, "bits": 8}
    yield "low is 0, as after a ReLU", {"low": 0.0, "high": far, "bits": 8}
    yield "high is 0", {"low": -far, "high": 0.0, "bits": 4}
    yield "one value, which is not 0", {"low": near, "high": near, "bits": 8}
    yield "nothing but zeros", {"low": 0.0, "high": 0.0, "bits": 8}
    yield "a narrow range", around_zero(8, drawn(0.6, 0.9), size=1e-3)


def probe(case: dict[str, Any], scale_and_zero_point: Callable[..., Any]) -> dict[str, Any]:
    return {"grid": scale_and_zero_point(case["low"], case["high"], bits=case["bits"])}


def judge(case: dict[str, Any], record: Record) -> None:
    came = expect.came(record["grid"])
    expect.true(record["grid"].type == "tuple", f"the answer is a tuple (scale, zero_point); yours is {came}")
    first, second = expect.parts(record["grid"], count=2)
    scale = expect.number(first, what="the scale")
    zero_point = expect.whole_number(second, what="the zero point")
    levels = 2 ** case["bits"] - 1
    expect.true(
        0 <= zero_point <= levels,
        f"the zero point is one of the integers 0 … {levels}; yours is {zero_point}",
        zero_point=zero_point,
        levels=levels,
    )
    low, high = min(case["low"], 0.0), max(case["high"], 0.0)
    wanted = (high - low) / levels if high > low else 1.0
    expect.close(scale, wanted, tolerance=1e-4 * min(wanted, 1.0), what="the scale")
    below = -low / wanted
    expect.true(
        abs(zero_point - below) < 0.5001,
        f"zero lies {below:.2f} steps above the low end, so the zero point is the whole number nearest to "
        f"that; yours is {zero_point}",
        yours=zero_point,
        wanted=f"{below:.2f}",
    )


def by_formula(low: float, high: float, *, bits: int) -> Grid:
    levels = 2**bits - 1
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return 1.0, 0
    scale = (high - low) / levels
    return scale, min(max(round(-low / scale), 0), levels)


def by_tensor(low: float, high: float, *, bits: int) -> Grid:
    ends = torch.tensor([low, 0.0, high])
    width = ends.max() - ends.min()
    scale = torch.where(width > 0, width / (2**bits - 1), torch.ones(()))
    return scale.item(), int((-ends.min() / scale).round().clamp(0, 2**bits - 1))


def by_search(low: float, high: float, *, bits: int) -> Grid:
    integers = range(2**bits)
    ends = sorted([low, 0.0, high])
    scale = (ends[2] - ends[0]) / integers[-1] or 1.0
    return scale, min(integers, key=lambda zero_point: abs(ends[0] + zero_point * scale))


def _wide(low: float, high: float, levels: int) -> tuple[float, float]:
    """The widened low end, and the scale of so many steps."""
    low, high = min(low, 0.0), max(high, 0.0)
    return low, (high - low) / levels or 1.0


def _clamped(zero_point: int, bits: int) -> int:
    return min(max(zero_point, 0), 2**bits - 1)


@mistake(
    "divides by 2**bits",
    says="your scale is {yours} and should be {wanted}: 2**bits integers are the posts of a fence with "
    "2**bits - 1 steps between them",
)
def posts(low: float, high: float, *, bits: int) -> Grid:
    low, scale = _wide(low, high, 2**bits)
    return scale, _clamped(round(-low / scale), bits)


@mistake(
    "does not widen the range to zero",
    says="your scale is {yours} and should be {wanted}: a range without zero leaves no integer for 0.0, and "
    "padding is 0.0; first low = min(low, 0) and high = max(high, 0)",
)
def not_widened(low: float, high: float, *, bits: int) -> Grid:
    scale = (high - low) / (2**bits - 1) or 1.0
    return scale, _clamped(round(-low / scale), bits)


@mistake(
    "widens the range downwards only",
    says="your scale is {yours} and should be {wanted}: you move low down to zero where it lies above; "
    "high has to come up to zero too where all values are negative",
)
def widened_down(low: float, high: float, *, bits: int) -> Grid:
    low = min(low, 0.0)
    scale = (high - low) / (2**bits - 1) or 1.0
    return scale, _clamped(round(-low / scale), bits)


@mistake(
    "does not clamp the zero point",
    says="your zero point is {zero_point}, which is none of the integers 0 … {levels}: it has to be stored "
    "as one of them; widen the range until it contains zero, and clamp what is left of rounding",
)
def not_clamped(low: float, high: float, *, bits: int) -> Grid:
    scale = (high - low) / (2**bits - 1) or 1.0
    return scale, round(-low / scale)


@mistake(
    "leaves the zero point unrounded",
    says="your zero point is a number with a fraction: then 0.0 falls between two integers and comes back as "
    "something else; round it",
)
def unrounded(low: float, high: float, *, bits: int) -> tuple[float, float]:
    low, scale = _wide(low, high, 2**bits - 1)
    return scale, -low / scale


@mistake(
    "cuts the fraction off",
    says="your zero point is {yours}, cut off from {wanted}: int() drops the fraction; round() takes the "
    "nearest integer and halves the worst error",
)
def cut_off(low: float, high: float, *, bits: int) -> Grid:
    low, scale = _wide(low, high, 2**bits - 1)
    return scale, _clamped(int(-low / scale), bits)


@mistake(
    "turns the zero point's sign round",
    says="your zero point is {zero_point}: it counts the steps from low up to zero, that is 0 - low, "
    "so the minus sign belongs there: -low / scale",
)
def signed(low: float, high: float, *, bits: int) -> Grid:
    low, scale = _wide(low, high, 2**bits - 1)
    return scale, round(low / scale)


@mistake(
    "counts the zero point down from high",
    says="your zero point is {yours} and should be near {wanted}: you count the steps from zero to high, but "
    "integer 0 stands for low, so count from low to zero",
)
def from_high(low: float, high: float, *, bits: int) -> Grid:
    _, scale = _wide(low, high, 2**bits - 1)
    return scale, _clamped(round(max(high, 0.0) / scale), bits)


@mistake(
    "makes the grid symmetric",
    says="your scale is {yours} and should be {wanted}: the larger of |low| and |high| spans the grid of "
    "signed integers; here low is integer 0 and high the last one, so the width high - low counts",
)
def symmetric(low: float, high: float, *, bits: int) -> Grid:
    return max(abs(low), abs(high)) / (2 ** (bits - 1) - 1) or 1.0, 0


@mistake(
    "divides by a width of zero",
    says="your function divides by zero: where all values are 0 the width is 0, and so is the scale; "
    "let the scale be 1 there, and 0.0 stays 0.0",
)
def unguarded(low: float, high: float, *, bits: int) -> Grid:
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / (2**bits - 1)
    return scale, _clamped(round(-low / scale), bits)


EXERCISE = Exercise(
    name="scale_and_zero_point",
    points=2,
    minutes=8,
    difficulty=2,
    statement="scale_and_zero_point(low, high, bits) lays 2**bits integers over a range in which 0.0 is "
    "exact.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_formula, by_tensor, by_search),
    mistakes=(
        posts,
        not_widened,
        widened_down,
        not_clamped,
        unrounded,
        cut_off,
        signed,
        from_high,
        symmetric,
        unguarded,
    ),
    hints=(
        Hint(
            "I do not know what the two numbers are for",
            "The integer 0 stands for the low end, the integer 2**bits - 1 for the high end. The scale is "
            "the distance from one integer to the next; the zero point is the integer on which 0.0 falls.",
        ),
        Hint(
            "it works for a range with both signs and fails elsewhere",
            "First low = min(low, 0), high = max(high, 0). Then scale = (high - low) / (2**bits - 1), or 1 "
            "where low = high = 0; zero_point = -low / scale, rounded, within 0 … 2**bits - 1.",
        ),
        Hint(
            "the scale is right and the zero point is not",
            "zero_point = min(max(round(____ / scale), 0), 2**bits - 1): how many steps is it from low to 0?",
        ),
    ),
)
