"""Data-aware rounding: GPTQ, AdaRound and bias correction.

Rounding each weight to the nearest value on the grid minimizes the error of the *weights*. But the error of
the layer's *output* matters, in which the errors of weights with correlated inputs can cancel. For inputs x
with the *Gram matrix* G = E[x xᵀ], the mean squared error of one output channel is

    E[(w · x - ŵ · x)²] = (ŵ - w) G (ŵ - w)ᵀ

so a layer needs only G from the images: one pass, without labels.

- **GPTQ** rounds column by column, and the columns that are not yet rounded compensate for the error: with U
  the upper Cholesky factor of G⁻¹,  w[j:] ← w[j:] - (w[i] - ŵ[i]) / U[i, i] · U[i, j:]   for j > i.
- **AdaRound** chooses for all weights together, each the integer below or above, by gradient descent:
  ŵ = s · (⌊w / s⌋ + h),  0 ≤ h ≤ 1, with a penalty that drives h to 0 or 1.
- **Bias correction** removes the mean of the remaining error:  b ← b + (w - ŵ) · E[x].

What they save: accuracy; the file has the same size as with nearest rounding. What they cost: a few hundred
images, and seconds to minutes. What is left out: the errors of earlier layers. Papers: the inputs of the
partly quantized network (GPTQ), each layer with the following ReLU (AdaRound); here: the inputs of the float
network, without the ReLU, because one pass then serves all layers.

Source: Frantar et al. 2022, "GPTQ", arXiv:2210.17323; Nagel et al. 2020, "Up or down? Adaptive rounding for
post-training quantization", arXiv:2004.10568; bias correction: Nagel et al. 2019, "Data-free quantization
through weight equalization and bias correction", arXiv:1906.04721.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from compresslab.analysis.layer_inputs import damped, gram_matrices, input_means, output_error
from compresslab.data.images import check_some_images
from compresslab.errors import check_whole
from compresslab.models.surgery import Layer
from compresslab.techniques.quantization.affine import (
    channel_range,
    fake_quantize,
    integer_range,
    scale_and_zero_point,
)
from compresslab.techniques.quantization.weight_only import WeightGrid, on_grid, replace_layers

__all__ = [
    "Rounding",
    "adaround",
    "bias_correction",
    "correct_biases",
    "gptq",
    "quantize_with_data",
]

Rounding = Callable[..., Tensor]  # (w, gram, scale, *, bits) → the weights on the grid, like gptq


def gptq(w: Tensor, gram: Tensor, scale: Tensor, *, bits: int, damping: float = 0.01) -> Tensor:
    """Return weights (out, n) on the grid, rounded column by column, with later columns compensating.

    The columns with the largest inputs come first, while many columns remain to compensate. A channel with a
    larger error than nearest rounding is rounded to nearest.

    Args:
        w: (out, n). Not changed.
        gram: (n, n), the mean of x xᵀ.
        scale: (out, 1), the step of each channel.
        bits: 2 to 8.
        damping: this share of the mean of G's diagonal is added to it, so that it has an inverse.
    """
    order = gram.diagonal().argsort(descending=True)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped(gram[order][:, order], damping)))
    u = torch.linalg.cholesky(inverse, upper=True)
    left = w[:, order].double()  # the weights after compensation for the rounded columns
    rounded = torch.zeros_like(left)
    for i in range(w.shape[1]):
        rounded[:, i] = fake_quantize(left[:, i], scale[:, 0].double(), 0, bits=bits, signed=True)
        left[:, i + 1 :] -= torch.outer((left[:, i] - rounded[:, i]) / u[i, i], u[i, i + 1 :])
    return _never_worse(w, rounded[:, order.argsort()].to(w.dtype), gram, scale, bits=bits)


@torch.enable_grad()
def adaround(w: Tensor, gram: Tensor, scale: Tensor, *, bits: int, steps: int = 500) -> Tensor:
    """Return weights (out, n) on the grid, each rounded up or down, chosen together by gradient descent.

    h is a stretched sigmoid, which reaches 0 and 1, of a variable trained by Adam. The penalty
    1 - |2h - 1|^β hardly affects h at first (β = 20) and pushes it to 0 or 1 at the end (β = 2). A channel
    with a larger error than nearest rounding is rounded to nearest.

    Args:
        w: (out, n). Not changed.
        gram: (n, n), the mean of x xᵀ.
        scale: (out, 1), the step of each channel.
        bits: 2 to 8.
        steps: number of Adam's steps.
    """
    lowest, highest = integer_range(bits, signed=True)
    below = (w / scale).floor()
    share = (w / scale - below).clamp(0.01, 0.99)
    v = torch.logit((share + 0.1) / 1.2).requires_grad_()  # so that h starts at the fractional part of w / s
    g = (gram / gram.diagonal().mean().clamp(min=1e-12)).to(w.dtype)
    unit = (scale**2 * g.diagonal().mean()).clamp(min=1e-24)  # loss of an error of one step in one weight
    optimizer = torch.optim.Adam([v], lr=0.02)
    steps = check_whole("steps", steps, hint="try 500")
    for step in range(steps):
        h = _stretched_sigmoid(v)
        error = (below + h).clamp(lowest, highest) * scale - w
        loss = (error * (error.detach() @ g) * 2 / unit).sum()  # its gradient is that of error G errorᵀ
        beta = 20 - 18 * step / steps
        if step > 0.2 * steps:
            loss = loss + 0.1 * (1 - (2 * h - 1).abs() ** beta).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    chosen = (below + (_stretched_sigmoid(v.detach()) >= 0.5)).clamp(lowest, highest) * scale
    return _never_worse(w, chosen, gram, scale, bits=bits)


def bias_correction(w: Tensor, rounded: Tensor, mean: Tensor) -> Tensor:
    """Return the change of the bias (out,) that restores the mean of each output: (w - ŵ) · E[x].

    >>> bias_correction(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 1.5]]), torch.tensor([3.0, 4.0]))
    tensor([2.])
    """
    return (w - rounded) @ mean.to(w.dtype)


def quantize_with_data(
    model: nn.Module, inputs: Tensor, *, bits: int, rounding: Rounding = gptq
) -> nn.Module:
    """Return a copy whose Conv2d and Linear weights are integers of few bits, rounded with data.

    The scales, one per channel, are those of ``quantize_weights``. The given model is not changed and shares
    nothing with the copy.

    Args:
        model: with at least one Conv2d or Linear layer, all of which run.
        inputs: images (m, 1, 28, 28) of the training set, a few hundred; their labels aren't needed.
        bits: 2 to 8.
        rounding: ``gptq`` or ``adaround``, or another function of (w, gram, scale, bits=).

    Raises:
        CompressionError: bits out of range, no images, a convolution in groups, no layer at all.
    """
    integer_range(bits, signed=True)
    grams = gram_matrices(model, _batches(inputs))

    def make(name: str, layer: Layer) -> nn.Module:
        w = layer.weight.detach().flatten(1)
        scale, _ = scale_and_zero_point(*channel_range(w), bits=bits, symmetric=True)
        rounded = copy.deepcopy(layer)
        rounded.weight.data = rounding(w, grams[name], scale, bits=bits).reshape(layer.weight.shape)
        return on_grid(rounded, WeightGrid(scale, bits=bits))

    return replace_layers(model, make)


@torch.no_grad()
def correct_biases(quantized: nn.Module, model: nn.Module, inputs: Tensor) -> nn.Module:
    """Return a copy of the quantized model whose layers have the mean outputs of the float model.

    A layer without a bias gets one. Neither given model is changed.

    Args:
        quantized: a copy of ``model`` with other weights in its Conv2d and Linear layers.
        model: the float model.
        inputs: images (m, 1, 28, 28) of the training set.

    Raises:
        CompressionError: no images, a convolution in groups, no layer at all.
    """
    means = input_means(model, _batches(inputs))

    def make(name: str, layer: Layer) -> nn.Module:
        w = model.get_parameter(f"{name}.weight").flatten(1)
        shift = bias_correction(w, layer.weight.flatten(1), means[name])
        layer.bias = nn.Parameter(shift if layer.bias is None else layer.bias + shift)
        return layer

    return replace_layers(quantized, make)


def _never_worse(w: Tensor, chosen: Tensor, gram: Tensor, scale: Tensor, *, bits: int) -> Tensor:
    """Return the chosen weights (out, n), or the nearest in channels where these have a smaller error."""
    nearest = fake_quantize(w, scale, 0, bits=bits, signed=True)
    ours, theirs = (output_error(w[:, None], v[:, None], gram) for v in (chosen, nearest))  # (out,)
    return torch.where((ours <= theirs)[:, None], chosen, nearest)


def _stretched_sigmoid(v: Tensor) -> Tensor:
    return (torch.sigmoid(v) * 1.2 - 0.1).clamp(0, 1)


def _batches(inputs: Tensor) -> Iterator[tuple[Tensor, None]]:
    """Return batches of a hundred images, without labels."""
    check_some_images("inputs", len(inputs), hint="train.first(500).inputs()")
    return ((images, None) for images in inputs.split(100))
