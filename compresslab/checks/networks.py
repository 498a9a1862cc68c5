"""Build small networks from plain data, so that an exercise's inputs can be drawn, stored and sent.

A network is a list of layers, a layer a list: the name of a ``torch.nn`` class and its settings.

    [["Linear", {"in_features": 4, "out_features": 3}], ["ReLU", {}]]
    ["Same", {"as": 0}]                 the module at that index of this list, used again
    ["Residual", {"layers": [...]}]     x + layers(x)
    ["Sequential", {"layers": [...]}]   a part with a name of its own
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from compresslab.errors import BadSetting

__all__ = ["build"]

_LAYERS = (
    "AvgPool2d",
    "AdaptiveAvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv2d",
    "Embedding",
    "Flatten",
    "GELU",
    "Identity",
    "LayerNorm",
    "Linear",
    "MaxPool2d",
    "ReLU",
    "Sigmoid",
)


class _Residual(nn.Module):
    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def build(layers: list[list[Any]]) -> nn.Sequential:
    """Build the network that the list describes, in evaluation mode, with the same weights every time.

    Raises:
        BadSetting: a layer that is not in the list above.
    """
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(0)
    try:
        return _build(layers).eval()
    finally:
        torch.set_rng_state(before)


def _build(layers: list[list[Any]]) -> nn.Sequential:
    modules: list[nn.Module] = []
    for kind, settings in layers:
        if kind == "Same":
            modules.append(modules[settings["as"]])
        elif kind == "Residual":
            modules.append(_Residual(_build(settings["layers"])))
        elif kind == "Sequential":
            modules.append(_build(settings["layers"]))
        elif kind in _LAYERS:
            modules.append(getattr(nn, kind)(**settings))
        else:
            raise BadSetting(f"no layer is called {kind!r}; there are {', '.join(_LAYERS)}")
    return nn.Sequential(*modules)
