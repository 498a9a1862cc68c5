"""Weight-only quantization: integer weights in the file, float arithmetic at run time.

The simplest use of affine quantization: each layer's weights become integers on a symmetric grid, with one
scale per output channel or per group of neighbours. Inputs, biases and normalisation do not change, and no
data is needed.

    s[c] = max |w[c]| / (2^(bits-1) - 1),    q[c] = round(w[c] / s[c]),    y = x · (s q)ᵀ + b

What it saves: the file is smaller by a factor of almost 32 / bits; scales, biases and the header take the
rest. What it costs: accuracy below 8 bits, and some time, because s q is computed at every call. What is left
out: quantized inputs (``dynamic``, ``static``) and rounding that uses data (``data_aware_rounding``).

The ``weight`` of a quantized layer remains an ordinary float parameter, so that other techniques can prune or
factorize it. The layer multiplies by its nearest values on the grid, and only these are in the file. Rounding
has no gradient, so training changes only the bias; ``qat`` trains through the rounding.

Source: Jacob et al. 2018, arXiv:1712.05877, and for one scale per channel Krishnamoorthi 2018, "Quantizing
deep convolutional networks for efficient inference: a whitepaper", arXiv:1806.08342.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.errors import BadSetting, DamagedFile
from compresslab.models.surgery import Layer, check_layer_names, conv_settings, replace_modules, weight_layers
from compresslab.storage.packing import pack, unpack
from compresslab.techniques.quantization.affine import (
    dequantize,
    from_groups,
    integer_range,
    quantize,
    scale_and_zero_point,
    to_groups,
)

__all__ = [
    "Grid",
    "QuantizedConv2d",
    "QuantizedLinear",
    "WeightGrid",
    "on_grid",
    "quantize_layer",
    "quantize_weights",
    "replace_layers",
]


class Grid(Protocol):
    """The values that a weight may take, and their stored form: the interface for quantized layers."""

    def __call__(self, w: Tensor) -> Tensor:
        """Return the nearest value to each weight, in w's shape and dtype."""

    def parts(self, w: Tensor) -> dict[str, Tensor]:
        """Return the stored form of the weight, as small as possible."""

    def load_parts(self, tensors: Mapping[str, Tensor], *, shape: torch.Size) -> Tensor:
        """Load the grid's parameters from the stored form and return the weight."""


class WeightGrid(nn.Module):
    """An affine grid for weights: integers of few bits, with a scale per tensor, channel or group.

    Args:
        scale: one for all weights, or one per channel (out numbers in any shape), or (out, groups). Copied.
        zero_point: one per scale, and the integers are unsigned; None for a symmetric grid.
        bits: 2 to 8.
        group_size: neighbouring weights of a channel that share a scale; None for all of them.
    """

    scale: Tensor  # (out, groups, 1)
    zero_point: Tensor | None

    def __init__(
        self, scale: Tensor, zero_point: Tensor | None = None, *, bits: int, group_size: int | None = None
    ) -> None:
        super().__init__()
        integer_range(bits, signed=zero_point is None)
        self.bits, self.signed = int(bits), zero_point is None
        self.group_size = None if group_size is None else int(group_size)
        shape = (-1, 1, 1) if group_size is None else (len(scale), -1, 1)
        self.register_buffer("scale", scale.detach().reshape(shape).clone())
        kept = None if zero_point is None else zero_point.reshape(shape).to(torch.uint8, copy=True)
        self.register_buffer("zero_point", kept)

    def integers(self, w: Tensor) -> Tensor:
        """Return the nearest integers of weights (out, …): int32, in their shape."""
        groups = self._groups(w)
        q = quantize(groups, self.scale, self._zero(), bits=self.bits, signed=self.signed)
        return from_groups(q, shape=w.shape)

    def values(self, q: Tensor) -> Tensor:
        """Return the weights that integers (out, …) represent: floats in their shape."""
        return from_groups(dequantize(self._groups(q), self.scale, self._zero()), shape=q.shape)

    def forward(self, w: Tensor) -> Tensor:
        return self.values(self.integers(w)).to(w.dtype)

    def parts(self, w: Tensor) -> dict[str, Tensor]:
        """Return the stored form: packed ``integers``, ``scale`` and, if there is one, ``zero_point``."""
        stored = {"integers": pack(self.integers(w), bits=self.bits), "scale": self.scale}
        return stored if self.zero_point is None else stored | {"zero_point": self.zero_point}

    def load_parts(self, tensors: Mapping[str, Tensor], *, shape: torch.Size) -> Tensor:
        """Load the scales and return the weight in its shape."""
        self.scale.copy_(tensors["scale"])
        if self.zero_point is not None:
            self.zero_point.copy_(tensors["zero_point"])
        packed, count = tensors["integers"], shape.numel()
        return self.values(unpack(packed, bits=self.bits, count=count, signed=self.signed).reshape(shape))

    def _groups(self, w: Tensor) -> Tensor:
        groups = to_groups(w, size=_size(w, self.group_size))
        if self.scale.shape[:2] not in ((1, 1), groups.shape[:2]):
            raise BadSetting(
                f"scale must be one number or {tuple(groups.shape[:2])} (channels, groups) for weights "
                f"{tuple(w.shape)}, got {tuple(self.scale.shape[:2])}; compute them from to_groups(w, "
                "size=group_size)"
            )
        return groups

    def _zero(self) -> Tensor | int:
        return 0 if self.zero_point is None else self.zero_point.to(torch.int32)


class QuantizedConv2d(nn.Conv2d):
    """A convolution that multiplies by its weights rounded to a grid; the file holds the rounded weights.

    Args:
        layer: the convolution; its bias is copied, its weight is rounded to the grid.
        grid: a ``WeightGrid`` or another such module. Copied.
    """

    grid: Grid

    def __init__(self, layer: nn.Conv2d, grid: Grid) -> None:
        super().__init__(**conv_settings(layer), device="meta")
        _take_over(self, layer, grid)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.grid(self.weight), self.bias)

    def parts(self) -> dict[str, Tensor]:
        """Return the stored form: the parts of the weight and the bias, if there is one."""
        return _parts(self)

    def load_parts(self, tensors: Mapping[str, Tensor]) -> None:
        """Load what ``parts`` returned."""
        _load_parts(self, tensors)


class QuantizedLinear(nn.Linear):
    """A linear layer that multiplies by its weights rounded to a grid: as ``QuantizedConv2d``."""

    grid: Grid

    def __init__(self, layer: nn.Linear, grid: Grid) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        _take_over(self, layer, grid)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.grid(self.weight), self.bias)

    def parts(self) -> dict[str, Tensor]:
        """Return the stored form: the parts of the weight and the bias, if there is one."""
        return _parts(self)

    def load_parts(self, tensors: Mapping[str, Tensor]) -> None:
        """Load what ``parts`` returned."""
        _load_parts(self, tensors)


Quantized = QuantizedConv2d | QuantizedLinear


def on_grid(layer: Layer, grid: Grid) -> Quantized:
    """Return a new layer with the weight rounded to the grid; it shares nothing with the given one."""
    return QuantizedConv2d(layer, grid) if isinstance(layer, nn.Conv2d) else QuantizedLinear(layer, grid)


def quantize_layer(layer: Layer, *, bits: int, group_size: int | None = None) -> Quantized:
    """Return the layer on symmetric grids that end at the largest weight of each channel or group.

    The given layer is not changed and shares nothing with the result.
    """
    groups = to_groups(layer.weight.detach(), size=_size(layer.weight, group_size))
    scale, _ = scale_and_zero_point(groups.amin(-1), groups.amax(-1), bits=bits, symmetric=True)
    return on_grid(layer, WeightGrid(scale, bits=bits, group_size=group_size))


def quantize_weights(
    model: nn.Module, *, bits: int, group_size: int | None = None, skip: Collection[str] = ()
) -> nn.Module:
    """Return a copy whose Conv2d and Linear weights are rounded to the nearest integers of few bits.

    The given model is not changed and shares nothing with the copy.

    Args:
        model: with at least one Conv2d or Linear layer.
        bits: 2 to 8.
        group_size: neighbouring weights of a channel that share a scale; None for all of them.
        skip: names of layers that stay as they are, such as ``["head"]``.

    Raises:
        CompressionError: bits or group_size is out of range, skip has an unknown name, or there is no layer.
    """

    def make(name: str, layer: Layer) -> nn.Module:
        return quantize_layer(layer, bits=bits, group_size=group_size)

    return replace_layers(model, make, skip=skip)


def replace_layers(
    model: nn.Module, make: Callable[[str, Layer], nn.Module], *, skip: Collection[str] = ()
) -> nn.Module:
    """Return a copy of the model in which ``make(name, layer)`` replaces each Conv2d and Linear layer.

    ``make`` gets the copy's layer and may return it unchanged. It is called once for a layer used twice.

    Args:
        model: not changed.
        make: (name, layer) → its replacement.
        skip: names of layers that are not replaced.

    Raises:
        CompressionError: the model has no such layer, or a name in skip is unknown.
    """
    check_layer_names("skip", skip, weight_layers(model))

    def made(name: str, module: nn.Module) -> nn.Module | None:
        if not isinstance(module, Layer) or name in skip:
            return None
        return make(name, module).train(module.training)

    return replace_modules(copy.deepcopy(model), made)


def _size(w: Tensor, group_size: int | None) -> int:
    return max(w[0].numel(), 2) if group_size is None else group_size


@torch.no_grad()
def _take_over(new: Quantized, layer: Layer, grid: Grid) -> None:
    # new was built on "meta", so no memory and no random numbers are spent on weights that are replaced here
    new.grid = copy.deepcopy(grid)
    new.weight = nn.Parameter(new.grid(layer.weight), layer.weight.requires_grad)
    if layer.bias is not None:
        new.bias = nn.Parameter(layer.bias.clone(), layer.bias.requires_grad)


def _parts(layer: Quantized) -> dict[str, Tensor]:
    stored = layer.grid.parts(layer.weight)
    return stored if layer.bias is None else stored | {"bias": layer.bias}


@torch.no_grad()
def _load_parts(layer: Quantized, tensors: Mapping[str, Tensor]) -> None:
    for name, mine in layer.parts().items():
        if (tensors[name].shape, tensors[name].dtype) != (mine.shape, mine.dtype):
            raise DamagedFile(
                f"{name} must be {tuple(mine.shape)} {mine.dtype}, got {tuple(tensors[name].shape)} "
                f"{tensors[name].dtype}; load into a model that was compressed with the same settings"
            )
    layer.weight.copy_(layer.grid.load_parts(tensors, shape=layer.weight.shape))
    if layer.bias is not None:
        layer.bias.copy_(tensors["bias"])
