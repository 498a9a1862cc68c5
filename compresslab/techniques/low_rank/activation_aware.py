"""Activation-aware SVD: the low-rank approximation with the least error of a layer's *outputs*.

Plain SVD minimizes the error of W, but the next layer reads y = W x, and the inputs x are not isotropic:
neighbouring pixels are correlated, some features are always zero. A change D of the weights changes the
outputs, on average over the images, by

    E ‖D x‖² = tr(D G Dᵀ),    G = E[x xᵀ]

With any root G = L Lᵀ this is ‖D L‖², the squared distance between W L and its approximation. In terms of
z = L⁻¹ x, which is *white* (E[z zᵀ] = I), the layer is y = (W L) z. By the Eckart–Young theorem for W L,

    W_r = (W L)_r L⁻¹                    truncate W L, then undo the whitening

As published, this needs an inverse, which does not exist if a pixel is always black. But
(W L)_r = U_r U_rᵀ W L, with U_r the leading left singular vectors of W L, so that L and its inverse cancel:

    W_r = U_r U_rᵀ W                     keep the r directions in which the outputs vary most

This is the same matrix without an inverse: U are the principal directions of the *outputs*, the eigenvectors
of E[y yᵀ] = W G Wᵀ. A second, small decomposition of U_rᵀ W divides the scale evenly between the factors.

Damping adds a share of the mean of G's diagonal to the diagonal. It matters in directions without inputs (G
is singular), where no weights change the outputs: there W itself is approximated, so full rank returns W. For
any damping δ the result is **never worse than plain SVD** of the same rank: it minimizes
tr(D G Dᵀ) + δ ‖D‖², and plain SVD minimizes the second term, so it cannot be better in the first. From 0 to ∞
damping leads from this decomposition to plain SVD; with few images, a larger damping reduces overfitting.

What it saves: output error at the same rank, hence at the same cost. What it costs: a forward pass over some
hundred images, and n³ operations per layer. What is left out: errors of earlier layers and the nonlinearity
after the layer (Zhang et al. 2015, arXiv:1505.06798, fit both), and images unlike the calibration images.

Source: Wang et al. 2024, "SVD-LLM", arXiv:2403.07378 (there with the Cholesky factor of G and its inverse).
"""

from __future__ import annotations

import math
import numbers

import torch
from torch import Tensor

from compresslab.analysis.layer_inputs import check_gram
from compresslab.errors import BadSetting
from compresslab.techniques.low_rank.svd import channel_matrices, check_matrices, check_rank, truncated_svd

__all__ = ["whitened_channel_kernels", "whitened_svd"]


def whitened_svd(w: Tensor, gram: Tensor, *, rank: int, damping: float = 1e-8) -> tuple[Tensor, Tensor]:
    """Return the factors (first, second) of the rank-r matrix second @ first with outputs nearest to w's.

    As ``truncated_svd``, and the same where the matrix is the identity.

    Args:
        w: (..., m, n). Not changed.
        gram: (..., n, n), E[x xᵀ] of the inputs, as from ``gram_matrices``; may be singular.
        rank: 1 ≤ rank ≤ min(m, n).
        damping: this share of the mean of G's diagonal is added to it, 0 or more.

    Returns:
        first: (..., rank, n), applied to the input first; in w's dtype.
        second: (..., m, rank).

    Raises:
        CompressionError: rank or damping out of range, shapes that don't fit, or no Gram matrix.

    The second weight is larger, but its input is almost zero:

    >>> from compresslab.analysis.layer_inputs import output_error
    >>> w, g = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.1]])
    >>> pairs = truncated_svd(w, rank=1), whitened_svd(w, g, rank=1)
    >>> [round(float(output_error(w, second @ first, g)), 4) for first, second in pairs]
    [4.0, 0.9]
    """
    check_matrices(w)
    check_gram(w, gram)
    rank = check_rank(rank, w.shape)
    wide = w.detach().double()
    u = torch.linalg.svd(wide @ _root(gram, damping), full_matrices=False).U[..., :rank]  # (..., m, rank)
    first, inner = truncated_svd(u.mT @ wide, rank=rank)
    return first.to(w.dtype), (u @ inner).to(w.dtype)


def whitened_channel_kernels(
    weight: Tensor, gram: Tensor, *, rank: int, damping: float = 1e-8
) -> tuple[Tensor, Tensor]:
    """As ``channel_kernels``, two convolutions kh × kw and 1 × 1, but with the least output error.

    Args:
        weight: (out, in / groups, kh, kw). Not changed.
        gram: (groups, n, n), E[x xᵀ] of each group's input patches, n = in / groups · kh · kw, ordered as
            ``torch.nn.functional.unfold`` has them; or (n, n) for a single group.
        rank: channels between the two per group; at most the smaller side of its matrix.
        damping: this share of the mean of G's diagonal is added to it, 0 or more.

    Returns:
        first: (groups · rank, in / groups, kh, kw).
        second: (out, rank, 1, 1).

    Raises:
        CompressionError: rank or damping out of range, shapes that don't fit, or no Gram matrix.
    """
    of_groups = gram if gram.dim() == 3 else gram[None]
    groups = len(of_groups)
    matrices = channel_matrices(weight, groups=groups)  # (groups, out / groups, n)
    first, second = whitened_svd(matrices, of_groups, rank=rank, damping=damping)
    return first.reshape(groups * rank, *weight.shape[1:]), second.reshape(len(weight), rank, 1, 1)


def _root(gram: Tensor, damping: float) -> Tensor:
    """Return L with L Lᵀ = G + damping, from G's eigenvectors, so that it exists if G is singular."""
    if not (isinstance(damping, numbers.Real) and 0 <= float(damping) < math.inf):
        raise BadSetting(f"damping must be a finite share, 0 or more, got {damping}; try 0.01")
    g = gram.detach().double()
    mean = g.diagonal(dim1=-2, dim2=-1).mean(dim=-1, keepdim=True)  # (..., 1)
    values, vectors = torch.linalg.eigh(g)
    # an eigenvalue of 0 may be computed as -1e-17; if all are 0, the damping is relative to 1: plain SVD
    values = values.clamp(min=0) + damping * mean.where(mean > 0, 1)
    return vectors * values.sqrt()[..., None, :]
