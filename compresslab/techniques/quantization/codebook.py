"""Codebook quantization: weights clustered by k-means, stored as indices into a small table of values.

The weights of a layer are grouped into 2^bits clusters. The file holds the cluster centres, the *codebook*,
and for each weight the index of its centre, in few bits. Unlike an affine grid, the values are dense where
the weights are dense.

    indices[i] = argmin_k |w[i] - c[k]|,      c[k] = mean of the w[i] with indices[i] = k,      w ≈ c[indices]

The codebook can then be trained with fixed indices. All members of a cluster have one value, so by the chain
rule the gradient of a centre is the *sum* over its members:

    ∂L/∂c[k] = Σ ∂L/∂w[i]   over the i with indices[i] = k

What it saves: the weights take n · bits / 8 + 4 · 2^bits bytes instead of 4 n. What it costs: accuracy, of
which training the codebook recovers a part, and time, because each weight must be looked up before it is
multiplied. What is left out: Huffman coding of the indices (another quarter of the bytes in the paper), and
pruning first.

Source: Han, Mao and Dally 2015, "Deep compression", arXiv:1510.00149, with its linear initialization: centres
at equal steps from the smallest weight to the largest, so that the few large weights, which matter most, have
centres nearby.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from compresslab.errors import BadSetting, check_whole
from compresslab.models.surgery import Layer
from compresslab.storage.packing import pack, unpack
from compresslab.techniques.quantization.qat import scaled_gradient
from compresslab.techniques.quantization.weight_only import (
    QuantizedConv2d,
    QuantizedLinear,
    on_grid,
    replace_layers,
)

__all__ = [
    "Codebook",
    "centroid_gradient",
    "follow_centroids",
    "kmeans",
    "linear_start",
    "nearest",
    "share_weights",
]


def linear_start(values: Tensor, *, size: int) -> Tensor:
    """Return ``size`` initial centres at equal steps from the smallest value to the largest.

    >>> linear_start(torch.tensor([-1.0, 0.0, 0.0, 2.0]), size=4)
    tensor([-1.,  0.,  1.,  2.])
    """
    low, high = values.detach().aminmax()
    return torch.linspace(float(low), float(high), size, dtype=values.dtype, device=values.device)


def nearest(values: Tensor, codebook: Tensor) -> Tensor:
    """Return the index of each value's nearest centre: int64, in the shape of the values.

    A value halfway between two centres gets the smaller one; among equal centres, the first is taken.

    Args:
        values: any shape. Not changed.
        codebook: (size,), centres in any order.

    >>> nearest(torch.tensor([[0.4, 0.5], [0.6, 9.0]]), torch.tensor([0.0, 1.0]))
    tensor([[0, 0],
            [1, 1]])
    """
    centres, order = codebook.detach().sort(stable=True)
    halfway = (centres[1:] + centres[:-1]) / 2  # (size - 1,)
    return order[torch.bucketize(values.detach().contiguous(), halfway)]


def kmeans(values: Tensor, start: Tensor, *, steps: int = 100) -> Tensor:
    """Return the centres (size,), increasing, after at most ``steps`` iterations of k-means.

    In one dimension each cluster is an interval of the sorted values, so an iteration needs no distances: the
    border between two centres is their midpoint, and the mean of an interval is a difference of cumulative
    sums. An empty cluster takes the value that is farthest from its centre. The iterations end early if no
    centre moves.

    Args:
        values: any shape, n finite numbers. Not changed.
        start: (size,), the initial centres.
        steps: at most this many iterations, 0 or more.

    Raises:
        CompressionError: there are no values, or one is not finite.

    >>> kmeans(torch.tensor([0.0, 1.0, 8.0, 9.0]), torch.tensor([0.0, 9.0]))
    tensor([0.5000, 8.5000])
    """
    _check_values(values)
    x = values.detach().flatten().double().sort().values  # (n,)
    sums = torch.cat([x.new_zeros(1), x.cumsum(0)])  # sums[i]: of the first i values
    centres = start.detach().double().sort().values
    for _ in range(check_whole("steps", steps, least=0, hint="try 100")):
        edges = torch.searchsorted(x, (centres[1:] + centres[:-1]) / 2, right=True)
        edges = torch.cat([edges.new_zeros(1), edges, edges.new_full((1,), len(x))])  # (size + 1,)
        members, totals = edges.diff(), sums[edges].diff()
        _fill_empty(x, centres, members, totals)
        means = torch.where(members > 0, totals / members.clamp(min=1), centres).sort().values
        if torch.equal(means, centres):
            break
        centres = means
    return centres.to(start.dtype)


def _fill_empty(x: Tensor, centres: Tensor, members: Tensor, totals: Tensor) -> None:
    """Give each empty cluster one of the values farthest from their centres; changes members and totals."""
    empty = (members == 0).nonzero().flatten()
    if len(empty):
        cluster = nearest(x, centres)
        far = (x - centres[cluster]).abs().topk(min(len(empty), len(x))).indices
        members.index_add_(0, cluster[far], -torch.ones_like(far))
        totals.index_add_(0, cluster[far], -x[far])
        members[empty[: len(far)]], totals[empty[: len(far)]] = 1, x[far]


def centroid_gradient(gradient: Tensor, indices: Tensor, *, size: int) -> Tensor:
    """Return the gradient (size,) of the centres: the sum over the members of each cluster; 0 if empty.

    Args:
        gradient: of the weights, any shape.
        indices: int64, in the same shape: the centre of each weight.
        size: number of centres.

    >>> gradient, indices = torch.tensor([0.5, 1.0, 2.0]), torch.tensor([1, 1, 0])
    >>> centroid_gradient(gradient, indices, size=3)
    tensor([2.0000, 1.5000, 0.0000])
    """
    sums = torch.bincount(indices.flatten(), weights=gradient.flatten().double(), minlength=size)
    return sums.to(gradient.dtype)


class _LookUp(torch.autograd.Function):
    """codebook[indices] with ``centroid_gradient`` as its backward pass, which is faster than torch's."""

    @staticmethod
    def forward(ctx, codebook, indices):
        ctx.save_for_backward(indices)
        ctx.size = len(codebook)
        return codebook[indices]

    @staticmethod
    def backward(ctx, gradient):
        (indices,) = ctx.saved_tensors
        return centroid_gradient(gradient, indices, size=ctx.size), None


class Codebook(nn.Module):
    """A trainable grid of 2^bits values for a layer's weights: a ``weight_only.Grid``.

    A weight belongs to its nearest centre; the assignment is not stored. So after each training step
    ``follow`` must move the weights with their centres, before another centre comes nearer.

    Args:
        codebook: (2^bits,), the values. Copied.
        bits: 1 to 8.
    """

    before: Tensor  # the centres at the last call of follow

    def __init__(self, codebook: Tensor, *, bits: int) -> None:
        super().__init__()
        bits = _checked_bits(bits)
        self.bits = bits
        self.codebook = nn.Parameter(codebook.detach().clone())
        self.register_buffer("before", codebook.detach().clone())

    def forward(self, w: Tensor) -> Tensor:
        # paper: the sum; here scaled down, or a learning rate for small layers is too high for large ones
        centres = scaled_gradient(self.codebook, 1 / math.sqrt(w.numel() / len(self.codebook)))
        return _LookUp.apply(centres, nearest(w, centres)).to(w.dtype)

    @torch.no_grad()
    def follow(self, w: Tensor) -> None:
        """Move the weights, in place, to the current positions of their centres."""
        w.copy_(self.codebook[nearest(w, self.before)])
        self.before.copy_(self.codebook)

    def parts(self, w: Tensor) -> dict[str, Tensor]:
        """Return the stored form of the weight: packed ``indices`` and the ``codebook``."""
        return {"indices": pack(nearest(w, self.codebook), bits=self.bits), "codebook": self.codebook}

    def load_parts(self, tensors: Mapping[str, Tensor], *, shape: torch.Size) -> Tensor:
        """Load the codebook and return the weight in its shape."""
        self.codebook.copy_(tensors["codebook"])
        self.before.copy_(self.codebook)
        indices = unpack(tensors["indices"], bits=self.bits, count=shape.numel(), signed=False)
        return self.codebook[indices.long()].reshape(shape)


def share_weights(model: nn.Module, *, bits: int, skip: Collection[str] = ()) -> nn.Module:
    """Return a copy in which the weights of each Conv2d and Linear layer take 2^bits values.

    Each layer has its own codebook. The codebooks can be trained instead of the weights: call ``fit`` on the
    copy with ``after_step=follow_centroids``. The given model is not changed and shares nothing with the
    copy.

    Args:
        model: with at least one Conv2d or Linear layer.
        bits: 1 to 8.
        skip: names of layers that stay as they are, such as ``["head"]``.

    Raises:
        CompressionError: bits out of range, weights that aren't finite, an unknown name in skip, no layer.
    """
    bits = _checked_bits(bits)

    def make(name: str, layer: Layer) -> nn.Module:
        centres = kmeans(layer.weight, linear_start(layer.weight, size=2**bits))
        return on_grid(layer, Codebook(centres, bits=bits))

    return replace_layers(model, make, skip=skip)


def follow_centroids(model: nn.Module) -> None:
    """Move every shared weight with its centre: the ``after_step`` of ``fit``.

    So each weight stays in its cluster, even if two centres pass each other.
    """
    for layer in model.modules():
        if isinstance(layer, QuantizedConv2d | QuantizedLinear) and isinstance(layer.grid, Codebook):
            layer.grid.follow(layer.weight)


def _checked_bits(bits: int) -> int:
    return check_whole("bits", bits, most=8, hint="try 4: sixteen values a layer")


def _check_values(values: Tensor) -> None:
    if values.numel() == 0 or not values.isfinite().all():
        came = "none" if values.numel() == 0 else "NaN or infinity"
        raise BadSetting(
            f"values must be finite numbers, at least one, got {came}; look for a training that diverged"
        )
