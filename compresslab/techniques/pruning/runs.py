"""The runs of lab 03 that end in a network, as a worker process does them: settings in, what was reached out.

Every run is a function of a bench (data, folder, whether it is only tried out), of its key and of JSON
values; it returns JSON values. Accuracies are fractions. The networks that the lab shows go to the bench's
folder. The runs that only compare are the page ``studies``.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compresslab.costs import count_macs
from compresslab.data import Images, Splits, fashion_mnist
from compresslab.models import load_baseline
from compresslab.storage import save_model
from compresslab.techniques.pruning.channels import remove_channels
from compresslab.techniques.pruning.comparison import CHANNEL_CHOICES, masks_of_two_in_four
from compresslab.techniques.pruning.granularity import global_masks, magnitudes
from compresslab.techniques.pruning.masking import masked
from compresslab.techniques.pruning.schedule import cubic_sparsity, fit_masked, prune_iteratively
from compresslab.techniques.pruning.storing import store_sparsely
from compresslab.training import accuracy, fast_precision, fit

__all__ = [
    "KEPT_SEED",
    "LOOKED_AT",
    "Bench",
    "Job",
    "perform",
    "prune_channels",
    "prune_in_rounds",
    "prune_two_in_four",
]

KEPT_SEED = 0  # whose networks are stored
LOOKED_AT = 1000  # training images that criteria look at


@dataclass(frozen=True)
class Bench:
    """What a run works with: data, where networks are kept, whether everything is small to try it out."""

    data: Splits
    folder: Path
    small: bool = False

    def some(self, count: int, seed: int) -> Images:
        """So many different training images (all, if there are fewer), drawn by the seed."""
        train = self.data.train
        index = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:count]
        return Images(train.pixels[index], train.labels[index])

    def glance(self) -> Images:
        """The first 4,000 test images (all, where there are fewer), for curves of many points."""
        return self.data.test.first(min(4000, len(self.data.test)))

    def training(self, *, epochs: int, learning_rate: float, seed: int) -> dict[str, Any]:
        """The settings of ``fit``: one epoch if everything is small, the precision that is fast here."""
        settings = {"epochs": 1 if self.small else epochs, "learning_rate": learning_rate, "seed": seed}
        return settings | {"precision": fast_precision()}

    def checkpoint(self, key: str) -> Path:
        """Where a run that is interrupted keeps its state."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{key.replace('/', '_')}.checkpoint"


@dataclass(frozen=True)
class Job:
    """One run: its name in the results, what runs, and with which settings (JSON values)."""

    key: str
    run: Callable[..., dict]
    settings: dict[str, Any] = field(default_factory=dict)


def perform(job: Job, folder: Path, small: bool = False) -> dict:
    """What a job found, and the seconds that it took.

    Args:
        job: what to run.
        folder: where its network is kept, if it is one to keep.
        small: a setting of a few images and one epoch, to try the whole thing out.
    """
    start = time.perf_counter()
    torch.manual_seed(job.settings.get("seed", 0))
    found = job.run(Bench(_data(small), folder, small), job.key, **job.settings)
    return found | {"seconds": round(time.perf_counter() - start, 1)}


def prune_in_rounds(
    bench: Bench, key: str, *, sparsity: float, rounds: int, epochs: int, more: int, learning_rate: float,
    seed: int,
) -> dict:  # fmt: skip
    """The baseline pruned by magnitude with one threshold, on a cubic ramp; ``more`` epochs at the end."""
    data, settings = bench.data, dict[str, Any](learning_rate=learning_rate, seed=seed)
    ramp = [cubic_sparsity(t, steps=rounds, sparsity=sparsity) for t in range(1, rounds + 1)]
    pruned = prune_iteratively(
        load_baseline(), data.train, data.validation, sparsities=ramp, select=global_masks,
        checkpoint=bench.checkpoint(key), **bench.training(epochs=epochs, **settings),
    )  # fmt: skip
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


@functools.lru_cache(maxsize=1)
def _data(small: bool) -> Splits:
    data = fashion_mnist()
    return Splits(data.train.first(1000), data.validation.first(500), data.test.first(100)) if small else data
