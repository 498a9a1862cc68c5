"""CP decomposition: a convolution as depthwise filters between two 1×1 convolutions, with a ridge penalty.

CP approximates a tensor by a sum of r components, each the outer product of one vector per mode:

    T[i, j, k] ≈ Σ_r A[i, r] B[j, r] C[k, r]

For a kernel, this gives a 1×1 convolution to r channels, a filter on each channel separately, and a 1×1
convolution to the outputs. With modes (out, in, kh, kw) the filter is a column followed by a row; with modes
(out, in, kh·kw) it is a whole kh×kw filter.

Alternating least squares (ALS): if all factors but one are fixed, the error is quadratic in that one. For A

    A G = T_(0) (B ⊙ C),        G = BᵀB * CᵀC

has the least error. B ⊙ C (Khatri–Rao) holds the flattened outer products of columns; G (r, r) is its Gram
matrix, computed without it. A sweep solves for every factor in turn. The initial factors are the leading
singular vectors of each unfolding, with random columns if there are too few, plus a little noise, because
singular vectors alone can be a saddle point from which no sweep moves.

A best approximation by r components may *not exist*. a⊗a⊗b + a⊗b⊗a + b⊗a⊗a is not a sum of two, but

    n (a + b/n)⊗(a + b/n)⊗(a + b/n)  -  n a⊗a⊗a

approximates it to any precision as n grows, with two components that grow and cancel. For kernels, too, the
error falls slowly while components grow; fine-tuning then moves large components whose sum is small.
``cancellation`` measures this. The ridge λ prevents it by penalizing large components:

    |T - Σ|² + λ Σ_r |component r|²        so that above, A (G + λ diag G) = T_(0) (B ⊙ C)

Then a best approximation exists, with an error close to that without a ridge. (A ridge λ I would penalize
factors instead of components and remove small components first.) Each component's norm is divided evenly
among its factors, which does not change the sum and gives them gradients of similar size in fine-tuning.

What it saves: of out·in·kh·kw products per position, r (in + kh + kw + out) remain, about a ninth for 3×3 and
r half of the channels. What it costs: ALS may stop at a local optimum; and depthwise layers, which some
engines run slower than their MACs suggest. What is left out: the correction of Phan et al., which repairs
components that already cancel.

Source: kernels: Lebedev et al. 2014, arXiv:1412.6553; missing optimum: de Silva and Lim 2008,
arXiv:math/0607647; in convolutions: Phan et al. 2020, arXiv:2008.05441.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from compresslab.errors import BadSetting, check_seed, check_whole
from compresslab.techniques.low_rank.svd import check_matrices
from compresslab.techniques.low_rank.tucker import fold, unfold

__all__ = ["cancellation", "cp", "cp_kernels", "depthwise_kernels", "from_cp", "khatri_rao"]

SWEEPS, RIDGE = 50, 1e-2
NOISE = 0.01  # norm of the initial noise, relative to a singular vector's


def khatri_rao(factors: Sequence[Tensor]) -> Tensor:
    """Return the flattened outer products of columns, (product of sizes, rank), the last factor fastest.

    Args:
        factors: (size of mode, rank) each.

    >>> khatri_rao([torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [5.0]])]).T
    tensor([[ 3.,  5.,  6., 10.]])
    """
    return functools.reduce(lambda left, right: (left[:, None] * right).flatten(0, 1), factors)


def from_cp(factors: Sequence[Tensor]) -> Tensor:
    """Return the sum of the components: a tensor with one mode per factor.

    Args:
        factors: two or more, (size of mode, rank) each.
    """
    shape = tuple(len(factor) for factor in factors)
    return fold(factors[0] @ khatri_rao(factors[1:]).T, 0, shape)


def cancellation(factors: Sequence[Tensor]) -> float:
    """Return how much components cancel: √(Σ |component|²) / |Σ component|; 1 if they are orthogonal.

    Below 1 they point in similar directions. At 100 the components are a hundred times larger than their sum.

    Args:
        factors: two or more, (size of mode, rank) each.

    >>> a = torch.tensor([[1.0, -0.99]])
    >>> round(cancellation([a, torch.ones(1, 2)]))
    141
    """
    wide = [factor.detach().double() for factor in factors]
    norms = math.prod(factor.norm(dim=0) for factor in wide)  # (rank,)
    return float(norms.norm() / from_cp(wide).norm().clamp(min=torch.finfo(torch.float64).tiny))


def cp(
    tensor: Tensor, *, rank: int, sweeps: int = SWEEPS, ridge: float = RIDGE, seed: int = 0
) -> list[Tensor]:
    """Return the factors (size of mode, rank), one per mode, of a CP decomposition; in the tensor's dtype.

    Args:
        tensor: two dimensions or more. Not changed.
        rank: number of components, at least 1; may exceed every mode's size.
        sweeps: of alternating least squares, at least 1.
        ridge: λ, at least 0; with 0, components may grow and cancel.
        seed: of the initial noise.

    Raises:
        BadSetting: rank, sweeps or ridge is out of range, the tensor has fewer than two dimensions, or
            its entries are not finite floats.
    """
    _check(tensor, ridge)
    rank = check_whole("rank", rank, hint=f"try {max(tensor.shape) // 2}")
    sweeps = check_whole("sweeps", sweeps, hint=f"try {SWEEPS}")
    t, generator = tensor.detach().double(), torch.Generator().manual_seed(check_seed(seed))
    factors = [_start(unfold(t, mode), rank, generator) for mode in range(t.dim())]
    for _ in range(sweeps):
        for mode in range(t.dim()):
            factors[mode] = _least_squares(t, factors, mode, ridge)
        factors = _balanced(factors)
    return [factor.to(tensor.dtype) for factor in factors]


def cp_kernels(
    weight: Tensor, *, rank: int, groups: int = 1, sweeps: int = SWEEPS, ridge: float = RIDGE
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the weights of four convolutions in sequence that approximate one: 1×1, column, row, 1×1.

    Their shapes are (groups r, in/groups, 1, 1), (groups r, 1, kh, 1), (groups r, 1, 1, kw), (out, r, 1, 1).
    The first and last have ``groups`` groups, the two between them groups · r: depthwise. Stride, padding and
    dilation belong to these two, each in its own direction, and the bias to the last.

    Args:
        weight: (out, in/groups, kh, kw). Not changed.
        rank: components per group, at least 1.
        groups: of the convolution; each is factorized separately.
        sweeps: of alternating least squares, at least 1.
        ridge: λ, at least 0.

    Raises:
        BadSetting: as ``cp``, or no four dimensions, or groups that don't divide the outputs.
    """
    parts = [cp(part, rank=rank, sweeps=sweeps, ridge=ridge) for part in _groups(weight, groups)]
    out, into, vertical, horizontal = zip(*parts, strict=True)
    return (
        torch.cat([factor.T for factor in into])[:, :, None, None],
        torch.cat([factor.T for factor in vertical])[:, None, :, None],
        torch.cat([factor.T for factor in horizontal])[:, None, None, :],
        torch.cat(out)[:, :, None, None],
    )


def depthwise_kernels(
    weight: Tensor, *, rank: int, groups: int = 1, sweeps: int = SWEEPS, ridge: float = RIDGE
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights of three convolutions in sequence that approximate one: 1×1, depthwise, 1×1.

    Their shapes are (groups r, in/groups, 1, 1), (groups r, 1, kh, kw) and (out, r, 1, 1). The first and last
    have ``groups`` groups, the middle one groups · r, with stride, padding and dilation. The bias belongs to
    the last. As ``cp_kernels``, but with whole filters, which can represent more at the same rank.

    Args:
        weight: (out, in/groups, kh, kw). Not changed.
        rank: components per group, at least 1.
        groups: of the convolution; each is factorized separately.
        sweeps: of alternating least squares, at least 1.
        ridge: λ, at least 0.

    Raises:
        BadSetting: as ``cp``, or no four dimensions, or groups that don't divide the outputs.
    """
    parts = [cp(part.flatten(2), rank=rank, sweeps=sweeps, ridge=ridge) for part in _groups(weight, groups)]
    out, into, filters = zip(*parts, strict=True)
    return (
        torch.cat([factor.T for factor in into])[:, :, None, None],
        torch.cat([factor.T for factor in filters]).unflatten(1, (1, *weight.shape[2:])),
        torch.cat(out)[:, :, None, None],
    )


def _start(matrix: Tensor, rank: int, generator: torch.Generator) -> Tensor:
    """The leading left singular vectors (n, rank) of a matrix (n, many), plus noise; random beyond n."""
    vectors = torch.linalg.eigh(matrix @ matrix.T).eigenvectors.flip(1)[:, :rank]  # eigh orders upwards
    start = torch.randn(len(matrix), rank, generator=generator, dtype=matrix.dtype) / math.sqrt(len(matrix))
    start[:, : len(matrix)] = vectors + NOISE * start[:, : len(matrix)]
    return start


def _least_squares(t: Tensor, factors: list[Tensor], mode: int, ridge: float) -> Tensor:
    """The best factor (size of mode, rank) for this mode, with the others fixed."""
    others = [factor for m, factor in enumerate(factors) if m != mode]
    gram = torch.stack([factor.T @ factor for factor in others]).prod(dim=0)  # (rank, rank)
    diagonal = gram.diagonal()
    # without a ridge, this keeps the matrix numerically positive if columns repeat or are 0
    floor = 1e-12 * diagonal.mean() + 1e-200
    factor = torch.linalg.cholesky(gram + torch.diag(ridge * diagonal + floor))
    return torch.cholesky_solve(_along(t, factors, mode).T, factor).T


def _along(t: Tensor, factors: list[Tensor], mode: int) -> Tensor:
    """Return unfold(t, mode) @ khatri_rao(the others) without that matrix, summing the largest mode first."""
    others = sorted((m for m in range(t.dim()) if m != mode), key=lambda m: len(factors[m]), reverse=True)
    terms = [part for m in others for part in (factors[m], [m, t.dim()])]
    return torch.einsum(t, list(range(t.dim())), *terms, [mode, t.dim()])


def _balanced(factors: list[Tensor]) -> list[Tensor]:
    """Return the same components with each one's norm divided evenly among its factors."""
    norms = torch.stack([factor.norm(dim=0) for factor in factors])  # (modes, rank)
    share = norms.log().mean(dim=0).exp()  # the geometric mean; 0 for a component of zeros
    return [factor * (share / norm.clamp(min=1e-300)) for factor, norm in zip(factors, norms, strict=True)]


def _groups(weight: Tensor, groups: int) -> Sequence[Tensor]:
    """The weights (out/groups, in/groups, kh, kw) of each group."""
    if weight.dim() != 4:
        raise BadSetting(
            f"weight must be a convolution's (out, in, height, width), got {tuple(weight.shape)}; for "
            "a Linear layer try truncated_svd"
        )
    if groups < 1 or len(weight) % groups:
        raise BadSetting(
            f"groups must divide the outputs, got {groups} for {len(weight)}; try the convolution's "
            "own .groups"
        )
    return weight.chunk(groups)


def _check(tensor: Tensor, ridge: float) -> None:
    if tensor.dim() < 2:
        raise BadSetting(
            f"tensor must have two dimensions or more, got {tuple(tensor.shape)}; try a layer's weight"
        )
    check_matrices(tensor.flatten(1))
    if not 0 <= ridge < math.inf:
        raise BadSetting(f"ridge must be a number from 0 up, got {ridge}; try {RIDGE}")
