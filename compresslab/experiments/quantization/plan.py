"""The long runs of lab 01, for which its notebook has no time: ``compresslab train 01_quantization``.

Each experiment compresses the shipped baseline, chooses by validation images alone, and is kept with its
weights as soon as it ends, so that an interrupted run goes on; a training goes on from its last epoch. Test
is read once, when all are there. About 10 minutes on two cores.

Written: ``data/results/01_quantization.json`` and ``data/results/01_quantization/NAME.safetensors``. A drop
is the baseline's accuracy less the compressed network's, as a fraction; the file ratio is the baseline's
bytes over the file's.
"""

from __future__ import annotations

import datetime
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from tqdm.auto import tqdm

from compresslab.data.images import Splits
from compresslab.data.location import DATA
from compresslab.errors import BadSetting
from compresslab.experiments.long_runs import read_results
from compresslab.measurement.costs import storage_bytes
from compresslab.measurement.measurement import accuracy_drop, measure
from compresslab.models.pretrained import load_baseline
from compresslab.storage import load_model, save_model
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
from compresslab.training.loop import Trained, accuracy, fast_precision, fit

__all__ = ["EXPERIMENTS", "LAB", "Experiment", "load_experiment", "run_experiments", "summary"]

LAB = "01_quantization"
Result = tuple[nn.Module, dict]  # the compressed network, and what the run found out, as JSON values


@dataclass(frozen=True)
class Experiment:
    """One way to compress the baseline.

    Attributes:
        run: (model, data, checkpoint, **settings) → the compressed network and the details of the run.
        empty: (model, details, **settings) → a network of the same structure, to load the weights into.
        settings: numbers that the run depends on; a result with other settings is run anew.
    """

    run: Callable[..., Result]
    empty: Callable[..., nn.Module]
    settings: Mapping[str, float]


def _nearest(model: nn.Module, data: Splits, checkpoint: Path, *, bits: int) -> Result:
    return quantize_weights(model, bits=bits), {}


def _rounded(model: nn.Module, data: Splits, checkpoint: Path, *, bits: int, images: int) -> Result:
    """GPTQ or AdaRound, whichever does better on validation."""
    inputs = data.train.first(images).inputs()
    found = {
        rounding.__name__: quantize_with_data(model, inputs, bits=bits, rounding=rounding)
        for rounding in (gptq, adaround)
    }
    reached = {name: accuracy(network, data.validation) for name, network in found.items()}
    chosen = max(reached, key=lambda name: reached[name])
    return found[chosen], {"validation_accuracy_by": reached, "chosen": chosen}


def _aware(model, data: Splits, checkpoint: Path, *, bits: int, epochs: int, learning_rate: float) -> Result:
    prepared = prepare(model, bits=bits)
    trained = _train(prepared, data, checkpoint, epochs=epochs, learning_rate=learning_rate)
    return convert(trained.model), _history(prepared, trained, data)


def _codebook(
    model, data: Splits, checkpoint: Path, *, bits: int, epochs: int, learning_rate: float
) -> Result:
    shared = share_weights(model, bits=bits)
    follow = {"after_step": follow_centroids}
    trained = _train(shared, data, checkpoint, epochs=epochs, learning_rate=learning_rate, **follow)
    return trained.model, _history(shared, trained, data)


def _mixed(model: nn.Module, data: Splits, checkpoint: Path, *, images: int, uniform_bits: int) -> Result:
    """The bits that move the answers least, in the bytes that all layers take at ``uniform_bits``."""
    choices = (2, 3, 4, 5, 6, 8)
    found = sensitivity(model, data.validation.first(images).inputs(), choices=choices)
    layers = [model.get_submodule(name) for name in found]
    sizes = torch.tensor([[layer_bytes(layer, bits=bits) for bits in choices] for layer in layers])  # type: ignore[arg-type]
    budget = int(sizes[:, choices.index(uniform_bits)].sum())
    picks = allocate_bits(torch.tensor(list(found.values())), sizes, budget)
    bits = {name: choices[pick] for name, pick in zip(found, picks.tolist(), strict=True)}
    details = {"bits": bits, "choices": choices, "sensitivity": found, "budget_bytes": budget}
    return quantize_mixed(model, bits=bits), details


def _train(model: nn.Module, data: Splits, checkpoint: Path, **settings) -> Trained:
    settings |= {"precision": fast_precision(), "checkpoint": checkpoint}
    return fit(model, data.train, data.validation, **settings)


def _history(before: nn.Module, trained: Trained, data: Splits) -> dict:
    return {
        "validation_accuracy_before": accuracy(before, data.validation),
        "history": [[epoch.loss, epoch.validation_accuracy] for epoch in trained.history],
    }


def _uniform(model, details, *, bits: int, **settings) -> nn.Module:
    return quantize_weights(model, bits=bits)


def _shared(model, details, *, bits: int, **settings) -> nn.Module:
    return share_weights(model, bits=bits)


def _chosen(model, details, **settings) -> nn.Module:
    return quantize_mixed(model, bits=details["bits"])


EXPERIMENTS = {
    "w4_nearest": Experiment(_nearest, _uniform, {"bits": 4}),
    "w4_rounded": Experiment(_rounded, _uniform, {"bits": 4, "images": 500}),
    "w2_nearest": Experiment(_nearest, _uniform, {"bits": 2}),
    "w2_rounded": Experiment(_rounded, _uniform, {"bits": 2, "images": 500}),
    "mixed": Experiment(_mixed, _chosen, {"images": 500, "uniform_bits": 4}),
    "w2_aware": Experiment(_aware, _uniform, {"bits": 2, "epochs": 6, "learning_rate": 0.01}),
    "codebook_4bit": Experiment(_codebook, _shared, {"bits": 4, "epochs": 2, "learning_rate": 0.003}),
    "codebook_2bit": Experiment(_codebook, _shared, {"bits": 2, "epochs": 4, "learning_rate": 0.01}),
}


def run_experiments(data: Splits, *, folder: Path = DATA / "results") -> dict:
    """The results of every experiment, {name: {"drop": …, "file_ratio": …}}; runs those that are missing.

    Args:
        data: train to learn from, validation to choose by, test for the drops at the end.
        folder: where the results and the weights are kept.
    """
    model, place = load_baseline(), folder / f"{LAB}.json"
    results = read_results(place)
    for name in tqdm(EXPERIMENTS, desc=LAB, unit="experiment"):
        if not _is_there(results.get(name), name, folder):
            results[name] = _run(name, model, data, folder)
            _write(place, results)
    unread = [name for name in EXPERIMENTS if "drop" not in results[name]]
    if unread:
        baseline = measure(model, data.test, name="baseline", rounds=5)
    for name in tqdm(unread, desc="test", unit="network", leave=False):
        measured = measure(load_experiment(name, folder=folder), data.test, name=name, rounds=5)
        drop = accuracy_drop(baseline, measured)
        results[name] |= {"drop": drop.value, "drop_low": drop.low, "drop_high": drop.high}
    _write(place, results)
    return results


def summary(results: dict) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """What the command line prints of the results: the columns' names, and a row an experiment."""
    rows: list[tuple[str, ...]] = [
        (name, f"{run['drop']:.4f}", f"{run['file_ratio']:.2f}") for name, run in results.items()
    ]
    return ("experiment", "accuracy lost", "times smaller"), rows


def load_experiment(name: str, *, folder: Path = DATA / "results") -> nn.Module:
    """The compressed network of an experiment, in evaluation mode.

    Raises:
        CompressionError: no such experiment, or it hasn't been run.
    """
    result = read_results(folder / f"{LAB}.json").get(name)
    if name not in EXPERIMENTS or result is None:
        raise BadSetting(
            f"name is one of {', '.join(EXPERIMENTS)}, and its run has ended, got {name!r}; "
            f"run them with: compresslab train {LAB}"
        )
    empty = EXPERIMENTS[name].empty(load_baseline(), result["details"], **result["settings"])
    return load_model(_weights(name, folder), into=empty).eval()


def _run(name: str, model: nn.Module, data: Splits, folder: Path) -> dict:
    experiment, checkpoint = EXPERIMENTS[name], folder / LAB / f"{name}.checkpoint.safetensors"
    start = time.perf_counter()
    torch.manual_seed(0)
    compressed, details = experiment.run(model, data, checkpoint, **experiment.settings)
    seconds = time.perf_counter() - start
    ledger = save_model(compressed.eval(), _weights(name, folder))
    checkpoint.unlink(missing_ok=True)
    return {
        "settings": dict(experiment.settings),
        "validation_drop": accuracy(model, data.validation) - accuracy(compressed, data.validation),
        "storage_bytes": ledger.total,
        "file_ratio": storage_bytes(model) / ledger.total,
        "seconds": round(seconds),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
        "details": details,
    }


def _is_there(result: dict | None, name: str, folder: Path) -> bool:
    return (
        result is not None
        and result["settings"] == EXPERIMENTS[name].settings
        and _weights(name, folder).exists()
    )


def _weights(name: str, folder: Path) -> Path:
    return folder / LAB / f"{name}.safetensors"


def _write(place: Path, results: dict) -> None:
    unfinished = place.with_name(place.name + ".part")
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(unfinished, place)
