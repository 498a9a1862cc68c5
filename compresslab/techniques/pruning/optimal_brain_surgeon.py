"""Optimal brain surgeon, layer by layer: removed weights are compensated by the remaining ones.

If the input of a removed weight correlates with other inputs, their weights can compensate for it, by least
squares. One output y = w · x changes, on average over the images, by

    E[(v · x - w · x)²] = (v - w) G (v - w)ᵀ,    G = E[x xᵀ]

which is quadratic, so that the second order is exact. The best v with v[j] = 0, and its error, are

    v = w - w[j] / [G⁻¹]_jj · G⁻¹[:, j],         error = w[j]² / [G⁻¹]_jj

- **compensate** solves this for any mask at once: G[k, k] v[k] = G[k, :] w for the kept weights k. It is
  exact and takes n³ operations per output, because each output has its own mask.
- **sparse_gpt** shares one factorization among all outputs. It proceeds column by column, and only columns
  to the right compensate. With U the upper Cholesky factor of G⁻¹:  w[j:] ← w[j:] - w[j] / U[j, j] · U[j, j:]
  where w[j] is removed. It is fast enough for layers of any size, with a larger error than compensate.

What they save: accuracy at the same sparsity, before any training. What they cost: a few hundred images, one
forward pass, and n³ operations per layer or per output (n: inputs per output). What is left out: training,
which recovers more; and the errors of earlier layers: both compensate for the inputs of the unpruned network
(paper: of the network pruned so far).

Damping adds a share of the mean of G's diagonal to the diagonal, so that G has an inverse even if an input is
always 0 or always equal to another.

Source: Hassibi and Stork 1993, "Second order derivatives for network pruning: optimal brain surgeon"; Frantar
and Alistarh 2023, "SparseGPT", arXiv:2301.00774.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compresslab.analysis.layer_inputs import Batches, check_gram, damped, gram_matrices, output_error
from compresslab.errors import BadSetting, check_whole
from compresslab.models.surgery import check_layer_names
from compresslab.techniques.pruning.granularity import check_sparsity, fine_grained_mask
from compresslab.techniques.pruning.masks import masked, prunable_layers

__all__ = [
    "compensate",
    "compensated",
    "delete_weight",
    "prune_with_sparse_gpt",
    "sparse_gpt",
    "surgeon_scores",
]


def surgeon_scores(w: Tensor, gram: Tensor, *, damping: float = 0.01) -> Tensor:
    """Return w² / [G⁻¹]_jj (out, n), the error of removing each weight if the others compensate.

    Args:
        w: (out, n). Not changed.
        gram: (n, n), E[x xᵀ] of the layer's inputs.
        damping: this share of the mean of G's diagonal is added to it.

    Raises:
        CompressionError: shapes that don't fit, or no damping where it is needed.
    """
    return w.detach().double().square() / _inverse(w, gram, damping).diagonal()


def delete_weight(w: Tensor, gram: Tensor, *, index: int, damping: float = 0.01) -> Tensor:
    """Return one output's weights (n,) with one removed and the others compensating.

    Args:
        w: (n,). Not changed.
        gram: (n, n), E[x xᵀ] of the layer's inputs.
        index: of the removed weight.
        damping: this share of the mean of G's diagonal is added to it.

    Raises:
        CompressionError: shapes that don't fit, or no damping where it is needed.

    With two almost equal inputs, the second weight compensates for the first:

    >>> g = torch.tensor([[1.0, 0.99], [0.99, 1.0]])
    >>> delete_weight(torch.tensor([2.0, 1.0]), g, index=0, damping=0.0)
    tensor([0.0000, 2.9800])
    """
    inverse = _inverse(w[None], gram, damping)
    left = w.detach() - w[index].detach().double() / inverse[index, index] * inverse[:, index]
    left[index] = 0  # exactly
    return left.to(w.dtype)


def compensate(w: Tensor, mask: Tensor, gram: Tensor, *, damping: float = 1e-4) -> Tensor:
    """Return the weights (out, n) with outputs nearest to those of w that are zero where the mask is False.

    They are optimal for this mask: no output has a larger error than without compensation.

    Args:
        w: (out, n). Not changed.
        mask: (out, n) bool, True where a weight stays.
        gram: (n, n), E[x xᵀ] of the layer's inputs.
        damping: this share of the mean of G's diagonal is added to it.

    Raises:
        CompressionError: shapes that don't fit, or no damping where it is needed.
    """
    _check_mask(w, mask)
    check_gram(w, gram)
    g, wide = damped(gram, damping), w.detach().double()
    left = torch.zeros_like(wide)
    patterns, which = mask.unique(dim=0, return_inverse=True)  # outputs with equal masks are solved together
    for pattern, keep in enumerate(patterns):
        factor = _factor(g[keep][:, keep])
        rows = (which == pattern).nonzero()  # (rows, 1)
        left[rows, keep.nonzero()[:, 0]] = torch.cholesky_solve(g[keep] @ wide[rows[:, 0]].T, factor).T
    return torch.where(mask.all(dim=1, keepdim=True), w.detach(), left.to(w.dtype))


def sparse_gpt(
    w: Tensor, gram: Tensor, *, sparsity: float, damping: float = 0.01, block: int = 128
) -> Tensor:
    """Return weights (out, n) with this share of zeros, chosen and compensated in one pass over the columns.

    Before each block of columns, the lowest w² / U[j, j]² of the current w in the block are chosen. With
    uncorrelated inputs this is Wanda's choice (squared), without compensation. An output that would have a
    larger error than without compensation keeps its other weights unchanged (not in the paper).

    Args:
        w: (out, n). Not changed.
        gram: (n, n), E[x xᵀ] of the layer's inputs.
        sparsity: the share to drop of every block of columns, 0 ≤ sparsity < 1.
        damping: this share of the mean of G's diagonal is added to it.
        block: columns per block, at least 1.

    Raises:
        CompressionError: sparsity out of range, shapes that don't fit, or no damping where it is needed.
    """
    u = torch.linalg.cholesky(_inverse(w, gram, damping), upper=True)
    left, mask = w.detach().double().clone(), torch.ones_like(w, dtype=torch.bool)
    block = check_whole("block", block, hint="try 128")
    for start in range(0, w.shape[1], block):
        stop = min(start + block, w.shape[1])
        scores = (left[:, start:stop] / u.diagonal()[start:stop]).square()
        mask[:, start:stop] = fine_grained_mask(scores, sparsity=sparsity)
        errors = torch.zeros_like(left[:, start:stop])
        for j in range(start, stop):
            errors[:, j - start] = torch.where(mask[:, j], 0, left[:, j]) / u[j, j]
            left[:, j:stop] -= torch.outer(errors[:, j - start], u[j, j:stop])
        left[:, stop:] -= errors @ u[start:stop, stop:]  # all later columns at once: equal, faster
    left, plain = (left * mask).to(w.dtype), w.detach() * mask
    ours, theirs = (output_error(w[:, None], v[:, None], gram) for v in (left, plain))  # (out,)
    return torch.where((ours <= theirs)[:, None], left, plain)


def compensated(model: nn.Module, masks: Mapping[str, Tensor], batches: Batches) -> nn.Module:
    """Return a copy with these masks applied and the kept weights of each layer compensating.

    As ``masked(model, masks)`` with compensation. The given model is not changed and shares nothing with the
    copy.

    Args:
        model: images → logits.
        masks: {layer's name: bool mask in its weight's shape, True where a weight stays}; a Conv2d or Linear
            without a mask stays as it is.
        batches: pairs of images and labels, such as ``train.first(300).batches()``; labels aren't read.

    Raises:
        CompressionError: a name is unknown or its layer never runs, a mask has another shape, or there are no
            images.
    """
    repaired, grams = masked(model, masks), gram_matrices(model, batches)
    check_layer_names("masks", masks, grams, of="layers that run")
    for name, mask in masks.items():
        w = prunable_layers(model)[name].weight.flatten(1)
        _put(repaired, name, compensate(w, mask.flatten(1), grams[name]))
    return repaired


def prune_with_sparse_gpt(model: nn.Module, batches: Batches, *, sparsity: float) -> nn.Module:
    """Return a copy whose Conv2d and Linear layers have this share of zeros, by ``sparse_gpt``.

    The given model is not changed and shares nothing with the copy.

    Args:
        model: with at least one Conv2d or Linear layer.
        batches: pairs of images and labels, such as ``train.first(300).batches()``; labels aren't read.
        sparsity: the share of each layer's weights to set to zero, 0 ≤ sparsity < 1.

    Raises:
        CompressionError: sparsity out of range, no images, a convolution in groups, no layer at all.
    """
    check_sparsity(sparsity)
    pruned = copy.deepcopy(model)
    for name, gram in gram_matrices(model, batches).items():
        w = prunable_layers(model)[name].weight.flatten(1)
        _put(pruned, name, sparse_gpt(w, gram, sparsity=sparsity))
    return pruned


def _put(model: nn.Module, name: str, w: Tensor) -> None:
    """Copy weights (out, n) into a layer, in its shape and memory format."""
    weight = prunable_layers(model)[name].weight
    with torch.no_grad():
        weight.copy_(w.reshape(weight.shape))


def _factor(g: Tensor) -> Tensor:
    """Return the lower Cholesky factor."""
    factor, failed = torch.linalg.cholesky_ex(g)
    if failed:
        raise BadSetting(
            "gram must have an inverse where damping is 0, got one that has none: an input is always 0, or a "
            "mix of others; try damping=0.01"
        )
    return factor


def _inverse(w: Tensor, gram: Tensor, damping: float) -> Tensor:
    check_gram(w, gram)
    return torch.cholesky_inverse(_factor(damped(gram, damping)))


def _check_mask(w: Tensor, mask: Tensor) -> None:
    if mask.shape != w.shape or mask.dtype != torch.bool:
        raise BadSetting(
            f"mask must be bool in the shape {tuple(w.shape)} of the weights, got {tuple(mask.shape)} "
            f"{mask.dtype}; try fine_grained_mask(magnitude(w), sparsity=0.5)"
        )
