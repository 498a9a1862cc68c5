"""The inputs have a say: the decomposition whose *output* error is least.

The plain decomposition keeps the directions in which W is large. But y = W x is what the next layer sees, and
inputs are far from round: neighbouring pixels agree, some features are always zero. What a change D of the
weights does to the outputs, on average over the images, is

    E ‖D x‖² = tr(D G Dᵀ),    G = E[x xᵀ]

With any root of G = L Lᵀ this is ‖D L‖²: an ordinary distance between W L and its stand-in. In terms of
z = L⁻¹ x, which is *white* (E[z zᵀ] = I), the layer is y = (W L) z, and Eckart and Young hold for W L:

    W_r = (W L)_r L⁻¹                    truncate W L, then undo the whitening

As published that needs an inverse, and a pixel that is always black leaves none. But (W L)_r = U_r U_rᵀ W L,
with U_r the leading left singular vectors of W L, so that the inverse meets its root and both are gone:

    W_r = U_r U_rᵀ W                     keep the r directions in which the outputs vary most

The same matrix, without an inverse: U are the principal directions of the *outputs*, the eigenvectors of
E[y yᵀ] = W G Wᵀ. A second, small decomposition, of U_rᵀ W, shares the scale out evenly between the factors.

Damping adds a share of the mean of G's diagonal to it. It decides where no input points (G is singular) and
the outputs don't care: there W itself is kept as well as the rank allows, so full rank gives W back. For any
damping δ the result is **never worse than plain SVD** of the same rank: it is best in tr(D G Dᵀ) + δ ‖D‖²,
and plain SVD is best in the second term, hence no better in the first. From 0 to ∞ damping leads from this
decomposition to the plain one; with few images a larger one keeps it from believing them too much.

What it saves: output error at the same rank, so at the same cost. What it costs: a forward pass over some
hundred images, and n³ steps a layer. What is left out: errors of earlier layers and nonlinearities behind
(Zhang et al. 2015, arXiv:1505.06798, fit both), and images unlike those that were seen.

Source: Wang et al. 2024, "SVD-LLM", arXiv:2403.07378 (there with the Cholesky factor of G and its inverse).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from compresslab.analysis.layer_inputs import check_gram
from compresslab.errors import BadSetting
from compresslab.techniques.low_rank.svd import channel_matrices, check_matrices, check_rank, truncated_svd

__all__ = ["whitened_channel_kernels", "whitened_svd"]


def whitened_svd(w: Tensor, gram: Tensor, *, rank: int, damping: float = 1e-8) -> tuple[Tensor, Tensor]:
    """The factors (first, second) of the matrix of that rank, second @ first, with outputs nearest to w's.

    As ``truncated_svd``, and the same where the matrix is the identity.

    Args:
        w: (..., m, n). Not changed.
        gram: (..., n, n), E[x xᵀ] of the inputs, as from ``gram_matrices``; may be singular.
        rank: 1 ≤ rank ≤ min(m, n).
        damping: this share of the mean of G's diagonal is added to it, 0 or more.

    Returns:
        first: (..., rank, n), what the input meets first; in w's dtype.
        second: (..., m, rank).

    Raises:
        CompressionError: rank or damping out of range, shapes that don't fit, or no Gram matrix.

    The second weight is larger, but its input is nearly silent:

    >>> from compresslab.analysis.layer_inputs import output_error
    >>> w, g = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.1]])
    >>> pairs = truncated_svd(w, rank=1), whitened_svd(w, g, rank=1)
    >>> [round(float(output_error(w, second @ first, g)), 4) for first, second in pairs]
    [4.0, 0.9]
    """
    check_matrices(w)
    check_gram(w, gram)
    check_rank(rank, w.shape)
    wide = w.detach().double()
    u = torch.linalg.svd(wide @ _root(gram, damping), full_matrices=False).U[..., :rank]  # (..., m, rank)
    first, inner = truncated_svd(u.mT @ wide, rank=rank)
    return first.to(w.dtype), (u @ inner).to(w.dtype)


def whitened_channel_kernels(
    weight: Tensor, gram: Tensor, *, rank: int, damping: float = 1e-8
) -> tuple[Tensor, Tensor]:
    """As ``channel_kernels``, two convolutions kh × kw and 1 × 1, but with outputs nearest to the one's.

    Args:
        weight: (out, in / groups, kh, kw). Not changed.
        gram: (groups, n, n), E[x xᵀ] of each group's input patches, n = in / groups · kh · kw, ordered as
            ``torch.nn.functional.unfold`` has them; or (n, n) for a single group.
        rank: channels between the two, for each group; at most the smaller side of its matrix.
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
    """An L with L Lᵀ = G and the damping, from G's eigenvectors: so it is there when G is singular, too."""
    if not (isinstance(damping, int | float) and 0 <= damping < math.inf):
        raise BadSetting(f"damping must be a finite share, 0 or more, got {damping}; try 0.01")
    g = gram.detach().double()
    mean = g.diagonal(dim1=-2, dim2=-1).mean(dim=-1, keepdim=True)  # (..., 1)
    values, vectors = torch.linalg.eigh(g)
    # an eigenvalue of 0 may come out as -1e-17; and where all are 0 the damping is of 1, hence plain SVD
    values = values.clamp(min=0) + damping * mean.where(mean > 0, 1)
    return vectors * values.sqrt()[..., None, :]
