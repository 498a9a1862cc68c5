"""Where two thin layers stop being smaller than the one that they replace."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """Whole break-evens among the others: a layer a · (a + b) by b · (a + b) breaks even at a · b exactly."""

    def more(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=rng))

    def drawn(low: float, high: float) -> dict[str, int]:
        """A layer whose break-even lies so far beyond a whole number."""
        while True:
            outputs, inputs = more(20, 60), more(61, 120)
            if low <= outputs * inputs / (outputs + inputs) % 1 <= high:
                return {"outputs": outputs, "inputs": inputs}

    yield "a break-even that would round down", drawn(0.02, 0.15)
    yield "a break-even that would round up", drawn(0.55, 0.8)
    a, b = more(2, 4), more(5, 7)
    yield "a whole break-even", {"outputs": a * (a + b), "inputs": b * (a + b)}
    side = 2 * more(5, 20)
    yield "square", {"outputs": side, "inputs": side}
    flat = drawn(0.55, 0.8)
    yield "more outputs than inputs", {"outputs": flat["inputs"], "inputs": flat["outputs"]}
    yield "a barely wider layer", {"outputs": 12, "inputs": 13}
    yield "ten classes", {"outputs": 10, "inputs": more(400, 600)}
    yield "one output", {"outputs": 1, "inputs": more(3, 9)}
    yield "two by two", {"outputs": 2, "inputs": 2}
    yield "one weight", {"outputs": 1, "inputs": 1}


def probe(case: dict[str, Any], break_even_rank: Callable[..., Any]) -> dict[str, Any]:
    return {"rank": break_even_rank(case["outputs"], case["inputs"])}


def judge(case: dict[str, Any], record: Record) -> None:
    """The plain loop: how many ranks, one after the other, still save a weight."""
    outputs, inputs = case["outputs"], case["inputs"]
    yours = expect.whole_number(record["rank"])
    wanted = sum(_thin(rank, outputs, inputs) < outputs * inputs for rank in range(1, inputs + 1))
    thin, better = (f"{_thin(rank, outputs, inputs):,}" for rank in (yours, wanted))
    whole = f"{outputs * inputs:,}"
    expect.true(
        yours == wanted,
        f"of a ({outputs}, {inputs}) layer with {whole} weights the rank is {wanted}, which makes {better}; "
        f"yours is {yours}, which makes {thin}",
        yours=yours,
        wanted=wanted,
        where=f"({outputs}, {inputs})",
        whole=whole,
        thin=thin,
        better=better,
    )


def _thin(rank: int, outputs: int, inputs: int) -> int:
    """The weights of the two layers."""
    return outputs * rank + rank * inputs


def by_division(outputs: int, inputs: int) -> int:
    return (outputs * inputs - 1) // (outputs + inputs)


def by_counting(outputs: int, inputs: int) -> int:
    rank = 0
    while (rank + 1) * (outputs + inputs) < outputs * inputs:
        rank += 1
    return rank


def by_ceiling(outputs: int, inputs: int) -> int:
    return math.ceil(outputs * inputs / (outputs + inputs)) - 1


@mistake(
    "counts the break-even itself",
    says="of {where} the rank is {wanted} and yours is {yours}, which has {thin} weights, as many as the "
    "whole layer: even is not fewer, and there are two layers to run now",
)
def even_counts(outputs, inputs):
    return outputs * inputs // (outputs + inputs)


@mistake(
    "rounds up",
    says="of {where} the rank is {wanted} and yours is {yours}: the next whole rank above the break-even "
    "has {thin} weights, and the whole layer {whole}",
)
def rounded_up(outputs, inputs):
    return math.ceil(outputs * inputs / (outputs + inputs))


@mistake(
    "rounds to the nearest",
    says="of {where} the rank is {wanted} and yours is {yours}, with {thin} weights for {whole}: round() "
    "goes up from a half on, and up is too large; a rank must stay below the break-even",
)
def rounded(outputs, inputs):
    return round(outputs * inputs / (outputs + inputs))


@mistake(
    "takes half of the shorter side",
    says="of {where} the rank is {wanted} and yours is {yours}: half the rank breaks even in a square layer "
    "alone; count the weights, r · out and r · in",
)
def half(outputs, inputs):
    return min(outputs, inputs) // 2


@mistake(
    "stays below half of the shorter side",
    says="of {where} the rank is {wanted} and yours is {yours}: you stayed below half of the shorter side, "
    "which is right for square layers; the longer the other side, the more ranks save something",
)
def below_half(outputs, inputs):
    return (min(outputs, inputs) - 1) // 2


@mistake(
    "ignores the break-even",
    says="of {where} the rank is {wanted} and yours is {yours}: that is the full rank; its two layers have "
    "{thin} weights, more than the {whole} that they replace",
)
def full_rank(outputs, inputs):
    return min(outputs, inputs)


@mistake(
    "multiplies where it should add",
    says="of {where} the rank is {wanted} and yours is {yours}: the two layers have r · in and r · out "
    "weights, which add up to r · (in + out)",
)
def multiplied(outputs, inputs):
    return outputs * inputs // (outputs * inputs)


@mistake(
    "counts one of the two layers",
    says="of {where} the rank is {wanted} and yours is {yours}: you counted only the layer on the shorter "
    "side; both must be stored, {thin} weights at this rank, and the whole one has {whole}",
)
def one_layer(outputs, inputs):
    return max(outputs, inputs) - 1


@mistake(
    "counts the singular values too",
    says="of {where} the rank is {wanted} and yours is {yours}: with r singular values more, as if S were "
    "stored by itself, you stop early; S is multiplied into the two layers, which at rank {wanted} have "
    "{better} weights of {whole}",
)
def with_s(outputs, inputs):
    return (outputs * inputs - 1) // (outputs + inputs + 1)


@mistake(
    "takes one off in any case",
    says="of {where} the rank is {wanted} and yours is {yours}: // has rounded down already, and one less "
    "is right only where the division leaves no rest; rank {wanted} has {better} weights, still fewer than "
    "{whole}",
)
def one_less(outputs, inputs):
    return max(0, outputs * inputs // (outputs + inputs) - 1)


@mistake(
    "never answers 0",
    says="of {where} the rank is {wanted} and yours is {yours}: even rank 1 would have {thin} weights for "
    "{whole}; 0 says that this layer is better left whole",
)
def at_least_one(outputs, inputs):
    return max(1, by_division(outputs, inputs))


@mistake(
    "doubles the break-even",
    says="of {where} the rank is {wanted} and yours is {yours}: 2 · out · in / (out + in) is the harmonic "
    "mean of both sides; the 2 is too much, and {thin} weights are more than {whole}",
)
def harmonic_mean(outputs, inputs):
    return (2 * outputs * inputs - 1) // (outputs + inputs)


@mistake(
    "turns the fraction over",
    says="of {where} the rank is {wanted} and yours is {yours}: you divided the sum of the sides by their "
    "product; from r · (out + in) < out · in follows r < out · in / (out + in)",
)
def turned_over(outputs, inputs):
    return (outputs + inputs) // (outputs * inputs)


@mistake(
    "gives the break-even as a float",
    says="you return the break-even itself, a float; a layer has a whole number of outputs in between, so "
    "give the largest int below it",
)
def as_float(outputs, inputs):
    return outputs * inputs / (outputs + inputs)


@mistake(
    "gives a whole number as a float",
    says="your rank is a whole number but a float; nn.Linear takes an int: divide with //, or wrap it in "
    "int()",
)
def float_floor(outputs, inputs):
    return float(by_division(outputs, inputs))


EXERCISE = Exercise(
    name="break_even_rank",
    points=1,
    minutes=5,
    difficulty=1,
    statement="break_even_rank(outputs, inputs) is the largest rank at which two thin layers are the "
    "smaller choice.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_division, by_counting, by_ceiling),
    mistakes=(
        even_counts,
        rounded_up,
        rounded,
        half,
        below_half,
        full_rank,
        multiplied,
        one_layer,
        with_s,
        one_less,
        at_least_one,
        harmonic_mean,
        turned_over,
        as_float,
        float_floor,
    ),
    hints=(
        Hint(
            "the rank is one too large now and then",
            "What if both sides of the inequality come out equal? The two layers must be smaller, not just "
            "as small.",
        ),
        Hint(
            "I do not know what to count",
            "The thin layers are (rank, in) and (out, rank), together rank · (out + in) weights. The whole "
            "layer has out · in. Whole numbers a, b, c: a · b < c is the same as a · b ≤ c - 1.",
        ),
        Hint("only the last step is missing", "return (outputs * inputs - ____) // (outputs + inputs)"),
    ),
)
