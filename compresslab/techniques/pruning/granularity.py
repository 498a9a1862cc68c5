"""Pruning granularity: masks for single weights, vectors, kernels, channels, layers and n of m.

A *granularity* arranges a weight tensor as rows, one row per group; each group is contiguous in memory. The
weights of a group are kept or removed together.

    fine      one weight                       out · in · height · width groups
    vector    a row of a kernel                out · in · height
    kernel    a 2-D slice of a filter          out · in
    channel   a filter, or a neuron            out
    layer     all of it                        1
    n of m    any n of m neighbouring inputs   fine, with a fixed number in every m

A group's score is the sum of its weights' scores, and the groups with the lowest scores are removed:

    score[g] = Σ score[i] over i in g,    mask[g] = score[g] not among the round(sparsity · groups) lowest

What it saves: **nothing** itself. A zero takes as many bytes in a dense file, and as much time to multiply,
as any other number. The coarser the groups, the fewer indices a sparse file needs and the simpler a kernel
that skips them; whole channels can be removed, which leaves a smaller dense network. What it costs: accuracy;
the coarser the groups, the larger the loss, because important weights are removed together with unimportant
ones. What is left out: removal (``channel_removal``), sparse files (``sparse_layers``) and training under
masks (``masks``, ``schedule``).

Overviews list "random" and "structured" as further granularities, but these are different properties:
*random* is a criterion, the control for any granularity; *structured* applies to some degree to all but
``fine``.

Source: Han, Pool, Tran and Dally 2015, "Learning both weights and connections", arXiv:1506.02626; Mao et al.
2017, "Exploring the regularity of sparse structure in convolutional neural networks", arXiv:1705.08922;
n of m: Mishra et al. 2021, "Accelerating sparse deep neural networks", arXiv:2104.08378.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from compresslab.errors import BadSetting, Unsupported, check_fraction, is_whole
from compresslab.techniques.pruning.criteria import magnitude
from compresslab.techniques.pruning.masks import Masks, masked, prunable_layers

__all__ = [
    "Granularity",
    "channel",
    "channel_mask",
    "check_sparsity",
    "fine",
    "fine_grained_mask",
    "global_masks",
    "group_mask",
    "group_scores",
    "kernel",
    "kernel_mask",
    "layer",
    "local_masks",
    "magnitudes",
    "n_of_m_mask",
    "prune_by_magnitude",
    "vector",
    "vector_mask",
]

Granularity = Callable[[Tensor], Tensor]  # scores (out, …) → (groups, weights of a group), row-major


def fine(scores: Tensor) -> Tensor:
    """Single weights: any shape → (n, 1)."""
    return scores.reshape(-1, 1)


def vector(scores: Tensor) -> Tensor:
    """Rows of kernels: (out, in, height, width) → (out · in · height, width).

    A Linear layer's (out, in) is read as 1 × 1 kernels, so its vectors are single weights.
    """
    return _kernels(scores).flatten(0, 2)


def kernel(scores: Tensor) -> Tensor:
    """Kernels: (out, in, height, width) → (out · in, height · width); in a Linear layer, single weights."""
    return _kernels(scores).flatten(0, 1).flatten(1)


def channel(scores: Tensor) -> Tensor:
    """Filters or neurons, all weights of one output: (out, in, …) → (out, in · …)."""
    return _kernels(scores).flatten(1)


def layer(scores: Tensor) -> Tensor:
    """The layer as one group: any shape → (1, n). It is useful across layers: see ``global_masks``."""
    return scores.reshape(1, -1)


def group_scores(scores: Tensor, granularity: Granularity) -> Tensor:
    """Return the sum of the scores in each group: (groups,).

    >>> group_scores(torch.tensor([[3.0, 1.0], [2.0, 1.0]]), channel)
    tensor([4., 3.])
    """
    return granularity(scores).sum(dim=1)


def group_mask(scores: Tensor, granularity: Granularity, *, sparsity: float) -> Tensor:
    """Return the mask without exactly round(sparsity · groups) groups, those with the lowest scores.

    Of equal groups the first in row-major order is dropped first. Halves are rounded to the even number, as
    Python does.

    Args:
        scores: in the weight's shape; weights with high scores are kept. Not changed.
        granularity: ``fine``, ``vector``, ``kernel``, ``channel`` or ``layer``.
        sparsity: the share of groups to drop, 0 ≤ sparsity < 1.

    Returns:
        A bool mask in the shape of ``scores``, True where a weight is kept.

    Raises:
        BadSetting: sparsity is out of range, scores contain NaN, or the shape has no such groups.
    """
    check_sparsity(sparsity)
    summed = _numbers(group_scores(scores, granularity))
    kept = torch.ones_like(summed, dtype=torch.bool)
    kept[summed.argsort(stable=True)[: round(sparsity * len(summed))]] = False
    return _spread(kept, scores, granularity)


def fine_grained_mask(scores: Tensor, *, sparsity: float) -> Tensor:
    """Return the mask of single weights: see ``group_mask``.

    >>> fine_grained_mask(torch.tensor([[3.0, 1.0], [2.0, 1.0]]), sparsity=0.25)
    tensor([[ True, False],
            [ True,  True]])
    """
    return group_mask(scores, fine, sparsity=sparsity)


def vector_mask(scores: Tensor, *, sparsity: float) -> Tensor:
    """Return the mask of kernel rows: see ``group_mask``."""
    return group_mask(scores, vector, sparsity=sparsity)


def kernel_mask(scores: Tensor, *, sparsity: float) -> Tensor:
    """Return the mask of kernels: see ``group_mask``."""
    return group_mask(scores, kernel, sparsity=sparsity)


def channel_mask(scores: Tensor, *, sparsity: float) -> Tensor:
    """Return the mask of filters or neurons: see ``group_mask``.

    >>> channel_mask(torch.tensor([[3.0, 1.0], [2.0, 1.0]]), sparsity=0.5)
    tensor([[ True,  True],
            [False, False]])
    """
    return group_mask(scores, channel, sparsity=sparsity)


def n_of_m_mask(scores: Tensor, *, n: int = 2, m: int = 4) -> Tensor:
    """Return the mask of the n highest scores in every m neighbouring inputs, per output and kernel position.

    Neighbours are taken along dimension 1, the inputs, over which a product sums. Of equal scores the first
    is dropped first.

    Args:
        scores: (out, in) or (out, in, height, width); in is a multiple of m. Not changed.
        n: weights kept of every m, 1 ≤ n ≤ m.
        m: neighbouring inputs per group.

    Returns:
        A bool mask in the shape of ``scores``, True where a weight is kept.

    Raises:
        CompressionError: n or m is out of range, m does not divide in, or scores contain NaN.

    >>> n_of_m_mask(torch.tensor([[3.0, 1.0, 2.0, 1.0]]))
    tensor([[ True, False,  True, False]])
    """
    if not (is_whole(m) and is_whole(n, 1, m)):
        raise BadSetting(f"n and m must be whole numbers, 1 ≤ n ≤ m, got {n} of {m}; try 2 of 4")
    n, m = int(n), int(m)
    inputs = _kernels(scores).shape[1]
    if inputs % m:
        raise Unsupported(
            f"scores must have a multiple of {m} inputs for {n} of {m}, got {inputs} in "
            f"{tuple(scores.shape)}; leave this layer dense"
        )
    runs = _numbers(scores).movedim(1, -1).unflatten(-1, (-1, m))  # (out, …, in / m, m)
    lowest = runs.argsort(dim=-1, stable=True)[..., : m - n]
    mask = torch.ones_like(runs, dtype=torch.bool).scatter(-1, lowest, False)
    return mask.flatten(-2).movedim(-1, 1).contiguous()


def local_masks(
    scores: Mapping[str, Tensor],
    *,
    sparsity: float | Mapping[str, float],
    granularity: Granularity = fine,
) -> Masks:
    """Return a mask per layer, each with its own threshold: every layer loses the same share of its groups.

    Args:
        scores: {layer's name: scores in its weight's shape}. Not changed.
        sparsity: the share of groups to drop, 0 ≤ sparsity < 1; or {layer's name: share}, one per layer.
        granularity: the groups.

    Raises:
        BadSetting: as ``group_mask``, or a layer has no sparsity.
    """
    shares = sparsity if isinstance(sparsity, Mapping) else dict.fromkeys(scores, sparsity)
    if missing := scores.keys() - shares.keys():
        raise BadSetting(
            f"sparsity must have a share for each layer, got none for {', '.join(sorted(missing))}; "
            "give 0 to spare it"
        )
    return {name: group_mask(s, granularity, sparsity=shares[name]) for name, s in scores.items()}


def global_masks(scores: Mapping[str, Tensor], *, sparsity: float, granularity: Granularity = fine) -> Masks:
    """Return a mask per layer with one threshold for all: layers with low scores lose more.

    Groups of different layers may differ in size, so they are compared by their score *per weight*. The
    lowest are dropped in order as long as no more than round(sparsity · n) of all n weights are dropped; for
    single weights, exactly this number. Of equal groups the first of the first layer is dropped first. A
    layer may lose all its groups and then passes no signal: check with ``masks.sparsity_table``.

    Args:
        scores: {layer's name: scores in its weight's shape}, on one scale. Not changed.
        sparsity: the share of all weights to drop, 0 ≤ sparsity < 1.
        granularity: the groups.

    Raises:
        BadSetting: sparsity is out of range, scores contain NaN, or the shape has no such groups.
    """
    check_sparsity(sparsity)
    groups = {name: granularity(s) for name, s in scores.items()}  # {name: (groups, weights of a group)}
    means = _numbers(torch.cat([group.sum(dim=1) / group.shape[1] for group in groups.values()]))
    sizes = torch.cat(
        [torch.full_like(group[:, 0], group.shape[1], dtype=torch.int64) for group in groups.values()]
    )
    order = means.argsort(stable=True)
    dropped = sizes[order].cumsum(dim=0) <= round(sparsity * int(sizes.sum()))
    kept = torch.empty_like(dropped).scatter(0, order, ~dropped)
    parts = kept.split([len(group) for group in groups.values()])
    return {name: _spread(part, scores[name], granularity) for name, part in zip(groups, parts, strict=True)}


def magnitudes(model: nn.Module) -> dict[str, Tensor]:
    """Return the magnitudes of all Conv2d and Linear weights: {layer's name: scores in its weight's shape}.

    Raises:
        BadSetting: the model has no such layer.
    """
    return {name: magnitude(found.weight) for name, found in prunable_layers(model).items()}


def prune_by_magnitude(model: nn.Module, *, sparsity: float, granularity: Granularity = fine) -> nn.Module:
    """Return a copy in which the given share of groups in each Conv2d and Linear layer is zero.

    Each layer has its own threshold; biases stay. The given model is not changed and shares nothing with the
    copy.

    Args:
        model: with at least one Conv2d or Linear layer.
        sparsity: the share of each layer's groups to set to zero, 0 ≤ sparsity < 1.
        granularity: the groups; single weights by default.

    Raises:
        BadSetting: sparsity is out of range, or the model has no such layer.
    """
    return masked(model, local_masks(magnitudes(model), sparsity=sparsity, granularity=granularity))


def check_sparsity(sparsity: float) -> None:
    """Raise if a sparsity is not a fraction in [0, 1).

    Raises:
        BadSetting: it isn't.
    """
    check_fraction("sparsity", sparsity, hint="try 0.5")


def _kernels(scores: Tensor) -> Tensor:
    """Return scores as (out, in, height, width); those of a Linear layer, (out, in), get 1 × 1 kernels."""
    if scores.dim() not in (2, 4):
        raise BadSetting(
            "scores must have a weight's shape, (out, in) or (out, in, height, width), got "
            f"{tuple(scores.shape)}; give them so, or choose fine"
        )
    return scores if scores.dim() == 4 else scores[:, :, None, None]


def _numbers(scores: Tensor) -> Tensor:
    if scores.isnan().any():
        raise BadSetting(
            "scores must be numbers, got NaN; look for a division by zero, or for a training that diverged"
        )
    return scores


def _spread(kept: Tensor, scores: Tensor, granularity: Granularity) -> Tensor:
    """Expand a mask of groups (groups,) to their weights: bool, in the shape of ``scores``."""
    return kept[:, None].expand_as(granularity(scores)).reshape(scores.shape)
