"""Find, replace and observe the modules of any network, as every technique does before and after its method.

*Find*: the layers with weights, by name. *Replace*: another module in the place of one. *Observe*: forward
hooks, which PyTorch calls after each run of a module, and evaluation mode; both end with their block, even
after an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from compresslab.errors import BadSetting, Unsupported

__all__ = [
    "Layer",
    "check_layer_names",
    "conv_settings",
    "evaluating",
    "forward_hooks",
    "layer_outputs",
    "replace_modules",
    "ungrouped_layers",
    "weight_layers",
]

Layer = nn.Conv2d | nn.Linear  # the layers that the techniques compress: y = W x, with W in ``weight``
_Layer = TypeVar("_Layer", bound=nn.Module)


def weight_layers(model: nn.Module) -> dict[str, Layer]:
    """The model's Conv2d and Linear layers by their names, in the order of ``named_modules``.

    Raises:
        CompressionError: there is none.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, Layer)}
    if not layers:
        raise Unsupported(
            f"model must have a Conv2d or Linear layer, got {type(model).__name__} without any; "
            "give the whole network"
        )
    return layers


def ungrouped_layers(model: nn.Module) -> dict[str, Layer]:
    """As ``weight_layers``, of a network in which each output of a layer sees all of its inputs.

    Raises:
        CompressionError: no layer, or a convolution in groups.
    """
    layers = weight_layers(model)
    for name, layer in layers.items():
        if isinstance(layer, nn.Conv2d) and layer.groups != 1:
            raise Unsupported(
                f"model must have convolutions of one group here, got {layer.groups} groups in {name!r}; "
                "use a method that needs no layer inputs"
            )
    return layers


def check_layer_names(
    setting: str, names: Iterable[str], known: Iterable[str], *, of: str = "layers of the model"
) -> None:
    """Raise if a setting names a layer that is not among the known ones.

    Args:
        setting: the argument that holds the names, for the message.
        names: those it holds.
        known: those it may hold.
        of: what the known ones have in common.

    Raises:
        CompressionError: an unknown name, or one text in place of several names.
    """
    known = list(known)
    if isinstance(names, str):
        raise BadSetting(f"{setting} must be a list of names, got the text {names!r}; try [{names!r}]")
    for name in names:
        if name not in known:
            allowed = ", ".join(filter(None, known)) or "none"
            raise BadSetting(f"{setting} must name {of} ({allowed}), got {name!r}; leave it out")


def replace_modules(model: nn.Module, make: Callable[[str, nn.Module], nn.Module | None]) -> nn.Module:
    """Put ``make(name, module)`` in the place of each module, and return the model, which is changed.

    None leaves a module as it is. What is inside a module comes before it, and the model itself, whose name
    is "", last: then another module is returned. A module used in two places is made once, by its first name.

    Args:
        model: changed; give a copy to keep it.
        make: name and module → the module to stand there, or None.
    """
    made: dict[nn.Module, nn.Module | None] = {}
    for name, module in list(_from_the_inside(model, "")):
        if module not in made:
            made[module] = make(name, module)
        new = made[module]
        if new is not None and not name:
            return new
        if new is not None:
            model.set_submodule(name, new)
    return model


def conv_settings(layer: nn.Conv2d) -> dict[str, Any]:
    """The arguments with which ``nn.Conv2d`` makes a layer of the same form, with weights of its own.

    >>> nn.Conv2d(**conv_settings(nn.Conv2d(8, 4, 3, stride=2, bias=False)))
    Conv2d(8, 4, kernel_size=(3, 3), stride=(2, 2), bias=False)
    """
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
    settings = {name: getattr(layer, name) for name in (*names, "padding_mode")}
    return {**settings, "bias": layer.bias is not None}


def _from_the_inside(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    for part, child in module._modules.items():
        if child is not None:
            yield from _from_the_inside(child, f"{name}.{part}" if name else part)
    yield name, module


@contextlib.contextmanager
def forward_hooks(
    layers: Mapping[str, _Layer], hook: Callable[[str, _Layer, Tensor, Tensor], Tensor | None]
) -> Iterator[None]:
    """Call ``hook(name, layer, x, y)`` after every run of each layer inside the block.

    x is the layer's first input and y its output. Where the hook returns a tensor, that becomes the output.

    >>> layer, shapes = nn.Linear(3, 2), []
    >>> with forward_hooks({"head": layer}, lambda name, layer, x, y: shapes.append((name, y.shape))):
    ...     _ = layer(torch.ones(5, 3))
    >>> shapes
    [('head', torch.Size([5, 2]))]
    """
    with contextlib.ExitStack() as handles:
        for name, layer in layers.items():
            handles.enter_context(layer.register_forward_hook(_named(hook, name)))
        yield


def _named(hook: Callable, name: str) -> Callable[[nn.Module, tuple, Tensor], Tensor | None]:
    """The hook in the form that PyTorch calls."""
    return lambda layer, inputs, y: hook(name, layer, inputs[0] if inputs else None, y)


def layer_outputs(
    model: nn.Module, inputs: Tensor, layers: Sequence[str]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The model's output, and the outputs of the named layers, in the order of the names.

    Gradients flow through all of them. Of a layer that runs twice, the last output is kept.

    Args:
        model: any module. Not changed: no hook stays, not even after an error.
        inputs: what the model is called with.
        layers: names as in ``model.named_modules()``, such as ``["blocks.0", "pool"]``.

    Raises:
        CompressionError: a name that no layer has, or a layer that the model never ran.

    >>> model = nn.Sequential(nn.Flatten(), nn.ReLU())
    >>> output, (flat,) = layer_outputs(model, -torch.ones(1, 1, 2), ["0"])
    >>> flat.tolist(), output.tolist()
    ([[-1.0, -1.0]], [[0.0, 0.0]])
    """
    modules, outputs = dict(model.named_modules()), dict[str, Tensor]()
    check_layer_names("layers", layers, modules)

    def keep(name: str, layer: nn.Module, x: Tensor, y: Tensor) -> None:
        outputs[name] = y

    with forward_hooks({name: modules[name] for name in layers}, keep):
        output = model(inputs)
    check_layer_names("layers", layers, outputs, of="layers that its forward calls")
    return output, tuple(outputs[name] for name in layers)


@contextlib.contextmanager
def evaluating(*models: object) -> Iterator[None]:
    """Keep models in evaluation mode and gradients off inside the block; each module's own mode returns."""
    modules = [module for model in models if isinstance(model, nn.Module) for module in model.modules()]
    before = [(module, module.training) for module in modules]
    try:
        for module in modules:
            module.training = False
        # not inference mode: there, composite operators reach a watching dispatch mode in one piece
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        for module, training in before:
            module.training = training
