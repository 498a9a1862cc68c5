"""Pruning masks: applying masks to a network, and keeping pruned weights at zero during training.

A mask is a bool tensor in its weight's shape, True where a weight is kept; masks are {layer's name: mask}.

    w ← w · mask,    and again after every step of the optimizer

The masked network has the same modules as before; only its zeros show that it was pruned, and the masks can
be recovered from them. (``torch.nn.utils.prune`` stores weight and mask separately: the state dict doubles,
and every call multiplies by the mask.)

What it saves: **nothing** itself, neither bytes nor time; ``sparse_layers`` stores the zeros in fewer bytes,
``channel_removal`` removes whole channels. What it costs: one multiplication per weight and training step.
What is left out: weights that are restored during training.

Source: Han, Pool, Tran and Dally 2015, "Learning both weights and connections", arXiv:1506.02626.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from compresslab.errors import BadSetting
from compresslab.measurement.tables import Table
from compresslab.models.surgery import check_layer_names, weight_layers

__all__ = [
    "Masks",
    "keep_masks",
    "masked",
    "masks_of",
    "prunable_layers",
    "sparsities",
    "sparsity_table",
]

Masks = dict[str, Tensor]  # {layer's name: bool, in the weight's shape}
prunable_layers = weight_layers


def masked(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of the model whose weights are zero where their mask is False.

    Layers without a mask and all biases do not change. The given model is not changed and shares nothing with
    the copy.

    Args:
        model: with at least one Conv2d or Linear layer.
        masks: {layer's name: bool tensor in its weight's shape}.

    Raises:
        CompressionError: a name is unknown, a mask has another shape or dtype, or the model has no layer.
    """
    layers = prunable_layers(model)
    check_layer_names("masks", masks, layers)
    for name, mask in masks.items():
        _check_shape(name, mask, layers[name].weight.shape)
    pruned = copy.deepcopy(model)
    keep_masks(masks)(pruned)
    return pruned


def masks_of(model: nn.Module) -> Masks:
    """Return the masks of a pruned model: True where the weights of a Conv2d or Linear layer are nonzero.

    A weight that is zero for another reason counts as pruned.

    Raises:
        CompressionError: the model has no such layer.
    """
    return {name: layer.weight.detach() != 0 for name, layer in prunable_layers(model).items()}


def keep_masks(masks: Mapping[str, Tensor]) -> Callable[[nn.Module], None]:
    """Return an ``after_step`` for ``training.loop.fit`` that sets pruned weights back to zero, in place.

    *Gradient*: a pruned weight has a nonzero gradient, so every step moves it. It is set back to zero before
    the next forward pass, so no output depends on it.

    *Momentum*: the optimizer's velocity of a pruned weight is not cleared. With SGD this does no harm: a
    weight's velocity moves only that weight. But it is the reason why zeroing the *gradients* is not enough,
    because a velocity from before the pruning would move pruned weights for many steps without any gradient.

    *Weight decay*: it is proportional to the weight, so at zero it has no effect.

    Args:
        masks: {layer's name: bool tensor in its weight's shape}, for any number of layers.
    """

    @torch.no_grad()
    def after_step(model: nn.Module) -> None:
        for name, mask in masks.items():
            model.get_submodule(name).weight.masked_fill_(~mask, 0)  # type: ignore[operator]

    return after_step


def sparsities(model: nn.Module) -> dict[str, float]:
    """Return the share of zeros in each layer's weights, in [0, 1]: {name: share}.

    Raises:
        CompressionError: the model has no Conv2d or Linear layer.
    """
    return {name: 1 - int(mask.sum()) / mask.numel() for name, mask in masks_of(model).items()}


def sparsity_table(model: nn.Module) -> Table:
    """Return the table of each layer's weights, nonzero weights and share of zeros; the last row is the sum.

    Raises:
        CompressionError: the model has no Conv2d or Linear layer.
    """
    counts = {name: (mask.numel(), int(mask.sum())) for name, mask in masks_of(model).items()}
    counts["all layers"] = tuple(map(sum, zip(*counts.values(), strict=True)))  # type: ignore[assignment]
    return Table(
        ("layer", "weights", "alive", "sparsity"),
        tuple((name, f"{n:,}", f"{alive:,}", f"{1 - alive / n:.3f}") for name, (n, alive) in counts.items()),
        "Weights of Conv2d and Linear layers; sparsity is the share that is zero.",
    )


def _check_shape(name: str, mask: Tensor, shape: torch.Size) -> None:
    if (mask.dtype, mask.shape) != (torch.bool, shape):
        raise BadSetting(
            f"the mask of {name} must be torch.bool {tuple(shape)} as its weight, got {mask.dtype} "
            f"{tuple(mask.shape)}; compute it from scores in the weight's shape"
        )
