"""What goes into a network's layers: the rows x that a Conv2d or Linear multiplies, and how they go together.

A layer computes y = W x at every image (and, a convolution, at every position of it). All that the error of
its outputs asks of the images is G = E[x xᵀ]: a mean squared error of (W - V) x is the trace of
(W - V) G (W - V)ᵀ. In a convolution x has channels · height · width numbers: what goes into one output.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.errors import BadSetting, Unsupported
from compresslab.models.surgery import evaluating

__all__ = [
    "Batches",
    "Layer",
    "input_rows",
    "input_second_moments",
    "layers_of_one_group",
    "listening",
    "mean_over_inputs",
    "multiplying_layers",
]

Layer = nn.Conv2d | nn.Linear
Batches = Iterable[tuple[Tensor, Tensor]]  # images (batch, 1, 28, 28) and labels (batch,), read once


def multiplying_layers(model: nn.Module) -> dict[str, Layer]:
    """The model's Conv2d and Linear layers by their names, in the order of ``named_modules``.

    Raises:
        CompressionError: there is none.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, Layer)}
    if not layers:
        raise Unsupported(
            f"model has at least one Conv2d or Linear layer, got {type(model).__name__} without any; "
            "give the whole network"
        )
    return layers


def layers_of_one_group(model: nn.Module) -> dict[str, Layer]:
    """As ``multiplying_layers``, of a network in which each layer sees all of its inputs.

    Raises:
        CompressionError: no layer, or a convolution in groups.
    """
    layers = multiplying_layers(model)
    for name, layer in layers.items():
        if isinstance(layer, nn.Conv2d) and layer.groups != 1:
            raise Unsupported(
                f"a convolution has one group here, got {layer.groups} in {name!r}; "
                "give a network whose layers see all of it"
            )
    return layers


@contextlib.contextmanager
def listening(
    model: nn.Module, note: Callable[[str, Layer, Tensor, Tensor], Tensor | None]
) -> Iterator[None]:
    """``note(name, layer, x, y)`` at every call of a layer, in evaluation mode; what it returns becomes y.

    Raises:
        CompressionError: no layer, or a convolution in groups.
    """
    hooks = [
        layer.register_forward_hook(lambda layer, given, y, name=name: note(name, layer, given[0], y))
        for name, layer in layers_of_one_group(model).items()
    ]
    try:
        with evaluating(model):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def input_rows(layer: Layer, x: Tensor) -> Tensor:
    """What goes into each single output of each image: (images, positions, n), the padding's zeros too."""
    if isinstance(layer, nn.Linear):
        return x.reshape(len(x), -1, x.shape[-1])
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    return F.unfold(padded, layer.kernel_size, layer.dilation, stride=layer.stride).mT


def input_second_moments(model: nn.Module, batches: Batches) -> dict[str, Tensor]:
    """How inputs of a layer go together, G = E[x xᵀ] over images and positions: {layer: (n, n) float64}.

    The mean squared error of an output whose weights w became v is (v - w) G (v - w)ᵀ: 2 G is the Hessian of
    that error, and no approximation.

    Args:
        model: in any mode.
        batches: pairs of images and labels; the labels aren't read.

    Raises:
        CompressionError: no images, no layer, or a convolution in groups.
    """
    return mean_over_inputs(model, batches, _products)


def mean_over_inputs(
    model: nn.Module, batches: Batches, of: Callable[[Layer, Tensor], tuple[Tensor, int]]
) -> dict[str, Tensor]:
    """The mean of something over all inputs of each layer: {layer's name: mean}.

    Args:
        model: in any mode.
        batches: pairs of images and labels; the labels aren't read.
        of: (layer, its input of a batch) → a sum over rows, and how many rows there were.

    Raises:
        CompressionError: no images, no layer, or a convolution in groups.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def note(name: str, layer: Layer, x: Tensor, y: Tensor) -> None:
        total, count = of(layer, x)
        sums[name] = sums.get(name, 0) + total
        counts[name] = counts.get(name, 0) + count

    images = 0
    with listening(model, note):
        for x, _ in batches:
            model(x)
            images += len(x)
    if images == 0:
        raise BadSetting(
            "batches hold images and labels, at least one, got none; try train.first(500).batches()"
        )
    return {name: total / counts[name] for name, total in sums.items()}


def _products(layer: Layer, x: Tensor) -> tuple[Tensor, int]:
    """The sum (n, n) of x xᵀ over a batch and its positions, as float64, and how many they were."""
    total, count = torch.zeros(()), 0
    for part in x.split(50):  # unfolded, an image has many numbers
        rows = input_rows(layer, part).flatten(0, 1)
        total = total + rows.T @ rows
        count += len(rows)
    return total.double(), count
