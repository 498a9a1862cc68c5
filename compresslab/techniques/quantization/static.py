"""Static quantization: activations get their grids beforehand, and the whole network runs on integers.

Weights can be looked at; activations come only with the images. So the trained network is shown some images,
the range of every value is noted (*calibration*), and from then on that value lives on a grid of 256 numbers,
whatever image comes. A layer's sum is then one of integers, and so is its bias:

    y ≈ s_x s_w (Σ (q_x - z_x) q_w + q_b),        q_b = round(b / (s_x s_w)),        one s_w a channel

    q_y = clamp(round((s_x s_w / s_y) · (Σ (q_x - z_x) q_w + q_b)) + z_y)

The sum is exact in int32; what is left of floats is the factor s_x s_w / s_y, and the ``integer`` page does
without that too. Here the network is *simulated*: its steps, the weights of its layers on their grids and an
``ActivationGrid`` behind each step, in floats that take no other values. A ReLU costs nothing: its range
begins at 0, so z_y = 0, and the clamp at 0 **is** the ReLU. No grid is needed before it.

What it saves: three quarters of the file, and most of the time where the processor multiplies bytes
(``deployment``). What it costs: a few images to calibrate with, and a little accuracy. What is left out:
training with the grids in place (the quantization-aware page's), and the speed: a simulation is slower than
what it simulates.

Source: Jacob et al. 2018, "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", arXiv:1712.05877.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from compresslab.errors import BadSetting
from compresslab.models.graph import INPUT, ActivationGrid, Step, StepNetwork, trace
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

Calibrate = Callable[[Tensor], Range]  # samples of one value, any shape → low and high of its grid


@torch.no_grad()
def observe(network: StepNetwork, inputs: Tensor, *, calibrate: Calibrate = min_max) -> dict[str, Range]:
    """The range {name: (low, high)} of every value that gets a grid: all but those that only a ReLU reads.

    Args:
        network: in floats, from ``trace``.
        inputs: images (n, 1, 28, 28) of the training or validation set; a few hundred are enough.
        calibrate: samples → (low, high).

    Raises:
        CompressionError: no images.
    """
    if len(inputs) == 0:
        raise BadSetting(
            "inputs are images to calibrate with, got none; try fashion_mnist().train.first(500).inputs()"
        )
    inner = _read_by_relu_alone(network) - {INPUT}
    return {name: calibrate(value) for name, value in network.values(inputs) if name not in inner}


def quantize_static(
    model: nn.Module, inputs: Tensor, *, calibrate: Calibrate = min_max, reduce_range: bool = False
) -> StepNetwork:
    """The model as steps with int8 weights, one scale a channel, and uint8 activations; simulated in floats.

    Its BatchNorms are folded first. The given model is left alone and nothing is shared with it.

    Args:
        model: images → logits, made of the operations that ``trace`` knows.
        inputs: images (n, 1, 28, 28) to calibrate with: training or validation, never test.
        calibrate: samples of one value → (low, high).
        reduce_range: weights in 7 bits, for processors whose sums of bytes overflow (see ``has_vnni``).

    Raises:
        CompressionError: no images, or an operation that is unknown (which, and where).
    """
    network = trace(fold_batch_norm(model))
    ranges = observe(network, inputs, calibrate=calibrate)
    entrance = Step(f"{INPUT}_grid", (INPUT,))
    steps, operations = [entrance], dict[str, Any]({entrance.name: _grid(ranges[INPUT])})
    called = {INPUT: entrance.name}  # what the steps from here on read instead of a value
    for step, operation in network.walk():
        reads = tuple(called[name] for name in step.inputs)
        if isinstance(operation, nn.Conv2d | nn.Linear):
            input_scale = operations[reads[0]].scale
            operation = integer_layer(operation, input_scale=input_scale, bits=7 if reduce_range else 8)
        steps.append(Step(step.name, reads))
        operations[step.name], called[step.name] = operation, step.name
        if step.name in ranges:
            called[step.name] = f"{step.name}_grid"
            steps.append(Step(called[step.name], (step.name,)))
            operations[called[step.name]] = _grid(ranges[step.name])
    return StepNetwork(steps, operations).eval()


@torch.no_grad()
def integer_layer(
    layer: nn.Conv2d | nn.Linear, *, input_scale: Tensor, bits: int = 8
) -> QuantizedConv2d | QuantizedLinear:
    """The layer with its weight on a symmetric grid a channel, and its bias on the grid of the layer's sums.

    Args:
        layer: in floats; left alone.
        input_scale: the step of the grid that its inputs live on.
        bits: of the weight, 2 to 8.
    """
    scale, _ = scale_and_zero_point(*channel_range(layer.weight), bits=bits, symmetric=True)
    scale = scale.flatten()  # (out,)
    if layer.bias is None:
        return on_grid(layer, WeightGrid(scale, bits=bits))
    # beside weights of almost nothing a bias would not fit in int32: a coarser grid loses less
    scale = torch.maximum(scale, layer.bias.abs() / (input_scale * 2**30))
    integer = on_grid(layer, WeightGrid(scale, bits=bits))
    step = scale.double() * input_scale.double()  # float32 has 24 bits, and q_b up to 31
    integer.bias = nn.Parameter(((layer.bias / step).round() * step).float(), layer.bias.requires_grad)
    return integer


def _grid(low_and_high: Range) -> ActivationGrid:
    low, high = (torch.as_tensor(end) for end in low_and_high)
    return ActivationGrid(*scale_and_zero_point(low, high, bits=8, symmetric=False))


def _read_by_relu_alone(network: StepNetwork) -> set[str]:
    """The values that nothing but a ReLU reads: they need no grid, for the ReLU's own clamps them."""
    readers: dict[str, list[nn.Module]] = {}
    for step, operation in network.walk():
        for name in step.inputs:
            readers.setdefault(name, []).append(operation)
    return {name for name, all_of_them in readers.items() if all(isinstance(r, nn.ReLU) for r in all_of_them)}
