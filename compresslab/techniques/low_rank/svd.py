"""Truncated SVD: one layer as two smaller ones, by the singular value decomposition of its weight.

If the rows of a matrix are similar, few directions suffice to represent it. The singular value decomposition
orders the directions by importance: W = Σ sᵢ uᵢ vᵢᵀ, s₁ ≥ s₂ ≥ … ≥ 0, with orthonormal uᵢ and vᵢ. With the
first r terms, the layer y = W x becomes two, with r numbers between them (S is divided evenly):

    W ≈ W_r = (U_r √S_r) (√S_r V_rᵀ) = second @ first,        y = second (first x)

No matrix of rank r is nearer to W (Eckart–Young theorem), and the error follows from the singular values:

    ‖W - W_r‖² = s²_{r+1} + … + s²_{min(m, n)}

A convolution can be read as a matrix in two ways, each of which gives two convolutions:

- **channels**: rows out, columns in · kh · kw. First a kh × kw convolution to r channels (with stride,
  padding and dilation), then a 1 × 1 convolution to the outputs (with the bias).
- **space**: rows in · kh, columns out · kw. First a column, kh × 1, then a row, 1 × kw; each has the stride,
  padding and dilation of its own direction, the second the bias. A filter that is a column times a row (a
  blur, an edge) is exact at rank 1.

Each group of a grouped convolution has its own matrix and its own r channels.

What it saves: weights, r (m + n) instead of m n, fewer if r < m n / (m + n); MACs likewise (the first layer
of a spatial split runs at the input's height or width, so a stride changes its count). What it costs: the
dropped terms; and two layers run instead of one, so time falls less than MACs. What is left out: the inputs:
all directions have equal weight, even those without inputs (``activation_aware`` uses the inputs); and
fine-tuning, which recovers much of the loss.

Source: Eckart and Young 1936, "The approximation of one matrix by another of lower rank"; Denton et al.
2014, arXiv:1404.0736; the channel split as in Zhang et al. 2015, arXiv:1505.06798 (there fitted to the
outputs); the spatial split as in Jaderberg et al. 2014, arXiv:1405.3866.
"""

from __future__ import annotations

import torch
from torch import Tensor

from compresslab.errors import BadSetting, check_whole

__all__ = [
    "channel_kernels",
    "channel_matrices",
    "check_matrices",
    "check_rank",
    "dropped_error",
    "from_channels",
    "from_space",
    "space_kernels",
    "space_matrices",
    "truncated_svd",
]


def truncated_svd(w: Tensor, *, rank: int) -> tuple[Tensor, Tensor]:
    """Return the factors (first, second) of the rank-r matrix nearest to w: second @ first.

    Each factor has the square root of the singular values, so both have the same norm.

    Args:
        w: (..., m, n). Not changed.
        rank: 1 ≤ rank ≤ min(m, n).

    Returns:
        first: (..., rank, n), applied to the input first; in w's dtype.
        second: (..., m, rank).

    Raises:
        BadSetting: rank is out of range, or w is not a matrix or not finite.

    >>> first, second = truncated_svd(torch.tensor([[2.0, 1.0], [1.0, 2.0]]), rank=1)
    >>> (second @ first).round(decimals=4)
    tensor([[1.5000, 1.5000],
            [1.5000, 1.5000]])
    """
    check_matrices(w)
    rank = check_rank(rank, w.shape)
    u, s, vt = torch.linalg.svd(w.detach().double(), full_matrices=False)
    root = s[..., :rank].sqrt()
    first = root[..., :, None] * vt[..., :rank, :]  # (..., rank, n)
    second = u[..., :, :rank] * root[..., None, :]  # (..., m, rank)
    return first.to(w.dtype).contiguous(), second.to(w.dtype).contiguous()


def dropped_error(w: Tensor) -> Tensor:
    """Return the relative error ‖W - W_r‖ / ‖W‖ at every rank r = 0 … min(m, n), in float64: from 1 to 0.

    It is computed from the singular values only. A matrix of zeros has error 0 at every rank.

    Args:
        w: (..., m, n). Not changed.

    Returns:
        (..., min(m, n) + 1): entry r belongs to rank r.

    Raises:
        BadSetting: w is not a matrix or not finite.

    >>> dropped_error(torch.tensor([[4.0, 0.0], [0.0, 3.0]]))
    tensor([1.0000, 0.6000, 0.0000], dtype=torch.float64)
    """
    check_matrices(w)
    squares = torch.linalg.svdvals(w.detach().double()).square()
    dropped = squares.flip(-1).cumsum(-1).flip(-1)  # summed from the smallest, for precision
    dropped = torch.cat([dropped, torch.zeros_like(dropped[..., :1])], dim=-1)
    total = dropped[..., :1]
    return (dropped / total.where(total > 0, 1)).sqrt()


def channel_matrices(weight: Tensor, *, groups: int = 1) -> Tensor:
    """Return a weight (out, in / groups, kh, kw) as matrices (groups, out / groups, in / groups · kh · kw).

    Raises:
        BadSetting: a shape that is no convolution's, or that doesn't fit the groups.
    """
    _check_weight(weight, groups)
    return _copied(weight.reshape(groups, len(weight) // groups, -1))


def space_matrices(weight: Tensor, *, groups: int = 1) -> Tensor:
    """Return a weight (out, in / groups, kh, kw) as matrices (groups, in / groups · kh, out / groups · kw).

    Raises:
        BadSetting: a shape that is no convolution's, or that doesn't fit the groups.
    """
    _check_weight(weight, groups)
    inputs, height, width = weight.shape[1:]
    split = weight.reshape(groups, -1, inputs, height, width)
    return _copied(split.permute(0, 2, 3, 1, 4).reshape(groups, inputs * height, -1))


def channel_kernels(weight: Tensor, *, rank: int, groups: int = 1) -> tuple[Tensor, Tensor]:
    """Return the weights of two convolutions in sequence, kh × kw and 1 × 1, that approximate one.

    Both have the groups of the original.

    Args:
        weight: (out, in / groups, kh, kw). Not changed.
        rank: channels between the two, for each group; at most the smaller side of its matrix.
        groups: those of the convolution.

    Returns:
        first: (groups · rank, in / groups, kh, kw).
        second: (out, rank, 1, 1).

    Raises:
        BadSetting: rank out of range, or a shape that doesn't fit.
    """
    first, second = truncated_svd(channel_matrices(weight, groups=groups), rank=rank)
    return first.reshape(groups * rank, *weight.shape[1:]), second.reshape(len(weight), rank, 1, 1)


def from_channels(first: Tensor, second: Tensor, *, groups: int = 1) -> Tensor:
    """Return the weight (out, in / groups, kh, kw) of the convolution equal to a channel split's two.

    Args:
        first: (groups · rank, in / groups, kh, kw).
        second: (out, rank, 1, 1).
        groups: those of both convolutions.

    Raises:
        BadSetting: shapes that don't fit.
    """
    _check_pair(first, second, groups, "1 × 1", second.shape[2:] == (1, 1))
    out, rank = second.shape[:2]
    product = second.reshape(groups, out // groups, rank) @ first.reshape(groups, rank, -1)
    return product.reshape(out, *first.shape[1:])


def space_kernels(weight: Tensor, *, rank: int, groups: int = 1) -> tuple[Tensor, Tensor]:
    """Return the weights of two convolutions in sequence, a column and a row, that approximate one.

    Both have the groups of the original.

    Args:
        weight: (out, in / groups, kh, kw). Not changed.
        rank: channels between the two, for each group; at most the smaller side of its matrix.
        groups: those of the convolution.

    Returns:
        vertical: (groups · rank, in / groups, kh, 1).
        horizontal: (out, rank, 1, kw).

    Raises:
        BadSetting: rank out of range, or a shape that doesn't fit.
    """
    rows, columns = truncated_svd(space_matrices(weight, groups=groups), rank=rank)
    out, inputs, height, width = weight.shape
    vertical = columns.mT.reshape(groups * rank, inputs, height, 1)
    horizontal = rows.reshape(groups, rank, -1, width).transpose(1, 2)  # (groups, out / groups, rank, kw)
    return vertical.contiguous(), horizontal.reshape(out, rank, 1, width).contiguous()


def from_space(vertical: Tensor, horizontal: Tensor, *, groups: int = 1) -> Tensor:
    """Return the weight (out, in / groups, kh, kw) of the convolution equal to a spatial split's two.

    Args:
        vertical: (groups · rank, in / groups, kh, 1).
        horizontal: (out, rank, 1, kw).
        groups: those of both convolutions.

    Raises:
        BadSetting: shapes that don't fit.
    """
    column_and_row = vertical.shape[3:] == (1,) and horizontal.shape[2:3] == (1,)
    _check_pair(vertical, horizontal, groups, "1 × kw behind kh × 1", column_and_row)
    out, rank, _, width = horizontal.shape
    columns = vertical.reshape(groups, rank, *vertical.shape[1:3])
    rows = horizontal.reshape(groups, out // groups, rank, width)
    return torch.einsum("grih,gorw->goihw", columns, rows).reshape(out, *vertical.shape[1:3], width)


def check_rank(rank: int, shape: tuple[int, ...]) -> int:
    """Return the rank as an int; raise if it is impossible for a matrix of this shape (..., m, n).

    Raises:
        BadSetting: rank is not an integer from 1 to min(m, n).
    """
    m, n = shape[-2:]
    allowed = f"from 1 to {min(m, n)} for a matrix of {m} by {n}"
    hint = f"try {max(1, m * n // (m + n) // 2)}, half of where it stops saving"
    return check_whole("rank", rank, most=min(m, n), allowed=allowed, hint=hint)


def check_matrices(w: Tensor) -> None:
    """Raise unless w is a matrix (m, n) of finite floats, or a batch (..., m, n) of them.

    Raises:
        BadSetting: w has fewer than two dimensions, another dtype, or entries that are not finite.
    """
    if w.dim() < 2 or not w.is_floating_point():
        raise BadSetting(
            f"w must be a matrix (m, n) of floats, or a batch of them, got {tuple(w.shape)} "
            f"{w.dtype}; try layer.weight.flatten(1)"
        )
    if not w.isfinite().all():
        raise BadSetting("w must be finite, got NaN or infinity; look for a training that diverged")


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _check_weight(weight: Tensor, groups: int) -> None:
    if weight.dim() != 4 or groups < 1 or len(weight) % groups:
        raise BadSetting(
            "weight must be a convolution's (out, in / groups, kh, kw), out a multiple of groups, "
            f"got {tuple(weight.shape)} with groups={groups}; try layer.weight, groups=layer.groups"
        )


def _check_pair(first: Tensor, second: Tensor, groups: int, kind: str, fits: bool) -> None:
    _check_weight(second, groups)
    if first.dim() != 4 or len(first) != groups * second.shape[1] or not fits:
        raise BadSetting(
            f"first must have groups · rank filters, and second be (out, rank, …), {kind}, got "
            f"{tuple(first.shape)} and {tuple(second.shape)} with groups={groups}; give them in the "
            "order in which they run"
        )
