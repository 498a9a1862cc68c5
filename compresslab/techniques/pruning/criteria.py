"""Which weights matter? A criterion gives every weight a score; the lowest scores go first.

A weight should go if the network is nearly the same without it. What a criterion knows of that depends on
what it looks at; w is a weight, g = ∂L/∂w the loss's gradient, h = ∂²L/∂w² its curvature, x the input that
w multiplies:

    criterion               score       needs                                cost, in passes over the images
    random_scores           uniform     nothing: the control                 0
    magnitude               |w|, w²     the weights                          0
    batch_norm_scale        |γ|         a BatchNorm behind the layer         0
    wanda                   |w| · ‖x‖   images: input_norms                  1 forward
    gradient                |g|         images, labels: mean_gradients       1 forward and backward
    taylor                  (w g)²      the same                             the same
    optimal_brain_damage    h w² / 2    images, labels: squared_gradients    the same, an image at a time
    surgeon_scores (obs)    w²/[G⁻¹]    images: gram_matrices                1 forward, with n² products

The ``evidence`` page makes what is needed, and says what it costs in time. The last three estimate how far
the loss (or the layer's output) moves when w becomes 0: by the first term of its Taylor series, the second,
and with the other weights making up. A gradient alone is no such estimate: it says how the loss moves *per
unit* of w, not how far w has to go. And in a trained network the mean gradient is near zero, which leaves
taylor with noise, and is why the second term was looked at first.

What they save: nothing; they only rank. A score of several weights that go together is the sum of theirs (the
granularity page's; for taylor the paper also has the square of the sum of w g, and torch-pruning sums |w g|).
What is left out: that weights interact, so that two which can go alone can't both.

Source: magnitude: Han et al. 2015, arXiv:1506.02626; Taylor: Molchanov et al. 2019, arXiv:1906.10771; optimal
brain damage: LeCun, Denker and Solla 1990, "Optimal brain damage"; Wanda: Sun et al. 2023, arXiv:2306.11695;
BatchNorm's scale: Liu et al. 2017, "Network slimming", arXiv:1708.06519.
"""

from __future__ import annotations

import torch
from torch import Tensor

from compresslab.errors import BadSetting

__all__ = [
    "batch_norm_scale",
    "gradient",
    "magnitude",
    "optimal_brain_damage",
    "random_scores",
    "taylor",
    "wanda",
]


def magnitude(weight: Tensor, *, power: int = 1) -> Tensor:
    """|w| or w² of every weight, in the weight's shape and dtype: a high score is a weight to keep.

    For single weights both rank alike. Summed over a group they don't: 1 makes the sum its L1 norm, 2 the
    square of its L2 norm, in which one large weight counts for more than several small ones.

    Args:
        weight: any shape. Not changed.
        power: 1 or 2.

    Raises:
        CompressionError: another power.

    >>> magnitude(torch.tensor([-3.0, 0.5]))
    tensor([3.0000, 0.5000])
    """
    if power not in (1, 2):
        raise BadSetting(f"power must be 1 or 2, got {power}; try 1: the absolute value")
    return weight.detach().abs() if power == 1 else weight.detach().square()


def gradient(weight_gradient: Tensor) -> Tensor:
    """|g|: how steep the loss is in every weight, whatever the weight; the gradient's shape and dtype.

    Args:
        weight_gradient: ∂L/∂w, any shape, as from ``mean_gradients``. Not changed.
    """
    return weight_gradient.detach().abs()


def taylor(weight: Tensor, gradient: Tensor) -> Tensor:
    """(w g)²: the square of how far the loss moves if w becomes 0, to first order; the weight's shape.

    Args:
        weight: any shape. Not changed.
        gradient: ∂L/∂w in the same shape, as from ``mean_gradients``. Not changed.

    Raises:
        CompressionError: shapes that differ.

    >>> taylor(torch.tensor([2.0, 0.0]), torch.tensor([0.5, 9.0]))
    tensor([1., 0.])
    """
    _same_shape(weight, gradient, "gradient", "mean_gradients(model, batches)[name]")
    return (weight * gradient).detach().square()


def optimal_brain_damage(weight: Tensor, hessian_diagonal: Tensor) -> Tensor:
    """Half of h w²: how far the loss rises if w becomes 0, to second order; the weight's shape.

    At a minimum the first-order term is 0; what h leaves out are the products of two different weights. With
    ``squared_gradients`` for h it is half the mean over images of (w g_i)²: Taylor's score, image by image.

    Args:
        weight: any shape. Not changed.
        hessian_diagonal: ∂²L/∂w² in the same shape, or what stands for it. Not changed.

    Raises:
        CompressionError: shapes that differ.

    >>> optimal_brain_damage(torch.tensor([2.0, -1.0]), torch.tensor([0.5, 4.0]))
    tensor([1., 2.])
    """
    _same_shape(weight, hessian_diagonal, "hessian_diagonal", "squared_gradients(model, batches)[name]")
    return (hessian_diagonal * weight.square() / 2).detach()


def wanda(weight: Tensor, input_norm: Tensor) -> Tensor:
    """|w| · ‖x‖: how much a weight adds to its output, over the images; the weight's shape.

    Paper: compares weights of the same output with each other only; here: a score, and the mask decides.

    Args:
        weight: (out, in) or (out, in, height, width). Not changed.
        input_norm: what the norms of the inputs are, (in,) or (in, height, width): as from ``input_norms``.

    Raises:
        CompressionError: norms that are not one for each input.

    >>> wanda(torch.tensor([[1.0, -1.0]]), torch.tensor([3.0, 0.5]))
    tensor([[3.0000, 0.5000]])
    """
    if input_norm.shape != weight.shape[1:]:
        raise BadSetting(
            f"input_norm must have shape {tuple(weight.shape[1:])} for a weight of shape "
            f"{tuple(weight.shape)}, got {tuple(input_norm.shape)}; try input_norms(model, "
            "batches)[name]"
        )
    return (weight.abs() * input_norm).detach()


def batch_norm_scale(gamma: Tensor) -> Tensor:
    """|γ| (channels,): how strongly BatchNorm passes each channel on; a score for channels, not for weights.

    It ranks well only if γ was pressed towards zero in training (paper: an L1 penalty on γ).

    Args:
        gamma: a BatchNorm's ``weight``. Not changed.
    """
    return gamma.detach().abs()


def random_scores(weight: Tensor, *, generator: torch.Generator) -> Tensor:
    """Uniform in [0, 1), in the weight's shape: the control that every other criterion has to beat."""
    return torch.rand(weight.shape, generator=generator, device=weight.device)


def _same_shape(weight: Tensor, other: Tensor, name: str, source: str) -> None:
    if weight.shape != other.shape:
        raise BadSetting(
            f"{name} must have the weight's shape {tuple(weight.shape)}, got {tuple(other.shape)}; "
            f"try {source}"
        )
