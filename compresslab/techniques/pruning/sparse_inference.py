"""Sparse inference: a pruned layer as a product with a sparse matrix in CSR format.

The rows of a CSR matrix (compressed sparse rows) hold only the nonzero values and their columns. A Linear
layer is already such a product; a convolution is first unrolled into one, a column per output position:

    y = W x,    W (out, in · height · width) sparse,    x (in · height · width, positions)

What it saves: the products with zeros. What it costs: an index look-up per nonzero, the unrolling, and memory
for the columns. So it is faster only if few weights are left; measure it. What is left out: grouped
convolutions, and gradients.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.errors import Unsupported
from compresslab.models.surgery import Layer

__all__ = ["as_sparse_product"]


def as_sparse_product(layer: Layer) -> Callable[[Tensor], Tensor]:
    """Return a function that computes the layer's outputs, up to rounding, from its nonzero weights.

    The weights are copied. The function has no gradient.

    Args:
        layer: Conv2d (n, in, h, w) → (n, out, …) without groups and with padding of zeros, or Linear (n, in)
            → (n, out).

    Raises:
        CompressionError: another layer.
    """
    plain = isinstance(layer, nn.Linear) or (
        isinstance(layer, nn.Conv2d)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )
    if not plain:
        raise Unsupported(
            "layer must be a Linear, or a Conv2d without groups and with zeros for padding, in "
            f"numbers, got {layer}; try another layer"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        w = layer.weight.detach().flatten(1).to_sparse_csr()  # (out, n)
    bias = 0 if layer.bias is None else layer.bias.detach()[:, None].clone()

    @torch.no_grad()
    def product(x: Tensor) -> Tensor:
        if isinstance(layer, nn.Linear):
            return (w @ x.T + bias).T
        columns = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
        y = w @ columns.transpose(0, 1).flatten(1) + bias  # (out, images · positions)
        return y.view(len(y), len(x), *_output_size(layer, x)).transpose(0, 1)

    return product


def _output_size(layer: nn.Conv2d, x: Tensor) -> tuple[int, ...]:
    """The height and width of a convolution's output."""
    padding: Sequence[int] = layer.padding  # type: ignore[assignment]  # not a string: checked
    settings = zip(x.shape[2:], layer.kernel_size, layer.dilation, padding, layer.stride, strict=True)
    return tuple((size + 2 * pad - d * (k - 1) - 1) // s + 1 for size, k, d, pad, s in settings)
