"""Feature distillation: hints, cosine hints and attention transfer between hidden layers.

*Hints* (FitNets): a middle layer of the student should reproduce the features of a middle layer of the
teacher. The teacher's layer has more channels, so a small regressor r, trained with the student, maps one to
the other:

    hint = mean of (r(a_student) - a_teacher)²              r: a 1 × 1 convolution

The cosine form compares only directions, position by position: 1 - cos(r(a_student), a_teacher).

*Attention transfer* compares not the features but where they are large. The attention map of a layer is the
sum of squares over its channels at each position, as one vector of length 1; it needs no regressor.

    Q = Σ_c a_c²  (h·w numbers),        attention = mean over images of ‖Q_s / ‖Q_s‖ - Q_t / ‖Q_t‖‖²

What it saves: nothing itself; it improves a small student. What it costs: the teacher's features, which are
too large to cache for many images, and for hints the regressor's parameters during training. The regressor is
a separate module and is not stored with the student. What is left out: layers of different resolutions, and
FitNets' two stages (first the hint, then the response; here a weighted sum).

Source: Romero et al. 2014, "FitNets: hints for thin deep nets", arXiv:1412.6550; Zagoruyko and Komodakis
2016, "Paying more attention to attention", arXiv:1612.03928.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compresslab.errors import BadSetting
from compresslab.techniques.distillation.response import full_precision

__all__ = ["Regressor", "attention_loss", "attention_map", "cosine_hint_loss", "hint_loss", "unit_length"]

_SHORTEST = 1e-12  # a shorter vector counts as zero


class Regressor(nn.Module):
    """A 1 × 1 convolution from the student's features to the teacher's: (n, student, h, w) → (n, teacher, h, w).

    It is used only during training; its parameters do not belong to the student.

    Args:
        student_channels: channels of the student's layer.
        teacher_channels: channels of the teacher's layer.
    """  # noqa: E501

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(student_channels, teacher_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.conv(features)


def unit_length(x: Tensor, *, dim: int) -> Tensor:
    """Return the vectors along a dimension divided by their Euclidean norms; zeros stay 0, with gradient 0.

    >>> unit_length(torch.tensor([[3.0, -4.0], [0.0, 0.0]]), dim=1)
    tensor([[ 0.6000, -0.8000],
            [ 0.0000,  0.0000]])
    """
    length = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return x / torch.where(length > _SHORTEST, length, torch.inf)


def hint_loss(features: Tensor, teacher_features: Tensor) -> Tensor:
    """Return the mean squared error between the regressed features and the teacher's.

    Paper: half the sum; here: the mean, so that the weight does not depend on the size of the layer.

    Args:
        features: the student's after its ``Regressor``, any shape.
        teacher_features: in the same shape. They get no gradient.

    Raises:
        BadSetting: the shapes differ.
    """
    mine, theirs = _same_shape(features, teacher_features)
    return (mine - theirs).square().mean()


def cosine_hint_loss(features: Tensor, teacher_features: Tensor) -> Tensor:
    """Return the mean over images and positions of 1 - cosine between the vectors of channels: 0 to 2.

    The norms of the vectors do not matter. A zero vector has cosine 0 with every other.

    Args:
        features: the student's after its ``Regressor``, (n, channels) or (n, channels, h, w).
        teacher_features: in the same shape. They get no gradient.

    Raises:
        BadSetting: the shapes differ.
    """
    mine, theirs = _same_shape(features, teacher_features)
    return 1 - (unit_length(mine, dim=1) * unit_length(theirs, dim=1)).sum(dim=1).mean()


def attention_map(features: Tensor) -> Tensor:
    """Return the attention map: sums of squares over channels, (n, c, h, w) → (n, h·w), rows of length 1.

    Raises:
        BadSetting: the features are not of shape (n, c, h, w).
    """
    if features.dim() != 4:
        raise BadSetting(
            f"features must have shape (n, c, h, w), got {tuple(features.shape)}; take them from a "
            "convolution or a block, before the average over space"
        )
    energy = full_precision(features).square().sum(dim=1)  # (n, h, w)
    return unit_length(energy.flatten(1), dim=1)


def attention_loss(features: Tensor, teacher_features: Tensor) -> Tensor:
    """Return the mean over the images of the squared distance between the attention maps: 0 to 2.

    Paper: the distance, not squared; the authors' code: squared, but also averaged over the h·w positions.
    Here: squared, because it is smooth at 0, and summed, so that it does not depend on the resolution.

    Args:
        features: the student's, (n, c, h, w).
        teacher_features: (n, any c, h, w), for the same images. They get no gradient.

    Raises:
        BadSetting: the features are not 4-D, or differ in resolution or number of images.
    """
    mine, theirs = attention_map(features), attention_map(teacher_features.detach())
    if len(features) != len(teacher_features) or features.shape[2:] != teacher_features.shape[2:]:
        raise BadSetting(
            f"features and teacher_features must agree in n, h and w, got {tuple(features.shape)} and "
            f"{tuple(teacher_features.shape)}; choose layers of one resolution, and give both the "
            "same images"
        )
    return (mine - theirs).square().sum(dim=1).mean()


def _same_shape(features: Tensor, teacher_features: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in full precision, the teacher's detached, after comparing their shapes."""
    if features.shape != teacher_features.shape:
        raise BadSetting(
            f"features and teacher_features must have one shape, got {tuple(features.shape)} and "
            f"{tuple(teacher_features.shape)}; choose layers of one resolution, and translate the "
            "channels with a Regressor"
        )
    return full_precision(features), full_precision(teacher_features).detach()
