"""Peak activation memory of a chain: while a layer runs, its input and its output are both there."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]

Shapes = Sequence[tuple[int, ...]]


def cases(rng: torch.Generator) -> Iterator[Case]:
    def size() -> int:
        return int(torch.randint(2, 7, (), generator=rng))

    c, h, w = size(), size(), size()

    def chain(*widths: int, **settings: int) -> dict[str, Any]:
        return {"shapes": [(width * c, h, w) for width in widths], "settings": settings}

    yield "the two largest never meet", chain(1, 6, 2, 7, 1)
    yield "the input is the largest", chain(9, 2, 1)
    yield "the peak comes last", chain(1, 2, 3, 9)
    yield "half precision", chain(2, 5, 4, bytes_per_number=2)
    yield "float64", chain(3, 1, 4, 1, 5, bytes_per_number=8)
    yield "one layer", chain(2, 3)
    yield "no layer at all", chain(4)
    yield "a flattened end", {"shapes": [(1, h, w), (c, h, w), (c * h * w,), (10,)], "settings": {}}
    drawn = [(size(), size(), size()) for _ in range(3 + size())]
    yield "a random chain", {"shapes": drawn, "settings": {"bytes_per_number": 1}}


def probe(case: dict[str, Any], peak_activation_bytes: Callable[..., Any]) -> dict[str, Any]:
    return {"peak": peak_activation_bytes(case["shapes"], **case["settings"])}


def judge(case: dict[str, Any], record: Record) -> None:
    peak = expect.whole_number(record["peak"])
    expect.equal(peak, _simulated(case["shapes"], **case["settings"]), what="the peak in bytes")


def _simulated(shapes: Shapes, bytes_per_number: int = 4) -> int:
    """The highest stand of a counter of living bytes: each activation is born, and dies one layer later."""
    dtype = {1: torch.int8, 2: torch.float16, 4: torch.float32, 8: torch.float64}[bytes_per_number]
    weighed = [torch.empty(shape, dtype=dtype, device="meta").untyped_storage().nbytes() for shape in shapes]
    births = [(2 * step, size) for step, size in enumerate(weighed)]
    deaths = [(2 * step + 3, -size) for step, size in enumerate(weighed)]  # after the next one's birth
    return max(itertools.accumulate(change for _, change in sorted(births + deaths)))


def by_neighbours(shapes: Shapes, *, bytes_per_number: int = 4) -> int:
    sizes = [math.prod(shape) * bytes_per_number for shape in shapes]
    return max((before + after for before, after in itertools.pairwise(sizes)), default=sizes[0])


def by_layers(shapes: Shapes, *, bytes_per_number: int = 4) -> int:
    peak = alive = torch.Size(shapes[0]).numel()
    for shape in shapes[1:]:
        out = torch.Size(shape).numel()
        peak = max(peak, alive + out)
        alive = out
    return peak * bytes_per_number


def _sizes(shapes: Shapes, bytes_per_number: int) -> list[int]:
    return [math.prod(shape) * bytes_per_number for shape in shapes]


@mistake(
    "takes the largest activation alone",
    says="you say {yours}, the largest activation alone; "
    "while a layer writes its output it still reads its input, so both count",
)
def largest(shapes: Shapes, *, bytes_per_number: int = 4) -> int:
    return max(_sizes(shapes, bytes_per_number))


@mistake(
    "adds all activations up",
    says="you say {yours}, all activations together: training keeps them for the backward pass; "
    "running the network forgets each one as soon as the next layer is done with it",
)
def all_of_them(shapes: Shapes, *, bytes_per_number: int = 4) -> int:
    return sum(_sizes(shapes, bytes_per_number))


@mistake(
    "adds the two largest, neighbours or not",
    says="you say {yours}, the two largest activations together; "
    "they are never alive at the same time unless one layer lies between them",
)
def two_largest(shapes: Shapes, *, bytes_per_number: int = 4) -> int:
    return sum(sorted(_sizes(shapes, bytes_per_number))[-2:])


@mistake(
    "looks at the first layer only",
    says="you say {yours}, what the first layer needs; "
    "any layer may be the hungriest, so take the largest over all of them",
)
def first_layer(shapes: Shapes, *, bytes_per_number: int = 4) -> int:
    return sum(_sizes(shapes, bytes_per_number)[:2])


@mistake(
    "looks at the last layer only",
    says="you say {yours}, what the last layer needs: is your peak overwritten in each round of the loop?",
)
def last_layer(shapes: Shapes, *, bytes_per_number: int = 4) -> int:
    return sum(_sizes(shapes, bytes_per_number)[-2:])


@mistake(
    "forgets the network's input",
    says="you say {yours}, without the first layer: "
    "shapes[0], the network's input, lies in memory too while that layer reads it",
)
def without_the_input(shapes: Shapes, *, bytes_per_number: int = 4) -> int:
    sizes = _sizes(shapes, bytes_per_number)
    return max((before + after for before, after in itertools.pairwise(sizes[1:])), default=sizes[-1])


@mistake(
    "counts numbers instead of bytes",
    says="you say {yours}, a count of numbers, and the answer is in bytes ({wanted}): "
    "each number takes bytes_per_number of them",
)
def numbers(shapes: Shapes, *, bytes_per_number: int = 4) -> int:
    return by_neighbours(shapes, bytes_per_number=1)


@mistake(
    "takes four bytes for every number",
    says="you say {yours} and it is {wanted}: not every number is a float32 of 4 bytes, use bytes_per_number",
)
def always_four(shapes: Shapes, *, bytes_per_number: int = 4) -> int:
    return by_neighbours(shapes)


@mistake(
    "says 0 where there is no layer",
    says="you say {yours}, and it is {wanted}: a chain without a layer has no pair to look at, "
    "but its input still lies in memory",
)
def nothing_without_layers(shapes: Shapes, *, bytes_per_number: int = 4) -> int:
    pairs = itertools.pairwise(_sizes(shapes, bytes_per_number))
    return max((before + after for before, after in pairs), default=0)


@mistake(
    "takes max() of no pairs at all",
    says="without a layer there are no pairs, and max() of nothing raises an error: "
    "give it a default, the bytes of the input alone",
)
def no_pairs(shapes: Shapes, *, bytes_per_number: int = 4) -> int:
    return max(before + after for before, after in itertools.pairwise(_sizes(shapes, bytes_per_number)))


EXERCISE = Exercise(
    name="peak_activation_bytes",
    points=2,
    minutes=10,
    difficulty=2,
    statement="peak_activation_bytes(shapes) is the most memory that a chain of layers needs at any moment.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_neighbours, by_layers),
    mistakes=(
        largest,
        all_of_them,
        two_largest,
        first_layer,
        last_layer,
        without_the_input,
        numbers,
        always_four,
        nothing_without_layers,
        no_pairs,
    ),
    hints=(
        Hint(
            "I do not know which activations to add",
            "Stop the network in the middle of one layer. Which tensors must be in memory at that moment, "
            "and which may be forgotten already?",
        ),
        Hint(
            "mine is too small, or too large",
            "peak = max over layers i of bytes(shapes[i]) + bytes(shapes[i + 1]), "
            "bytes(shape) = product of its sizes · bytes_per_number; no layer at all: bytes(shapes[0]).",
        ),
        Hint(
            "it fails where there is no layer at all",
            "return max((a + b for a, b in zip(sizes, sizes[1:])), default=______)",
        ),
    ),
)
