"""A mask says which weights live; this page puts masks on a network and holds them there.

A mask is a bool tensor in its weight's shape, True where the weight stays; masks are {layer's name: mask}.

    w ← w · mask,    and again after every step of the optimizer

The masked network is an ordinary one, of the same modules: nothing but its zeros tells that it was pruned,
and the masks can be read back from them. (``torch.nn.utils.prune`` keeps the weight and the mask side by
side: the state dict doubles, and the mask is multiplied in anew at every call.)

What it saves: **nothing** by itself, neither bytes nor time; the zeros are what other pages write down
sparsely or cut out. What it costs: one multiplication a weight and step of training. What is left out:
weights that come back to life while training goes on.

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
    """A copy of the model whose weights are zero where their mask is False.

    A layer without a mask stays as it is, and so do all biases. The given model is left alone and nothing is
    shared with it.

    Args:
        model: with at least one Conv2d or Linear layer.
        masks: {layer's name: bool tensor in its weight's shape}.

    Raises:
        CompressionError: a name that is no layer's, a mask of another shape or dtype, no layer at all.
    """
    layers = prunable_layers(model)
    check_layer_names("masks", masks, layers)
    for name, mask in masks.items():
        _check_shape(name, mask, layers[name].weight.shape)
    pruned = copy.deepcopy(model)
    keep_masks(masks)(pruned)
    return pruned


def masks_of(model: nn.Module) -> Masks:
    """Where the weights of each Conv2d and Linear layer are not zero: the masks that made the model.

    A weight that is zero for another reason counts as pruned too.

    Raises:
        CompressionError: no layer at all.
    """
    return {name: layer.weight.detach() != 0 for name, layer in prunable_layers(model).items()}


def keep_masks(masks: Mapping[str, Tensor]) -> Callable[[nn.Module], None]:
    """An ``after_step`` for ``training.fit``: sets the dead weights back to zero, in place.

    *Gradient*: a dead weight has one, since the loss would change if it lived, so every step moves it. It is
    back at zero before the next forward pass: the network never answers with it.

    *Momentum*: the optimizer's velocity of a dead weight is not cleared. With SGD that does no harm, for each
    weight's velocity moves that weight alone. But it is why zeroing the *gradients* is not enough: a velocity
    from before the pruning goes on reviving dead weights for many steps, with no gradient at all.

    *Weight decay*: it pulls a weight in proportion to its size, so at zero it does nothing.

    Args:
        masks: {layer's name: bool tensor in its weight's shape}; as many layers as one likes.
    """

    @torch.no_grad()
    def after_step(model: nn.Module) -> None:
        for name, mask in masks.items():
            model.get_submodule(name).weight.masked_fill_(~mask, 0)  # type: ignore[operator]

    return after_step


def sparsities(model: nn.Module) -> dict[str, float]:
    """The share of each layer's weights that is zero, in [0, 1]: {name: share}.

    Raises:
        CompressionError: no layer at all.
    """
    return {name: 1 - int(mask.sum()) / mask.numel() for name, mask in masks_of(model).items()}


def sparsity_table(model: nn.Module) -> Table:
    """Each layer's weights, how many of them live, and the share of zeros; the last row is all layers.

    Raises:
        CompressionError: no layer at all.
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
