"""Integer arithmetic: the quantized network without a single float between its first grid and its last.

A convolution or linear layer sums products of integers in 32 bits. To bring the sum (on the grid s_x s_w) to
the eight bits of the next grid it must be multiplied by the real number M = s_x s_w / s_y. That, too, is done
in integers:

    M ≈ m · 2^(-n),  2^30 ≤ m ≤ 2^31,        q_y = clamp(((sum · m + 2^(n-1)) >> n) + z_y)

one product in 64 bits, and one shift that rounds. The sum of two values on different grids is a sum of two
such products; an average over an image is a sum whose grid is h · w times as fine.

What it saves: an adder and a multiplier for bytes are far smaller than those for floats, and many
microcontrollers have no others. What it costs: nothing in accuracy. Against the simulation in floats a result
is one step off where the value lies next to the middle between two; the deeper the network, the more often
some earlier value did. What is left out: speed. This page emulates, in float64, where sums of integers up to
2^53 are exact. The fast kernels are ``deployment``'s; their processor has fast floats, so they multiply by M
as a float32: ``in_float32`` does as they do.

Source: Jacob et al. 2018, "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", arXiv:1712.05877, section 2.2. Paper: halves round away from zero; here:
up, which is what a shift does.
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
from compresslab.models.graph import INPUT, ActivationGrid, Add, StepNetwork
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
    """What stands for real numbers: scale · (q - zero_point), q int32, scale broadcast against q."""

    q: Tensor
    scale: Tensor
    zero_point: int = 0


Terms = tuple[Integers, ...]  # a value that is the sum of these
ToGrid = Callable[[Sequence[Integers], Tensor, int], Tensor]  # terms, scale, zero_point → q in 0 … 255, int32


def fixed_point(multiplier: Tensor) -> tuple[Tensor, Tensor]:
    """Integers (m, n), int64 in the multiplier's shape, with m · 2^(-n) ≈ multiplier: 31 significant bits.

    A multiplier below 2^-31 has fewer, since no shift is longer than 62.

    Raises:
        CompressionError: a multiplier that isn't a positive number below 2^30.

    >>> fixed_point(torch.tensor(0.75))
    (tensor(1610612736), tensor(31))
    """
    multiplier = multiplier.detach().double()
    if not ((multiplier > 0) & (multiplier < 2.0**30)).all():
        raise BadSetting(
            f"a multiplier is a positive number below 2^30, got {float(multiplier.min()):g} to "
            f"{float(multiplier.max()):g}; look for a scale that is zero or not a number"
        )
    _, exponent = torch.frexp(multiplier)  # 2^(exponent - 1) ≤ multiplier < 2^exponent
    n = (31 - exponent.long()).clamp(max=62)
    return (multiplier * 2.0**n).round().long(), n


def requantize(accumulator: Tensor, multiplier: Tensor, zero_point: int) -> Tensor:
    """The sums on a grid of 8 bits: clamp(round(accumulator · multiplier) + zero_point), in integers alone.

    Args:
        accumulator: int32, any shape; on the grid s_x s_w.
        multiplier: s_x s_w / s_y, broadcast against the accumulator, e.g. (out, 1, 1).
        zero_point: of the new grid, 0 … 255.

    Returns:
        int32 from 0 to 255, in the shape of the accumulator; halves are rounded up.

    >>> requantize(torch.tensor([-9, 4, 7, 999]), torch.tensor(0.5), 3).tolist()
    [0, 5, 7, 255]
    """
    return in_fixed_point([Integers(accumulator, multiplier)], torch.tensor(1.0), zero_point)


def in_fixed_point(terms: Sequence[Integers], scale: Tensor, zero_point: int) -> Tensor:
    """The sum of the terms on the grid of scale and zero_point: int32 from 0 to 255, by integers alone."""
    multipliers = [term.scale / scale for term in terms]
    _, n = fixed_point(reduce(torch.maximum, multipliers))  # one n, so that the products can be summed
    wide = [(multiplier.double() * 2.0**n).round().long() for multiplier in multipliers]
    total = sum((term.q - term.zero_point).long() * m for term, m in zip(terms, wide, strict=True))
    rounded = (total + (torch.ones_like(n) << (n - 1))) >> n
    return (rounded + zero_point).clamp(0, 255).to(torch.int32)


def in_float32(terms: Sequence[Integers], scale: Tensor, zero_point: int) -> Tensor:
    """As ``in_fixed_point``, by float32 products in the order of ONNX Runtime's kernels; halves to even."""
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
    """Product and sum q · m + total, rounded once to float32; float64 holds the product exactly."""
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
    """The sums of a convolution of integers: int32 (n, out, height, width), exact.

    Args:
        q: inputs, integers (n, in, height, width).
        w: weights, integers (out, in / groups, height, width); their zero point is 0.
        b: biases, integers (out,), on the grid of the sums.
        zero_point: of the inputs; also what the padding is made of, since it stands for 0.0.
        stride: as in ``conv2d``; so are padding, dilation and groups.
        padding: rows and columns of zeros around the image.
        dilation: distance between the rows (columns) that a kernel reads.
        groups: parts of the channels that do not mix.
    """
    bias = None if b is None else b.double()
    return F.conv2d((q - zero_point).double(), w.double(), bias, stride, padding, dilation, groups).to(
        torch.int32
    )


def integer_linear(q: Tensor, w: Tensor, b: Tensor | None = None, *, zero_point: int) -> Tensor:
    """The sums of a linear layer of integers: q (n, in), w (out, in), b (out,) → int32 (n, out), exact."""
    return F.linear((q - zero_point).double(), w.double(), None if b is None else b.double()).to(torch.int32)


@torch.no_grad()
def run_in_integers(network: StepNetwork, x: Tensor, *, to_grid: ToGrid = in_fixed_point) -> Tensor:
    """What the quantized network answers when all its steps are done in integers: floats (n, classes).

    Args:
        network: from ``quantize_static``; left alone.
        x: images (n, 1, 28, 28), floats: they are put on the first grid.
        to_grid: how sums come back to eight bits: ``in_fixed_point``, or ``in_float32`` as the engine.

    Raises:
        CompressionError: a network that is not on grids.
    """
    alive: dict[str, Terms] = {}
    for step, operation in network.walk():
        if step.inputs != (INPUT,):
            alive[step.name] = _do(operation, [alive[name] for name in step.inputs], to_grid)
        elif isinstance(operation, ActivationGrid):
            scale, zero_point = operation.scale, int(operation.zero_point)
            alive[step.name] = (
                Integers(quantize(x, scale, zero_point, bits=8, signed=False), scale, zero_point),
            )
        else:
            raise Unsupported(
                f"{step.name} reads the images as floats; a network on integers begins with a grid: "
                "try quantize_static(model, inputs)"
            )
    (last,) = alive[network.steps[-1].name]
    return dequantize(last.q, last.scale, last.zero_point)


def _do(operation: nn.Module, inputs: Sequence[Terms], to_grid: ToGrid) -> Terms:
    """One step on integers. What layers sum up has zero point 0, and waits for the grid after it."""
    a = inputs[0][0]
    match operation:
        case ActivationGrid():
            scale, zero_point = operation.scale, int(operation.zero_point)
            return (Integers(to_grid(inputs[0], scale, zero_point), scale, zero_point),)
        case QuantizedConv2d() | QuantizedLinear():
            return (_sums(operation, a),)
        case Add():
            return inputs[0] + inputs[1]
        case nn.ReLU():  # nothing to do: the grid after it begins at zero, and clamps
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
    """A layer's integers: weights in their shape, biases (out,), and the scale of its sums (out,)."""
    scale = layer.grid.scale.flatten() * input_scale
    b = None if layer.bias is None else (layer.bias.double() / scale.double()).round().long()
    return layer.grid.integers(layer.weight), b, scale
