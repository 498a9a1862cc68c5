"""Two integers in a byte: cutting them apart, and giving each its sign back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    def drawn(*nibbles: int) -> Tensor:
        """The bytes that hold these numbers, 0 … 15, in an order of their own."""
        order = torch.randperm(len(nibbles), generator=rng)
        low, high = torch.tensor(nibbles)[order].view(-1, 2).unbind(1)
        return (low + 16 * high).to(torch.uint8)

    every = torch.randperm(256, generator=rng).to(torch.uint8)
    first = int(torch.randint(0, 7, (), generator=rng))
    yield "one byte, 1 and then -2", {"packed": torch.tensor([0xE1], dtype=torch.uint8), "count": 2}
    yield "numbers from 0 to 7", {"packed": drawn(first, first + 1, 7, 0, 3, 5), "count": 6}
    yield "numbers below zero", {"packed": drawn(8, 9, 11, 12, 14, 15), "count": 6}
    yield "the ends: -8 and 7", {"packed": drawn(8, 7, 8, 7, 8, 7, 8, 7), "count": 8}
    yield "an odd count", {"packed": every[:4], "count": 7}
    yield "one number in one byte", {"packed": every[4:5], "count": 1}
    yield "every byte there is", {"packed": every, "count": 512}


def probe(case: dict[str, Any], unpack_int4: Callable[..., Any]) -> dict[str, Any]:
    return {"integers": unpack_int4(case["packed"], count=case["count"])}


def judge(case: dict[str, Any], record: Record) -> None:
    count = case["count"]
    integers = expect.tensor(record["integers"], shape=(count,), dtype=torch.int8)
    whole = int.from_bytes(case["packed"].numpy().tobytes(), "little")  # integer i begins at bit 4 i
    digits = [whole // 16**i % 16 for i in range(count)]
    expect.close(integers, torch.tensor([digit - 16 * (digit // 8) for digit in digits]), what="the integer")


def by_shifting(packed: Tensor, *, count: int) -> Tensor:
    low, high = packed & 0b1111, packed >> 4
    nibbles = torch.stack([low, high], dim=1).flatten()[:count].to(torch.int8)
    return torch.where(nibbles < 8, nibbles, nibbles - 16)


def by_sign_extension(packed: Tensor, *, count: int) -> Tensor:
    signed = packed.view(torch.int8)  # a signed shift to the right repeats the sign bit
    return torch.stack([(signed << 4) >> 4, signed >> 4], dim=-1).reshape(-1)[:count]


def by_loop(packed: Tensor, *, count: int) -> Tensor:
    integers = []
    for byte in packed.tolist():
        for nibble in (byte % 16, byte // 16):
            integers.append((nibble + 8) % 16 - 8)
    return torch.tensor(integers[:count], dtype=torch.int8)


def _nibbles(packed: Tensor, count: int) -> Tensor:
    return torch.stack([packed & 15, packed >> 4], dim=1).flatten()[:count].to(torch.int8)


def _signed(nibbles: Tensor) -> Tensor:
    return torch.where(nibbles > 7, nibbles - 16, nibbles)


@mistake(
    "swaps the nibbles",
    says="the integer at {where} is {wanted} and yours is {yours}, its neighbour in the byte: "
    "the low nibble (byte & 15) comes first",
)
def swapped(packed, *, count):
    return _signed(torch.stack([packed >> 4, packed & 15], dim=1).flatten()[:count].to(torch.int8))


@mistake(
    "loses the sign",
    says="the integer at {where} is {wanted} and yours is {yours}: four bits 1000 … 1111 stand for -8 … -1, "
    "so from 8 on subtract 16",
)
def unsigned(packed, *, count):
    return _nibbles(packed, count)


@mistake(
    "keeps the last, empty half",
    says="you return one integer too many: with an odd count the last high nibble only fills the byte up; "
    "keep the first count integers",
)
def with_padding(packed, *, count):
    return _signed(_nibbles(packed, 2 * len(packed)))


@mistake(
    "subtracts 8 from each",
    says="the integer at {where} is {wanted} and yours is {yours}: nibble - 8 undoes an offset, but these "
    "are in two's complement: 0 … 7 stay, 8 … 15 become -8 … -1",
)
def offset(packed, *, count):
    return _nibbles(packed, count) - 8


@mistake(
    "takes the highest bit for a minus sign",
    says="the integer at {where} is {wanted} and yours is {yours}: in two's complement the highest bit "
    "counts -8 and the other three are added to that, so 1111 is -8 + 7 = -1",
)
def sign_and_magnitude(packed, *, count):
    nibbles = _nibbles(packed, count)
    return torch.where(nibbles > 7, -(nibbles & 7), nibbles)


@mistake(
    "takes -8 for +8",
    says="the integer at {where} is {wanted} and yours is {yours}: four signed bits end at 7; "
    "the pattern 1000 is already negative",
)
def eight_is_positive(packed, *, count):
    nibbles = _nibbles(packed, count)
    return torch.where(nibbles > 8, nibbles - 16, nibbles)


@mistake(
    "returns all low nibbles, then all high ones",
    says="the integer at {where} is {wanted} and yours is {yours}: low and high nibbles take turns; "
    "stack the two along a new last dimension before you flatten",
)
def concatenated(packed, *, count):
    return _signed(torch.cat([packed & 15, packed >> 4])[:count].to(torch.int8))


@mistake(
    "stays in uint8",
    says="your integers are uint8, which has no minus: -1 comes out as 255; go to int8 before you subtract",
)
def stays_unsigned(packed, *, count):
    nibbles = torch.stack([packed & 15, packed >> 4], dim=1).flatten()[:count]
    return torch.where(nibbles > 7, nibbles - 16, nibbles)


EXERCISE = Exercise(
    name="unpack_int4",
    points=2,
    minutes=10,
    difficulty=2,
    statement="unpack_int4(packed, count=…) reads two signed integers of four bits from each byte.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_shifting, by_sign_extension, by_loop),
    mistakes=(
        swapped,
        unsigned,
        with_padding,
        offset,
        sign_and_magnitude,
        eight_is_positive,
        concatenated,
        stays_unsigned,
    ),
    hints=(
        Hint(
            "I do not know how to cut a byte in two",
            "byte & 15 keeps the lowest four bits, byte >> 4 moves the highest four down to their place. "
            "Try both on 0xE1 = 225.",
        ),
        Hint(
            "the numbers are right, and stand in the wrong places",
            "low and high are (m,) each; integer 2 j is low[j] and integer 2 j + 1 is high[j]. Stacked to "
            "(m, 2) and flattened they take turns; the first count of the 2 m are asked for.",
        ),
        Hint(
            "I get 15 for -1",
            "nibbles = nibbles.to(torch.int8); torch.where(nibbles < ____, nibbles, nibbles - ____)",
        ),
    ),
)
