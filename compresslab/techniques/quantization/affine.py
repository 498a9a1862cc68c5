"""Affine quantization: real numbers as integers with a scale and a zero point.

The range of a tensor is divided into 2^bits - 1 equal steps, and each number is stored as the index of the
nearest step. The *scale* s is the width of a step; the *zero point* z is the integer that represents 0.0.

    q = clamp(round(x / s) + z, lowest, highest),        x ≈ s · (q - z)

Inside the range the error is at most s / 2 (rounding); outside, it is the distance to the range (clipping). A
wide range makes the steps coarse, a narrow one clips more values. Calibration chooses between the two.

- *Asymmetric*: q is unsigned, 0 … 2^bits - 1, and the range may lie anywhere around zero. It suits
  activations, which have no negative values after a ReLU. Zero must be exact, because padding and the output
  of a ReLU contain zeros, so the range is extended to contain 0 and z is an integer.
- *Symmetric*: z = 0 and q is signed. It suits weights and makes integer products cheap. The lowest integer
  -2^(bits-1) is not used, so that -x is on the grid whenever x is: 8 bits give -127 … 127, 2 bits -1, 0, 1.

With one range *per tensor*, the largest weight determines the step of all others. One range per output
channel costs four bytes per channel; one per *group* of weights in a channel costs more.

What it saves: a number takes bits / 32 of its bytes. What it costs: accuracy, increasingly below 8 bits. What
is left out: the choice of the range (``calibration``), rounding that uses data (``data_aware_rounding``), and
speed: nothing is faster until integers are multiplied as integers.

Source: Jacob et al. 2018, "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", arXiv:1712.05877 (also for the unused lowest integer).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from compresslab.errors import BadSetting, check_whole

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
    """Return the lowest and highest integer: ±(2^(bits-1) - 1) if signed, else 0 and 2^bits - 1.

    Raises:
        BadSetting: bits is not an integer from 2 to 8.

    >>> integer_range(8, signed=True), integer_range(8, signed=False)
    ((-127, 127), (0, 255))
    """
    bits = check_whole("bits", bits, least=2, most=8, hint="try 8, or 4: two in a byte")
    return (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def scale_and_zero_point(low: Tensor, high: Tensor, *, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Return scale and zero point for values between low and high, each in the shape of low and high.

        symmetric:   s = max(|low|, |high|) / (2^(bits-1) - 1),                        z = 0
        asymmetric:  s = (max(high, 0) - min(low, 0)) / (2^bits - 1),                  z = round(-min(low, 0) / s)

    A range of width 0 (all values are zero) has s = 1, so that zero stays zero.

    Args:
        low: the smallest values, any shape: one per tensor, channel or group.
        high: the largest values, in the same shape.
        bits: 2 to 8.
        symmetric: whether the integers are signed and the zero point is 0.

    Returns:
        scale (float32, or float64 if low is) and zero_point (int32).

    Raises:
        BadSetting: bits out of range, low above high, or a width that is not finite.

    >>> scale_and_zero_point(torch.tensor(-1.0), torch.tensor(4.0), bits=8, symmetric=False)
    (tensor(0.0196), tensor(51, dtype=torch.int32))
    """  # noqa: E501
    lowest, highest = integer_range(bits, signed=symmetric)
    # in float16 the range could overflow and a small scale could vanish
    wide = torch.float64 if low.dtype == torch.float64 else torch.float32
    low, high = low.detach().to(wide), high.detach().to(wide)
    _check_range(low, high)
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = torch.maximum(-low, high) / highest if symmetric else (high - low) / (highest - lowest)
    scale = torch.where(scale < torch.finfo(wide).tiny, 1.0, scale)
    if symmetric:
        return scale, torch.zeros_like(scale, dtype=torch.int32)
    # the range contains zero, so the clamp has no effect; it is here because the equation has it
    return scale, (-low / scale).round().clamp(lowest, highest).to(torch.int32)


def quantize(
    x: Tensor, scale: Tensor | float, zero_point: Tensor | int, *, bits: int, signed: bool
) -> Tensor:
    """Return the nearest integers, int32 in the shape of x: clamp(round(x / scale) + zero_point).

    Halves are rounded to the even integer. Values outside the range, infinities included, become its nearest
    end. The clamp precedes the cast, because casting a number that is too large for the integer dtype gives
    an arbitrary result.

    Args:
        x: floats, any shape. Not changed.
        scale: broadcast against x, like zero_point: one number, or (out, 1, 1, 1) for a convolution.
        zero_point: the integer that represents 0.0; 0 for a symmetric grid.
        bits: 2 to 8.
        signed: the range of the integers: see ``integer_range``.

    Raises:
        BadSetting: bits out of range, or NaN.

    >>> quantize(torch.tensor([-9.0, 0.0, 0.26, 9.0]), 0.1, 0, bits=4, signed=True).tolist()
    [-7, 0, 3, 7]
    """
    lowest, highest = integer_range(bits, signed=signed)
    if x.isnan().any():
        raise BadSetting(
            "x must not hold NaN, got some; look for a division by zero, or for a training that diverged"
        )
    return ((x.detach() / scale).round() + zero_point).clamp(lowest, highest).to(torch.int32)


def dequantize(q: Tensor, scale: Tensor | float, zero_point: Tensor | int) -> Tensor:
    """Return the numbers that the integers represent: scale · (q - zero_point), in the scale's dtype.

    >>> dequantize(torch.tensor([0, 51, 255]), torch.tensor(0.5), 51).tolist()
    [-25.5, 0.0, 102.0]
    """
    return (q.to(torch.int32) - zero_point) * scale


def fake_quantize(
    x: Tensor, scale: Tensor | float, zero_point: Tensor | int, *, bits: int, signed: bool
) -> Tensor:
    """Return each x rounded to the grid: quantized, then dequantized; x gets no gradient."""
    return dequantize(quantize(x, scale, zero_point, bits=bits, signed=signed), scale, zero_point)


def channel_range(w: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest weight of each output channel: w (out, …) → twice (out, 1, …)."""
    rest = tuple(range(1, w.dim()))
    return w.detach().amin(rest, keepdim=True), w.detach().amax(rest, keepdim=True)


def to_groups(w: Tensor, *, size: int) -> Tensor:
    """Return each output channel's weights in groups of ``size`` neighbours: (out, …) → (out, groups, size).

    A group never spans two channels; the last group of each channel is padded with zeros.

    Raises:
        BadSetting: size is not an integer of at least 2.
    """
    allowed, hint = "of at least 2 weights per group", "try 128, or None: one per channel"
    size = check_whole("size", size, least=2, allowed=allowed, hint=hint)
    rows = w.flatten(1)
    return F.pad(rows, (0, -rows.shape[1] % size)).unflatten(1, (-1, size))


def from_groups(groups: Tensor, *, shape: Sequence[int]) -> Tensor:
    """Invert ``to_groups``: (out, groups, size) → ``shape``, without the padding."""
    return groups.flatten(1)[:, : math.prod(shape[1:])].reshape(tuple(shape))


def _check_range(low: Tensor, high: Tensor) -> None:
    if low.shape != high.shape:
        raise BadSetting(
            f"low and high must have one shape, got {tuple(low.shape)} and {tuple(high.shape)}; take "
            "both from the same tensor, as channel_range does"
        )
    wrong = ~((high - low).isfinite() & (low <= high))
    if wrong.any():
        raise BadSetting(
            f"low ≤ high must hold, both finite, got {low[wrong][0].item():g} … "
            f"{high[wrong][0].item():g}; take both from the same values, and look for a training that "
            "diverged"
        )
