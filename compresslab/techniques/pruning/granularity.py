"""What is removed together? Fine-grained: every weight stands alone, anywhere in its layer.

Each layer keeps its highest scores; the rest of its weights becomes zero.

    mask[i] = score[i] is not among the round(sparsity · n) lowest,    w ← w · mask

What it saves by itself: **nothing**. A zero takes as many bytes in a dense file, and as long to multiply,
as any other number: a smaller file needs a format that leaves zeros out, a faster run needs kernels that
skip them. What it costs: some accuracy, which training with the mask held fixed wins back. What is left
out: that training, a threshold across layers, and every coarser granularity.

Source: Han, Pool, Tran and Dally 2015, "Learning both weights and connections", arXiv:1506.02626.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from compresslab.errors import CompressionError
from compresslab.techniques.pruning.criteria import magnitude

__all__ = ["fine_grained_mask", "prune_by_magnitude"]


def fine_grained_mask(scores: Tensor, *, sparsity: float) -> Tensor:
    """Which weights stay: True but for exactly round(sparsity · n) of the lowest scores.

    Among equal scores the one that comes first (in row-major order) is dropped first. Half a weight is
    rounded as Python does, to the even number.

    Args:
        scores: any shape; a high score is a weight to keep. Not changed.
        sparsity: the share to drop, 0 ≤ sparsity < 1.

    Returns:
        A bool mask in the shape of ``scores``.

    Raises:
        CompressionError: sparsity out of range, or scores that are not numbers.

    >>> fine_grained_mask(torch.tensor([[3.0, 1.0], [2.0, 1.0]]), sparsity=0.25)
    tensor([[ True, False],
            [ True,  True]])
    """
    _check(sparsity)
    if scores.isnan().any():
        raise CompressionError(
            "scores are numbers, got NaN; look for a division by zero, or for a training that diverged"
        )
    mask = torch.ones(scores.numel(), dtype=torch.bool, device=scores.device)
    lowest_first = scores.flatten().argsort(stable=True)
    mask[lowest_first[: round(sparsity * scores.numel())]] = False
    return mask.reshape(scores.shape)


def prune_by_magnitude(model: nn.Module, *, sparsity: float) -> nn.Module:
    """A copy of the model in which every Conv2d and Linear layer has that share of its weights at zero.

    Each layer has its own threshold; biases stay. The given model is left alone and nothing is shared with
    it.

    Args:
        model: with at least one Conv2d or Linear layer.
        sparsity: the share of each layer's weights to set to zero, 0 ≤ sparsity < 1.

    Raises:
        CompressionError: sparsity out of range, or nothing to prune.
    """
    _check(sparsity)
    pruned = copy.deepcopy(model)
    layers = [layer for layer in pruned.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    if not layers:
        raise CompressionError(
            f"model has Conv2d or Linear layers to prune, got {type(model).__name__} without any; "
            "give the whole network"
        )
    with torch.no_grad():
        for layer in layers:
            layer.weight.mul_(fine_grained_mask(magnitude(layer.weight), sparsity=sparsity))
    return pruned


def _check(sparsity: float) -> None:
    if isinstance(sparsity, int | float) and 0 <= sparsity < 1:
        return
    percent = isinstance(sparsity, int | float) and 1 < sparsity < 100 and math.isfinite(sparsity)
    hint = f"did you mean {sparsity / 100:g}?" if percent else "try 0.5"
    raise CompressionError(f"sparsity is a fraction in [0, 1), got {sparsity}; {hint}")
