"""Static quantization: int8 weights, and uint8 activations with ranges calibrated in advance.

The ranges of activations depend on the images. So the trained network runs once on some images, the range of
every activation is recorded (*calibration*), and from then on each activation has a fixed grid of 256 values.
A layer's sum and its bias are then integers:

    y ≈ s_x s_w (Σ (q_x - z_x) q_w + q_b),        q_b = round(b / (s_x s_w)),        one s_w per channel

    q_y = clamp(round((s_x s_w / s_y) · (Σ (q_x - z_x) q_w + q_b)) + z_y)

The sum is exact in int32. The only float is the factor s_x s_w / s_y, which ``integer_arithmetic`` replaces
too. Here the network is *simulated* in floats that take only values on the grids: its computation graph with
quantized weights and an ``ActivationGrid`` after each operation. A ReLU costs nothing: its range begins at 0,
so z_y = 0, and the clamp at 0 **is** the ReLU. The operation before it needs no grid.

What it saves: three quarters of the file, and most of the time on processors that multiply bytes
(``deployment``). What it costs: calibration images, and a little accuracy. What is left out: training with
quantized activations, and speed, because the simulation is slower than the float network.

Source: Jacob et al. 2018, "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", arXiv:1712.05877.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from compresslab.errors import BadSetting
from compresslab.models.graph import INPUT, ActivationGrid, GraphNetwork, Node, trace
from compresslab.models.surgery import Layer
from compresslab.techniques.quantization.affine import channel_range, scale_and_zero_point
from compresslab.techniques.quantization.batch_norm_folding import fold_batch_norm
from compresslab.techniques.quantization.calibration import Range, min_max
from compresslab.techniques.quantization.weight_only import (
    QuantizedConv2d,
    QuantizedLinear,
    WeightGrid,
    on_grid,
)

__all__ = ["Calibrate", "integer_layer", "observe", "quantize_static"]

Calibrate = Callable[[Tensor], Range]  # samples of one activation, any shape → low and high of its grid


@torch.no_grad()
def observe(network: GraphNetwork, inputs: Tensor, *, calibrate: Calibrate = min_max) -> dict[str, Range]:
    """Return the range {name: (low, high)} of every activation except those that only a ReLU reads.

    Args:
        network: in floats, from ``trace``.
        inputs: images (n, 1, 28, 28) of the training or validation set; a few hundred are enough.
        calibrate: samples → (low, high).

    Raises:
        CompressionError: there are no images.
    """
    if len(inputs) == 0:
        raise BadSetting(
            "inputs must be images to calibrate with, got none; try fashion_mnist().train.first(500).inputs()"
        )
    inner = _read_only_by_relu(network) - {INPUT}
    return {name: calibrate(value) for name, value in network.values(inputs) if name not in inner}


def quantize_static(
    model: nn.Module, inputs: Tensor, *, calibrate: Calibrate = min_max, reduce_range: bool = False
) -> GraphNetwork:
    """Return the model with int8 weights, one scale per channel, and uint8 activations; simulated in floats.

    BatchNorms are folded first. The given model is not changed and shares nothing with the result.

    Args:
        model: images → logits, made of the operations that ``trace`` supports.
        inputs: images (n, 1, 28, 28) for calibration: training or validation, never test.
        calibrate: samples of one activation → (low, high).
        reduce_range: 7-bit weights, for processors whose sums of bytes overflow (see ``has_vnni``).

    Raises:
        CompressionError: there are no images, or an operation is not supported (the text names it).
    """
    network = trace(fold_batch_norm(model))
    ranges = observe(network, inputs, calibrate=calibrate)
    input_grid = Node(f"{INPUT}_grid", (INPUT,))
    nodes, operations = [input_grid], dict[str, Any]({input_grid.name: _grid(ranges[INPUT])})
    called = {INPUT: input_grid.name}  # value → its quantized version, which later operations read
    for node, operation in network.walk():
        reads = tuple(called[name] for name in node.inputs)
        if isinstance(operation, Layer):
            input_scale = operations[reads[0]].scale
            operation = integer_layer(operation, input_scale=input_scale, bits=7 if reduce_range else 8)
        nodes.append(Node(node.name, reads))
        operations[node.name], called[node.name] = operation, node.name
        if node.name in ranges:
            called[node.name] = f"{node.name}_grid"
            nodes.append(Node(called[node.name], (node.name,)))
            operations[called[node.name]] = _grid(ranges[node.name])
    return GraphNetwork(nodes, operations).eval()


@torch.no_grad()
def integer_layer(layer: Layer, *, input_scale: Tensor, bits: int = 8) -> QuantizedConv2d | QuantizedLinear:
    """Return the layer with one symmetric grid per channel for its weight, and its bias on the sums' grid.

    Args:
        layer: in floats. Not changed.
        input_scale: the scale of its inputs' grid.
        bits: of the weight, 2 to 8.
    """
    scale, _ = scale_and_zero_point(*channel_range(layer.weight), bits=bits, symmetric=True)
    scale = scale.flatten()  # (out,)
    if layer.bias is None:
        return on_grid(layer, WeightGrid(scale, bits=bits))
    # with tiny weights the bias would not fit in int32; a coarser grid loses less
    scale = torch.maximum(scale, layer.bias.abs() / (input_scale * 2**30))
    integer = on_grid(layer, WeightGrid(scale, bits=bits))
    step = scale.double() * input_scale.double()  # float32 has 24 bits, and q_b up to 31
    integer.bias = nn.Parameter(((layer.bias / step).round() * step).float(), layer.bias.requires_grad)
    return integer


def _grid(low_and_high: Range) -> ActivationGrid:
    low, high = (torch.as_tensor(end) for end in low_and_high)
    return ActivationGrid(*scale_and_zero_point(low, high, bits=8, symmetric=False))


def _read_only_by_relu(network: GraphNetwork) -> set[str]:
    """The values that only ReLUs read: they need no grid, because the ReLU's own grid clamps them."""
    readers: dict[str, list[nn.Module]] = {}
    for node, operation in network.walk():
        for name in node.inputs:
            readers.setdefault(name, []).append(operation)
    return {name for name, all_of_them in readers.items() if all(isinstance(r, nn.ReLU) for r in all_of_them)}
