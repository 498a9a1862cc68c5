"""Run functions of lab 03's comparisons: criteria, granularities, allocations and initial weights.

Functions like those of ``runs``. No network is stored, and nothing is chosen by their results, so they may
read test images.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from compresslab.analysis.sensitivity import output_sensitivity
from compresslab.experiments.experiment import Context
from compresslab.experiments.pruning.methods import CHANNEL_CHOICES, CRITERIA, GRANULARITIES, choose_masks
from compresslab.experiments.pruning.runs import LOOKED_AT
from compresslab.measurement.costs import count_macs
from compresslab.models.pretrained import load_baseline
from compresslab.models.residual import student
from compresslab.techniques.pruning.channel_removal import remove_channels
from compresslab.techniques.pruning.granularity import global_masks, local_masks, magnitudes
from compresslab.techniques.pruning.masks import Masks, masked
from compresslab.techniques.pruning.optimal_brain_surgeon import compensated, prune_with_sparse_gpt
from compresslab.techniques.pruning.schedule import fit_masked
from compresslab.techniques.pruning.sensitivity import scan_sensitivity, sparsities_under_budget
from compresslab.training.loop import accuracy, fast_precision, fit

__all__ = [
    "ALLOCATIONS",
    "SCAN_IMAGES",
    "SCAN_SPARSITIES",
    "scan",
    "study_allocation",
    "study_lottery",
    "study_masks",
    "study_surgeon",
    "study_tuning",
]

SCAN_SPARSITIES = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
SCAN_IMAGES = 500  # of validation


def study_masks(
    context: Context,
    *,
    criterion: str,
    granularity: str,
    sparsities: list[float],
    images: int,
    seed: int,
) -> dict:
    """Return test accuracies of the masked baseline before any training, one per sparsity."""
    model, test = load_baseline(), context.first_test_images()
    scores = CRITERIA[criterion](model, context.sample(images, seed), seed)
    masks = [choose_masks(scores, GRANULARITIES[granularity], sparsity=s, model=model) for s in sparsities]
    networks = [masked(model, chosen) for chosen in masks]
    return {"test_accuracies": [accuracy(n, test, precision=fast_precision()) for n in networks]}


def study_tuning(
    context: Context, *, criterion: str, granularity: str, sparsity: float, images: int,
    learning_rate: float, seed: int,
) -> dict:  # fmt: skip
    """Return the test accuracy of the masked baseline after one pass over ``images`` training images."""
    model = load_baseline()
    scores = CRITERIA[criterion](model, context.sample(LOOKED_AT, seed), seed)
    masks = choose_masks(scores, GRANULARITIES[granularity], sparsity=sparsity, model=model)
    return _tuned(context, model, masks, images, learning_rate, seed)


def study_allocation(
    context: Context, *, allocation: str, sparsity: float, images: int, learning_rate: float, seed: int
) -> dict:
    """As ``study_tuning``, for single weights by magnitude, allocated to layers by ALLOCATIONS."""
    model = load_baseline()
    return _tuned(
        context, model, ALLOCATIONS[allocation](context, model, sparsity), images, learning_rate, seed
    )


def scan(context: Context, *, sparsities: list[float], images: int) -> dict:
    """Scan the sensitivity: prune each layer alone and return the divergence in nats, one per sparsity."""
    model = load_baseline()
    moved = output_sensitivity(model, context.data.validation.first(images).inputs())
    return {"damages": scan_sensitivity(model, moved, sparsities=sparsities)}


def study_surgeon(context: Context, *, sparsities: list[float], images: int, seed: int) -> dict:
    """Return test accuracy without training: magnitude's masks, these compensated, and SparseGPT."""
    model, some, test = load_baseline(), context.sample(images, seed), context.first_test_images()

    def reached(sparsity: float) -> dict[str, float]:
        masks = local_masks(magnitudes(model), sparsity=sparsity)
        ways = {
            "magnitude": masked(model, masks),
            "compensated": compensated(model, masks, some.batches()),
            "sparse_gpt": prune_with_sparse_gpt(model, some.batches(), sparsity=sparsity),
        }
        return {way: accuracy(n, test, precision=fast_precision()) for way, n in ways.items()}

    rows = [reached(sparsity) for sparsity in sparsities]
    return {way: [row[way] for row in rows] for way in ("magnitude", "compensated", "sparse_gpt")}


def study_lottery(
    context: Context, *, sparsity: float, channel_macs: float, epochs: int, early_steps: int,
    learning_rate: float, seed: int,
) -> dict:  # fmt: skip
    """Return test accuracies of the small student, pruned and fine-tuned, rewound, or trained from scratch.

    Four networks have the trained network's masks, with its final weights, its weights at an early step, its
    initial weights, and other initial weights. The smaller networks have the channels that it would keep.
    """
    torch.manual_seed(seed)
    start, other = student(), student()
    settings = context.training(epochs=epochs, learning_rate=learning_rate, seed=seed)
    dense, early = _fit_and_remember(context, start, early_steps, settings)
    masks = global_masks(magnitudes(dense), sparsity=sparsity)
    whole = count_macs(dense, context.data.train.first(1).inputs())
    keep = CHANNEL_CHOICES["magnitude"](dense, context.sample(LOOKED_AT, seed), round(channel_macs * whole))
    thin = remove_channels(other, keep)

    def learned(network: nn.Module, masks: Masks, *, times: int = 1) -> float:
        longer = settings | {"epochs": times * settings["epochs"]}
        trained = fit_masked(network, masks, context.data.train, context.data.validation, **longer)
        return accuracy(trained.model, context.data.test)

    return {
        "dense": accuracy(dense, context.data.test),
        "dense_longer": learned(start, {}, times=2),
        "fine_tuned": learned(dense, masks),
        "rewound": learned(early, masks),
        "from_the_start": learned(start, masks),
        "other_weights": learned(other, masks),
        "channels_fine_tuned": learned(remove_channels(dense, keep), {}),
        "channels_from_scratch": learned(thin, {}),
        "channels_from_scratch_longer": learned(thin, {}, times=2),
    }


def _fit_and_remember(
    context: Context, start: nn.Module, early_steps: int, settings: dict[str, Any]
) -> tuple[nn.Module, nn.Module]:
    """Train and return the network, and a copy after ``early_steps`` (the start, if it took fewer steps)."""
    early, count = [start], itertools.count(1)

    def remember(model: nn.Module) -> None:
        if next(count) == early_steps:
            early.append(copy.deepcopy(model))

    data = context.data
    return fit(start, data.train, data.validation, after_step=remember, **settings).model, early[-1]


def _global(context: Context, model: nn.Module, sparsity: float) -> Masks:
    """Return masks with one threshold for all layers."""
    return global_masks(magnitudes(model), sparsity=sparsity)


def _scanned(context: Context, model: nn.Module, sparsity: float) -> Masks:
    """Return masks allocated by the sensitivity scan, with at most as many weights kept in total."""
    scores = magnitudes(model)
    moved = output_sensitivity(model, context.data.validation.first(SCAN_IMAGES).inputs())
    sensitivities = scan_sensitivity(model, moved, sparsities=SCAN_SPARSITIES)
    weights = {name: s.numel() for name, s in scores.items()}
    budget = sum(weights.values()) - round(sparsity * sum(weights.values()))
    shares = sparsities_under_budget(sensitivities, weights, sparsities=SCAN_SPARSITIES, budget=budget)
    return local_masks(scores, sparsity=shares)


ALLOCATIONS: dict[str, Callable[[Context, nn.Module, float], Masks]] = {"global": _global, "scan": _scanned}


def _tuned(
    context: Context, model: nn.Module, masks: Masks, images: int, learning_rate: float, seed: int
) -> dict:
    """Return the test accuracy after one pass over ``images`` training images."""
    settings = context.training(epochs=1, learning_rate=learning_rate, seed=seed)
    few = context.data.validation.first(500)  # with one epoch there is nothing to choose
    trained = fit_masked(model, masks, context.sample(images, seed), few, **settings)
    return {"test_accuracy": accuracy(trained.model, context.data.test, precision=fast_precision())}
