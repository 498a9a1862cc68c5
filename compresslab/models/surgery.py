"""Other modules in the place of some: the way in which every technique changes the layers of a network."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

__all__ = ["conv_settings", "evaluating", "replace_modules"]


def replace_modules(model: nn.Module, make: Callable[[str, nn.Module], nn.Module | None]) -> nn.Module:
    """The model, changed in place, with what ``make(name, module)`` returns in the place of each module.

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
def evaluating(*models: object) -> Iterator[None]:
    """Models in evaluation mode and gradients off, inside the block; then each module's own mode returns."""
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
