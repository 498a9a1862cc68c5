"""Quantization-aware training (QAT): training through the rounding of weights, with learned step sizes.

Training keeps a float for every weight but multiplies by its nearest value on the grid. So the loss is that
of the quantized network, and updates of the float weight can move it to another value on the grid.

    ŵ = s · q,      q = clamp(round(w / s), lowest, highest)

Rounding is constant almost everywhere, so its gradient is 0 and nothing would be learned. The
*straight-through estimator* treats the rounding as the identity and keeps the clamp:

    ∂ŵ/∂w = 1  where round(w / s) lies in the range,  0 outside it

The step is learned too (*learned step size quantization*, LSQ). The same rule gives its gradient, scaled by g
because the gradients of all n weights of a channel add up in one number.

    ∂ŵ/∂s = q - w / s  in the range,  lowest or highest outside it;      g = 1 / √(n · highest)

What it saves: accuracy at few bits. The file shrinks only after ``convert``, which keeps just the integers;
until then weights are stored as floats. What it costs: training. What is left out: quantized activations, and
distillation from the float network.

Source: straight-through: Bengio, Léonard and Courville 2013, arXiv:1308.3432; training with quantization:
Jacob et al. 2018, arXiv:1712.05877; learned steps: Esser et al. 2019, "Learned step size quantization",
arXiv:1902.08153.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from compresslab.errors import Unsupported
from compresslab.models.surgery import Layer
from compresslab.techniques.quantization.affine import integer_range
from compresslab.techniques.quantization.weight_only import (
    QuantizedConv2d,
    QuantizedLinear,
    WeightGrid,
    on_grid,
    replace_layers,
)

__all__ = [
    "LearnedGrid",
    "convert",
    "fake_quantize_straight_through",
    "prepare",
    "scaled_gradient",
    "starting_scale",
]


def fake_quantize_straight_through(
    x: Tensor, scale: Tensor | float, zero_point: Tensor | int = 0, *, bits: int, signed: bool
) -> Tensor:
    """Return ``fake_quantize`` of x with the straight-through gradient to x and, if required, to scale.

    Paper (LSQ): x has no gradient beyond the end of the range; here and in torch: beyond half a step past the
    end, because up to there x rounds to a value in the range.

    Args:
        x: floats, any shape. Not changed.
        scale: broadcast against x.
        zero_point: the integer that represents 0.0.
        bits: 2 to 8.
        signed: the range of the integers: see ``integer_range``.

    Raises:
        CompressionError: bits out of range.

    >>> w = torch.tensor([-0.3, 0.24, 5.0], requires_grad=True)
    >>> fake_quantize_straight_through(w, 0.1, bits=4, signed=True).sum().backward()
    >>> w.grad
    tensor([1., 1., 0.])
    """
    lowest, highest = integer_range(bits, signed=signed)
    z = (x / scale + zero_point).clamp(lowest - 0.5, highest + 0.5)
    q = z.round().clamp(lowest, highest).detach()
    through = q + (z - z.detach())  # the value is exactly q, the gradient is that of z
    return (through - zero_point) * scale


def scaled_gradient(x: Tensor, factor: float) -> Tensor:
    """Return x with its gradient multiplied by the factor."""
    through = x * factor
    return x.detach() + (through - through.detach())


def starting_scale(w: Tensor, *, bits: int) -> Tensor:
    """Return each channel's initial step (out,): 2 · mean |w| / √highest; in the paper, one step per layer.

    A channel of zeros gets 1.

    Args:
        w: (out, …).
        bits: 2 to 8.

    >>> starting_scale(torch.tensor([[1.0, -1.0], [0.0, 0.0]]), bits=2)
    tensor([2., 1.])
    """
    _, highest = integer_range(bits, signed=True)
    scale = 2 * w.detach().flatten(1).abs().mean(dim=1) / math.sqrt(highest)
    return torch.where(scale > 0, scale, 1.0)


class LearnedGrid(nn.Module):
    """A symmetric grid for weights with one trainable step per output channel: a ``weight_only.Grid``.

    Args:
        scale: (out,), the initial steps, above 0. Copied.
        bits: 2 to 8.
    """

    def __init__(self, scale: Tensor, *, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.scale = nn.Parameter(scale.detach().clone())

    def steps(self) -> Tensor:
        """The steps (out,), clamped to stay above 0."""
        return self.scale.clamp(min=torch.finfo(self.scale.dtype).tiny)

    def forward(self, w: Tensor) -> Tensor:
        _, highest = integer_range(self.bits, signed=True)
        scale = scaled_gradient(self.steps(), 1 / math.sqrt(w[0].numel() * highest))
        scale = scale.reshape(-1, *[1] * (w.dim() - 1))  # (out, 1, …)
        return fake_quantize_straight_through(w, scale, bits=self.bits, signed=True)

    def parts(self, w: Tensor) -> dict[str, Tensor]:
        """Return the stored form: the float weight and the steps."""
        return {"weight": w, "scale": self.scale}

    def load_parts(self, tensors: Mapping[str, Tensor], *, shape: torch.Size) -> Tensor:
        """Load the steps and return the weight in its shape."""
        self.scale.copy_(tensors["scale"])
        return tensors["weight"].reshape(shape)


def prepare(model: nn.Module, *, bits: int, skip: Collection[str] = ()) -> nn.Module:
    """Return a copy for ``fit`` that multiplies by rounded weights and trains the float weights.

    The given model is not changed and shares nothing with the copy.

    Args:
        model: trained, with at least one Conv2d or Linear layer.
        bits: 2 to 8.
        skip: names of layers that stay as they are, such as ``["head"]``.

    Raises:
        CompressionError: bits out of range, a name in skip that is no layer's, no layer at all.
    """

    def make(name: str, layer: Layer) -> nn.Module:
        prepared = on_grid(layer, LearnedGrid(starting_scale(layer.weight, bits=bits), bits=bits))
        with torch.no_grad():
            prepared.weight.copy_(layer.weight)  # the float weight, not the rounded one
        return prepared

    return replace_layers(model, make, skip=skip)


def convert(model: nn.Module) -> nn.Module:
    """Return a copy of the prepared model with integer weights: the same outputs and a smaller file.

    The given model is not changed and shares nothing with the copy.

    Raises:
        CompressionError: no layer was prepared.
    """
    if not any(isinstance(module, LearnedGrid) for module in model.modules()):
        raise Unsupported(
            f"model must have layers that prepare() made, got {type(model).__name__} without any; "
            "prepare it, train it, then convert it"
        )
    return replace_layers(model, lambda name, layer: _converted(layer))


def _converted(layer: Layer) -> nn.Module:
    if not isinstance(layer, QuantizedConv2d | QuantizedLinear) or not isinstance(layer.grid, LearnedGrid):
        return layer
    return on_grid(layer, WeightGrid(layer.grid.steps(), bits=layer.grid.bits))
