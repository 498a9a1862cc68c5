"""Taps: what the layers inside a network put out, while it answers as usual.

PyTorch calls a *forward hook* with the output of its layer. ``tapped`` hangs one on each layer that you
name, runs the network once, and takes the hooks off again, whatever happens; the network is not changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from torch import Tensor, nn

from compresslab.errors import BadSetting

__all__ = ["tapped"]


def tapped(model: nn.Module, inputs: Tensor, layers: Sequence[str]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The model's output, and the outputs of the named layers, in the order of the names.

    Gradients flow through all of them. Of a layer that runs twice, the last output is kept.

    Args:
        model: any module. Not changed: no hook stays, not even after an error.
        inputs: what the model is called with.
        layers: names as in ``model.named_modules()``, such as ``["blocks.0", "pool"]``.

    Raises:
        CompressionError: a name that no layer has, or a layer that the model never ran.

    >>> from torch import ones
    >>> model = nn.Sequential(nn.Flatten(), nn.ReLU())
    >>> output, (flat,) = tapped(model, -ones(1, 1, 2), ["0"])
    >>> flat.tolist(), output.tolist()
    ([[-1.0, -1.0]], [[0.0, 0.0]])
    """
    modules = dict(model.named_modules())
    _check_names(layers, modules)
    caught: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name in layers:
            hooks.enter_context(modules[name].register_forward_hook(_catcher(caught, name)))
        output = model(inputs)
    for name in layers:
        if name not in caught:
            raise BadSetting(
                f"a tapped layer runs when the model does, got {name!r}, which never ran; "
                "tap a layer that its forward calls"
            )
    return output, tuple(caught[name] for name in layers)


def _catcher(caught: dict[str, Tensor], name: str):
    """A forward hook that keeps its layer's output under a name, and leaves that output as it is."""

    def hook(module: nn.Module, arguments: tuple, output: Tensor) -> None:
        caught[name] = output

    return hook


def _check_names(layers: Sequence[str], modules: dict[str, nn.Module]) -> None:
    names = ", ".join(name for name in modules if name)
    if isinstance(layers, str):
        raise BadSetting(f"layers must be a list of names, got the text {layers!r}; try [{layers!r}]")
    for name in layers:
        if name not in modules:
            raise BadSetting(f"no layer is called {name!r}; there are {names}: choose among them")
