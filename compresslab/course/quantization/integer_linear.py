"""A linear layer in integers: widen, subtract, multiply, add up, and only then one float multiplication.

Source: Jacob et al. 2018, "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", arXiv:1712.05877.
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
    """Real results keep away from halves, where the last bit of a float would decide how they round."""

    def whole(low: int, high: int, *shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.randint(low, high + 1, shape, generator=rng).to(dtype)

    def drawn(n: int, width: int, out: int, *, zero_x: int, zero_y: int, spread: float) -> dict[str, Any]:
        """``spread``: how far from zero_point_y the largest result of a channel lies."""
        while True:
            q_x = whole(0, 255, n, width, dtype=torch.uint8)
            q_w = whole(-127, 127, out, width, dtype=torch.int8)
            bias = whole(-3000, 3000, out)
            sums = (q_x.double() - zero_x) @ q_w.double().T + bias  # (n, out), exact
            room = sums.abs().amax(dim=0).clamp(min=100)
            multiplier = (spread * (0.7 + 0.3 * torch.rand(out, generator=rng)) / room).float()
            if ((sums * multiplier.double() % 1 - 0.5).abs() > 2e-3).all():
                return _case(q_x, zero_x, q_w, bias, multiplier, zero_y)

    n, width, out = (int(size) for size in whole(3, 6, 3))
    yield (
        "all results fit a byte",
        drawn(n, width, out, zero_x=int(whole(90, 160)), zero_y=128, spread=115),
    )
    yield (
        "some results beyond a byte",
        drawn(6, width, 5, zero_x=int(whole(90, 160)), zero_y=120, spread=420),
    )
    yield "after a ReLU: both zero points are 0", drawn(n, width, out, zero_x=0, zero_y=0, spread=250)
    yield "zero_point_x is 255", drawn(3, width, out, zero_x=255, zero_y=int(whole(60, 200)), spread=90)
    yield (
        "one sample, one input, one output",
        drawn(1, 1, 1, zero_x=int(whole(90, 160)), zero_y=128, spread=100),
    )
    quiet = drawn(2, width, 4, zero_x=131, zero_y=128, spread=60)
    quiet |= {"q_x": torch.full((2, width), 131, dtype=torch.uint8), "multiplier": torch.full((4,), 1 / 64)}
    yield "x is zero everywhere, so the bias alone", quiet | {"bias": 2 * whole(-2000, 2000, 4) + 1}
    turned = drawn(width, width, width, zero_x=int(whole(90, 160)), zero_y=128, spread=115)
    yield (
        "a transposed weight",
        turned | {"q_x": turned["q_x"].flip(1), "q_w": turned["q_w"].flip(1).T.contiguous().T},
    )
    yield (
        "sums above 2^24 that the bias takes back",
        _large(whole(200, 255, 1, 1000), whole(100, 127, 2, 1000), rng),
    )


def _large(q_x: Tensor, q_w: Tensor, rng: torch.Generator) -> dict[str, Any]:
    """Between 2^24 and 2^25 float32 has even numbers only; what is left after the bias is odd."""
    left = 2 * torch.randint(1, 70, (2,), generator=rng) + 1
    bias = left - (q_x.long() * q_w.long()).sum(dim=1)
    return _case(q_x.byte(), 0, q_w.char(), bias.int(), torch.full((2,), 1.25), 10)


def _case(
    q_x: Tensor, zero_x: int, q_w: Tensor, bias: Tensor, multiplier: Tensor, zero_y: int
) -> dict[str, Any]:
    """The arguments by name, in their order."""
    return {
        "q_x": q_x,
        "zero_point_x": zero_x,
        "q_w": q_w,
        "bias": bias,
        "multiplier": multiplier,
        "zero_point_y": zero_y,
    }


def probe(case: dict[str, Any], integer_linear: Callable[..., Any]) -> dict[str, Any]:
    return {"q_y": integer_linear(*case.values())}


def judge(case: dict[str, Any], record: Record) -> None:
    x, w = case["q_x"].numpy().astype(np.int64), case["q_w"].numpy().astype(np.int64)
    q_y = expect.tensor(record["q_y"], shape=(len(x), len(w)), dtype=torch.uint8, what="q_y")
    sums = np.einsum("ni,oi->no", x - case["zero_point_x"], w) + case["bias"].numpy()
    steps = np.floor(sums * case["multiplier"].double().numpy() + 0.5) + case["zero_point_y"]
    expect.close(q_y, torch.from_numpy(np.clip(steps, 0, 255)), what="q_y")


def by_matrix(
    q_x: Tensor, zero_point_x: int, q_w: Tensor, bias: Tensor, multiplier: Tensor, zero_point_y: int
) -> Tensor:
    x = q_x.to(torch.int32) - zero_point_x
    accumulator = x @ q_w.to(torch.int32).T + bias  # (n, out)
    q_y = torch.round(accumulator * multiplier) + zero_point_y
    return q_y.clamp(0, 255).to(torch.uint8)


def by_numbers(q_x, zero_point_x, q_w, bias, multiplier, zero_point_y):
    rows, channels = q_x.tolist(), q_w.tolist()
    q_y = torch.zeros(len(rows), len(channels), dtype=torch.uint8)
    for i, row in enumerate(rows):
        for o, channel in enumerate(channels):
            total = int(bias[o]) + sum((q - zero_point_x) * w for q, w in zip(row, channel, strict=True))
            q_y[i, o] = min(max(round(total * float(multiplier[o])) + zero_point_y, 0), 255)
    return q_y


def by_corrected_bias(q_x, zero_point_x, q_w, bias, multiplier, zero_point_y):
    w = q_w.long()
    corrected = bias - zero_point_x * w.sum(dim=1)  # the zero point's share does not depend on x
    scaled = (q_x.long() @ w.T + corrected).double() * multiplier.double()
    return (scaled + zero_point_y).round().clamp(0, 255).to(torch.uint8)


def _sums(q_x: Tensor, zero_point_x: int, q_w: Tensor) -> Tensor:
    return (q_x.to(torch.int32) - zero_point_x) @ q_w.to(torch.int32).T


def _bytes(q_y: Tensor) -> Tensor:
    return q_y.clamp(0, 255).to(torch.uint8)


@mistake(
    "subtracts the zero point in uint8",
    says="q_y at {where} should be {wanted}; yours is {yours}: you subtract before you widen, "
    "and in uint8 3 - 5 is 254; call .to(torch.int32) first",
)
def subtracts_bytes(q_x, zero_point_x, q_w, bias, multiplier, zero_point_y):
    sums = (q_x - zero_point_x).to(torch.int32) @ q_w.to(torch.int32).T
    return _bytes(torch.round((sums + bias) * multiplier) + zero_point_y)


@mistake(
    "adds the products up in int16",
    says="q_y at {where} should be {wanted}; yours is {yours}: one product of two bytes may fill 16 bits, "
    "so a sum of them wraps around; the accumulator needs 32",
)
def sixteen_bits(q_x, zero_point_x, q_w, bias, multiplier, zero_point_y):
    sums = (q_x.to(torch.int16) - zero_point_x) @ q_w.to(torch.int16).T
    return _bytes(torch.round((sums + bias) * multiplier) + zero_point_y)


@mistake(
    "adds the products up in float32",
    says="q_y at {where} should be {wanted}; yours is {yours}: above 2^24 = 16,777,216 float32 has no odd "
    "numbers any more; add up in int32 and go to floats with the multiplier",
)
def float_sums(q_x, zero_point_x, q_w, bias, multiplier, zero_point_y):
    sums = (q_x.float() - zero_point_x) @ q_w.float().T
    return _bytes(torch.round((sums + bias) * multiplier) + zero_point_y)


@mistake(
    "forgets the zero point of x",
    says="q_y at {where} should be {wanted}; yours is {yours}: you multiply q_x itself, "
    "but x = 0 is stored as zero_point_x and must count nothing",
)
def without_zero_point(q_x, zero_point_x, q_w, bias, multiplier, zero_point_y):
    return _bytes(torch.round((_sums(q_x, 0, q_w) + bias) * multiplier) + zero_point_y)


@mistake(
    "adds zero_point_y before scaling",
    says="q_y at {where} should be {wanted}; yours is {yours}: zero_point_y counts steps of y, "
    "so it is added after the multiplier has turned the sum into such steps",
)
def shifts_early(q_x, zero_point_x, q_w, bias, multiplier, zero_point_y):
    return _bytes(torch.round((_sums(q_x, zero_point_x, q_w) + bias + zero_point_y) * multiplier))


@mistake(
    "adds the bias after scaling",
    says="q_y at {where} should be {wanted}; yours is {yours}: the bias is stored in steps of s_x · s_w, "
    "as the sum is; add it before the multiplier",
)
def late_bias(q_x, zero_point_x, q_w, bias, multiplier, zero_point_y):
    return _bytes(torch.round(_sums(q_x, zero_point_x, q_w) * multiplier) + bias + zero_point_y)


@mistake(
    "casts before it clamps",
    says="q_y at {where} should be {wanted}; yours is {yours}: cast to uint8 first, and 260 has already "
    "become 4; clamp to 0 … 255, then cast",
)
def casts_first(q_x, zero_point_x, q_w, bias, multiplier, zero_point_y):
    q_y = torch.round((_sums(q_x, zero_point_x, q_w) + bias) * multiplier) + zero_point_y
    return q_y.to(torch.int32).to(torch.uint8).clamp(0, 255)


@mistake(
    "truncates instead of rounding",
    says="q_y at {where} should be {wanted}; yours is {yours}: a cast cuts the fraction off, "
    "which pulls every result towards zero by half a step; round first",
)
def truncates(q_x, zero_point_x, q_w, bias, multiplier, zero_point_y):
    scaled = (_sums(q_x, zero_point_x, q_w) + bias) * multiplier
    return _bytes(scaled.to(torch.int32) + zero_point_y)


@mistake(
    "takes one multiplier for all channels",
    says="q_y at {where} should be {wanted}; yours is {yours}: you scale every channel with multiplier[0]; "
    "each output channel has a scale, so a multiplier, of its own",
)
def one_multiplier(q_x, zero_point_x, q_w, bias, multiplier, zero_point_y):
    sums = _sums(q_x, zero_point_x, q_w) + bias
    return _bytes(torch.round(sums * multiplier[0]) + zero_point_y)


EXERCISE = Exercise(
    name="integer_linear",
    points=3,
    minutes=15,
    difficulty=3,
    statement="integer_linear(…) computes a linear layer on bytes: sums in integers, one multiplication at "
    "the end.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_matrix, by_numbers, by_corrected_bias),
    mistakes=(
        subtracts_bytes,
        sixteen_bits,
        float_sums,
        without_zero_point,
        shifts_early,
        late_bias,
        casts_first,
        truncates,
        one_multiplier,
    ),
    hints=(
        Hint(
            "torch refuses to multiply uint8 by int8, or the results look random",
            "Bytes are for storing. What type holds 255 · 127, and what a sum of a thousand such products? "
            "Go there before the first minus sign.",
        ),
        Hint(
            "the results have the right pattern and are shifted or stretched",
            "accumulator (n, out) = (q_x - z_x) (n, in) times q_w transposed (in, out), plus bias (out,); "
            "q_y = round(accumulator · multiplier) + z_y. Sum and bias count steps of s_x · s_w, z_y "
            "counts steps of y.",
        ),
        Hint(
            "only dark and bright ends are wrong: 4 where 255 should be",
            "return (torch.round(accumulator * multiplier) + zero_point_y).______(0, "
            "255).______(torch.uint8)",
        ),
    ),
)
