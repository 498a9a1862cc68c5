"""Gradients and input norms for pruning criteria.

A weight's effect depends on the data: on the size of the inputs x that it multiplies, and, with labels, on
the response of the loss L. A layer computes y = W x for every image (a convolution: at every position p of
the image). So its gradient for one image i is a sum of outer products, and all four statistics are means of
x and of ∂L/∂y:

    g_i = Σ_p ∂L_i/∂y_p x_pᵀ

    statistic               is            needs                      costs, in forward passes (measured)
    mean_gradients          E_i[g_i]      forward, backward, labels  about 4
    squared_gradients       E_i[g_i²]     the same per image         about 9
    input_norms             √E_p[x²]      forward                    little more than 1
    gram_matrices           E_p[x xᵀ]     forward, n² numbers        10 to 20

All run in evaluation mode, so that an image's contribution does not depend on its batch, and do not change
the model's weights, modes or ``.grad``. A few hundred training images are enough. In a convolution,
n = channels · height · width of a kernel, the inputs of one output. What is left out: grouped convolutions.

Source: the mean of squared gradients as the Hessian's diagonal ("empirical Fisher"): Theis et al. 2018,
"Faster gaze prediction with dense networks and Fisher pruning", arXiv:1801.05787; input norms: Sun et al.
2023, arXiv:2306.11695; Gram matrices: Frantar and Alistarh 2023, "SparseGPT", arXiv:2301.00774.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from compresslab.analysis.layer_inputs import Batches, LabelledBatches, input_rows, mean_over_inputs
from compresslab.data.images import check_some_images
from compresslab.errors import Unsupported
from compresslab.models.surgery import Layer, evaluating, forward_hooks, ungrouped_layers

__all__ = ["input_norms", "mean_gradients", "squared_gradients"]

_TOGETHER = 10  # images whose gradients are in memory at once


def mean_gradients(model: nn.Module, batches: LabelledBatches) -> dict[str, Tensor]:
    """Return the gradient of the mean cross-entropy in Conv2d and Linear weights: {layer: weight's shape}.

    In a trained network it is near zero, because the gradients of the images cancel.

    Args:
        model: images → logits (batch, classes), in any mode.
        batches: pairs of images and labels, such as ``train.first(500).batches()``.

    Raises:
        CompressionError: no images, no layer, a convolution in groups, or a weight without a
            part in the loss.
    """
    layers = ungrouped_layers(model)
    w = {_weight(name): layer.weight.detach().requires_grad_() for name, layer in layers.items()}
    sums, count = [torch.zeros_like(weight) for weight in w.values()], 0
    for images, labels in batches:
        with evaluating(model), torch.enable_grad():
            loss = F.cross_entropy(functional_call(model, w, (images,)).float(), labels, reduction="sum")
            gradients = torch.autograd.grad(loss, list(w.values()), allow_unused=True)
        sums = [total + _there(g, name) for total, g, name in zip(sums, gradients, w, strict=True)]
        count += len(images)
    check_some_images("batches", count, hint="train.first(500).batches()")
    return {name: total / count for name, total in zip(layers, sums, strict=True)}


def squared_gradients(model: nn.Module, batches: LabelledBatches) -> dict[str, Tensor]:
    """Return the mean over images of each image's squared gradient: {layer: weight's shape}.

    It approximates the Hessian's diagonal. For cross-entropy, the two are equal in expectation if labels are
    drawn from the network's own probabilities. Here the true labels are used ("empirical Fisher"), so the
    better calibrated the network, the better the approximation. Unlike the Hessian's diagonal, it is never
    negative.

    Args:
        model: images → logits (batch, classes), in any mode.
        batches: pairs of images and labels, such as ``train.first(500).batches()``.

    Raises:
        CompressionError: no images, no layer, or a convolution in groups.
    """
    sums: dict[str, Tensor] = {}
    count = 0
    for images, labels in batches:
        for x, y in zip(images.split(_TOGETHER), labels.split(_TOGETHER), strict=True):
            for name, gradients in _gradients_of_each_image(model, x, y).items():
                sums[name] = sums.get(name, 0) + gradients.square().sum(dim=0)
        count += len(images)
    check_some_images("batches", count, hint="train.first(500).batches()")
    return {name: total / count for name, total in sums.items()}


def input_norms(model: nn.Module, batches: Batches) -> dict[str, Tensor]:
    """Return √E[x²] of each input of a layer, over images and positions: {layer: weight's shape[1:]}.

    Paper: the norm ‖x‖; here: divided by √(number of values), which gives the same ranking but does not grow
    with the number of images. Zeros of the padding count, because the weights multiply them too.

    Args:
        model: in any mode.
        batches: pairs of images and labels; the labels aren't read.

    Raises:
        CompressionError: no images, no layer, or a convolution in groups.
    """
    squares = mean_over_inputs(model, batches, _squares)
    layers = ungrouped_layers(model)
    return {name: mean.sqrt().reshape(layers[name].weight.shape[1:]) for name, mean in squares.items()}


def _gradients_of_each_image(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """{layer: (images, *weight's shape)}: Σ_p ∂L/∂y xᵀ, where ∂L/∂y is the gradient of a zero added to y."""
    calls: list[tuple[str, Layer, Tensor, Tensor]] = []

    def add_zero(name: str, layer: Layer, x: Tensor, y: Tensor) -> Tensor:
        zero = torch.zeros_like(y, requires_grad=True)
        calls.append((name, layer, x.detach(), zero))
        return y + zero

    with forward_hooks(ungrouped_layers(model), add_zero), evaluating(model), torch.enable_grad():
        loss = F.cross_entropy(model(images).float(), labels, reduction="sum")
        slopes = torch.autograd.grad(loss, [zero for *_, zero in calls], materialize_grads=True)
    gradients: dict[str, Tensor] = {}
    for (name, layer, x, _), slope in zip(calls, slopes, strict=True):
        by_output = slope.flatten(2) if isinstance(layer, nn.Conv2d) else input_rows(layer, slope).mT
        one = (by_output @ input_rows(layer, x)).reshape(len(x), *layer.weight.shape)  # (images, out, …)
        gradients[name] = gradients.get(name, 0) + one  # a layer may run more than once
    return gradients


def _squares(layer: Layer, x: Tensor) -> tuple[Tensor, int]:
    """The sum (n,) of x² over images and positions, and the number of positions."""
    rows = input_rows(layer, x.square().sum(dim=0, keepdim=True))[0]
    return rows.sum(dim=0), len(x) * len(rows)


def _weight(name: str) -> str:
    return f"{name}.weight" if name else "weight"


def _there(gradient: Tensor | None, name: str) -> Tensor:
    if gradient is None:
        raise Unsupported(
            f"{name} must have a gradient, got none: its layer never ran, or its output was rounded; "
            "score the network before it is quantized"
        )
    return gradient
