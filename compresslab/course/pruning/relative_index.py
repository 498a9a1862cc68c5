"""A sparse vector as a list of gaps: how many zeros come before each entry, in a few bits.

Source: Han, Mao and Dally 2015, "Deep compression", arXiv:1510.00149, figure 2. Paper: the difference of two
places, at least 1; here: the zeros between them, one less, so that each pattern of bits is of use.
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

Code = tuple[Tensor, Tensor]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """Vectors given by the zeros before each of their values, and after the last."""

    def vector(*gaps: int, tail: int = 0) -> Tensor:
        values = torch.zeros(sum(gaps) + len(gaps) + tail, dtype=torch.float64)
        places = (torch.tensor(gaps) + 1).cumsum(0) - 1
        size = 0.1 + torch.rand(len(gaps), generator=rng, dtype=torch.float64)
        values[places] = torch.where(torch.rand(len(gaps), generator=rng) < 0.5, -size, size)
        return values

    def any_gap(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=rng))

    yield "no gap is too long", {"values": vector(2, 0, any_gap(1, 7), 1, 0, 3), "bits": 3}
    yield "one gap is too long", {"values": vector(1, any_gap(9, 14), 0, 2), "bits": 3}
    yield "the longest gap that fits, twice", {"values": vector(15, 2, 15, tail=1), "bits": 4}
    yield "one zero more", {"values": vector(2, 16, 1), "bits": 4}
    yield "a gap of many codes", {"values": vector(0, any_gap(33, 38), 3), "bits": 3}
    yield "zeros at the end", {"values": vector(1, 4, tail=any_gap(17, 30)), "bits": 3}
    signs = vector(1, 0, 2, 1)
    signs[[1, 2, 5]] = torch.tensor([-0.7, 1e-12, -2e-9], dtype=torch.float64)
    signs[0] = -0.0
    yield "negative, tiny, and -0.0, which is a zero", {"values": signs, "bits": 2}
    yield "nothing is zero", {"values": vector(0, 0, 0, 0), "bits": 4}
    yield "all zero", {"values": torch.zeros(any_gap(20, 40), dtype=torch.float64), "bits": 4}
    yield "one bit", {"values": vector(0, 1, 2, any_gap(3, 6), 0), "bits": 1}
    yield "8 bits, float32", {"values": vector(3, any_gap(100, 250), 254).float(), "bits": 8}
    sparse = vector(*torch.randint(0, 40, (12,), generator=rng).tolist(), tail=5)
    yield "any gaps", {"values": sparse, "bits": any_gap(2, 5)}


def probe(case: dict[str, Any], relative_index: Callable[..., Any]) -> dict[str, Any]:
    return {"code": relative_index(case["values"], bits=case["bits"])}


def judge(case: dict[str, Any], record: Record) -> None:
    """Decodes: each code skips its gap and puts its value. Then no shorter code may do the same."""
    both = expect.parts(record["code"], count=2)
    dtypes = {"gaps, of two entries the first,": torch.uint8}
    dtypes["values, of two entries the second,"] = case["values"].dtype
    gaps, stored = (
        expect.tensor(value, shape=value.shape[:1], dtype=dtype, what=what)
        for value, (what, dtype) in zip(both, dtypes.items(), strict=True)
    )
    lengths = f"{len(gaps)} gaps and {len(stored)} values do not go together"
    expect.true(len(gaps) == len(stored), lengths, gaps=len(gaps), values=len(stored))
    largest = 2 ** case["bits"] - 1
    high = int(gaps.max()) if len(gaps) else 0
    fits = f"a gap of {case['bits']} bits is at most {largest}; yours has {high}"
    expect.true(high <= largest, fits, high=high, largest=largest)
    places = (gaps.long() + 1).cumsum(0) - 1
    decoded = _spread(places, stored, at_least=len(case["values"]))
    wanted = _spread(torch.arange(len(case["values"])), case["values"], at_least=len(decoded))
    expect.close(decoded, wanted, tolerance=0.0, what="the decoded vector")
    fewest = _fewest(case["values"].tolist(), largest)
    count = f"{fewest} codes are enough for this vector; yours has {len(gaps)}"
    expect.true(len(gaps) == fewest, count, codes=len(gaps), fewest=fewest)


def _spread(places: Tensor, values: Tensor, *, at_least: int) -> Tensor:
    """Zeros, with the values at their places; longer than asked for where a place lies beyond."""
    size = max(at_least, *(int(places[-1:].max()) + 1 for _ in places[-1:]), 0)
    return torch.zeros(size, dtype=values.dtype).index_put((places,), values)


def _fewest(values: list[float], largest: int) -> int:
    """One code for each value, and one for each run of largest + 1 zeros in front of it."""
    count = zeros = 0
    for value in values:
        zeros += 1
        if value:
            count, zeros = count + 1 + (zeros - 1) // (largest + 1), 0
    return count


def by_places(values: Tensor, *, bits: int) -> Code:
    largest = 2**bits - 1
    gaps, stored, previous = [], [], -1
    for place in values.nonzero().flatten().tolist():
        gap = place - previous - 1  # the zeros between the two
        while gap > largest:
            gaps.append(largest)
            stored.append(0.0)
            gap -= largest + 1  # the filler takes a place itself
        gaps.append(gap)
        stored.append(values[place].item())
        previous = place
    return torch.tensor(gaps, dtype=torch.uint8), torch.tensor(stored, dtype=values.dtype)


def by_repeating(values: Tensor, *, bits: int) -> Code:
    places = values.nonzero().flatten()
    gaps = torch.diff(places, prepend=torch.tensor([-1])) - 1
    own = (gaps // 2**bits + 1).cumsum(0) - 1  # where each value's own code stands, after its fillers
    total = int(own[-1]) + 1 if len(own) else 0
    codes = torch.full((total,), 2**bits - 1)
    codes[own] = gaps % 2**bits
    return codes.to(torch.uint8), values.new_zeros(total).index_put((own,), values[places])


def by_walking(values: Tensor, *, bits: int) -> Code:
    code: list[tuple[int, float]] = []
    zeros = needed = 0
    for value in values.tolist():
        if value or zeros == 2**bits - 1:
            code.append((zeros, value))
            needed = len(code) if value else needed
            zeros = -1
        zeros += 1
    gaps, stored = ([entry[i] for entry in code[:needed]] for i in range(2))
    return torch.tensor(gaps, dtype=torch.uint8), torch.tensor(stored, dtype=values.dtype)


def _code(
    values: Tensor,
    bits: int,
    *,
    fillers=lambda gap, largest: gap // (largest + 1),
    taken: int = 1,
    first: int = -1,
    step: int = 1,
    filler=lambda value: 0.0,
    kept=torch.Tensor.bool,
    fit=torch.clone,
) -> Code:
    """Right as it stands; many a mistake is one of its parts replaced."""
    largest, previous = 2**bits - 1, first
    gaps, stored = [], []
    for place in kept(values).nonzero().flatten().tolist():
        gap = place - previous - step
        count = fillers(gap, largest)
        value = values[place].item()
        gaps += [largest] * count + [gap - count * (largest + taken)]
        stored += [filler(value)] * count + [value]
        previous = place
    return fit(torch.tensor(gaps)).to(torch.uint8), torch.tensor(stored, dtype=values.dtype)


def _none(gap: int, largest: int) -> int:
    return 0


too_large = mistake(
    "writes a gap that does not fit",
    says="your gaps go up to {high}, and the largest that fits is {largest}: put a filler, the gap {largest} "
    "with the value 0, as often as it takes",
)(lambda values, *, bits: _code(values, bits, fillers=_none))


overflows = mistake(
    "lets a gap overflow",
    says="the decoded vector at {where} should be {wanted} and is {yours}: a gap that was too long lost its "
    "upper bits, and all that follows moved to the left; put fillers instead",
)(lambda values, *, bits: _code(values, bits, fillers=_none, fit=lambda gaps: gaps % 2**bits))

clamps = mistake(
    "clamps a gap",
    says="the decoded vector at {where} should be {wanted} and is {yours}: you cut a long gap down to the "
    "largest that fits; the zeros that are missing must be skipped by fillers",
)(lambda values, *, bits: _code(values, bits, fillers=_none, fit=lambda gaps: gaps.clamp(max=2**bits - 1)))

filler_takes_no_place = mistake(
    "forgets that a filler takes a place itself",
    says="the decoded vector at {where} should be {wanted} and is {yours}: a filler skips its gap and then "
    "puts a zero, so it moves on by gap + 1 places, 2^bits in all",
)(partial(_code, taken=0, fillers=lambda gap, largest: max(0, gap - 1) // largest))

one_filler = mistake(
    "puts one filler at most",
    says="your gaps go up to {high}, and the largest that fits is {largest}: what is left of a gap after one "
    "filler may still be too long; if should be while",
)(partial(_code, fillers=lambda gap, largest: int(gap > largest)))

one_too_late = mistake(
    "lets a gap of 2^bits pass",
    says="one of your gaps is {high}, and the largest that fits is {largest}: with b bits one counts from 0 "
    "to 2^b - 1, so 2^b itself needs a filler",
)(partial(_code, fillers=lambda gap, largest: max(0, gap - 1) // (largest + 1)))

filler_repeats = mistake(
    "fills with the next value",
    says="the decoded vector at {where} should be {wanted} and is {yours}: the filler put the next value "
    "there; a filler's value is 0",
)(partial(_code, filler=lambda value: value))


@mistake(
    "gives a filler no value",
    says="you have {gaps} gaps and {values} values: a filler is a code like any other, with a value, 0",
)
def filler_without_value(values, *, bits):
    return _code(values, bits)[0], values[values != 0]


differences = mistake(
    "takes the difference of two places",
    says="the decoded vector at {where} should be {wanted} and is {yours}: two neighbours have no zero "
    "between them, so their gap is 0; it is the difference of their places less 1",
)(partial(_code, first=0, step=0))

counts_from_one = mistake(
    "counts gaps from 1",
    says="the decoded vector at {where} should be {wanted} and is {yours}: each of your gaps is one too "
    "long, the first as well; a gap counts the zeros that are skipped, and none is 0",
)(partial(_code, step=0))

starts_at_zero = mistake(
    "starts at place 0",
    says="the decoded vector at {where} should be {wanted} and is {yours}: all is shifted, because your "
    "first gap is one too short; nothing is stored at place 0 yet, so begin at -1",
)(partial(_code, first=0))


@mistake(
    "codes the zeros at the end",
    says="you use {codes} codes and {fewest} are enough: after the last value there is nothing left to say, "
    "the shape of the tensor is kept elsewhere",
)
def trailing_zeros(values, *, bits):
    gaps, stored = by_places(values, bits=bits)
    places = values.nonzero().flatten().tolist()
    more = (len(values) - 1 - (places[-1] if places else -1)) // 2**bits
    fill = torch.full((more,), 2**bits - 1, dtype=torch.uint8)
    return torch.cat([gaps, fill]), torch.cat([stored, stored.new_zeros(more)])


positive_only = mistake(
    "stores positive values only",
    says="the decoded vector at {where} should be {wanted} and is {yours}: weights are negative half of the "
    "time; what is stored is all that is not 0",
)(partial(_code, kept=lambda values: values > 0))

no_tiny_ones = mistake(
    "takes tiny values for zeros",
    says="the decoded vector at {where} should be {wanted} and is {yours}: tiny is not zero, and what is "
    "written to a file comes back as it was; leave it to the pruning to make zeros",
)(partial(_code, kept=lambda values: values.abs() > 1e-6))


@mistake(
    "leaves gaps in 8 bytes each",
    says="your gaps are int64, the type of every index in PyTorch: 8 bytes for a number of a few bits; make "
    "them uint8",
)
def wide_gaps(values, *, bits):
    gaps, stored = by_places(values, bits=bits)
    return gaps.long(), stored


@mistake(
    "loses the dtype",
    says="your values are float32 whatever came: torch.tensor of a list of floats is; say dtype=values.dtype",
)
def loses_dtype(values, *, bits):
    gaps, stored = by_places(values, bits=bits)
    return gaps, stored.float()


EXERCISE = Exercise(
    name="relative_index",
    points=3,
    minutes=15,
    difficulty=3,
    bonus=True,
    statement="relative_index(values, bits=…) codes a sparse vector as short gaps and the values after them.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_places, by_repeating, by_walking),
    mistakes=(
        too_large,
        overflows,
        clamps,
        filler_takes_no_place,
        one_filler,
        one_too_late,
        filler_repeats,
        filler_without_value,
        differences,
        counts_from_one,
        starts_at_zero,
        trailing_zeros,
        positive_only,
        no_tiny_ones,
        wide_gaps,
        loses_dtype,
    ),
    hints=(
        Hint(
            "the decoded vector is shifted",
            "Decode by hand: begin at place -1; a code moves on by its gap + 1 and puts its value there. Two "
            "neighbours have the gap 0, and a value at place 0 has the gap 0 too.",
        ),
        Hint(
            "a gap is larger than its bits can say",
            "With b bits the largest gap is 2^b - 1. A filler (2^b - 1, 0.0) moves on by 2^b places and "
            "leaves a gap that is shorter by 2^b; it goes into both lists, and may be needed again.",
        ),
        Hint(
            "right until the first filler",
            "while gap > largest: gaps.append(largest); stored.append(0.0); gap -= ________",
        ),
    ),
)
