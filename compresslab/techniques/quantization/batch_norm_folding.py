"""BatchNorm folding: a convolution and the BatchNorm after it merged into one convolution.

In evaluation mode BatchNorm is an affine function of each channel with fixed coefficients, and the
convolution before it is linear. So the two equal one convolution with other weights:

    norm(w ∗ x + b) = γ · (w ∗ x + b - μ) / √(σ² + ε) + β  =  w' ∗ x + b'

    w' = w · γ / √(σ² + ε),        b' = (b - μ) · γ / √(σ² + ε) + β

What it saves: the time of the norm and its four numbers per channel. Quantization also rounds once between
two convolutions instead of twice. What it costs: nothing in the outputs, but the weights of different
channels now have very different sizes, so they need one scale per channel. What is left out: a norm before
its convolution, and training after folding, which works worse without norms: fold last.

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
    """Return the weights and biases of the convolution that equals a convolution followed by its norm.

    Args:
        w: (out, in, height, width).
        b: (out,), zeros if the convolution has no bias.
        mean: (out,), the norm's running mean.
        variance: (out,), the norm's running variance, at least 0.
        gamma: (out,), the norm's weight.
        beta: (out,), the norm's bias.
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
    """Return a copy, in evaluation mode, with every BatchNorm2d directly after a Conv2d folded into it.

    An Identity replaces each folded norm, so no name changes; other norms stay. The given model is not
    changed and shares nothing with the copy.

    Raises:
        Unsupported: ``torch.fx`` can't trace the forward.
    """
    folded = copy.deepcopy(model).eval()
    for convolution, norm in list(_pairs(folded)):
        folded.set_submodule(
            convolution, _fold(folded.get_submodule(convolution), folded.get_submodule(norm))
        )
        folded.set_submodule(norm, nn.Identity())
    return folded.eval()


def _pairs(model: nn.Module) -> Iterator[tuple[str, str]]:
    """The names (convolution, norm) that can be folded: both run once, and only the norm reads the sums."""
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
    """Return a new convolution that equals the two."""
    new = plain_layer(convolution)  # for a compressed layer, its effective weight
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
