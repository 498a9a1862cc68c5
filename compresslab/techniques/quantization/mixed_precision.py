"""Mixed precision: not every layer needs the same bits.

Some layers bear two bits, others suffer at four. Quantize one layer at a time, to each number of bits, and
see how far the network's answers move (its *sensitivity*); then spend a budget of bytes where it helps most.

    e[l, b] = mean over images of KL(softmax z ‖ softmax z'),   z' with only layer l in b bits

    choose b[l]:   Σ e[l, b[l]] least,   Σ bytes[l, b[l]] ≤ budget

Choosing is the *knapsack problem*, and as bytes are whole numbers, dynamic programming solves it exactly:
the best choice for the first l layers in B bytes needs only the best ones for the first l - 1. (The greedy
rule, which always buys the upgrade of the most error per byte, comes close and needs no table.)

What it saves: accuracy at the same bytes, or bytes at the same accuracy. What it costs: as many evaluations
as layers times choices; and an engine that has kernels for all those widths, which few have. What is left
out: that errors of several layers need not add up.

Source: sensitivity and a budget: Dong et al. 2019, "HAWQ", arXiv:1905.03696, which takes the Hessian for the
sensitivity; here: the divergence itself, measured, because the network is small. The sum over layers as a
program with a budget: Yao et al. 2020, "HAWQ-V3", arXiv:2011.10680.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from compresslab.data.images import check_some_images
from compresslab.errors import BadSetting
from compresslab.models.surgery import Layer, evaluating
from compresslab.techniques.quantization.weight_only import quantize_layer, replace_layers

__all__ = ["allocate_bits", "divergence", "layer_bytes", "quantize_mixed", "sensitivity"]

Layer = Layer


def divergence(z: Tensor, changed: Tensor) -> Tensor:
    """How far answers moved, in nats: the mean of KL(softmax z ‖ softmax changed); logits (batch, classes).

    >>> divergence(torch.tensor([[0.0, 1.0]]), torch.tensor([[5.0, 6.0]])).abs() < 1e-6
    tensor(True)
    """
    return F.kl_div(changed.log_softmax(dim=1), z.log_softmax(dim=1), reduction="batchmean", log_target=True)


def layer_bytes(layer: Layer, *, bits: int) -> int:
    """Bytes of the layer's tensors in a file, quantized to so many bits: integers, scales and bias."""
    return sum(part.nbytes for part in quantize_layer(layer, bits=bits).parts().values())


@torch.no_grad()
def sensitivity(model: nn.Module, inputs: Tensor, *, choices: Sequence[int]) -> dict[str, list[float]]:
    """What each layer does to the answers when it alone has so few bits: {name: one divergence a choice}.

    Args:
        model: with at least one Conv2d or Linear layer; it runs in evaluation mode and is left alone.
        inputs: validation images (m, 1, 28, 28), a few hundred; their labels aren't needed.
        choices: numbers of bits, each 2 to 8.

    Raises:
        CompressionError: bits out of range, no images, no layer at all.
    """
    check_some_images("inputs", len(inputs), hint="validation.first(500).inputs()")
    names = _layer_names(model)
    with evaluating(model):
        z = model(inputs)
    bar = tqdm(total=len(names) * len(choices), desc="sensitivity", unit="run", leave=False)

    def moved(name: str, bits: int) -> float:
        changed = quantize_mixed(model, bits={name: bits})
        with evaluating(changed):
            bar.update()
            return float(divergence(z, changed(inputs)))

    with bar:
        return {name: [moved(name, bits) for bits in choices] for name in names}


def allocate_bits(errors: Tensor, sizes: Tensor, budget: int) -> Tensor:
    """The choice (layers,) int64 of the least summed error whose sizes sum to at most the budget.

    Args:
        errors: (layers, choices), what each choice costs in accuracy. Not changed.
        sizes: (layers, choices) int64, what it costs in bytes, at least 0.
        budget: in bytes.

    Raises:
        CompressionError: a budget that even the smallest choices exceed.

    >>> errors = torch.tensor([[9.0, 1.0], [2.0, 1.0]])
    >>> allocate_bits(errors, torch.tensor([[1, 2], [1, 2]]), 3)
    tensor([1, 0])
    """
    least = int(sizes.min(dim=1).values.sum())
    if budget < least:
        raise BadSetting(f"budget must be at least {least:,} bytes here, got {budget:,}; allow fewer bits")
    best = torch.zeros(budget + 1, dtype=torch.float64)  # best[B]: of the layers so far, in B bytes
    picks = []
    for layer_errors, layer_sizes in zip(errors.double(), sizes.tolist(), strict=True):
        # (choices, budget + 1): a choice of n bytes leaves B - n to the layers before
        with_choice = torch.full((len(layer_sizes), budget + 1), torch.inf, dtype=torch.float64)
        for choice, size in enumerate(layer_sizes):
            if size <= budget:
                with_choice[choice, size:] = best[: budget + 1 - size] + layer_errors[choice]
        best, pick = with_choice.min(dim=0)
        picks.append(pick)
    chosen = []
    for pick, layer_sizes in zip(reversed(picks), reversed(sizes.tolist()), strict=True):
        chosen.append(int(pick[budget]))
        budget -= layer_sizes[chosen[-1]]
    return torch.tensor(chosen[::-1])


def quantize_mixed(model: nn.Module, *, bits: Mapping[str, int]) -> nn.Module:
    """A copy of the model in which each named layer has integers of its own number of bits, to the nearest.

    A layer that isn't named stays as it is. The given model is left alone and nothing is shared with it.

    Args:
        model: with at least one Conv2d or Linear layer.
        bits: {layer's name: 2 to 8}.

    Raises:
        CompressionError: bits out of range, a name that is no layer's, no layer at all.
    """
    names = _layer_names(model)
    for name in bits:
        if name not in names:
            raise BadSetting(f"bits has names of layers ({', '.join(names)}), got {name!r}; leave it out")

    def make(name: str, layer: Layer) -> nn.Module:
        return quantize_layer(layer, bits=bits[name]) if name in bits else layer

    return replace_layers(model, make)


def _layer_names(model: nn.Module) -> list[str]:
    return [name for name, layer in model.named_modules() if isinstance(layer, Layer)]
