"""Mixed precision: not every layer needs the same bits.

Some layers bear two bits, others lose accuracy at four. Quantize one layer at a time, to each number of bits,
and see how far the network's outputs move (its *sensitivity*); then spend a budget of bytes where it helps
most.

    e[l, b] = mean over images of KL(softmax z ‖ softmax z'),   z' with only layer l in b bits

    choose b[l]:   Σ e[l, b[l]] least,   Σ bytes[l, b[l]] ≤ budget

Bytes are small whole numbers, so the choice is exact (``analysis.allocation.allocate_exactly``).

What it saves: accuracy at the same bytes, or bytes at the same accuracy. What it costs: as many evaluations
as layers times choices; and an engine that has kernels for all those widths, which few have. What is left
out: that the sensitivities of several layers need not add up.

Source: sensitivity and a budget: Dong et al. 2019, "HAWQ", arXiv:1905.03696, which takes the Hessian for the
sensitivity; here: the divergence itself, measured, because the network is small. The sum over layers as a
program with a budget: Yao et al. 2020, "HAWQ-V3", arXiv:2011.10680.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from compresslab.analysis.allocation import Choice, allocate_exactly
from compresslab.analysis.sensitivity import output_sensitivity, scan
from compresslab.models.surgery import Layer, check_layer_names, weight_layers
from compresslab.techniques.quantization.weight_only import quantize_layer, replace_layers

__all__ = ["allocate_bits", "layer_bytes", "quantize_mixed", "sensitivity"]


def layer_bytes(layer: Layer, *, bits: int) -> int:
    """Bytes of the layer's tensors in a file, quantized to so many bits: integers, scales and bias."""
    return sum(part.nbytes for part in quantize_layer(layer, bits=bits).parts().values())


def sensitivity(model: nn.Module, inputs: Tensor, *, choices: Sequence[int]) -> dict[str, list[float]]:
    """Measure the outputs with each layer quantized alone: {layer's name: one divergence in nats per choice}.

    Args:
        model: with at least one Conv2d or Linear layer; it runs in evaluation mode and is left alone.
        inputs: validation images (m, 1, 28, 28), a few hundred; their labels aren't needed.
        choices: numbers of bits, each 2 to 8.

    Raises:
        CompressionError: bits out of range, no images, no layer at all.
    """

    def quantize(name: str, bits: int) -> nn.Module:
        return quantize_mixed(model, bits={name: bits})

    return scan(weight_layers(model), choices, quantize, output_sensitivity(model, inputs))


def allocate_bits(errors: Tensor, sizes: Tensor, budget: int) -> Tensor:
    """The choice (layers,) int64 of the least summed error whose sizes sum to at most the budget.

    Args:
        errors: (layers, choices), what each choice costs in accuracy. Not changed.
        sizes: (layers, choices) int64, what it costs in bytes, at least 0.
        budget: in bytes.

    Raises:
        CompressionError: a budget that even the smallest choices exceed.

    >>> errors = torch.tensor([[9.0, 1.0], [2.0, 1.0]])
    >>> allocate_bits(errors, torch.tensor([[1, 2], [1, 2]]), 3)
    tensor([1, 0])
    """
    choices = {
        layer: [Choice(*pair) for pair in zip(*row, strict=True)]
        for layer, row in enumerate(zip(sizes.tolist(), errors.double().tolist(), strict=True))
    }
    return torch.tensor(list(allocate_exactly(choices, budget=budget).values()))


def quantize_mixed(model: nn.Module, *, bits: Mapping[str, int]) -> nn.Module:
    """A copy of the model in which each named layer has integers of its own number of bits, to the nearest.

    A layer that isn't named stays as it is. The given model is left alone and nothing is shared with it.

    Args:
        model: with at least one Conv2d or Linear layer.
        bits: {layer's name: 2 to 8}.

    Raises:
        CompressionError: bits out of range, a name that is no layer's, no layer at all.
    """
    check_layer_names("bits", bits, weight_layers(model))

    def make(name: str, layer: Layer) -> nn.Module:
        return quantize_layer(layer, bits=bits[name]) if name in bits else layer

    return replace_layers(model, make)
