"""Sensitivity analysis: compress one layer at a time and measure how far the network's answers move.

    s[l, c] = measure(the network with only layer l compressed, with strength c)

A strength is whatever a technique offers: a sparsity, a number of bits, a share of the weights. The measure
is either the drop in accuracy, or the divergence of the outputs: it needs no labels, and sees changes that
are too small to change a prediction. What it costs: as many evaluations as layers times strengths. What is
left out: how several compressed layers act together, and what fine-tuning wins back.

Source: one layer at a time: Li et al. 2016, "Pruning filters for efficient ConvNets", arXiv:1608.08710; the
divergence of the outputs in place of the accuracy: Cai et al. 2020, "ZeroQ", arXiv:2001.00281.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from compresslab.data.images import Images, check_some_images
from compresslab.models.surgery import evaluating
from compresslab.training.loop import accuracy

__all__ = ["Measure", "accuracy_sensitivity", "divergence", "output_sensitivity", "scan"]

Measure = Callable[[nn.Module], float]  # a compressed network → how much worse it is
Strength = TypeVar("Strength")


@overload
def scan(
    layers: Iterable[str],
    strengths: Sequence[Strength],
    compress: Callable[[str, Strength], nn.Module],
    measure: Measure,
) -> dict[str, list[float]]: ...


@overload
def scan(
    layers: Iterable[str],
    strengths: Sequence[Strength],
    compress: Callable[[str, Strength], nn.Module | None],
    measure: Measure,
) -> dict[str, list[float | None]]: ...


def scan(layers, strengths, compress, measure):
    """Measure the network with each layer compressed alone: {layer's name: one value per strength}.

    Args:
        layers: their names.
        strengths: what to try at every layer.
        compress: (layer's name, strength) → a copy of the network with that layer compressed; or None, where
            the layer can't be compressed so, and the value is None too.
        measure: compressed network → how much worse it is, as ``output_sensitivity`` makes it.

    >>> def compress(name, size):
    ...     return nn.Linear(size, 1) if name == "large" else None
    >>> scan(["small", "large"], (1, 2), compress, lambda network: network.in_features)
    {'small': [None, None], 'large': [1, 2]}
    """
    layers = list(layers)
    bar = tqdm(total=len(layers) * len(strengths), desc="sensitivity", unit="run", leave=False)

    def alone(name, strength):
        compressed = compress(name, strength)
        bar.update()
        return None if compressed is None else measure(compressed)

    with bar:
        return {name: [alone(name, strength) for strength in strengths] for name in layers}


def accuracy_sensitivity(model: nn.Module, images: Images) -> Measure:
    """Return a measure of a compressed network: the model's accuracy minus its own, in [-1, 1].

    Args:
        model: not compressed.
        images: of validation.
    """
    before = accuracy(model, images)
    return lambda compressed: before - accuracy(compressed, images)


@torch.no_grad()
def output_sensitivity(model: nn.Module, inputs: Tensor) -> Measure:
    """Return a measure of a compressed network: the divergence of its outputs from the model's, in nats.

    Args:
        model: not compressed; it runs in evaluation mode and is left alone.
        inputs: validation images (m, 1, 28, 28), a few hundred; their labels aren't needed.

    Raises:
        BadSetting: no images.
    """
    check_some_images("inputs", len(inputs), hint="validation.first(500).inputs()")
    with evaluating(model):
        z = model(inputs)  # (m, classes)

    def measure(compressed: nn.Module) -> float:
        with evaluating(compressed):
            return float(divergence(z, compressed(inputs)))

    return measure


def divergence(z: Tensor, changed: Tensor) -> Tensor:
    """The mean of KL(softmax z ‖ softmax changed), in nats; logits (batch, classes).

    >>> divergence(torch.tensor([[0.0, 1.0]]), torch.tensor([[5.0, 6.0]])).abs() < 1e-6
    tensor(True)
    """
    return F.kl_div(changed.log_softmax(dim=1), z.log_softmax(dim=1), reduction="batchmean", log_target=True)
