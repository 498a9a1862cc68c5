"""Run functions of lab 01: each compresses the pretrained baseline, with choices by validation only.

A drop is the baseline's accuracy minus the compressed network's, as a fraction, with a paired interval over
test images; the file ratio is the baseline's bytes / the file's. Further results are in ``details``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from compresslab.experiments.experiment import Context
from compresslab.measurement.costs import storage_bytes
from compresslab.measurement.measurement import paired_drop, right_answers
from compresslab.models.pretrained import load_baseline
from compresslab.storage import save_model
from compresslab.techniques.quantization.codebook import follow_centroids, share_weights
from compresslab.techniques.quantization.data_aware_rounding import adaround, gptq, quantize_with_data
from compresslab.techniques.quantization.mixed_precision import (
    allocate_bits,
    layer_bytes,
    quantize_mixed,
    sensitivity,
)
from compresslab.techniques.quantization.qat import convert, prepare
from compresslab.techniques.quantization.weight_only import quantize_weights
from compresslab.training.loop import Trained, accuracy, fit

__all__ = ["cluster", "mix_precisions", "round_to_nearest", "round_with_data", "structure", "train_aware"]

CHOICES = (2, 3, 4, 5, 6, 8)  # bits that mixed precision chooses from


def round_to_nearest(context: Context, *, bits: int) -> dict[str, Any]:
    """Round every weight to the nearest grid point."""
    return _compressed(context, quantize_weights(load_baseline(), bits=bits), {})


def round_with_data(context: Context, *, bits: int, images: int) -> dict[str, Any]:
    """Round by GPTQ or AdaRound, whichever does better on validation."""
    inputs = context.data.train.first(images).inputs()
    networks = {
        rounding.__name__: quantize_with_data(load_baseline(), inputs, bits=bits, rounding=rounding)
        for rounding in (gptq, adaround)
    }
    reached = {name: accuracy(network, context.data.validation) for name, network in networks.items()}
    chosen = max(reached, key=lambda name: reached[name])
    return _compressed(context, networks[chosen], {"validation_accuracy_by": reached, "chosen": chosen})


def train_aware(context: Context, *, bits: int, epochs: int, learning_rate: float) -> dict[str, Any]:
    """Train with simulated rounding (QAT), then convert."""
    prepared = prepare(load_baseline(), bits=bits)
    trained = _train(context, prepared, epochs, learning_rate)
    return _compressed(context, convert(trained.model), _history(context, prepared, trained))


def cluster(context: Context, *, bits: int, epochs: int, learning_rate: float) -> dict[str, Any]:
    """Share the weights of each layer by k-means, then train the centroids."""
    shared = share_weights(load_baseline(), bits=bits)
    trained = _train(context, shared, epochs, learning_rate, after_step=follow_centroids)
    return _compressed(context, trained.model, _history(context, shared, trained))


def mix_precisions(context: Context, *, images: int, uniform_bits: int) -> dict[str, Any]:
    """Give each layer the bits that move the logits least, in the bytes of ``uniform_bits`` everywhere."""
    model = load_baseline()
    moved = sensitivity(model, context.data.validation.first(images).inputs(), choices=CHOICES)
    layers = [model.get_submodule(name) for name in moved]
    sizes = torch.tensor([[layer_bytes(layer, bits=bits) for bits in CHOICES] for layer in layers])  # type: ignore[arg-type]
    budget = int(sizes[:, CHOICES.index(uniform_bits)].sum())
    picks = allocate_bits(torch.tensor(list(moved.values())), sizes, budget)
    bits = {name: CHOICES[pick] for name, pick in zip(moved, picks.tolist(), strict=True)}
    details = {"bits": bits, "choices": list(CHOICES), "sensitivity": moved, "budget_bytes": budget}
    return _compressed(context, quantize_mixed(model, bits=bits), details)


def structure(name: str, record: Mapping[str, Any]) -> nn.Module:
    """Return a network of a stored one's structure, to load its weights into."""
    if name.startswith("codebook"):
        return share_weights(load_baseline(), bits=record["bits"])
    if name == "mixed":
        return quantize_mixed(load_baseline(), bits=record["details"]["bits"])
    return quantize_weights(load_baseline(), bits=record["bits"])


def _train(context: Context, model: nn.Module, epochs: int, learning_rate: float, **more: Any) -> Trained:
    settings = context.training(epochs=epochs, learning_rate=learning_rate, seed=0)
    data = context.data
    return fit(model, data.train, data.validation, checkpoint=context.checkpoint, **settings, **more)


def _history(context: Context, before: nn.Module, trained: Trained) -> dict[str, Any]:
    return {
        "validation_accuracy_before": accuracy(before, context.data.validation),
        "history": [[epoch.loss, epoch.validation_accuracy] for epoch in trained.history],
    }


def _compressed(context: Context, network: nn.Module, details: dict[str, Any]) -> dict[str, Any]:
    """Save the network; return its loss of accuracy and the size of its file."""
    model, data = load_baseline(), context.data
    ledger = save_model(network.eval(), context.network_path)
    drop = paired_drop(right_answers(model, data.test), right_answers(network, data.test))
    return {
        "validation_drop": accuracy(model, data.validation) - accuracy(network, data.validation),
        "storage_bytes": ledger.total,
        "file_ratio": storage_bytes(model) / ledger.total,
        "details": details,
        "drop": drop.value,
        "drop_low": drop.low,
        "drop_high": drop.high,
    }
