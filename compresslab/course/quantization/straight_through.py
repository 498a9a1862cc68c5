"""Rounding with a gradient: forward to the grid, backward as if nothing had been rounded.

Source: Bengio, Léonard and Courville 2013, "Estimating or propagating gradients through stochastic neurons
for conditional computation", arXiv:1308.3432.
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
    """Each x / scale is 0.05 or more away from a half, where the last bit of a float would decide."""

    def drawn(steps: Tensor, *, bits: int, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
        scale = 0.05 + 0.4 * float(torch.rand((), generator=rng))
        aside = 0.35 * torch.rand(steps.shape, generator=rng, dtype=torch.float64) + 0.1
        side = torch.randint(0, 2, steps.shape, generator=rng) * 2 - 1
        x = (steps + side * aside) * scale
        g = torch.randn(steps.shape, generator=rng)
        return {"x": x.to(dtype), "scale": scale, "bits": bits, "g": g.to(dtype)}

    def whole(high: int, *shape: int) -> Tensor:
        return torch.randint(-high, high + 1, shape, generator=rng)

    rows, columns = (int(size) for size in torch.randint(2, 6, (2,), generator=rng))
    yield "all inside the range", drawn(whole(6, rows, columns), bits=4)
    yield "some beyond the range", drawn(torch.tensor([-30, -9, -2, 3, 9, 12]), bits=4)
    ends = drawn(torch.tensor([7, -7, 7, -7]), bits=4)
    outward = torch.tensor([7.3, -7.3, 6.7, -6.7]) * ends["scale"]
    yield "the outer half of the last step", ends | {"x": outward}
    yield "the left-out lowest integer", drawn(torch.tensor([-8, -7, 7, 8]), bits=4)
    yield "2 bits: -1, 0, 1", drawn(whole(3, 4, 5), bits=2)
    yield "8 bits, float64", drawn(whole(140, 30), bits=8, dtype=torch.float64)
    turned = drawn(whole(9, columns, 3), bits=4)
    yield "a transposed tensor", turned | {"x": turned["x"].T, "g": turned["g"].T}
    yield "all zero", drawn(whole(1, 4), bits=3) | {"x": torch.zeros(4)}


def probe(case: dict[str, Any], straight_through: Callable[..., Any]) -> dict[str, Any]:
    x = case["x"].requires_grad_()
    y = straight_through(x, case["scale"], bits=case["bits"])
    gradient = None
    if isinstance(y, torch.Tensor) and y.requires_grad and y.shape == x.shape:
        (gradient,) = torch.autograd.grad((y * case["g"]).sum(), x, allow_unused=True)
    return {"y": y, "gradient": torch.zeros_like(x) if gradient is None else gradient}


def judge(case: dict[str, Any], record: Record) -> None:
    y = expect.tensor(record["y"], shape=case["x"].shape, what="y")
    gradient = expect.tensor(record["gradient"], shape=case["x"].shape, what="the gradient of x")
    x = case["x"].clone().requires_grad_()
    highest = 2 ** (case["bits"] - 1) - 1
    oracle = torch.fake_quantize_per_tensor_affine(x, case["scale"], 0, -highest, highest)
    oracle.backward(case["g"])
    expect.close(y, oracle.detach(), what="y")
    expect.close(gradient, x.grad, what="the gradient of x")


def by_mask(x: Tensor, scale: float, *, bits: int) -> Tensor:
    highest = 2 ** (bits - 1) - 1
    steps = torch.round(x / scale)
    y = steps.clamp(-highest, highest) * scale
    passing = torch.where(steps.abs() <= highest, x, 0.0)  # x where its gradient passes, nothing elsewhere
    return passing + (y - passing).detach()


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale, highest):
        steps = torch.round(x / scale)
        ctx.save_for_backward((steps >= -highest) & (steps <= highest))
        return torch.minimum(torch.maximum(steps, torch.tensor(-highest)), torch.tensor(highest)) * scale

    @staticmethod
    def backward(ctx, gradient):
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None


def by_function(x: Tensor, scale: float, *, bits: int) -> Tensor:
    return _Round.apply(x, scale, 2 ** (bits - 1) - 1)


def by_clamping_after(x: Tensor, scale: float, *, bits: int) -> Tensor:
    highest = 2 ** (bits - 1) - 1
    steps = x / scale
    steps = steps + (steps.round() - steps).detach()
    kept = steps.detach().round().abs() <= highest
    return torch.where(kept, steps * scale, (steps.detach().sign() * highest) * scale)


def _grid(x: Tensor, scale: float, bits: int) -> Tensor:
    highest = 2 ** (bits - 1) - 1
    return torch.round(x / scale).clamp(-highest, highest) * scale


@mistake(
    "rounds and does no more",
    says="the gradient at {where} should be {wanted} and yours is {yours}: a staircase is flat between its "
    "steps, so round() passes no gradient; add the difference to x, detached",
)
def rounds_alone(x, scale, *, bits):
    return _grid(x, scale, bits)


@mistake(
    "lets the gradient pass outside the range too",
    says="the gradient at {where} should be {wanted} and yours is {yours}: this x was cut off at the end "
    "of the range, moving it a little changes nothing, so its gradient is 0",
)
def passes_everywhere(x, scale, *, bits):
    return x + (_grid(x, scale, bits) - x).detach()


@mistake(
    "detaches the wrong part",
    says="y at {where} should be {wanted} and yours is {yours}, which is x itself: forward, what you add "
    "must lead from x to the grid; detach the difference (grid - x), not (x - grid)",
)
def value_is_x(x, scale, *, bits):
    y = _grid(x, scale, bits)
    return y + (x - y).detach()


@mistake(
    "returns integers",
    says="y at {where} should be {wanted} and yours is {yours}, the integer: multiply by the scale, "
    "for the layer that follows computes with x, not with steps",
)
def integers(x, scale, *, bits):
    q = torch.round(_grid(x, scale, bits) / scale)
    inside = torch.where(torch.round(x / scale) == q, x, 0.0)
    return inside + (q - inside).detach()


@mistake(
    "scales the gradient",
    says="the gradient at {where} should be {wanted} and yours is {yours}, scale times as much: x / scale "
    "must be inside what the gradient runs through, so that · scale undoes it",
)
def scaled_gradient(x, scale, *, bits):
    q = _grid(x, scale, bits) / scale
    inside = torch.where(torch.round(x / scale) == q.round(), x, 0.0)
    return (inside + (q - inside).detach()) * scale


@mistake(
    "clamps x before it rounds",
    says="the gradient at {where} should be {wanted} and yours is {yours}: this x lies past the last grid "
    "value and still rounds to it, so it is inside; ask round(x / scale), not x",
)
def clamps_first(x, scale, *, bits):
    highest = (2 ** (bits - 1) - 1) * scale
    kept = x.clamp(-highest, highest)
    return kept + (torch.round(kept / scale) * scale - kept).detach()


@mistake(
    "does not clamp",
    says="y at {where} should be {wanted} and yours is {yours}: the grid ends at ±(2^(bits-1) - 1) steps, "
    "and what lies beyond becomes its end",
)
def without_clamp(x, scale, *, bits):
    return x + (torch.round(x / scale) * scale - x).detach()


@mistake(
    "keeps the lowest integer -2^(bits-1)",
    says="y at {where} should be {wanted} and yours is {yours}: this grid is the same on both sides of zero, "
    "from -(2^(bits-1) - 1) to 2^(bits-1) - 1",
)
def lowest_too(x, scale, *, bits):
    steps = torch.round(x / scale)
    y = steps.clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * scale
    inside = torch.where(steps * scale == y, x, 0.0)
    return inside + (y - inside).detach()


EXERCISE = Exercise(
    name="straight_through",
    points=3,
    minutes=15,
    difficulty=3,
    statement="straight_through(x, scale, bits=…) moves x to the grid, and lets the gradient pass inside "
    "the range.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_mask, by_function, by_clamping_after),
    mistakes=(
        rounds_alone,
        passes_everywhere,
        value_is_x,
        integers,
        scaled_gradient,
        clamps_first,
        without_clamp,
        lowest_too,
    ),
    hints=(
        Hint(
            "y is right and the gradient is zero",
            "Forward and backward may see different things: what is under .detach() has a value and no "
            "gradient. Which sum has the value of the grid and the gradient of x?",
        ),
        Hint(
            "the gradient is wrong at the ends of the range only",
            "steps = round(x / scale); inside = |steps| ≤ 2^(bits-1) - 1, a mask in the shape of x. Where "
            "it is False the result must not hang on x at all: torch.where(inside, x, 0.0) gives such a "
            "start.",
        ),
        Hint(
            "I do not know where to put detach()",
            "return passing + (____ - passing).detach()        # passing: x inside the range, 0 outside",
        ),
    ),
)
