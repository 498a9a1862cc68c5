"""Folding: a BatchNorm that follows a convolution is a part of that convolution, once training is over.

In evaluation mode BatchNorm subtracts a fixed mean and multiplies by a fixed number, channel by channel; the
convolution before it is linear; so both are one convolution with other weights:

    norm(w ∗ x + b) = γ · (w ∗ x + b - μ) / √(σ² + ε) + β  =  w' ∗ x + b'

    w' = w · γ / √(σ² + ε),        b' = (b - μ) · γ / √(σ² + ε) + β

What it saves: the layer's time and its four numbers a channel. For quantization it does more: one rounding
between two convolutions instead of two. What it costs: nothing in the outputs; but channels that the norm
held at one size now have weights of very different sizes, which is why weights want a scale for each channel.
What is left out: training goes on worse without its norms, so fold last; a norm before its convolution.

Source: Jacob et al. 2018, "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", arXiv:1712.05877, section 3.2.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from compresslab.models.graph import fx_graph, plain_layer

__all__ = ["fold_batch_norm", "folded_weights"]


def folded_weights(
    w: Tensor, b: Tensor, *, mean: Tensor, variance: Tensor, gamma: Tensor, beta: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """The weights and biases of the one convolution that does what convolution and norm do.

    Args:
        w: (out, in, height, width).
        b: (out,), zeros where the convolution has no bias.
        mean: (out,), the norm's running mean.
        variance: (out,), at least 0.
        gamma: (out,), what the norm multiplies by.
        beta: (out,), what it adds.
        epsilon: added to the variance, so that no channel is divided by zero.

    Returns:
        Weights in the shape of ``w`` and biases (out,).

    >>> one, four = torch.ones(1), torch.tensor([4.0])
    >>> w, b = folded_weights(
    ...     torch.ones(1, 1, 1, 1), one, mean=3 * one, variance=four, gamma=one, beta=one, epsilon=0.0
    ... )
    >>> w.item(), b.item()
    (0.5, 0.0)
    """
    factor = gamma / torch.sqrt(variance + epsilon)  # (out,)
    return w * factor.reshape(-1, 1, 1, 1), (b - mean) * factor + beta


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode in which every BatchNorm2d right after a Conv2d is folded into it.

    Where the norm was, an Identity stays, so every name is as it was; other norms are left as they are. The
    given model is left alone and nothing is shared with it.

    Raises:
        CompressionError: a forward that ``torch.fx`` can't follow.
    """
    folded = copy.deepcopy(model).eval()
    for convolution, norm in list(_pairs(folded)):
        folded.set_submodule(
            convolution, _fold(folded.get_submodule(convolution), folded.get_submodule(norm))
        )
        folded.set_submodule(norm, nn.Identity())
    return folded.eval()


def _pairs(model: nn.Module) -> Iterator[tuple[str, str]]:
    """The names (convolution, norm) that can be folded: each used once, and no other reader between."""
    nodes = [node for node in fx_graph(model).nodes if node.op == "call_module"]
    used = [model.get_submodule(node.target) for node in nodes]
    for node, norm in zip(nodes, used, strict=True):
        before = node.args[0]
        if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or before.op != "call_module":
            continue
        convolution = model.get_submodule(before.target)
        once = used.count(norm) == used.count(convolution) == len(before.users) == 1
        if isinstance(convolution, nn.Conv2d) and once:
            yield before.target, node.target


@torch.no_grad()
def _fold(convolution: Any, norm: Any) -> nn.Module:
    """A new convolution that does what both did."""
    new = plain_layer(convolution)  # of a compressed layer, the weight that it really multiplies with
    zeros = torch.zeros_like(norm.running_mean)
    w, b = folded_weights(
        new.weight,
        zeros if new.bias is None else new.bias,
        mean=norm.running_mean,
        variance=norm.running_var,
        gamma=zeros + 1 if norm.weight is None else norm.weight,
        beta=zeros if norm.bias is None else norm.bias,
        epsilon=norm.eps,
    )
    new.weight = nn.Parameter(w, new.weight.requires_grad)
    new.bias = nn.Parameter(b, new.weight.requires_grad)
    return new
