"""Tucker-2 decomposition: a convolution as a 1×1, a smaller k×k and another 1×1 convolution.

A kernel W (out, in, kh, kw) often uses few directions of its input and output channels. Tucker-2 finds r_in
and r_out of these directions, orthonormal columns U_in and U_out, and the core C that maps between them:

    W[o, i] ≈ Σ_p Σ_q U_out[o, p] C[p, q] U_in[i, q],        C[p, q] = Σ_o Σ_i U_out[o, p] W[o, i] U_in[i, q]

The layers are a 1×1 convolution with U_inᵀ, the core's kh×kw convolution with stride, padding and dilation,
and a 1×1 convolution with U_out and the bias. The spatial modes are not factorized, because 3×3 is small.

- Initialization (HOSVD): the leading left singular vectors of W unfolded along its outputs, and along its
  inputs. Each is optimal for its mode if the other is not reduced; together they are good, but not optimal.
- A sweep (HOOI) alternates: U_out from W with its inputs projected on U_in, then U_in from W with its outputs
  projected on that U_out. Each update is optimal for its mode, so the error never rises; after two sweeps
  there is little left to gain.

The left singular vectors of a matrix M (n, many) are the eigenvectors of the small M Mᵀ (n, n). They are
computed so here, in float64, because M Mᵀ squares the singular values and so amplifies rounding errors.

What it saves: of out·in·kh·kw products per position, in·r_in + r_out·r_in·kh·kw + out·r_out remain: 36 % for
3×3 at half of both ranks. What it costs: two more layers to run, with their activations. What is left out:
the choice of ranks (``rank_selection``), and the inputs: all directions of the input have equal weight
(``activation_aware`` weights them).

Source: Kim et al. 2016, "Compression of deep convolutional neural networks for fast and low power mobile
applications", arXiv:1511.06530; HOSVD and HOOI: De Lathauwer, De Moor and Vandewalle 2000, "A multilinear
singular value decomposition" and "On the best rank-1 and rank-(R1, R2, ..., RN) approximation of higher-order
tensors".
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from compresslab.errors import BadSetting, is_whole
from compresslab.techniques.low_rank.svd import check_matrices

__all__ = ["fold", "from_tucker", "tucker2", "tucker_kernels", "unfold"]


def unfold(tensor: Tensor, mode: int) -> Tensor:
    """Return the tensor as a matrix (size of the mode, all others): one row per index of the mode.

    The other modes keep their order, the last one fastest.

    Args:
        tensor: any shape with at least one dimension. Not changed.
        mode: the dimension that becomes the rows, 0 ≤ mode < number of dimensions.

    Raises:
        BadSetting: mode is out of range.

    >>> unfold(torch.arange(8).reshape(2, 2, 2), 1)
    tensor([[0, 1, 4, 5],
            [2, 3, 6, 7]])
    """
    _check_mode(tensor.dim(), mode)
    return tensor.movedim(mode, 0).reshape(tensor.shape[mode], -1)


def fold(matrix: Tensor, mode: int, shape: tuple[int, ...]) -> Tensor:
    """Return the tensor of this shape whose unfolding along the mode is the matrix.

    Args:
        matrix: (shape[mode], product of the other sizes). Not changed.
        mode: the dimension of the rows, 0 ≤ mode < len(shape).
        shape: of the tensor.

    Raises:
        BadSetting: mode is out of range, or the matrix has another size.
    """
    _check_mode(len(shape), mode)
    others = [size for dimension, size in enumerate(shape) if dimension != mode]
    if matrix.shape != (shape[mode], math.prod(others)):
        raise BadSetting(
            f"matrix must be {(shape[mode], math.prod(others))}, a tensor {tuple(shape)} unfolded "
            f"along mode {mode}, got {tuple(matrix.shape)}; try the mode and shape that it was "
            "unfolded with"
        )
    return matrix.reshape(shape[mode], *others).movedim(0, mode)


def tucker2(weight: Tensor, *, ranks: tuple[int, int], sweeps: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Return the core (r_out, r_in, kh, kw) and orthonormal columns (out, r_out) and (in, r_in).

    Args:
        weight: (out, in, kh, kw). Not changed.
        ranks: (r_out, r_in), 1 ≤ r_out ≤ out, 1 ≤ r_in ≤ in.
        sweeps: of HOOI after the initialization; 0 is the HOSVD.

    Raises:
        BadSetting: ranks or sweeps are out of range, or the weight has not four dimensions or is not
            finite.
    """
    _check(weight, ranks, sweeps)
    w = weight.detach().double().flatten(2)  # (out, in, kh kw)
    r_out, r_in = map(int, ranks)
    u_out, u_in = _leading(w, r_out), _leading(w.transpose(0, 1), r_in)
    for _ in range(sweeps):
        u_out = _leading(u_in.T @ w, r_out)
        u_in = _leading(_projected(w, u_out).transpose(0, 1), r_in)
    core = (u_in.T @ _projected(w, u_out)).unflatten(2, weight.shape[2:])
    return core.to(weight.dtype), u_out.to(weight.dtype), u_in.to(weight.dtype)


def from_tucker(core: Tensor, u_out: Tensor, u_in: Tensor) -> Tensor:
    """Return the kernel (out, in, kh, kw) of a core and its columns.

    Args:
        core: (r_out, r_in, kh, kw).
        u_out: (out, r_out).
        u_in: (in, r_in).
    """
    return torch.einsum("pqhw,op,iq->oihw", core, u_out, u_in)


def tucker_kernels(
    weight: Tensor, *, ranks: tuple[int, int], groups: int = 1, sweeps: int = 2
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights of three convolutions in sequence, with ``groups`` groups, that approximate one.

    Their shapes are (groups r_in, in/groups, 1, 1), (groups r_out, r_in, kh, kw) and (out, r_out, 1, 1).
    Stride, padding and dilation belong to the second, the bias to the third.

    Args:
        weight: (out, in/groups, kh, kw). Not changed.
        ranks: (r_out, r_in) per group, 1 ≤ r_out ≤ out/groups, 1 ≤ r_in ≤ in/groups.
        groups: of the convolution; each is factorized separately.
        sweeps: of HOOI after the initialization; 0 is the HOSVD.

    Raises:
        BadSetting: as ``tucker2``, or groups do not divide the outputs.
    """
    if groups < 1 or len(weight) % groups:
        raise BadSetting(
            f"groups must divide the outputs, got {groups} for {len(weight)}; try the convolution's "
            "own .groups"
        )
    parts = [tucker2(part, ranks=ranks, sweeps=sweeps) for part in weight.chunk(groups)]
    first = torch.cat([u_in.T for _, _, u_in in parts])
    last = torch.cat([u_out for _, u_out, _ in parts])
    return first[:, :, None, None], torch.cat([core for core, _, _ in parts]), last[:, :, None, None]


def _leading(w: Tensor, rank: int) -> Tensor:
    """The leading left singular vectors (n, rank) of w (n, m, positions) unfolded along its first mode."""
    matrix = w.flatten(1)
    return torch.linalg.eigh(matrix @ matrix.T).eigenvectors[:, -rank:].flip(1)  # eigh orders upwards


def _projected(w: Tensor, u_out: Tensor) -> Tensor:
    """The kernel (r_out, in, positions) with its outputs projected on u_out."""
    return (u_out.T @ w.flatten(1)).unflatten(1, w.shape[1:])


def _check(weight: Tensor, ranks: tuple[int, int], sweeps: int) -> None:
    if weight.dim() != 4:
        raise BadSetting(
            f"weight must be a convolution's (out, in, height, width), got {tuple(weight.shape)}; for "
            "a Linear layer try truncated_svd"
        )
    check_matrices(weight.flatten(1))
    if not isinstance(ranks, tuple | list) or len(ranks) != 2:
        raise BadSetting(
            f"ranks must be a pair (r_out, r_in), got {ranks!r}; try "
            f"{tuple(-(-side // 2) for side in weight.shape[:2])}"
        )
    for name, rank, channels in zip(("out", "in"), ranks, weight.shape[:2], strict=True):
        if not is_whole(rank, 1, channels):
            raise BadSetting(
                f"r_{name} must be a whole number from 1 to {channels}, got {rank}; try "
                f"{max(1, channels // 2)}, half of the channels"
            )
    if not is_whole(sweeps, 0, math.inf):
        raise BadSetting(f"sweeps must be a whole number from 0 up, got {sweeps}; try 2")


def _check_mode(dimensions: int, mode: int) -> None:
    if not 0 <= mode < dimensions:
        raise BadSetting(
            f"mode must be from 0 to {dimensions - 1} for a tensor of {dimensions} dimensions, got "
            f"{mode}; the first mode is 0"
        )
