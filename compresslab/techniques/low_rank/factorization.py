"""Low-rank factorization of a network: layers replaced by sequences of smaller ones.

A factorization does not always save weights: at a high rank the factors have more weights than the layer (see
``rank_selection``). So a layer whose factors would not have fewer weights is left as it is, and so is a layer
that can't be factorized, such as a depthwise convolution; ``decide`` gives the reason for each.

    W ≈ W_k · … · W_2 · W_1,        if Σ weights(W_i) < weights(W)

What it saves: weights, bytes, MACs. What it costs: accuracy, until it is fine-tuned; and more layers to run.
What is left out: a check of MACs, which can grow although weights do not (a 1 × 1 layer before a stride runs
at every pixel); factors merged with the following layers (a BatchNorm folds into the last factor as into any
convolution).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from compresslab.measurement.tables import Table
from compresslab.models.surgery import Layer, check_layer_names, replace_modules, weight_layers
from compresslab.techniques.low_rank.layer_splits import CHANNELS, Rank, Split, count_weights, thin_layers

__all__ = ["Decision", "decide", "factorization_table", "factorize", "thin_like"]


@dataclass(frozen=True)
class Decision:
    """The decision on a layer: its weights before and after; ``reason`` is "" if it is factorized."""

    name: str
    kind: str
    rank: Rank | None
    weights_before: int
    weights_after: int
    reason: str


def factorize(model: nn.Module, ranks: Mapping[str, Rank], *, split: Split = CHANNELS) -> nn.Module:
    """Return a copy of the model in which the named layers are factorized.

    A layer stays whole if it has no rank, if the split can't factorize it or if it would not have fewer
    weights; ``factorization_table`` lists the reasons. The given model is not changed and shares nothing with
    the copy.

    Args:
        model: with at least one Conv2d or Linear layer.
        ranks: {layer's name: rank per group; for TUCKER's convolutions a pair (r_out, r_in)}.
        split: how, such as CHANNELS, SPACE, TUCKER, CP, DEPTHWISE or ``whitened(grams)``.

    Raises:
        CompressionError: a name is unknown, a rank is out of range, or the model has no layer.
    """
    return _replaced(model, ranks, split, filled=True)


def thin_like(model: nn.Module, ranks: Mapping[str, Rank], *, split: Split = CHANNELS) -> nn.Module:
    """As ``factorize``, but with zeros as the factors' weights, for loading a file. Nothing is decomposed.

    Raises:
        CompressionError: as ``factorize``.
    """
    return _replaced(model, ranks, split, filled=False)


def decide(model: nn.Module, ranks: Mapping[str, Rank], *, split: Split = CHANNELS) -> tuple[Decision, ...]:
    """Return the decision of ``factorize`` on each Conv2d and Linear layer; nothing is decomposed.

    Raises:
        CompressionError: as ``factorize``.
    """
    layers = weight_layers(model)
    check_layer_names("ranks", ranks, layers)
    return tuple(_decide(name, layer, ranks.get(name), split) for name, layer in layers.items())


def factorization_table(model: nn.Module, ranks: Mapping[str, Rank], *, split: Split = CHANNELS) -> Table:
    """Return the table of ranks, weights before and after, and reasons; the last row is the sum.

    Raises:
        CompressionError: as ``factorize``.
    """
    decisions = decide(model, ranks, split=split)
    rows = [
        (d.name, "" if d.rank is None else f"{d.rank}", d.weights_before, d.weights_after, d.reason)
        for d in decisions
    ]
    rows.append(("all layers", "", sum(row[2] for row in rows), sum(row[3] for row in rows), ""))
    return Table(
        ("layer", "rank", "weights before", "after", "why it stays whole"),
        tuple((name, rank, f"{before:,}", f"{after:,}", why) for name, rank, before, after, why in rows),
        f"{split.name}; weights of Conv2d and Linear layers, without biases.",
    )


def _decide(name: str, layer: Layer, rank: Rank | None, split: Split) -> Decision:
    before, after, reason = layer.weight.numel(), layer.weight.numel(), "no rank is given"
    if rank is not None:
        reason = split.why_not(layer)
        if not reason:
            thin = count_weights(thin_layers(split, name, layer, rank, filled=False))
            after, reason = (thin, "") if thin < before else (before, f"it would have {thin:,} weights")
    return Decision(name, type(layer).__name__, rank, before, after, reason)


def _replaced(model: nn.Module, ranks: Mapping[str, Rank], split: Split, *, filled: bool) -> nn.Module:
    """Return a copy in which factorized layers replace the original ones."""
    thinned = {d.name for d in decide(model, ranks, split=split) if not d.reason}

    def make(name: str, layer: nn.Module) -> nn.Module | None:
        if name not in thinned or not isinstance(layer, Layer):
            return None
        thin: nn.Module = thin_layers(split, name, layer, ranks[name], filled=filled)
        if not filled:
            thin = thin.to_empty(device=layer.weight.device)
            for parameter in thin.parameters():
                nn.init.zeros_(parameter)
        return thin

    return replace_modules(copy.deepcopy(model), make)
