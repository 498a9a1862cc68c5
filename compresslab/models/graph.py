"""The network as a computation graph (traced with torch.fx): its operations in execution order.

The structure of a PyTorch network is in its ``forward``, which may add, branch and reuse values at will. To
insert something *between* two operations (a grid for the activations), or to export the network to another
engine, one needs the structure as data. ``trace`` runs the network once on a placeholder and records its
operations; the result is a network again, with the same outputs.

Supported are the operations of the kit's networks: Conv2d, Linear, ReLU, the sum of two values, the global
average pool, Flatten, and what does nothing in evaluation mode. Any other is an error that names it.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from compresslab.errors import Unsupported
from compresslab.models.surgery import Layer, conv_settings

__all__ = ["INPUT", "ActivationGrid", "Add", "GraphNetwork", "Node", "fx_graph", "plain_layer", "trace"]

INPUT = "input"  # the name of the network's own input


@dataclass(frozen=True)
class Node:
    """One operation of the graph: the ``name`` of its output, and the names of its ``inputs``, in order."""

    name: str
    inputs: tuple[str, ...]


class Add(nn.Module):
    """The sum of two values of one shape: the end of a residual block."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class ActivationGrid(nn.Module):
    """Moves every value to the nearest of 256: scale · (q - zero_point), q in 0 … 255.

    In an engine this is where floats become bytes. Here they stay floats, and lose just what a byte loses.

    Args:
        scale: the step of the grid, a positive number.
        zero_point: the integer that stands for 0.0.
    """

    only_rounds = True  # so that a new trace leaves it out
    scale: Tensor  # (), float32
    zero_point: Tensor  # (), uint8

    def __init__(self, scale: Tensor, zero_point: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale.detach().clone().to(torch.float32))
        self.register_buffer("zero_point", zero_point.detach().clone().to(torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, float(self.scale), int(self.zero_point), 0, 255)

    def extra_repr(self) -> str:
        return f"scale={float(self.scale):.4g}, zero_point={int(self.zero_point)}"


class GraphNetwork(nn.Module):
    """A network that runs the nodes of a graph in order; the last node's output is its own.

    The operations are its children, under the names of their nodes.

    Args:
        nodes: in an order in which every value is computed before it is read.
        operations: {node's name: module}.
    """

    def __init__(self, nodes: Sequence[Node], operations: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.nodes = tuple(nodes)
        for node in self.nodes:
            self.add_module(node.name, operations[node.name])

    def walk(self) -> Iterator[tuple[Node, nn.Module]]:
        """Each node with its operation, in execution order."""
        for node in self.nodes:
            yield node, getattr(self, node.name)

    def values(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Each (name, value) as it is made, the input first; a value is let go after its last reader."""
        last_reader = {name: node.name for node in self.nodes for name in node.inputs}
        alive = {INPUT: x}
        yield INPUT, x
        for node, operation in self.walk():
            alive[node.name] = operation(*(alive[name] for name in node.inputs))
            for name in set(node.inputs):
                if last_reader[name] == node.name:
                    del alive[name]
            yield node.name, alive[node.name]

    def forward(self, x: Tensor) -> Tensor:
        for _, value in self.values(x):
            x = value
        return x


def trace(model: nn.Module) -> GraphNetwork:
    """The model as a graph, in evaluation mode; the given model is left alone and nothing is shared with it.

    Left out is what does nothing (Identity, Dropout) or only moves activations to a grid: a module whose
    class says ``only_rounds = True``. Layers become plain: see ``plain_layer``.

    Raises:
        CompressionError: an operation that is not known here, or a forward that can't be followed.
    """
    model = copy.deepcopy(model).eval()
    modules, nodes, operations = dict(model.named_modules()), [], {}
    called: dict[object, str] = {}  # what the value of each node is called
    for node in fx_graph(model).nodes:
        if node.op == "placeholder":
            called[node] = INPUT
        elif node.op != "output":
            operation = _operation(node, modules)
            called[node] = node.name
            if _passes(operation):
                called[node] = called[node.args[0]]
                continue
            if isinstance(operation, Layer):
                operation = plain_layer(operation)
            nodes.append(Node(node.name, tuple(called[argument] for argument in node.args)))
            operations[node.name] = operation
    if not nodes:
        raise Unsupported(
            f"{type(model).__name__} does nothing with its input; a graph must have at least one operation: "
            "give the whole network"
        )
    return GraphNetwork(nodes, operations).eval()


def fx_graph(model: nn.Module) -> fx.Graph:
    """The model's operations as torch.fx writes them down, without those that the output does not need.

    Raises:
        CompressionError: a forward that depends on the values, or that has not one input and one output.
    """
    kind = type(model).__name__
    try:
        graph = fx.GraphModule(model, _Tracer().trace(model)).graph
        graph.eliminate_dead_code()
    except Exception as error:  # the model's own code runs here: anything may come
        raise Unsupported(
            f"{kind} can't be traced ({(str(error).splitlines() or [''])[0]}); its forward "
            "does the same whatever the values are: try it without if, loops over tensors, or numpy"
        ) from error
    inputs = sum(node.op == "placeholder" for node in graph.nodes)
    if inputs != 1 or not isinstance(graph.output_node().args[0], fx.Node):
        raise Unsupported(
            f"{kind} has {inputs} inputs, or several outputs; a graph must have one of each: "
            "give the part that maps images to logits"
        )
    return graph


def plain_layer(layer: Layer) -> Layer:
    """A new nn.Conv2d or nn.Linear whose weight is what the given layer really multiplies with.

    A compressed layer makes its weight when it is called: integers times a scale, a codebook looked up, a
    mask. So it is called once, on zeros, and the weight that reaches the product is noted.

    Raises:
        CompressionError: the layer does not come down to one product with a weight of its own shape.
    """
    plain: Layer
    # on "meta": no random numbers are drawn for weights that are replaced at once
    if isinstance(layer, nn.Conv2d):
        reach = [d * k for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        sample = layer.weight.new_zeros(1, layer.in_channels, *reach)
        plain = nn.Conv2d(**conv_settings(layer), device="meta")
    else:
        sample = layer.weight.new_zeros(1, layer.in_features)
        plain = nn.Linear(layer.in_features, layer.out_features, device="meta")
    with torch.no_grad(), _Products() as products:
        layer(sample)
    if [w.shape for w in products.weights] != [plain.weight.shape]:
        raise Unsupported(
            f"{type(layer).__name__} must multiply once in a graph, with a weight "
            f"{tuple(plain.weight.shape)}, got weights {[tuple(w.shape) for w in products.weights]}; "
            "replace it afterwards"
        )
    w, b = products.weights[0], layer.bias
    plain.weight = nn.Parameter(w.detach().clone(), layer.weight.requires_grad)
    plain.bias = None if b is None else nn.Parameter(b.detach().clone(), b.requires_grad)
    return plain.train(layer.training)


class _Products(TorchFunctionMode):
    """Hears the weight of every convolution and linear product that runs inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (F.conv2d, F.linear):
            self.weights.append(args[1])
        return function(*args, **(kwargs or {}))


_LAYERS = (nn.Conv2d, nn.Linear, nn.ReLU, nn.Flatten, nn.AdaptiveAvgPool2d, Add)
_CALLS = {
    operator.add: Add,
    operator.iadd: Add,
    torch.add: Add,
    "add": Add,
    F.relu: nn.ReLU,
    torch.relu: nn.ReLU,
    "relu": nn.ReLU,
}


class _Tracer(fx.Tracer):
    """Looks inside every module but torch's own, and but those that are an operation here."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, _LAYERS) or _passes(module) or super().is_leaf_module(module, name)


def _operation(node: fx.Node, modules: Mapping[str, nn.Module]) -> nn.Module:
    """The module that does what the node does."""
    operation: nn.Module | None = None
    if node.op == "call_module":
        operation = modules[str(node.target)]
    elif node.target in _CALLS and not node.kwargs.keys() - {"inplace"}:
        operation = _CALLS[node.target]()
    if operation is None or not _known(operation) or not all(isinstance(a, fx.Node) for a in node.args):
        raise _unknown(node, operation)
    return operation


def _known(operation: nn.Module) -> bool:
    match operation:
        case nn.Conv2d():
            return operation.padding_mode == "zeros" and not isinstance(operation.padding, str)
        case nn.AdaptiveAvgPool2d():
            return operation.output_size in (1, (1, 1))
        case nn.Flatten():
            return (operation.start_dim, operation.end_dim) == (1, -1)
    return isinstance(operation, _LAYERS) or _passes(operation)


def _passes(module: nn.Module) -> bool:
    """Whether a value goes through unchanged, or only rounded."""
    nothing = isinstance(module, nn.Identity | nn.Dropout | nn.Dropout2d)
    return nothing or getattr(type(module), "only_rounds", False)


def _unknown(node: fx.Node, operation: nn.Module | None) -> Unsupported:
    called = node.target if node.op == "call_module" else node.name
    what = operation if operation is not None else getattr(node.target, "__name__", node.target)
    norm = isinstance(operation, nn.BatchNorm2d)
    return Unsupported(
        f"{called} is {what}; a graph can have Conv2d (padded with zeros), Linear, ReLU, the sum of two "
        "values, AdaptiveAvgPool2d(1) and Flatten: "
        + ("fold it with fold_batch_norm(model)" if norm else "build the network of these")
    )
