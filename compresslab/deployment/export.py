"""ONNX export: a file with one node per operation of the network, and its weights.

A quantized network is written in the *QDQ* format. A pair QuantizeLinear → DequantizeLinear marks each
activation that is on an integer grid. Weights are stored as int8, one byte each, and biases as int32, each
followed by a DequantizeLinear. Executed literally, the file is the simulation in floats; an engine recognizes
the pattern and computes in integers.

What it saves: three quarters of the file. What it costs: scales and names, 7 % of the file for the lab's
network. What is left out: every operation that ``models.graph`` does not support.

Source of the scheme: Jacob et al. 2018, arXiv:1712.05877.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compresslab.deployment.runtime import read_onnx
from compresslab.errors import Unsupported, check_whole
from compresslab.models.graph import INPUT, ActivationGrid, Add, GraphNetwork, plain_layer, trace
from compresslab.models.surgery import Layer
from compresslab.storage.atomic import write_bytes

if TYPE_CHECKING:
    import onnx

__all__ = ["quantize_dynamic_onnx", "write_onnx"]

OPSET, IR_VERSION = 17, 8  # supported by the engines of the last years


def write_onnx(model: nn.Module, path: str | Path, *, image_shape: Sequence[int] = (1, 28, 28)) -> int:
    """Write the model atomically to one ONNX file and return its size in bytes; the model is not changed.

    A network from ``quantize_static`` keeps its integers and grids. Any other network is traced and written
    in floats; its BatchNorms must be folded first. The batch size is not fixed.

    Args:
        model: images (n, *image_shape) → logits (n, classes).
        path: the file to write.
        image_shape: channels, height and width of one image.

    Raises:
        CompressionError: an operation has no ONNX form here (the text names it), or the path can't be
            written.
    """
    from onnx import TensorProto, helper

    network = model if isinstance(model, GraphNetwork) else trace(model)
    graph = _Graph()
    for node, operation in network.walk():
        before = getattr(network, node.inputs[0], None)
        input_scale = before.scale if isinstance(before, ActivationGrid) else None
        _write_operation(graph, node.name, node.inputs, operation, input_scale)
    image_shape = tuple(check_whole("image_shape", size, hint="try (1, 28, 28)") for size in image_shape)
    images = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", *image_shape])
    logits = helper.make_tensor_value_info(network.nodes[-1].name, TensorProto.FLOAT, ["n", "classes"])
    whole = helper.make_graph(graph.nodes, "compresslab", [images], [logits], graph.tensors)
    versions = {"opset_imports": [helper.make_opsetid("", OPSET)], "ir_version": IR_VERSION}
    content = helper.make_model(whole, **versions).SerializeToString()
    write_bytes(path, content)
    return len(content)


def quantize_dynamic_onnx(source: str | Path, target: str | Path) -> int:
    """Quantize a float file with ONNX Runtime's dynamic quantization; return the new file's size in bytes.

    It serves for comparison. Weights have 8 bits and one scale per tensor; the range of each layer's input is
    computed at every call.

    Raises:
        CompressionError: the source is missing or is not an ONNX file, or the target can't be written.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = read_onnx(source)
    del model.graph.value_info[:]  # the quantizer renames values, and fails on their stored shapes
    with tempfile.TemporaryDirectory() as folder, _quiet():
        made = Path(folder) / "dynamic.onnx"
        # unsigned, because some versions of the engine have no ConvInteger for signed weights
        quantize_dynamic(model, made, weight_type=QuantType.QUInt8)
        content = made.read_bytes()
    write_bytes(target, content)
    return len(content)


class _Graph:
    """The nodes and stored tensors of the graph that is being built; a node has the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def tensor(self, name: str, values: Tensor) -> str:
        from onnx import numpy_helper

        self.tensors.append(numpy_helper.from_array(values.detach().contiguous().numpy(), name))
        return name

    def integers(self, name: str, q: Tensor, scale: Tensor) -> str:
        """Add stored integers and their DequantizeLinear, with one scale per entry of the first axis."""
        zeros = self.tensor(f"{name}_zero_point", torch.zeros(len(scale), dtype=q.dtype))
        stored = [self.tensor(f"{name}_integers", q), self.tensor(f"{name}_scale", scale), zeros]
        return self.node("DequantizeLinear", stored, name, axis=0)


def _write_operation(
    graph: _Graph, name: str, inputs: Sequence[str], operation: nn.Module, input_scale: Tensor | None
) -> None:
    """Add the nodes of one operation, the last one called ``name``; no grid precedes: input_scale is None."""
    match operation:
        case ActivationGrid():
            grid = [
                graph.tensor(f"{name}_scale", operation.scale),
                graph.tensor(f"{name}_zero_point", operation.zero_point),
            ]
            integers = graph.node("QuantizeLinear", [*inputs, *grid], f"{name}_integers")
            graph.node("DequantizeLinear", [integers, *grid], name)
        case nn.Conv2d():
            settings = {
                "strides": operation.stride,
                "pads": [*operation.padding] * 2,
                "dilations": operation.dilation,
                "group": operation.groups,
            }
            weights = _write_weights(graph, name, operation, input_scale)
            graph.node("Conv", [*inputs, *weights], name, **settings)
        case nn.Linear():
            weights = _write_weights(graph, name, operation, input_scale)
            graph.node("Gemm", [*inputs, *weights], name, transB=1)
        case Add():
            graph.node("Add", inputs, name)
        case nn.ReLU():
            graph.node("Relu", inputs, name)
        case nn.AdaptiveAvgPool2d():
            graph.node("GlobalAveragePool", inputs, name)
        case nn.Flatten():
            graph.node("Flatten", inputs, name, axis=1)
        case _:
            raise Unsupported(
                f"{name} is {operation}, which can't be written; a deployed network is made of Conv2d, "
                "Linear, ReLU, sums, AdaptiveAvgPool2d(1) and Flatten: deploy it before layers are replaced"
            )


def _write_weights(graph: _Graph, name: str, layer: Layer, input_scale: Tensor | None) -> list[str]:
    """Add the layer's weight and bias: integers if the weight has a scale per channel, else floats."""
    scale = _channel_scales(layer)
    if scale is None:
        weights = [graph.tensor(f"{name}_weight", plain_layer(layer).weight)]
    else:
        q: Tensor = layer.grid.integers(layer.weight)  # type: ignore[union-attr, operator]
        weights = [graph.integers(f"{name}_weight", q.to(torch.int8), scale)]
    if layer.bias is None:
        return weights
    if scale is None or input_scale is None:
        return [*weights, graph.tensor(f"{name}_bias", layer.bias)]
    step = scale * input_scale  # of the grid of the accumulated sums
    q_bias = (layer.bias.detach().double() / step.double()).round().to(torch.int32)
    return [*weights, graph.integers(f"{name}_bias", q_bias, step)]


def _channel_scales(layer: Layer) -> Tensor | None:
    """The scales (out,) of a weight on symmetric grids, one per channel, or None."""
    grid, channels = getattr(layer, "grid", None), len(layer.weight)
    if not getattr(grid, "signed", False) or grid.scale.numel() not in (1, channels):  # type: ignore[union-attr]
        return None
    return grid.scale.detach().flatten().expand(channels).contiguous()  # type: ignore[union-attr]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Disable the warnings that the quantizer logs at every call."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
