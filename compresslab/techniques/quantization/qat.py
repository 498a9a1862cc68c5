"""Quantization-aware training: the network learns with its weights already on the grid.

Training keeps a float for every weight, but multiplies with its nearest number on the grid; so the loss is
that of the quantized network, and the float beneath is pushed until it crosses into a better place.

    ŵ = s · q,      q = clamp(round(w / s), lowest, highest)

Rounding is flat almost everywhere: its gradient is 0, and nothing would learn. The *straight-through
estimator* does as if rounding were not there, and keeps the clamp:

    ∂ŵ/∂w = 1  where round(w / s) lies in the range,  0 beyond it

The step learns too (*learned step size*, LSQ): the same rule gives it a gradient, which is made smaller by g,
because all n weights of a channel pull at one number.

    ∂ŵ/∂s = q - w / s  in the range,  lowest or highest beyond it;      g = 1 / √(n · highest)

What it saves: nothing while it trains: the weights are still floats, and a file holds them as such, until
``convert`` leaves only the integers. What it costs: a training. What is left out: activations on a grid, and
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
    """What ``fake_quantize`` returns, with the straight-through gradient to x and, if it wants one, to scale.

    Paper (LSQ): x has no gradient from the range's end on; here and in torch: from half a step beyond it,
    because up to there x still rounds to a number in the range.

    Args:
        x: floats, any shape. Not changed.
        scale: broadcast against x.
        zero_point: the integer of 0.0.
        bits: 2 to 8.
        signed: which integers: see ``integer_range``.

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
    """The same x, whose gradient is multiplied by the factor."""
    through = x * factor
    return x.detach() + (through - through.detach())


def starting_scale(w: Tensor, *, bits: int) -> Tensor:
    """The step (out,) that each channel starts with: 2 · mean |w| / √highest, in the paper for every layer.

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
    """A symmetric grid for weights whose steps are trained, one an output channel: see ``weights.Grid``.

    Args:
        scale: (out,) the steps to start with, above 0. Copied.
        bits: 2 to 8.
    """

    def __init__(self, scale: Tensor, *, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.scale = nn.Parameter(scale.detach().clone())

    def steps(self) -> Tensor:
        """The steps (out,): kept above 0, wherever training took them."""
        return self.scale.clamp(min=torch.finfo(self.scale.dtype).tiny)

    def forward(self, w: Tensor) -> Tensor:
        _, highest = integer_range(self.bits, signed=True)
        scale = scaled_gradient(self.steps(), 1 / math.sqrt(w[0].numel() * highest))
        scale = scale.reshape(-1, *[1] * (w.dim() - 1))  # (out, 1, …)
        return fake_quantize_straight_through(w, scale, bits=self.bits, signed=True)

    def parts(self, w: Tensor) -> dict[str, Tensor]:
        """What the file holds: floats still, the weight and the steps."""
        return {"weight": w, "scale": self.scale}

    def load_parts(self, tensors: Mapping[str, Tensor], *, shape: torch.Size) -> Tensor:
        """The weight again; the steps become those of the file."""
        self.scale.copy_(tensors["scale"])
        return tensors["weight"].reshape(shape)


def prepare(model: nn.Module, *, bits: int, skip: Collection[str] = ()) -> nn.Module:
    """A copy of the model that multiplies with weights on grids, and learns the floats beneath: for ``fit``.

    The given model is left alone and nothing is shared with it.

    Args:
        model: trained, with at least one Conv2d or Linear layer.
        bits: 2 to 8.
        skip: names of layers that stay as they are, such as ``["head"]``.

    Raises:
        CompressionError: bits out of range, no layer at all.
    """

    def make(name: str, layer: nn.Conv2d | nn.Linear) -> nn.Module:
        if name in skip:
            return layer
        prepared = on_grid(layer, LearnedGrid(starting_scale(layer.weight, bits=bits), bits=bits))
        with torch.no_grad():
            prepared.weight.copy_(layer.weight)  # the float beneath, not its nearest
        return prepared

    return replace_layers(model, make)


def convert(model: nn.Module) -> nn.Module:
    """A copy of the prepared model whose weights are integers: the same outputs, the small file.

    The given model is left alone and nothing is shared with it.

    Raises:
        CompressionError: no layer was prepared.
    """
    if not any(isinstance(module, LearnedGrid) for module in model.modules()):
        raise Unsupported(
            f"model has layers that prepare() made, got {type(model).__name__} without any; "
            "prepare it, train it, then convert it"
        )
    return replace_layers(model, lambda name, layer: _converted(layer))


def _converted(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    if not isinstance(layer, QuantizedConv2d | QuantizedLinear) or not isinstance(layer.grid, LearnedGrid):
        return layer
    return on_grid(layer, WeightGrid(layer.grid.steps(), bits=layer.grid.bits))
