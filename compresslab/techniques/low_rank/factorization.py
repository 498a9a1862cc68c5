"""A network with thin layers in place of thick ones; what would not get thinner stays whole, and says so.

A factorisation saves nothing by itself: at a high rank the thin layers have more weights than the whole one
(see the ranks page). So a layer whose thin ones would not have fewer weights is left as it is, as is one that
can't be split, such as a depthwise convolution; ``decide`` says why, layer by layer.

What it saves: weights, bytes, MACs. What it costs: accuracy, until it is fine-tuned; and more layers to run.
What is left out: MACs, which can grow where weights don't (a 1 × 1 layer in front of a stride works at every
pixel); thin layers merged with what follows them (BatchNorm goes into the last one as into any convolution).
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
    """What becomes of a layer: its weights before and after; ``reason`` says why it stays whole, or is ""."""

    name: str
    kind: str
    rank: Rank | None
    weights_before: int
    weights_after: int
    reason: str


def factorize(model: nn.Module, ranks: Mapping[str, Rank], *, split: Split = CHANNELS) -> nn.Module:
    """A copy of the model in which the named layers are thin ones in sequence.

    A layer without a rank, one that the split can't make thin and one that would not have fewer weights stay
    whole: ``factorization_table`` says which and why. The given model is left alone and nothing is shared
    with it.

    Args:
        model: with at least one Conv2d or Linear layer.
        ranks: {layer's name: rank of every group; for TUCKER's convolutions a pair (r_out, r_in)}.
        split: how, such as CHANNELS, SPACE, TUCKER, CP, DEPTHWISE or ``whitened(grams)``.

    Raises:
        CompressionError: a name that is no layer's, a rank out of range, no layer at all.
    """
    return _replaced(model, ranks, split, filled=True)


def thin_like(model: nn.Module, ranks: Mapping[str, Rank], *, split: Split = CHANNELS) -> nn.Module:
    """As ``factorize``, but the thin layers' weights are zero: to load a file into. Nothing is decomposed.

    Raises:
        CompressionError: as ``factorize``.
    """
    return _replaced(model, ranks, split, filled=False)


def decide(model: nn.Module, ranks: Mapping[str, Rank], *, split: Split = CHANNELS) -> tuple[Decision, ...]:
    """What ``factorize`` does with each Conv2d and Linear layer, and why; nothing is decomposed.

    Raises:
        CompressionError: as ``factorize``.
    """
    layers = weight_layers(model)
    check_layer_names("ranks", ranks, layers)
    return tuple(_decide(name, layer, ranks.get(name), split) for name, layer in layers.items())


def factorization_table(model: nn.Module, ranks: Mapping[str, Rank], *, split: Split = CHANNELS) -> Table:
    """Each layer's rank, its weights before and after, and why it stays whole; the last row is all layers.

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
    """A copy with thin layers, wherever the whole ones stand."""
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
