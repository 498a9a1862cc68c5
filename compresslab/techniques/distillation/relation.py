"""Relation distillation: the student reproduces the teacher's relations between the images of a batch.

A network maps a batch of n images to n points. These losses compare relations between points, never a point
of the student with one of the teacher. So the two spaces may have different dimensions, and no regressor is
needed. Features (n, …) are first flattened to points.

- *RKD, distance*: all distances, divided by their mean. δ is the Huber loss (½ x², linear beyond 1).

      d_ij = ‖a_i - a_j‖ / μ,   μ = mean of ‖a_i - a_j‖ over i ≠ j;       loss = mean over i, j of δ(d_s - d_t)

- *RKD, angle*: the cosines of the angles of all triangles at the corner j.

      e_ij = (a_i - a_j) / ‖a_i - a_j‖;      ψ_ijk = e_ij · e_kj;         loss = mean over i, j, k of δ(ψ_s - ψ_t)

- *PKT*: the probability that i chooses j as its neighbour; the kernel is the cosine, mapped to 0 … 1.

      p_ij = k_ij / Σ_{m≠i} k_im,   k_ij = (1 + cos(a_i, a_j)) / 2;       loss = mean over i of KL(p_t ‖ p_s)

- *SP, similarity preserving*: the inner products, each row normalized to length 1.

      G = A Aᵀ,   each row over its length;                               loss = ‖G_s - G_t‖² / n²

What it saves: nothing itself; it improves a small student. What it costs: n² numbers per batch (n³ for the
angles), and the teacher's features. What is left out: relations across batches. "PKD" usually means Patient
knowledge distillation, not PKT. ``kendall_tau`` measures whether PKT keeps the *ranking* of the neighbours.

Source: RKD: Park et al. 2019, "Relational knowledge distillation", arXiv:1904.05068; PKT: Passalis and Tefas
2018, "Learning deep representations with probabilistic knowledge transfer", arXiv:1803.10837; SP: Tung and
Mori 2019, "Similarity-preserving knowledge distillation", arXiv:1907.09682.
"""  # noqa: E501

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from compresslab.errors import BadSetting
from compresslab.techniques.distillation.feature import unit_length
from compresslab.techniques.distillation.response import full_precision

__all__ = [
    "distances",
    "kendall_tau",
    "neighbour_probabilities",
    "pkt_loss",
    "rkd_angle_loss",
    "rkd_distance_loss",
    "similarity_loss",
]

_LEAST = 1e-7  # keeps logarithms finite, as in the authors' code of PKT


def distances(features: Tensor) -> Tensor:
    """Return the Euclidean distances of all pairs: (n, …) → (n, n); equal points have 0, with gradient 0."""
    points = full_precision(features).flatten(1)
    # the faster computation, by inner products, can take the root of a small negative number
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")


def rkd_distance_loss(features: Tensor, teacher_features: Tensor) -> Tensor:
    """Return the mean Huber loss between the student's and the teacher's normalized distances, over n² pairs.

    The mean distance is over i ≠ j; if all points coincide, distances are 0. With one image the loss is 0.
    Paper: the sum; here and in the authors' code: the mean, which includes the n zeros of i = j.

    Args:
        features: the student's, (n, …).
        teacher_features: (n, …), of any size, for the same images. They get no gradient.

    Raises:
        BadSetting: the numbers of images differ, or features have no second dimension.
    """
    _check_images(features, teacher_features)
    mine, theirs = (
        _over_their_mean(distances(features)),
        _over_their_mean(distances(teacher_features.detach())),
    )
    return F.smooth_l1_loss(mine, theirs)


def rkd_angle_loss(features: Tensor, teacher_features: Tensor) -> Tensor:
    """Return the mean Huber loss between the student's and the teacher's cosines of angles, over n³ triples.

    If two of the three points coincide, the cosine is 0, with gradient 0. As in the authors' code, these
    triples count in the mean.

    Args:
        features: the student's, (n, …).
        teacher_features: (n, …), of any size, for the same images. They get no gradient.

    Raises:
        BadSetting: the numbers of images differ, or features have no second dimension.
    """
    _check_images(features, teacher_features)
    return F.smooth_l1_loss(_cosines_at_corners(features), _cosines_at_corners(teacher_features.detach()))


def neighbour_probabilities(features: Tensor, *, with_itself: bool = False) -> Tensor:
    """Return the probability that image i (row) chooses image j (column) as neighbour: (n, …) → (n, n).

    Rows sum to 1. An image is not its own neighbour: the diagonal is 0. A row without neighbours (a single
    image, or all others exactly opposite) is 0.

    Args:
        features: (n, …).
        with_itself: count the image as its own neighbour. Paper: no; the authors' code: yes.

    >>> neighbour_probabilities(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    tensor([[0.0000, 1.0000, 0.0000],
            [0.5000, 0.0000, 0.5000],
            [0.0000, 1.0000, 0.0000]])
    """
    directions = unit_length(full_precision(features).flatten(1), dim=1)
    kernel = ((1 + _inner_products(directions)) / 2).clamp(min=0)  # rounding can give a negative
    if not with_itself:
        kernel = kernel * ~torch.eye(len(kernel), dtype=torch.bool, device=kernel.device)
    total = kernel.sum(dim=1, keepdim=True)
    return kernel / torch.where(total > 0, total, torch.inf)


def pkt_loss(features: Tensor, teacher_features: Tensor, *, with_itself: bool = False) -> Tensor:
    """Return the mean over the images of KL(teacher ‖ student) of their neighbour probabilities, in nats.

    Paper: the sum over all pairs; the authors' code: the mean over all pairs, which is this loss / n. As in
    that code, 1e-7 is added to both probabilities in the logarithm.

    Args:
        features: the student's, (n, …).
        teacher_features: (n, …), of any size, for the same images. They get no gradient.
        with_itself: see ``neighbour_probabilities``.

    Raises:
        BadSetting: the numbers of images differ, or features have no second dimension.
    """
    _check_images(features, teacher_features)
    p = neighbour_probabilities(teacher_features.detach(), with_itself=with_itself)
    q = neighbour_probabilities(features, with_itself=with_itself)
    return (p * ((p + _LEAST) / (q + _LEAST)).log()).sum(dim=1).mean()


def similarity_loss(features: Tensor, teacher_features: Tensor) -> Tensor:
    """Return the mean squared difference of the matrices of inner products, rows normalized to length 1.

    Args:
        features: the student's, (n, …).
        teacher_features: (n, …), of any size, for the same images. They get no gradient.

    Raises:
        BadSetting: the numbers of images differ, or features have no second dimension.
    """
    _check_images(features, teacher_features)
    return (_similarities(features) - _similarities(teacher_features.detach())).square().mean()


def kendall_tau(x: Tensor, y: Tensor) -> Tensor:
    """Return Kendall's τ-b, the agreement of two rankings: (…, n) → (…,); 1: same order, -1: reversed.

    The number of pairs in the same order minus that in opposite orders, divided by √(pairs not tied in x ·
    pairs not tied in y). NaN if all values of x or of y are tied. It takes n² numbers per ranking. Source:
    Kendall 1945, "The treatment of ties in ranking problems".

    Args:
        x: values to rank, (…, n).
        y: values for the same n items, in the same shape.

    Returns:
        float64 in [-1, 1].

    Raises:
        BadSetting: the shapes differ, or there are fewer than two values.

    >>> kendall_tau(torch.tensor([1, 2, 3, 4]), torch.tensor([10, 20, 40, 30]))
    tensor(0.6667, dtype=torch.float64)
    """
    if x.shape != y.shape or x.dim() == 0 or x.shape[-1] < 2:
        raise BadSetting(
            f"x and y must be rankings of one shape (…, n) with n ≥ 2, got {tuple(x.shape)} and "
            f"{tuple(y.shape)}; give the similarities to the same neighbours twice: the teacher's, "
            "the student's"
        )
    a, b = _orders(x), _orders(y)
    agreement = (a * b).sum(dim=(-1, -2))
    return agreement / (a.square().sum(dim=(-1, -2)) * b.square().sum(dim=(-1, -2))).sqrt()


def _orders(x: Tensor) -> Tensor:
    """1, 0 or -1 for each pair if its first value is larger, equal or smaller: (…, n) → (…, n, n)."""
    x = x.detach().double()
    return (x.unsqueeze(-1) - x.unsqueeze(-2)).sign()


def _over_their_mean(pairs: Tensor) -> Tensor:
    """Return distances (n, n) divided by their mean off the diagonal, whose zeros do not change the sum."""
    n = len(pairs)
    mean = pairs.sum() / max(n * (n - 1), 1)
    return pairs / torch.where(mean > 0, mean, torch.inf)


def _cosines_at_corners(features: Tensor) -> Tensor:
    """The cosine of the angle at corner j between i and k: (n, …) → (n, n, n), as [j, i, k]."""
    points = full_precision(features).flatten(1)
    edges = points.unsqueeze(0) - points.unsqueeze(1)  # [j, i] = a_i - a_j
    return _inner_products(unit_length(edges, dim=2))


def _similarities(features: Tensor) -> Tensor:
    """The inner products of all pairs, rows normalized to length 1: (n, …) → (n, n)."""
    return unit_length(_inner_products(full_precision(features).flatten(1)), dim=1)


def _inner_products(x: Tensor) -> Tensor:
    """Inner products of all pairs, (…, n, d) → (…, n, n): never in bfloat16, even under autocast."""
    with torch.autocast(x.device.type, enabled=False):
        return x @ x.mT


def _check_images(features: Tensor, teacher_features: Tensor) -> None:
    if min(features.dim(), teacher_features.dim()) < 2 or len(features) != len(teacher_features):
        raise BadSetting(
            "features and teacher_features must be (n, …) for the same n images, got "
            f"{tuple(features.shape)} and {tuple(teacher_features.shape)}; give both one batch"
        )
