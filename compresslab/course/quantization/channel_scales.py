"""Weights on a symmetric grid, one scale for each output channel.

Source: Krishnamoorthi 2018, arXiv:1806.08342 (a scale a channel); Jacob et al. 2018, arXiv:1712.05877 (the
restricted range, which leaves the lowest integer out).
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

Quantized = tuple[Tensor, Tensor]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """Every channel's largest magnitude is negative in some channels and positive in others."""

    def drawn(*shape: int, spread: float = 1.0) -> Tensor:
        """Channels of different size; in the first one the most extreme weight is negative."""
        w = torch.randn(shape, generator=rng)
        sizes = torch.logspace(0, spread, shape[0]) * 0.3
        w = w * sizes.view(-1, *[1] * (len(shape) - 1))
        w[0].view(-1)[0] = -1.5 * w[0].abs().max()
        w[1].view(-1)[1] = 1.5 * w[1].abs().max()
        return w

    size = [int(torch.randint(4, 8, (), generator=rng)) for _ in range(2)]
    yield "square", {"weight": drawn(5, 5), "bits": 8}
    yield "Linear", {"weight": drawn(size[0], size[1]), "bits": 8}
    yield "Conv2d", {"weight": drawn(size[1], 2, 3, 3), "bits": 8}
    yield "depthwise Conv2d", {"weight": drawn(size[0], 1, 3, 3), "bits": 4}
    yield "4 bits", {"weight": drawn(6, 9), "bits": 4}
    yield "2 bits", {"weight": drawn(4, 6), "bits": 2}
    yield "one channel much larger than the rest", {"weight": drawn(4, 8, spread=4.0), "bits": 8}
    dead = drawn(5, 6)
    dead[int(torch.randint(0, 5, (), generator=rng))] = 0
    yield "a channel of zeros", {"weight": dead, "bits": 8}
    yield "float64", {"weight": drawn(3, 7).double(), "bits": 8}
    yield "transposed", {"weight": drawn(6, 4).t(), "bits": 8}


def probe(case: dict[str, Any], channel_scales: Callable[..., Any]) -> dict[str, Any]:
    return {"answer": channel_scales(case["weight"], bits=case["bits"])}


def judge(case: dict[str, Any], record: Record) -> None:
    came = expect.came(record["answer"])
    expect.true(record["answer"].type == "tuple", f"the answer is a tuple (q, scales); yours is {came}")
    first, second = expect.parts(record["answer"], count=2)
    w = case["weight"].double()
    q = expect.tensor(first, shape=w.shape, dtype=torch.int8, what="q").double()
    scales = expect.tensor(second, shape=w.shape[:1], what="scales").double()
    largest = torch.tensor([max(map(abs, row)) for row in w.flatten(1).tolist()], dtype=torch.float64)
    highest = 2 ** (case["bits"] - 1) - 1
    wanted = torch.where(largest == 0, 1.0, largest / highest)
    near = torch.isclose(scales, wanted, rtol=1e-5, atol=0)
    expect.close(torch.where(near, wanted, scales), wanted, tolerance=0, what="scales")
    exact = (w.flatten(1) / wanted[:, None]).view(w.shape)
    nearest = (q - exact).abs() < 0.501
    expect.close(q, torch.where(nearest, q, exact.round()), what="q")


def by_rows(weight: Tensor, *, bits: int) -> Quantized:
    rows = weight.flatten(1)  # (out, …) -> (out, weights of a channel)
    scales = rows.abs().amax(dim=1) / (2 ** (bits - 1) - 1)  # (out,)
    scales = torch.where(scales == 0, 1.0, scales)
    q = (rows / scales[:, None]).round().to(torch.int8)
    return q.view(weight.shape), scales


def by_loop(weight: Tensor, *, bits: int) -> Quantized:
    q = torch.zeros(weight.shape, dtype=torch.int8)
    scales = torch.ones(len(weight), dtype=weight.dtype)
    for channel, w in enumerate(weight):
        if w.any():
            scales[channel] = max(w.max(), -w.min()) / (2 ** (bits - 1) - 1)
            q[channel] = torch.round(w / scales[channel])
    return q, scales


def by_numpy(weight: Tensor, *, bits: int) -> Quantized:
    w = weight.numpy()
    highest = 2 ** (bits - 1) - 1
    scales = np.abs(w).max(axis=tuple(range(1, w.ndim)), keepdims=True) / highest
    scales[scales == 0] = 1
    q = np.clip(np.rint(w / scales), -highest, highest).astype(np.int8)
    return torch.from_numpy(q), torch.from_numpy(scales.reshape(-1))


def _on_grid(weight: Tensor, scales: Tensor, bits: int) -> Quantized:
    """The integers of these scales (out,), where zero and negative ones do no harm, and the scales."""
    highest = 2 ** (bits - 1) - 1
    steps = weight / scales.view(-1, *[1] * (weight.dim() - 1))
    return steps.nan_to_num().round().clamp(-highest, highest).to(torch.int8), scales


def _largest(weight: Tensor) -> Tensor:
    return weight.flatten(1).abs().amax(dim=1)


def _or_one(scales: Tensor) -> Tensor:
    return torch.where(scales == 0, 1.0, scales)


@mistake(
    "uses one scale for the whole tensor",
    says="your scale at {where} is {yours} and should be {wanted}: the largest weight of the whole tensor "
    "makes the step coarse for all channels; take each channel's own",
)
def one_for_all(weight: Tensor, *, bits: int) -> Quantized:
    largest = weight.abs().max().expand(len(weight)).clone()
    return _on_grid(weight, _or_one(largest / (2 ** (bits - 1) - 1)), bits)


@mistake(
    "takes input channels for output channels",
    says="you have one scale for each input channel: the weight is (out, in, …), and the outputs come first; "
    "reduce over all dimensions but dimension 0",
)
def inputs(weight: Tensor, *, bits: int) -> Quantized:
    q, scales = _on_grid(
        weight.transpose(0, 1), _or_one(_largest(weight.transpose(0, 1)) / (2 ** (bits - 1) - 1)), bits
    )
    return q.transpose(0, 1), scales


@mistake(
    "reduces over dimension 1 alone",
    says="your scales do not have the shape (out,) for a convolution: its weight (out, in, kernel_height, "
    "kernel_width) leaves three dimensions to reduce over; flatten(1) makes them one",
)
def one_dimension(weight: Tensor, *, bits: int) -> Quantized:
    highest = 2 ** (bits - 1) - 1
    scales = _or_one(weight.abs().amax(dim=1, keepdim=True) / highest)
    return (weight / scales).round().to(torch.int8), scales.squeeze(1)


@mistake(
    "forgets abs()",
    says="your scale at {where} is {yours} and should be {wanted}: the largest weight is not the farthest "
    "from zero; a channel whose most extreme weight is negative gets cut off; take abs() first",
)
def signed(weight: Tensor, *, bits: int) -> Quantized:
    return _on_grid(weight, _or_one(weight.flatten(1).amax(dim=1) / (2 ** (bits - 1) - 1)), bits)


@mistake(
    "divides by 2**(bits-1)",
    says="your scale at {where} is {yours} and should be {wanted}: the highest signed integer is 2**(bits-1) "
    "- 1, and the largest weight has to land on it, not one step beyond",
)
def one_too_many(weight: Tensor, *, bits: int) -> Quantized:
    return _on_grid(weight, _or_one(_largest(weight) / 2 ** (bits - 1)), bits)


@mistake(
    "divides by 2**bits - 1",
    says="your scale at {where} is {yours} and should be {wanted}: 2**bits - 1 steps are for the whole way "
    "from lowest to highest; from zero to the largest weight there are 2**(bits-1) - 1",
)
def both_sides(weight: Tensor, *, bits: int) -> Quantized:
    return _on_grid(weight, _or_one(_largest(weight) / (2**bits - 1)), bits)


@mistake(
    "divides zeros by a scale of zero",
    says="your scale at {where} is {yours} and should be {wanted}: a channel of zeros has the largest "
    "magnitude 0, and 0 / 0 is NaN; give such a channel the scale 1",
)
def unguarded(weight: Tensor, *, bits: int) -> Quantized:
    return _on_grid(weight, _largest(weight) / (2 ** (bits - 1) - 1), bits)


@mistake(
    "takes three standard deviations for the largest weight",
    says="your scale at {where} is {yours} and should be {wanted}: standard deviations cut off or waste a "
    "part of the range; here nothing is cut off, so the largest magnitude decides",
)
def deviations(weight: Tensor, *, bits: int) -> Quantized:
    spread = 3 * weight.flatten(1).std(dim=1)
    return _on_grid(weight, _or_one(spread / (2 ** (bits - 1) - 1)), bits)


@mistake(
    "cuts the fraction off",
    says="your q at {where} is {yours} and should be {wanted}: .to(torch.int8) cuts towards zero; round() "
    "first",
)
def cut_off(weight: Tensor, *, bits: int) -> Quantized:
    scales = _or_one(_largest(weight) / (2 ** (bits - 1) - 1))
    return (weight / scales.view(-1, *[1] * (weight.dim() - 1))).to(torch.int8), scales


@mistake(
    "leaves the integers in floats",
    says="your q holds whole numbers as floats, four bytes each: cast them with .to(torch.int8)",
)
def floats(weight: Tensor, *, bits: int) -> Quantized:
    q, scales = by_rows(weight, bits=bits)
    return q.to(weight.dtype), scales


EXERCISE = Exercise(
    name="channel_scales",
    points=2,
    minutes=10,
    difficulty=2,
    statement="channel_scales(weight, bits) stores a weight as signed integers and one scale an output "
    "channel.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_rows, by_loop, by_numpy),
    mistakes=(
        one_for_all,
        inputs,
        one_dimension,
        signed,
        one_too_many,
        both_sides,
        unguarded,
        deviations,
        cut_off,
        floats,
    ),
    hints=(
        Hint(
            "I do not know over which dimensions to reduce",
            "An output channel c owns weight[c], whatever its shape: (in,) in a Linear, (in, kernel_height, "
            "kernel_width) in a Conv2d. flatten(1) turns both into (out, weights of a channel).",
        ),
        Hint(
            "my scales are right and the division fails",
            "scales (out,) = max |weight[c]| / (2**(bits-1) - 1); q[c] = round(weight[c] / scales[c]). To "
            "divide rows (out, n) by them, the scales have to be (out, 1).",
        ),
        Hint(
            "it fails where a channel is all zeros",
            "scales = torch.where(scales == 0, ___, scales) before anything is divided by them.",
        ),
    ),
)
