"""Integer-only inference: a statically quantized network computed without floats.

A convolution or linear layer adds products of integers in 32 bits. To convert the sum (scale s_x s_w) to the
8-bit grid of the output (scale s_y), it must be multiplied by the real number M = s_x s_w / s_y. This, too,
is done in integers:

    M ≈ m · 2^(-n),  2^30 ≤ m ≤ 2^31,        q_y = clamp(((sum · m + 2^(n-1)) >> n) + z_y)

with one 64-bit product and one rounding shift. The sum of two values on different grids is a sum of two such
products; an average over an image is a sum whose scale is divided by h · w.

What it saves: adders and multipliers for bytes are far smaller than those for floats, and many
microcontrollers have no others. What it costs: no accuracy. Compared with the simulation in floats, a result
can differ by one step if the value is almost halfway between two; the deeper the network, the more often this
happens. What is left out: speed. This module emulates integers in float64, which is exact up to 2^53. The
fast kernels are in ``deployment``; they multiply by M in float32, as ``in_float32`` does.

Source: Jacob et al. 2018, "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", arXiv:1712.05877, section 2.2. Paper: halves are rounded away from zero;
here: up, because a shift does so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.errors import BadSetting, Unsupported
from compresslab.models.graph import INPUT, ActivationGrid, Add, GraphNetwork
from compresslab.techniques.quantization.affine import dequantize, quantize
from compresslab.techniques.quantization.weight_only import QuantizedConv2d, QuantizedLinear

__all__ = [
    "Integers",
    "ToGrid",
    "fixed_point",
    "in_fixed_point",
    "in_float32",
    "integer_conv2d",
    "integer_linear",
    "requantize",
    "run_in_integers",
]


@dataclass(frozen=True)
class Integers:
    """A representation of real numbers: scale · (q - zero_point), q int32, scale broadcast against q."""

    q: Tensor
    scale: Tensor
    zero_point: int = 0


Terms = tuple[Integers, ...]  # a value that is the sum of these
ToGrid = Callable[[Sequence[Integers], Tensor, int], Tensor]  # terms, scale, zero_point → q in 0 … 255, int32


def fixed_point(multiplier: Tensor) -> tuple[Tensor, Tensor]:
    """Return integers (m, n), int64, with m · 2^(-n) ≈ multiplier and 31 significant bits.

    A multiplier below 2^-31 has fewer bits, because the longest shift is 62.

    Args:
        multiplier: floats, any shape, which m and n share.

    Raises:
        BadSetting: a multiplier is not a positive number below 2^30.

    >>> fixed_point(torch.tensor(0.75))
    (tensor(1610612736), tensor(31))
    """
    multiplier = multiplier.detach().double()
    if not ((multiplier > 0) & (multiplier < 2.0**30)).all():
        raise BadSetting(
            f"multiplier must be a positive number below 2^30, got {float(multiplier.min()):g} to "
            f"{float(multiplier.max()):g}; look for a scale that is zero or not a number"
        )
    _, exponent = torch.frexp(multiplier)  # 2^(exponent - 1) ≤ multiplier < 2^exponent
    n = (31 - exponent.long()).clamp(max=62)
    return (multiplier * 2.0**n).round().long(), n


def requantize(accumulator: Tensor, multiplier: Tensor, zero_point: int) -> Tensor:
    """Convert sums to an 8-bit grid in integers: clamp(round(accumulator · multiplier) + zero_point).

    Args:
        accumulator: int32, any shape, with the scale s_x s_w.
        multiplier: s_x s_w / s_y, broadcast against the accumulator, such as (out, 1, 1).
        zero_point: of the new grid, 0 … 255.

    Returns:
        int32 from 0 to 255, in the shape of the accumulator; halves are rounded up.

    >>> requantize(torch.tensor([-9, 4, 7, 999]), torch.tensor(0.5), 3).tolist()
    [0, 5, 7, 255]
    """
    return in_fixed_point([Integers(accumulator, multiplier)], torch.tensor(1.0), zero_point)


def in_fixed_point(terms: Sequence[Integers], scale: Tensor, zero_point: int) -> Tensor:
    """Convert the sum of the terms to the grid of scale and zero_point: int32 from 0 to 255, in integers."""
    multipliers = [term.scale / scale for term in terms]
    _, n = fixed_point(reduce(torch.maximum, multipliers))  # one n, so that the products can be summed
    wide = [(multiplier.double() * 2.0**n).round().long() for multiplier in multipliers]
    total = sum((term.q - term.zero_point).long() * m for term, m in zip(terms, wide, strict=True))
    rounded = (total + (torch.ones_like(n) << (n - 1))) >> n
    return (rounded + zero_point).clamp(0, 255).to(torch.int32)


def in_float32(terms: Sequence[Integers], scale: Tensor, zero_point: int) -> Tensor:
    """As ``in_fixed_point``, with float32 products in the order of ONNX Runtime's kernels; halves to even."""
    multipliers = [term.scale / scale for term in terms]
    if len(terms) == 1:  # a layer: product, rounding, zero point
        total = ((terms[0].q - terms[0].zero_point).float() * multipliers[0]).round() + zero_point
    else:  # a sum: all zero points first, then all integers, each time from the last term to the first
        backwards = list(zip(reversed(terms), reversed(multipliers), strict=True))
        zeros = torch.tensor(0.0)
        for term, m in backwards:
            zeros = _fused(torch.tensor(term.zero_point), m, zeros)
        total = zero_point - zeros
        for term, m in backwards:
            total = _fused(term.q, m, total)
    return total.round().clamp(0, 255).to(torch.int32)


def _fused(q: Tensor, m: Tensor, total: Tensor) -> Tensor:
    """Return q · m + total, rounded once to float32; the product is exact in float64."""
    return (q.double() * m.double() + total.double()).float()


def integer_conv2d(
    q: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    zero_point: int,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
) -> Tensor:
    """Return the exact sums of an integer convolution: int32 (n, out, height, width).

    Args:
        q: inputs, integers (n, in, height, width).
        w: weights, integers (out, in / groups, height, width), with zero point 0.
        b: biases, integers (out,), with the scale of the sums.
        zero_point: of the inputs; padding has this value, which represents 0.0.
        stride: as in ``conv2d``.
        padding: as in ``conv2d``.
        dilation: as in ``conv2d``.
        groups: as in ``conv2d``.
    """
    bias = None if b is None else b.double()
    return F.conv2d((q - zero_point).double(), w.double(), bias, stride, padding, dilation, groups).to(
        torch.int32
    )


def integer_linear(q: Tensor, w: Tensor, b: Tensor | None = None, *, zero_point: int) -> Tensor:
    """Return the exact sums of an integer linear layer: q (n, in), w (out, in), b (out,) → int32 (n, out)."""
    return F.linear((q - zero_point).double(), w.double(), None if b is None else b.double()).to(torch.int32)


@torch.no_grad()
def run_in_integers(network: GraphNetwork, x: Tensor, *, to_grid: ToGrid = in_fixed_point) -> Tensor:
    """Run the quantized network with all operations in integers; return logits (n, classes), floats.

    Args:
        network: from ``quantize_static``. Not changed.
        x: images (n, 1, 28, 28), floats, which are first quantized.
        to_grid: converts sums to eight bits: ``in_fixed_point``, or ``in_float32`` as ONNX Runtime does.

    Raises:
        Unsupported: the network is not quantized.
    """
    alive: dict[str, Terms] = {}
    for node, operation in network.walk():
        if node.inputs != (INPUT,):
            alive[node.name] = _do(operation, [alive[name] for name in node.inputs], to_grid)
        elif isinstance(operation, ActivationGrid):
            scale, zero_point = operation.scale, int(operation.zero_point)
            alive[node.name] = (
                Integers(quantize(x, scale, zero_point, bits=8, signed=False), scale, zero_point),
            )
        else:
            raise Unsupported(
                f"{node.name} reads the images as floats; a network on integers begins with a grid: "
                "try quantize_static(model, inputs)"
            )
    (last,) = alive[network.nodes[-1].name]
    return dequantize(last.q, last.scale, last.zero_point)


def _do(operation: nn.Module, inputs: Sequence[Terms], to_grid: ToGrid) -> Terms:
    """Compute one operation on integers. A layer's sums have zero point 0; a later grid converts them."""
    a = inputs[0][0]
    match operation:
        case ActivationGrid():
            scale, zero_point = operation.scale, int(operation.zero_point)
            return (Integers(to_grid(inputs[0], scale, zero_point), scale, zero_point),)
        case QuantizedConv2d() | QuantizedLinear():
            return (_sums(operation, a),)
        case Add():
            return inputs[0] + inputs[1]
        case nn.ReLU():  # no operation: the grid after it starts at zero and clamps
            return inputs[0]
        case nn.AdaptiveAvgPool2d():
            sums = (a.q - a.zero_point).sum((2, 3), keepdim=True)
            return (Integers(sums, a.scale / (a.q.shape[2] * a.q.shape[3])),)
        case nn.Flatten():
            return (Integers(operation(a.q), a.scale, a.zero_point),)
    raise Unsupported(
        f"{operation} has no integers; QuantizedConv2d, QuantizedLinear, ReLU, sums, AdaptiveAvgPool2d(1) "
        "and Flatten have: try quantize_static(model, inputs) on the network as it is now"
    )


def _sums(layer: QuantizedConv2d | QuantizedLinear, a: Integers) -> Integers:
    """The sums of products of a layer."""
    w, b, scale = _layer(layer, a.scale)
    if isinstance(layer, QuantizedLinear):
        return Integers(integer_linear(a.q, w, b, zero_point=a.zero_point), scale)
    settings = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
    sums = integer_conv2d(a.q, w, b, zero_point=a.zero_point, **settings)
    return Integers(sums, scale.reshape(-1, 1, 1))


def _layer(layer: Any, input_scale: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """The layer's integer weights in their shape, integer biases (out,), and the scale (out,) of its sums."""
    scale = layer.grid.scale.flatten() * input_scale
    b = None if layer.bias is None else (layer.bias.double() / scale.double()).round().long()
    return layer.grid.integers(layer.weight), b, scale
