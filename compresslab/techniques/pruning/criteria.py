"""Pruning criteria: a score per weight; the weights with the lowest scores are removed first.

A weight can be removed if the network is almost the same without it. Criteria estimate this from different
data: w is a weight, g = ∂L/∂w the gradient of the loss, h = ∂²L/∂w² its curvature, x the input that w
multiplies:

    criterion               score       needs                                cost, in passes over the images
    random_scores           uniform     nothing: the control                 0
    magnitude               |w|, w²     the weights                          0
    batch_norm_scale        |γ|         a BatchNorm behind the layer         0
    wanda                   |w| · ‖x‖   images: input_norms                  1 forward
    gradient                |g|         images, labels: mean_gradients       1 forward and backward
    taylor                  (w g)²      the same                             the same
    optimal_brain_damage    h w² / 2    images, labels: squared_gradients    the same, per image
    surgeon_scores (obs)    w²/[G⁻¹]    images: gram_matrices                1 forward, with n² products

``gradients`` computes what they need and lists its cost in time. The last three estimate the change of the
loss (or of the layer's output) when w becomes 0: by the first term of its Taylor series, by the second, and
with the other weights compensating. The gradient alone is not such an estimate: it is the change of the loss
*per unit* of w, and w itself is missing. In a trained network the mean gradient is near zero, so that the
taylor score is mostly noise; this is why the second term was used first.

What they save: nothing themselves; they only rank. The score of a group of weights is the sum of their scores
(see ``granularity``; for taylor the paper also has the square of the sum of w g, and torch-pruning sums
|w g|). What is left out: interactions: two weights may each be removable, but not both.

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
    """Return |w| or w² of every weight, in the weight's shape and dtype.

    Both rank single weights alike, but not groups: with 1 a group's sum is its L1 norm, with 2 the square of
    its L2 norm, in which one large weight counts more than several small ones.

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
    """Return |g|, the slope of the loss in every weight, in the gradient's shape and dtype.

    Args:
        weight_gradient: ∂L/∂w, any shape, as from ``mean_gradients``. Not changed.
    """
    return weight_gradient.detach().abs()


def taylor(weight: Tensor, gradient: Tensor) -> Tensor:
    """Return (w g)², the squared first-order change of the loss if w becomes 0, in the weight's shape.

    Args:
        weight: any shape. Not changed.
        gradient: ∂L/∂w in the same shape, as from ``mean_gradients``. Not changed.

    Raises:
        CompressionError: the shapes differ.

    >>> taylor(torch.tensor([2.0, 0.0]), torch.tensor([0.5, 9.0]))
    tensor([1., 0.])
    """
    _same_shape(weight, gradient, "gradient", "mean_gradients(model, batches)[name]")
    return (weight * gradient).detach().square()


def optimal_brain_damage(weight: Tensor, hessian_diagonal: Tensor) -> Tensor:
    """Return h w² / 2, the second-order increase of the loss if w becomes 0, in the weight's shape.

    At a minimum the first-order term is 0; the diagonal h omits the interactions of two weights. With
    ``squared_gradients`` as h it is half the mean over images of (w g_i)²: the Taylor score per image.

    Args:
        weight: any shape. Not changed.
        hessian_diagonal: ∂²L/∂w², or an estimate of it, in the same shape. Not changed.

    Raises:
        CompressionError: the shapes differ.

    >>> optimal_brain_damage(torch.tensor([2.0, -1.0]), torch.tensor([0.5, 4.0]))
    tensor([1., 2.])
    """
    _same_shape(weight, hessian_diagonal, "hessian_diagonal", "squared_gradients(model, batches)[name]")
    return (hessian_diagonal * weight.square() / 2).detach()


def wanda(weight: Tensor, input_norm: Tensor) -> Tensor:
    """Return |w| · ‖x‖, a weight's contribution to its output over the images, in the weight's shape.

    Paper: only weights of the same output are compared; here: a score, and the mask determines what is
    compared.

    Args:
        weight: (out, in) or (out, in, height, width). Not changed.
        input_norm: norms of the inputs, (in,) or (in, height, width), as from ``input_norms``.

    Raises:
        CompressionError: there is not one norm per input.

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
    """Return |γ| (channels,), BatchNorm's scale of each channel: a score for channels, not for weights.

    It ranks well only if training pushed γ towards zero (paper: an L1 penalty on γ).

    Args:
        gamma: a BatchNorm's ``weight``. Not changed.
    """
    return gamma.detach().abs()


def random_scores(weight: Tensor, *, generator: torch.Generator) -> Tensor:
    """Return uniform scores in [0, 1), in the weight's shape: the control for all other criteria."""
    return torch.rand(weight.shape, generator=generator, device=weight.device)


def _same_shape(weight: Tensor, other: Tensor, name: str, source: str) -> None:
    if weight.shape != other.shape:
        raise BadSetting(
            f"{name} must have the weight's shape {tuple(weight.shape)}, got {tuple(other.shape)}; "
            f"try {source}"
        )
