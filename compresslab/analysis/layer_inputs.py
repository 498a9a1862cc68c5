"""Layer inputs: the vectors x that a Conv2d or Linear multiplies, their means, and their Gram matrices.

A layer computes y = W x at every image (and, a convolution, at every position of it). All that the error of
its outputs needs to know of the images is the *Gram matrix* G = E[x xᵀ], the mean product of the inputs:

    E ‖W x - V x‖² = tr((V - W) G (V - W)ᵀ)

In a convolution x has channels · height · width numbers: all that goes into one output. What is left out:
convolutions in groups, whose outputs see different inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.data.images import check_some_images
from compresslab.errors import BadSetting
from compresslab.models.surgery import Layer, evaluating, forward_hooks, ungrouped_layers

__all__ = [
    "Batches",
    "LabelledBatches",
    "check_gram",
    "damped",
    "gram_matrices",
    "input_means",
    "input_rows",
    "mean_over_inputs",
    "output_error",
]

LabelledBatches = Iterable[tuple[Tensor, Tensor]]  # images (batch, 1, 28, 28), labels (batch,); read once
Batches = Iterable[tuple[Tensor, Tensor | None]]  # the same, for what needs no labels


def input_rows(layer: Layer, x: Tensor) -> Tensor:
    """What goes into each single output of each image: (images, positions, n), the padding's zeros too."""
    if isinstance(layer, nn.Linear):
        return x.reshape(len(x), -1, x.shape[-1])
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    return F.unfold(padded, layer.kernel_size, layer.dilation, stride=layer.stride).mT


def gram_matrices(model: nn.Module, batches: Batches) -> dict[str, Tensor]:
    """Each layer's Gram matrix G = E[x xᵀ] over images and positions: {layer's name: (n, n) float64}.

    The mean squared error of an output whose weights w became v is (v - w) G (v - w)ᵀ: 2 G is the Hessian of
    that error, and no approximation.

    Args:
        model: in any mode.
        batches: pairs of images and labels; the labels aren't read.

    Raises:
        CompressionError: no images, no layer, or a convolution in groups.
    """
    return mean_over_inputs(model, batches, _products)


def input_means(model: nn.Module, batches: Batches) -> dict[str, Tensor]:
    """Each layer's mean input E[x] over images and positions: {layer's name: (n,) float64}.

    Args:
        model: in any mode.
        batches: pairs of images and labels; the labels aren't read.

    Raises:
        CompressionError: no images, no layer, or a convolution in groups.
    """
    return mean_over_inputs(model, batches, _sums)


def mean_over_inputs(
    model: nn.Module, batches: Batches, of: Callable[[Layer, Tensor], tuple[Tensor, int]]
) -> dict[str, Tensor]:
    """The mean of something over all inputs of each layer that runs: {layer's name: mean}.

    Args:
        model: in any mode; it runs in evaluation mode.
        batches: pairs of images and labels; the labels aren't read.
        of: (layer, its input of a batch) → a sum over rows, and how many rows there were.

    Raises:
        CompressionError: no images, no layer, or a convolution in groups.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def add(name: str, layer: Layer, x: Tensor, y: Tensor) -> None:
        total, count = of(layer, x)
        sums[name] = sums.get(name, 0) + total
        counts[name] = counts.get(name, 0) + count

    images = 0
    with forward_hooks(ungrouped_layers(model), add), evaluating(model):
        for x, _ in batches:
            model(x)
            images += len(x)
    check_some_images("batches", images, hint="train.first(500).batches()")
    return {name: total / counts[name] for name, total in sums.items()}


def output_error(w: Tensor, changed: Tensor, gram: Tensor) -> Tensor:
    """The mean of ‖W x - V x‖² over a layer's inputs when V stands for W: tr((V - W) G (V - W)ᵀ).

    For each output alone, give rows as layers of one output: ``output_error(w[:, None], v[:, None], g)``.

    Args:
        w: (..., m, n), the weights of one layer or of several.
        changed: (..., m, n), what stands for them.
        gram: (..., n, n), E[x xᵀ] of each layer's inputs; or (n, n), the same for all.

    Returns:
        (...) in float64: a scalar for one layer.

    Raises:
        CompressionError: shapes that don't fit, or a matrix that is no Gram matrix.

    >>> w, v = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [3.0, 3.0]])
    >>> output_error(w, v, torch.eye(2)), output_error(w[:, None], v[:, None], torch.eye(2))
    (tensor(5., dtype=torch.float64), tensor([4., 1.], dtype=torch.float64))
    """
    if changed.shape != w.shape:
        raise BadSetting(
            f"changed must have the shape {tuple(w.shape)} of w, got {tuple(changed.shape)}; "
            "flatten both alike: w.flatten(1)"
        )
    check_gram(w, gram)
    error = changed.detach().double() - w.detach().double()
    return ((error @ gram.detach().double()) * error).sum(dim=(-2, -1))


def damped(gram: Tensor, damping: float) -> Tensor:
    """The Gram matrix (n, n) with a share of its diagonal's mean added to the diagonal, in float64.

    So it has an inverse even where an input is always zero, or always the same as another.
    """
    g = gram.detach().double()
    return g + torch.eye(len(g), dtype=g.dtype) * damping * g.diagonal().mean().clamp(min=1e-12)


def check_gram(w: Tensor, gram: Tensor) -> None:
    """Raise if this is no Gram matrix of the inputs of weights w (..., m, n).

    Raises:
        CompressionError: another shape than (n, n) or (..., n, n), or not finite and symmetric.
    """
    n = w.shape[-1]
    if gram.shape[-2:] != (n, n) or gram.shape[:-2] not in ((), w.shape[:-2]):
        raise BadSetting(
            f"gram must have shape {(*w.shape[:-2], n, n)} for weights {tuple(w.shape)}, "
            f"got {tuple(gram.shape)}; try gram_matrices(model, batches)[name], w.flatten(1)"
        )
    uneven = (gram - gram.mT).abs().amax()
    if not gram.isfinite().all() or uneven > 1e-4 * gram.abs().amax():
        raise BadSetting(
            "gram must be finite and symmetric, as E[x xᵀ] is, got a matrix that is not; "
            "try x.T @ x / len(x), with the layer's inputs x (images, n)"
        )


def _products(layer: Layer, x: Tensor) -> tuple[Tensor, int]:
    """The sum (n, n) of x xᵀ over a batch and its positions, as float64, and how many they were."""
    total, count = torch.zeros(()), 0
    for part in x.split(50):  # unfolded, an image has many numbers
        rows = input_rows(layer, part).flatten(0, 1)
        total = total + rows.T @ rows
        count += len(rows)
    return total.double(), count


def _sums(layer: Layer, x: Tensor) -> tuple[Tensor, int]:
    """The sum (n,) of x over a batch and its positions, as float64, and how many they were."""
    rows = input_rows(layer, x).flatten(0, 1)
    return rows.sum(dim=0).double(), len(rows)
