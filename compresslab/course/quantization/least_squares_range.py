"""A range chosen by its error: wide ranges round coarsely, narrow ones cut off, one in between does best.

Source: the trade, and other rules for it: Wu et al. 2020, arXiv:2004.09602.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """Candidates come in no order, and some lie beyond the largest sample, where nothing is cut off."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng)

    def tried(samples: Tensor, bits: int, *, count: int = 12, upto: float = 1.3) -> dict[str, Any]:
        shares = (torch.arange(count) + 0.6 + 0.4 * torch.rand(count, generator=rng)) * (upto / count)
        order = torch.randperm(count, generator=rng)
        candidates = (shares * samples.abs().max()).to(samples.dtype)[order]
        return {"samples": samples, "bits": bits, "candidates": candidates}

    outlier = torch.cat([normal(300), torch.tensor([-9.0])])
    few = torch.cat([normal(300), torch.tensor([7.0, -7.5, 8.0])])
    yield "one outlier, 4 bits", tried(outlier, 4)
    yield "a few outliers, 3 bits", tried(few[torch.randperm(303, generator=rng)], 3, count=16)
    yield "2 bits", tried(normal(300), 2, count=20, upto=1.2)
    yield "uniform: nothing is worth cutting", tried(2 * torch.rand(300, generator=rng) - 1, 8)
    yield "all positive, a matrix", tried(normal(20, 15).relu(), 3)
    yield "a range far too wide", tried(normal(200), 2, count=8, upto=8.0)
    yield "large numbers, float64", tried(4.0 * outlier.double(), 4, count=14, upto=1.6)
    yield "one candidate", tried(normal(50), 4, count=1)
    yield "all zero", {"samples": torch.zeros(9), "bits": 4, "candidates": tried(normal(9), 4)["candidates"]}


def probe(case: dict[str, Any], least_squares_range: Callable[..., Any]) -> dict[str, Any]:
    return {"t": least_squares_range(case["samples"], bits=case["bits"], candidates=case["candidates"])}


def judge(case: dict[str, Any], record: Record) -> None:
    """Any candidate will do that no other beats: two may be equally good."""
    yours = expect.number(record["t"], what="the range")
    samples, candidates = case["samples"].float(), case["candidates"].tolist()
    highest = 2 ** (case["bits"] - 1) - 1

    def error(t: float) -> float:
        near = torch.fake_quantize_per_tensor_affine(samples, t / highest, 0, -highest, highest)
        return float((near - samples).double().square().mean())

    best = min(candidates, key=error)
    taken = min(candidates, key=lambda t: abs(t - yours))
    expect.true(
        abs(taken - yours) <= 1e-5 * taken,
        f"the range is one of the candidates; yours, {yours:.4g}, is none of them",
        outside=f"{yours:.4g}",
    )
    expect.true(
        error(taken) <= error(best) * 1.0001,
        f"at t = {yours:.4g} the error is {error(taken):.4g}; at t = {best:.4g} it is {error(best):.4g}",
        yours=f"{yours:.4g}",
        wanted=f"{best:.4g}",
    )


def by_loop(samples: Tensor, *, bits: int, candidates: Tensor) -> float:
    highest = 2 ** (bits - 1) - 1
    best, least = 0.0, float("inf")
    for t in candidates.tolist():
        scale = t / highest
        q = (samples / scale).round().clamp(-highest, highest)
        error = (scale * q - samples).square().mean().item()
        if error < least:
            best, least = t, error
    return best


def by_broadcasting(samples: Tensor, *, bits: int, candidates: Tensor) -> float:
    highest = 2 ** (bits - 1) - 1
    scales = candidates[:, None] / highest  # (candidates, 1)
    x = samples.reshape(1, -1)  # (1, samples)
    near = scales * torch.clamp(torch.round(x / scales), -highest, highest)
    return float(candidates[((near - x) ** 2).sum(dim=1).argmin()])


def by_two_errors(samples: Tensor, *, bits: int, candidates: Tensor) -> float:
    """Rounding inside, cutting outside: the two errors apart."""
    x = np.abs(samples.double().numpy()).reshape(-1)

    def error(t: float) -> float:
        scale = t / (2 ** (bits - 1) - 1)
        inside = x[x <= t]
        rounding = ((scale * np.rint(inside / scale) - inside) ** 2).sum()
        return float(rounding + ((x[x > t] - t) ** 2).sum())

    return min(candidates.tolist(), key=error)


def _squares(near: Tensor, samples: Tensor) -> Tensor:
    return (near - samples).square().mean()


def _near(samples: Tensor, t: float, highest: int) -> Tensor:
    return t / highest * (samples / (t / highest)).round().clamp(-highest, highest)


def _least(samples: Tensor, bits: int, candidates: Tensor, error: Callable[..., Tensor]) -> float:
    """The candidate with the least ``error(near, samples)``."""
    highest = 2 ** (bits - 1) - 1
    return min(candidates.tolist(), key=lambda t: error(_near(samples, t, highest), samples).item())


@mistake(
    "takes the largest sample",
    says="you return {outside}, the largest magnitude among the samples: that is min-max, which cuts nothing "
    "and lets one outlier make every step coarse; choose among the candidates by their error",
)
def min_max(samples: Tensor, *, bits: int, candidates: Tensor) -> float:
    return samples.abs().max().item()


@mistake(
    "takes the widest candidate",
    says="you return {yours}, the widest candidate, and {wanted} has less error: the widest range cuts "
    "nothing off and has the coarsest steps",
)
def widest(samples: Tensor, *, bits: int, candidates: Tensor) -> float:
    return candidates.max().item()


@mistake(
    "never cuts off",
    says="you return {yours} and {wanted} has less error: where the integers aren't clamped nothing is ever "
    "cut off, so the narrowest range, with the finest steps, looks best; clamp to ±(2**(bits-1) - 1)",
)
def unclamped(samples: Tensor, *, bits: int, candidates: Tensor) -> float:
    scales = (candidates / (2 ** (bits - 1) - 1)).tolist()
    errors = [_squares(scale * (samples / scale).round(), samples).item() for scale in scales]
    return candidates[errors.index(min(errors))].item()


@mistake(
    "looks at the cut-off samples only",
    says="you return {yours} and {wanted} has less error: what is cut off counts, and so does the rounding "
    "of all the other samples; compare every sample with its dequantized value",
)
def cut_only(samples: Tensor, *, bits: int, candidates: Tensor) -> float:
    return min(candidates.tolist(), key=lambda t: (samples.abs() - t).clamp(min=0).square().mean().item())


@mistake(
    "takes the mean of absolute errors",
    says="you return {yours} and {wanted} has less squared error: absolute errors forgive a far outlier, "
    "squares do not; square before you take the mean",
)
def absolute(samples: Tensor, *, bits: int, candidates: Tensor) -> float:
    return _least(samples, bits, candidates, lambda near, x: (near - x).abs().mean())


@mistake(
    "squares the mean instead of the errors",
    says="you return {yours} and {wanted} has less squared error: errors of both signs cancel in a mean; "
    "square each one first, then take the mean",
)
def cancelled(samples: Tensor, *, bits: int, candidates: Tensor) -> float:
    return _least(samples, bits, candidates, lambda near, x: (near - x).mean().square())


@mistake(
    "compares with the integers",
    says="you return {yours} and {wanted} has less error: you compare the samples with the integers q; "
    "compare them with what the integers stand for, scale * q",
)
def with_integers(samples: Tensor, *, bits: int, candidates: Tensor) -> float:
    highest = 2 ** (bits - 1) - 1
    q = {t: _near(samples, t, highest) / (t / highest) for t in candidates.tolist()}
    return min(q, key=lambda t: _squares(q[t], samples).item())


@mistake(
    "forgets the sign's bit",
    says="you return {yours} and {wanted} has less error: your grid has 2**bits - 1 integers on each side of "
    "zero, but one bit is the sign: 2**(bits-1) - 1 on each side",
)
def too_fine(samples: Tensor, *, bits: int, candidates: Tensor) -> float:
    return _least(samples, bits + 1, candidates, _squares)


@mistake(
    "takes the largest error of all candidates",
    says="you return {yours}, the candidate with the largest error: argmax for argmin, or the comparison "
    "turned round; {wanted} has the least",
)
def argmax(samples: Tensor, *, bits: int, candidates: Tensor) -> float:
    return _least(samples, bits, candidates, lambda near, x: -_squares(near, x))


@mistake(
    "returns the error",
    says="you return {outside}, the least error itself: return the candidate that has it",
)
def the_error(samples: Tensor, *, bits: int, candidates: Tensor) -> float:
    highest = 2 ** (bits - 1) - 1
    return min(_squares(_near(samples, t, highest), samples).item() for t in candidates.tolist())


@mistake(
    "returns the candidate's place",
    says="you return {outside}, the place of the best candidate: return what stands there, candidates[place]",
)
def the_place(samples: Tensor, *, bits: int, candidates: Tensor) -> float:
    return candidates.tolist().index(by_loop(samples, bits=bits, candidates=candidates))


EXERCISE = Exercise(
    name="least_squares_range",
    points=2,
    minutes=12,
    difficulty=3,
    statement="least_squares_range(samples, bits, candidates) picks the range with the least mean squared "
    "error.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_loop, by_broadcasting, by_two_errors),
    mistakes=(
        min_max,
        widest,
        unclamped,
        cut_only,
        absolute,
        cancelled,
        with_integers,
        too_fine,
        argmax,
        the_error,
        the_place,
    ),
    hints=(
        Hint(
            "I do not know what to compare",
            "Pretend that the range is ±t: quantize the samples to that grid, go back to floats, and see how "
            "far they have moved. Do so for each candidate t and keep the best.",
        ),
        Hint(
            "the narrowest or the widest range always wins",
            "highest = 2**(bits-1) - 1, scale = t / highest; q = round(samples / scale) within ±highest; the "
            "error is the mean over all samples of (scale * q - samples)². Both rounding and cutting off are "
            "in it.",
        ),
        Hint(
            "I get an error or a place, not a range",
            "if error < least: best, least = ___, error; what is best after the loop is the answer.",
        ),
    ),
)
