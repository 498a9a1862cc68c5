"""The runs of lab 03 that end in a network, as a worker process does them: settings in, what was reached out.

The networks that the lab shows go to the bench's folder (``compresslab.experiments.bench``). The runs that
only compare are in ``studies``.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from compresslab.experiments.bench import Bench
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

__all__ = [
    "KEPT_SEED",
    "LOOKED_AT",
    "prune_channels",
    "prune_in_rounds",
    "prune_two_in_four",
]

KEPT_SEED = 0  # whose networks are stored
LOOKED_AT = 1000  # training images that criteria look at


def prune_in_rounds(
    bench: Bench,
    key: str,
    *,
    sparsity: float,
    rounds: int,
    epochs: int,
    more: int,
    learning_rate: float,
    seed: int,
) -> dict:
    """The baseline pruned by magnitude with one threshold, on a cubic ramp; ``more`` epochs at the end."""
    data, settings = bench.data, dict[str, Any](learning_rate=learning_rate, seed=seed)
    ramp = [cubic_sparsity(t, steps=rounds, sparsity=sparsity) for t in range(1, rounds + 1)]
    pruned = prune_iteratively(
        load_baseline(),
        data.train,
        data.validation,
        sparsities=ramp,
        select=global_masks,
        checkpoint=bench.checkpoint(key),
        **bench.training(epochs=epochs, **settings),
    )
    network = pruned.model
    if more:
        at_the_end = bench.training(epochs=more, **settings) | {"checkpoint": bench.checkpoint(key)}
        network = fit_masked(network, pruned.masks, data.train, data.validation, **at_the_end).model
        bench.checkpoint(key).unlink()
    rounds_reached = [[r.sparsity, r.pruned_accuracy, r.trained_accuracy] for r in pruned.rounds]
    return _reached(bench, key, network, seed) | {"rounds_reached": rounds_reached}


def prune_two_in_four(bench: Bench, key: str, *, epochs: int, learning_rate: float, seed: int) -> dict:
    """The baseline with two of every four inputs, wherever four divides them; then trained."""
    model, data = load_baseline(), bench.data
    masks = masks_of_two_in_four(magnitudes(model))
    settings = bench.training(epochs=epochs, learning_rate=learning_rate, seed=seed)
    trained = fit_masked(model, masks, data.train, data.validation, **settings)
    before = accuracy(masked(model, masks), data.validation)
    return _reached(bench, key, trained.model, seed) | {"pruned_accuracy": before}


def prune_channels(
    bench: Bench, key: str, *, choice: str, macs: int, epochs: int, learning_rate: float, seed: int
) -> dict:
    """The baseline with as many channels as the MACs allow, which ones by CHANNEL_CHOICES; then trained."""
    model, data = load_baseline(), bench.data
    keep = CHANNEL_CHOICES[choice](model, bench.some(LOOKED_AT, seed), macs)
    thin, checkpoint = remove_channels(model, keep), bench.checkpoint(key)
    settings = bench.training(epochs=epochs, learning_rate=learning_rate, seed=seed)
    trained = fit(thin, data.train, data.validation, checkpoint=checkpoint, **settings)
    checkpoint.unlink()
    return _reached(bench, key, trained.model, seed) | {
        "macs_per_sample": count_macs(thin, data.train.first(1).inputs()),
        "channels": {name: len(kept) for name, kept in keep.items()},
        "pruned_accuracy": accuracy(thin, data.validation),
        "history": [epoch.validation_accuracy for epoch in trained.history],
    }


def _reached(bench: Bench, key: str, network: nn.Module, seed: int) -> dict:
    """Validation of every network; test of those that are reported, and KEPT_SEED's of them are stored."""
    group, name = key.split("/")[:2]
    found = {"validation_accuracy": accuracy(network, bench.data.validation)}
    if group == "networks":
        found["test_accuracy"] = accuracy(network, bench.data.test)
        if seed == KEPT_SEED:
            bench.folder.mkdir(parents=True, exist_ok=True)
            ledger = save_model(store_sparsely(network), bench.folder / f"{name}.safetensors")
            found["storage_bytes"] = ledger.total
    return found
