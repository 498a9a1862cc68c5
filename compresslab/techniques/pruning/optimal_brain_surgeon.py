"""Delete a weight, and let the others make up for it: the optimal brain surgeon, on one layer.

A deleted weight leaves a hole in its output. If its input resembles others, their weights can fill it: least
squares says how. One output y = w · x changes, on average over the images, by

    E[(v · x - w · x)²] = (v - w) G (v - w)ᵀ,    G = E[x xᵀ]

which is quadratic, so that second order is exact. The best v with v[j] = 0, and the error it leaves, are

    v = w - w[j] / [G⁻¹]_jj · G⁻¹[:, j],         error = w[j]² / [G⁻¹]_jj

- **compensate** does that for any mask at once: G[k, k] v[k] = G[k, :] w for the kept weights k. Exact, and
  n³ steps for every output, as each has a mask of its own.
- **sparse_gpt** shares one factorisation among all outputs: column after column, and only the columns to the
  right make up. With U the upper Cholesky factor of G⁻¹:  w[j:] ← w[j:] - w[j] / U[j, j] · U[j, j:]  where
  w[j] goes. Cheap enough for layers of any size; it leaves more error than compensate.

What they save: accuracy at the same sparsity, before any training. What they cost: a few hundred images, one
forward pass, and n³ steps a layer or an output (n: what goes into one output). What is left out: training,
which wins back more; and the errors of earlier layers: both repair a layer for inputs of the whole network
(paper: for inputs of the network as far as it is pruned).

Damping adds a share of the mean of G's diagonal to it, so that it has an inverse even where an input is
always 0 or always the same as another.

Source: Hassibi and Stork 1993, "Second order derivatives for network pruning: optimal brain surgeon"; Frantar
and Alistarh 2023, "SparseGPT", arXiv:2301.00774.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compresslab.analysis.layer_inputs import Batches, check_gram, damped, gram_matrices, output_error
from compresslab.errors import BadSetting
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
    """w² / [G⁻¹]_jj (out, n): the error that deleting each weight leaves when the others make up for it.

    Args:
        w: (out, n). Not changed.
        gram: (n, n), E[x xᵀ] of the layer's inputs.
        damping: this share of the mean of G's diagonal is added to it.

    Raises:
        CompressionError: shapes that don't fit, or no damping where it is needed.
    """
    return w.detach().double().square() / _inverse(w, gram, damping).diagonal()


def delete_weight(w: Tensor, gram: Tensor, *, index: int, damping: float = 0.01) -> Tensor:
    """One output's weights (n,) with one deleted, and the others making up for it.

    Args:
        w: (n,). Not changed.
        gram: (n, n), E[x xᵀ] of the layer's inputs.
        index: of the weight to delete.
        damping: this share of the mean of G's diagonal is added to it.

    Raises:
        CompressionError: shapes that don't fit, or no damping where it is needed.

    Two inputs that are nearly the same: the second weight takes over what the first did.

    >>> g = torch.tensor([[1.0, 0.99], [0.99, 1.0]])
    >>> delete_weight(torch.tensor([2.0, 1.0]), g, index=0, damping=0.0)
    tensor([0.0000, 2.9800])
    """
    inverse = _inverse(w[None], gram, damping)
    left = w.detach() - w[index].detach().double() / inverse[index, index] * inverse[:, index]
    left[index] = 0  # exactly
    return left.to(w.dtype)


def compensate(w: Tensor, mask: Tensor, gram: Tensor, *, damping: float = 1e-4) -> Tensor:
    """The weights (out, n) that come nearest to w's outputs and are zero where the mask is False.

    The best there is for this mask: no output is worse than if its weights were deleted and nothing made up.

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
    patterns, which = mask.unique(dim=0, return_inverse=True)  # outputs with one mask are solved together
    for number, keep in enumerate(patterns):
        factor = _factor(g[keep][:, keep])
        rows = (which == number).nonzero()  # (rows, 1)
        left[rows, keep.nonzero()[:, 0]] = torch.cholesky_solve(g[keep] @ wide[rows[:, 0]].T, factor).T
    return torch.where(mask.all(dim=1, keepdim=True), w.detach(), left.to(w.dtype))


def sparse_gpt(
    w: Tensor, gram: Tensor, *, sparsity: float, damping: float = 0.01, block: int = 128
) -> Tensor:
    """Weights (out, n) with that share at zero, chosen and made up for in one pass over the columns.

    Before each block of columns the lowest w² / U[j, j]² in it are chosen, as w has become by then. With
    inputs that know nothing of each other that is Wanda's choice (squared), and nothing is to be made up. An
    output that would do worse than without making up keeps its other weights as they were (not in the paper).

    Args:
        w: (out, n). Not changed.
        gram: (n, n), E[x xᵀ] of the layer's inputs.
        sparsity: the share to drop of every block of columns, 0 ≤ sparsity < 1.
        damping: this share of the mean of G's diagonal is added to it.
        block: columns a block, at least 1.

    Raises:
        CompressionError: sparsity out of range, shapes that don't fit, or no damping where it is needed.
    """
    u = torch.linalg.cholesky(_inverse(w, gram, damping), upper=True)
    left, mask = w.detach().double().clone(), torch.ones_like(w, dtype=torch.bool)
    for start in range(0, w.shape[1], block):
        stop = min(start + block, w.shape[1])
        scores = (left[:, start:stop] / u.diagonal()[start:stop]).square()
        mask[:, start:stop] = fine_grained_mask(scores, sparsity=sparsity)
        errors = torch.zeros_like(left[:, start:stop])
        for j in range(start, stop):
            errors[:, j - start] = torch.where(mask[:, j], 0, left[:, j]) / u[j, j]
            left[:, j:stop] -= torch.outer(errors[:, j - start], u[j, j:stop])
        left[:, stop:] -= errors @ u[start:stop, stop:]  # all later columns at once: the same, but faster
    left, plain = (left * mask).to(w.dtype), w.detach() * mask
    ours, theirs = (output_error(w[:, None], v[:, None], gram) for v in (left, plain))  # (out,)
    return torch.where((ours <= theirs)[:, None], left, plain)


def compensated(model: nn.Module, masks: Mapping[str, Tensor], batches: Batches) -> nn.Module:
    """A copy of the model with these masks applied, the kept weights of each layer making up for the rest.

    As ``masked(model, masks)``, but for the making up. The given model is left alone and nothing is shared
    with it.

    Args:
        model: images → logits.
        masks: {layer's name: bool mask in its weight's shape, True where a weight stays}; a Conv2d or Linear
            without a mask stays as it is.
        batches: pairs of images and labels, such as ``train.first(300).batches()``; labels aren't read.

    Raises:
        CompressionError: a name that is no layer that runs, a mask in another shape, or no images.
    """
    repaired, grams = masked(model, masks), gram_matrices(model, batches)
    check_layer_names("masks", masks, grams, of="layers that run")
    for name, mask in masks.items():
        w = prunable_layers(model)[name].weight.flatten(1)
        _put(repaired, name, compensate(w, mask.flatten(1), grams[name]))
    return repaired


def prune_with_sparse_gpt(model: nn.Module, batches: Batches, *, sparsity: float) -> nn.Module:
    """A copy of the model whose Conv2d and Linear layers have that share of zeros, by ``sparse_gpt``.

    The given model is left alone and nothing is shared with it.

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
    """Weights (out, n) into a layer, in its own shape and layout."""
    weight = prunable_layers(model)[name].weight
    with torch.no_grad():
        weight.copy_(w.reshape(weight.shape))


def _factor(g: Tensor) -> Tensor:
    """The lower Cholesky factor."""
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
