"""Affine quantization: a real number is an integer times a step, counted from a zero point.

Cut the range of a tensor into 2^bits - 1 equal steps, and keep for each number only how many steps away from
zero it is. The *scale* s is the width of a step, the *zero point* z is the integer that stands for 0.0.

    q = clamp(round(x / s) + z, lowest, highest),        x ≈ s · (q - z)

Inside the range the error is at most s / 2 (rounding); beyond it, as much as is cut off (clamping). A wide
range makes coarse steps, a narrow one cuts more: the whole art of calibration is this trade.

- *Asymmetric*: q is unsigned, 0 … 2^bits - 1, and the range may lie anywhere around zero; it suits
  activations, which after a ReLU have no negative half. Zero must be exact (padding is zero, and so is what a
  ReLU cuts off), so the range is widened until it contains 0, and z is a whole number.
- *Symmetric*: z = 0, q is signed; it suits weights, and makes integer products cheap. The lowest integer
  -2^(bits-1) is left out, so that -x is on the grid whenever x is: 8 bits mean -127 … 127, 2 bits -1, 0, 1.

One range for a whole tensor (*per tensor*) lets its largest weight choose the step for all others. A range
for each output channel costs four bytes a channel, one for each *group* of weights in a channel costs more.

What it saves: a number takes bits / 32 of its bytes. What it costs: accuracy, below 8 bits more and more.
What is left out here: where the range comes from (calibration), rounding that looks at the data, and time:
nothing gets faster before integers are multiplied as integers.

Source: Jacob et al. 2018, "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", arXiv:1712.05877 (also for the left-out lowest integer).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from compresslab.errors import BadSetting

__all__ = [
    "channel_range",
    "dequantize",
    "fake_quantize",
    "from_groups",
    "integer_range",
    "quantize",
    "scale_and_zero_point",
    "to_groups",
]


def integer_range(bits: int, *, signed: bool) -> tuple[int, int]:
    """The lowest and highest integer: -2^(bits-1) + 1 … 2^(bits-1) - 1 when signed, else 0 … 2^bits - 1.

    Raises:
        CompressionError: bits that aren't a whole number from 2 to 8.

    >>> integer_range(8, signed=True), integer_range(8, signed=False)
    ((-127, 127), (0, 255))
    """
    if not isinstance(bits, int) or not 2 <= bits <= 8:
        raise BadSetting(f"bits is a whole number from 2 to 8, got {bits}; try 8, or 4: two in a byte")
    return (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def scale_and_zero_point(low: Tensor, high: Tensor, *, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """The step and the integer of 0.0 for values between low and high, each in the shape of low and high.

        symmetric:   s = max(|low|, |high|) / (2^(bits-1) - 1),                        z = 0
        asymmetric:  s = (max(high, 0) - min(low, 0)) / (2^bits - 1),                  z = round(-min(low, 0) / s)

    A range of no width (all values zero) has s = 1, so that zero stays zero.

    Args:
        low: the smallest values, any shape: one for the tensor, or one for each channel or group.
        high: the largest values, in the same shape.
        bits: 2 to 8.
        symmetric: whether the integers are signed and zero is the integer 0.

    Returns:
        scale (float32, or float64 where low is) and zero_point (int32).

    Raises:
        CompressionError: bits out of range, low above high, or a width that isn't a finite number.

    >>> scale_and_zero_point(torch.tensor(-1.0), torch.tensor(4.0), bits=8, symmetric=False)
    (tensor(0.0196), tensor(51, dtype=torch.int32))
    """  # noqa: E501
    lowest, highest = integer_range(bits, signed=symmetric)
    # float16 would overflow, or lose a small scale
    wide = torch.float64 if low.dtype == torch.float64 else torch.float32
    low, high = low.detach().to(wide), high.detach().to(wide)
    _check_range(low, high)
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = torch.maximum(-low, high) / highest if symmetric else (high - low) / (highest - lowest)
    scale = torch.where(scale < torch.finfo(wide).tiny, 1.0, scale)
    if symmetric:
        return scale, torch.zeros_like(scale, dtype=torch.int32)
    # the range contains zero, so the clamp finds nothing to do; it is here because the equation has it
    return scale, (-low / scale).round().clamp(lowest, highest).to(torch.int32)


def quantize(
    x: Tensor, scale: Tensor | float, zero_point: Tensor | int, *, bits: int, signed: bool
) -> Tensor:
    """The nearest integers, int32 in the shape of x: clamp(round(x / scale) + zero_point).

    Halves go to the even integer. What lies beyond the range, infinities too, becomes its end. The clamp
    comes before the cast: a number too large for its integer type would come out with any sign.

    Args:
        x: floats, any shape. Not changed.
        scale: broadcast against x, as zero_point is: one number, or (out, 1, 1, 1) for a convolution.
        zero_point: the integer of 0.0; 0 for a symmetric grid.
        bits: 2 to 8.
        signed: which integers: see ``integer_range``.

    Raises:
        CompressionError: bits out of range, or NaN.

    >>> quantize(torch.tensor([-9.0, 0.0, 0.26, 9.0]), 0.1, 0, bits=4, signed=True).tolist()
    [-7, 0, 3, 7]
    """
    lowest, highest = integer_range(bits, signed=signed)
    if x.isnan().any():
        raise BadSetting(
            "x are numbers, got NaN; look for a division by zero, or for a training that diverged"
        )
    return ((x.detach() / scale).round() + zero_point).clamp(lowest, highest).to(torch.int32)


def dequantize(q: Tensor, scale: Tensor | float, zero_point: Tensor | int) -> Tensor:
    """The numbers that the integers stand for: scale · (q - zero_point), floats of the scale's dtype.

    >>> dequantize(torch.tensor([0, 51, 255]), torch.tensor(0.5), 51).tolist()
    [-25.5, 0.0, 102.0]
    """
    return (q.to(torch.int32) - zero_point) * scale


def fake_quantize(
    x: Tensor, scale: Tensor | float, zero_point: Tensor | int, *, bits: int, signed: bool
) -> Tensor:
    """Each x moved to the nearest number on the grid: quantized and at once dequantized; no gradient to x."""
    return dequantize(quantize(x, scale, zero_point, bits=bits, signed=signed), scale, zero_point)


def channel_range(w: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and largest weight of each output channel: w (out, …) → twice (out, 1, …)."""
    rest = tuple(range(1, w.dim()))
    return w.detach().amin(rest, keepdim=True), w.detach().amax(rest, keepdim=True)


def to_groups(w: Tensor, *, size: int) -> Tensor:
    """Each output channel's weights in groups of ``size`` neighbours: (out, …) → (out, groups, size).

    Groups never cross channels; the last one of each channel is filled up with zeros.

    Raises:
        CompressionError: a size that isn't a whole number of at least 2.
    """
    if not isinstance(size, int) or size < 2:
        raise BadSetting(
            f"a group has a whole number of at least 2 weights, got {size}; try 128, or None: one a channel"
        )
    rows = w.flatten(1)
    return F.pad(rows, (0, -rows.shape[1] % size)).unflatten(1, (-1, size))


def from_groups(groups: Tensor, *, shape: Sequence[int]) -> Tensor:
    """The weights as they were before ``to_groups``: (out, groups, size) → ``shape``, the filling cut off."""
    return groups.flatten(1)[:, : math.prod(shape[1:])].reshape(tuple(shape))


def _check_range(low: Tensor, high: Tensor) -> None:
    if low.shape != high.shape:
        raise BadSetting(
            f"low and high have one shape, got {tuple(low.shape)} and {tuple(high.shape)}; "
            "take both from the same tensor, as channel_range does"
        )
    wrong = ~((high - low).isfinite() & (low <= high))
    if wrong.any():
        raise BadSetting(
            f"low ≤ high, both finite, got {low[wrong][0].item():g} … {high[wrong][0].item():g}; "
            "take both from the same values, and look for a training that diverged"
        )
