"""A convolution as single-channel filters between two 1×1 convolutions: CP decomposition, and its trouble.

CP writes a tensor as a sum of r components, each the outer product of one vector for every mode:

    T[i, j, k] ≈ Σ_r A[i, r] B[j, r] C[k, r]

A kernel written so is a layer whose middle mixes no channels: r mixes of the inputs, each filtered by itself,
and outputs that are mixes of those. With modes (out, in, kh, kw) a filter is a column and then a row; with
modes (out, in, kh·kw) it is a whole kh×kw.

Alternating least squares (ALS): with all factors but one fixed, the error is quadratic in that one. For A

    A G = T_(0) (B ⊙ C),        G = BᵀB * CᵀC

has the least error. B ⊙ C (Khatri-Rao) holds the outer products of columns, flattened; G (r, r) is its Gram
matrix, made without it. A sweep solves for every factor in turn. The start is the leading singular vectors of
each unfolding, with random columns where there are too few; and a little noise on all, as singular vectors
alone can be a saddle, from which no sweep moves.

The trouble: there may be *no* nearest sum of r components. a⊗a⊗b + a⊗b⊗a + b⊗a⊗a is not a sum of two, yet

    n (a + b/n)⊗(a + b/n)⊗(a + b/n)  -  n a⊗a⊗a

comes as near to it as you like: two components that grow and cancel, ever better. With kernels too the error
falls slowly while components grow; fine-tuning then moves large parts that only together are small.
``cancellation`` shows it. The ridge λ handles it, as it makes large components cost:

    |T - Σ|² + λ Σ_r |component r|²        so that above, A (G + λ diag G) = T_(0) (B ⊙ C)

and a nearest sum exists, near the other's error. (A ridge λ I would cost factors, not components: it deletes
the small components first.) Each component's norm is shared out evenly among its factors, which changes no
sum, and gives them gradients of like size in fine-tuning.

What it saves: of out·in·kh·kw products a position, r (in + kh + kw + out) are left, or about a ninth for 3×3
and r half of the channels. What it costs: factors found by turns, which may stop short of the best; and
depthwise layers, which some engines run slower than their products say. What is left out: the correction of
Phan et al., which repairs components that already cancel.

Source: kernels: Lebedev et al. 2014, arXiv:1412.6553; no nearest sum: de Silva and Lim 2008,
arXiv:math/0607647; in convolutions: Phan et al. 2020, arXiv:2008.05441.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from compresslab.errors import BadSetting
from compresslab.techniques.low_rank.svd import check_matrices, is_whole
from compresslab.techniques.low_rank.tucker import fold, unfold

__all__ = ["cancellation", "cp", "cp_kernels", "depthwise_kernels", "from_cp", "khatri_rao"]

SWEEPS, RIDGE = 50, 1e-2
NOISE = 0.01  # its norm beside a singular vector's, at the start


def khatri_rao(factors: Sequence[Tensor]) -> Tensor:
    """The outer products of columns, flattened (product of sizes, rank): the last factor runs fastest.

    Args:
        factors: (size of mode, rank) each.

    >>> khatri_rao([torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [5.0]])]).T
    tensor([[ 3.,  5.,  6., 10.]])
    """
    return functools.reduce(lambda left, right: (left[:, None] * right).flatten(0, 1), factors)


def from_cp(factors: Sequence[Tensor]) -> Tensor:
    """The sum of the components: a tensor with one mode for each factor.

    Args:
        factors: two or more, (size of mode, rank) each.
    """
    shape = tuple(len(factor) for factor in factors)
    return fold(factors[0] @ khatri_rao(factors[1:]).T, 0, shape)


def cancellation(factors: Sequence[Tensor]) -> float:
    """How far components cancel: √(Σ |component|²) / |Σ component|; 1 if they are orthogonal to each other.

    Below 1 they point the same way. At 100 the components are a hundred times what they add up to.

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
    """The factors (size of mode, rank), one a mode, whose components add up to nearly the tensor; its dtype.

    Args:
        tensor: two dimensions or more. Not changed.
        rank: how many components, at least 1; may be more than any mode's size.
        sweeps: of alternating least squares, at least 1.
        ridge: λ, at least 0; 0 lets components grow and cancel.
        seed: of the noise at the start.

    Raises:
        BadSetting: a rank, sweeps or ridge out of range, fewer than two dimensions, or entries that
            are no finite floats.
    """
    _check(tensor, rank, sweeps, ridge)
    t, generator = tensor.detach().double(), torch.Generator().manual_seed(seed)
    factors = [_start(unfold(t, mode), rank, generator) for mode in range(t.dim())]
    for _ in range(sweeps):
        for mode in range(t.dim()):
            factors[mode] = _least_squares(t, factors, mode, ridge)
        factors = _balanced(factors)
    return [factor.to(tensor.dtype) for factor in factors]


def cp_kernels(
    weight: Tensor, *, rank: int, groups: int = 1, sweeps: int = SWEEPS, ridge: float = RIDGE
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The weights of four convolutions that follow each other for that of one: 1×1, a column, a row, 1×1.

    Their shapes are (groups r, in/groups, 1, 1), (groups r, 1, kh, 1), (groups r, 1, 1, kw), (out, r, 1, 1).
    The first and last are in ``groups`` groups, the two between them in groups r: depthwise. Stride, padding
    and dilation belong to those two, each in its own direction, and the bias to the last.

    Args:
        weight: (out, in/groups, kh, kw). Not changed.
        rank: components of every group, at least 1.
        groups: of the convolution; each is factorized by itself.
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
    """The weights of three convolutions that follow each other for that of one: 1×1, depthwise, 1×1.

    Their shapes are (groups r, in/groups, 1, 1), (groups r, 1, kh, kw) and (out, r, 1, 1). The first and last
    are in ``groups`` groups, the middle one in groups r groups, with stride, padding and dilation. The bias
    belongs to the last. As ``cp_kernels``, but with whole filters: more room for the same rank.

    Args:
        weight: (out, in/groups, kh, kw). Not changed.
        rank: components of every group, at least 1.
        groups: of the convolution; each is factorized by itself.
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
    """The leading left singular vectors (n, rank) of a matrix (n, many), a little moved; noise beyond n."""
    vectors = torch.linalg.eigh(matrix @ matrix.T).eigenvectors.flip(1)[:, :rank]  # eigh's values ascend
    start = torch.randn(len(matrix), rank, generator=generator, dtype=matrix.dtype) / math.sqrt(len(matrix))
    start[:, : len(matrix)] = vectors + NOISE * start[:, : len(matrix)]
    return start


def _least_squares(t: Tensor, factors: list[Tensor], mode: int, ridge: float) -> Tensor:
    """The best factor (size of mode, rank) for this mode, the others fixed."""
    others = [factor for m, factor in enumerate(factors) if m != mode]
    gram = torch.stack([factor.T @ factor for factor in others]).prod(dim=0)  # (rank, rank)
    diagonal = gram.diagonal()
    # where columns repeat or are 0 and there is no ridge, this little keeps the matrix positive in rounding
    floor = 1e-12 * diagonal.mean() + 1e-200
    factor = torch.linalg.cholesky(gram + torch.diag(ridge * diagonal + floor))
    return torch.cholesky_solve(_along(t, factors, mode).T, factor).T


def _along(t: Tensor, factors: list[Tensor], mode: int) -> Tensor:
    """unfold(t, mode) @ khatri_rao(the others), without the long matrix: the largest mode is summed first."""
    others = sorted((m for m in range(t.dim()) if m != mode), key=lambda m: len(factors[m]), reverse=True)
    terms = [part for m in others for part in (factors[m], [m, t.dim()])]
    return torch.einsum(t, list(range(t.dim())), *terms, [mode, t.dim()])


def _balanced(factors: list[Tensor]) -> list[Tensor]:
    """The same components, with each one's norm shared out evenly to its factors."""
    norms = torch.stack([factor.norm(dim=0) for factor in factors])  # (modes, rank)
    share = norms.log().mean(dim=0).exp()  # the geometric mean; 0 for a component that is gone
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


def _check(tensor: Tensor, rank: int, sweeps: int, ridge: float) -> None:
    if tensor.dim() < 2:
        raise BadSetting(
            f"tensor must have two dimensions or more, got {tuple(tensor.shape)}; try a layer's weight"
        )
    check_matrices(tensor.flatten(1))
    if not is_whole(rank, 1, math.inf):
        raise BadSetting(f"rank must be a whole number from 1 up, got {rank}; try {max(tensor.shape) // 2}")
    if not is_whole(sweeps, 1, math.inf):
        raise BadSetting(f"sweeps must be a whole number from 1 up, got {sweeps}; try {SWEEPS}")
    if not 0 <= ridge < math.inf:
        raise BadSetting(f"ridge must be a number from 0 up, got {ridge}; try {RIDGE}")
