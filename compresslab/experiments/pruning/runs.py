"""Run functions of lab 03's networks, each from a ``Context`` and JSON values to results.

The networks of the lab are stored. The comparisons are in ``studies``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from compresslab.experiments.experiment import Context
from compresslab.experiments.pruning.methods import CHANNEL_CHOICES, masks_of_two_in_four
from compresslab.measurement.costs import count_macs
from compresslab.models.pretrained import load_baseline
from compresslab.storage import save_model
from compresslab.techniques.pruning.channel_removal import remove_channels
from compresslab.techniques.pruning.granularity import global_masks, magnitudes
from compresslab.techniques.pruning.masks import masked
from compresslab.techniques.pruning.schedule import cubic_sparsity, fit_masked, prune_iteratively
from compresslab.techniques.pruning.sparse_layers import store_sparsely
from compresslab.training.loop import accuracy, fit

__all__ = ["LOOKED_AT", "prune_channels", "prune_in_rounds", "prune_two_in_four", "structure"]

LOOKED_AT = 1000  # training images for the criteria


def prune_in_rounds(
    context: Context,
    *,
    sparsity: float,
    rounds: int,
    epochs: int,
    more: int,
    learning_rate: float,
    seed: int,
) -> dict:
    """Prune the baseline by magnitude with one threshold, on a cubic ramp; ``more`` epochs at the end."""
    data, settings = context.data, dict[str, Any](learning_rate=learning_rate, seed=seed)
    ramp = [cubic_sparsity(t, steps=rounds, sparsity=sparsity) for t in range(1, rounds + 1)]
    pruned = prune_iteratively(
        load_baseline(), data.train, data.validation, sparsities=ramp, select=global_masks,
        checkpoint=context.checkpoint, **context.training(epochs=epochs, **settings),
    )  # fmt: skip
    network = pruned.model
    if more:
        at_the_end = context.training(epochs=more, **settings) | {"checkpoint": context.checkpoint}
        network = fit_masked(network, pruned.masks, data.train, data.validation, **at_the_end).model
    rounds_reached = [[r.sparsity, r.pruned_accuracy, r.trained_accuracy] for r in pruned.rounds]
    return _reached(context, network) | {"rounds_reached": rounds_reached}


def prune_two_in_four(context: Context, *, epochs: int, learning_rate: float, seed: int) -> dict:
    """Prune the baseline to 2:4 in all layers whose inputs are a multiple of four, and train it."""
    model, data = load_baseline(), context.data
    masks = masks_of_two_in_four(magnitudes(model))
    settings = context.training(epochs=epochs, learning_rate=learning_rate, seed=seed)
    trained = fit_masked(model, masks, data.train, data.validation, **settings)
    before = accuracy(masked(model, masks), data.validation)
    return _reached(context, trained.model) | {"pruned_accuracy": before}


def prune_channels(
    context: Context, *, choice: str, macs: int, epochs: int, learning_rate: float, seed: int
) -> dict:
    """Remove channels by one of CHANNEL_CHOICES until the MACs are within the budget, and train."""
    model, data = load_baseline(), context.data
    keep = CHANNEL_CHOICES[choice](model, context.sample(LOOKED_AT, seed), macs)
    thin, checkpoint = remove_channels(model, keep), context.checkpoint
    settings = context.training(epochs=epochs, learning_rate=learning_rate, seed=seed)
    trained = fit(thin, data.train, data.validation, checkpoint=checkpoint, **settings)
    return _reached(context, trained.model) | {
        "macs_per_sample": count_macs(thin, data.train.first(1).inputs()),
        "channels": {name: len(kept) for name, kept in keep.items()},
        "pruned_accuracy": accuracy(thin, data.validation),
        "history": [epoch.validation_accuracy for epoch in trained.history],
    }


def structure(name: str, record: Mapping[str, Any]) -> nn.Module:
    """Return a network of a stored one's structure, to load its weights into."""
    # a sparse file has no shapes of weights, so the widths come from the record
    keep = {group: range(width) for group, width in record.get("channels", {}).items()}
    return store_sparsely(remove_channels(load_baseline(), keep))


def _reached(context: Context, network: nn.Module) -> dict[str, Any]:
    """Accuracies of a network: of test images only where nothing is tuned; keep it if it is to be kept."""
    found: dict[str, Any] = {"validation_accuracy": accuracy(network, context.data.validation)}
    if not context.is_tuning:
        found["test_accuracy"] = accuracy(network, context.data.test)
    if context.run.network:
        found["storage_bytes"] = save_model(store_sparsely(network), context.network_path).total
    return found
