"""Measurement of one model: accuracy, file size, MACs, activation memory and latency.

Every model is measured in the same way, however it was compressed: there is no branch per technique. Accuracy
is taken on the given images; bytes are the size of a written file; MACs and activation memory are counted
during a run; latency is timed. What each number leaves out is described in ``costs``, ``activations`` and
``timing``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from compresslab.data.images import Images
from compresslab.errors import BadSetting, Unsupported
from compresslab.measurement.activations import peak_activation_bytes
from compresslab.measurement.costs import LayerCost, count_macs, count_parameters, layer_costs, storage_bytes
from compresslab.measurement.statistics import Interval, bootstrap
from compresslab.measurement.timing import Clock, latency, noise_floor, one_at_a_time, speedup
from compresslab.models.surgery import evaluating

__all__ = [
    "Interval",
    "LayerCost",
    "Measurement",
    "accuracy_drop",
    "count_macs",
    "count_parameters",
    "latency",
    "layer_costs",
    "measure",
    "noise_floor",
    "paired_drop",
    "peak_activation_bytes",
    "right_answers",
    "speedup",
    "storage_bytes",
]


@dataclass(frozen=True)
class Measurement:
    """The accuracy and the costs of one model. Shares are fractions; costs are per sample (batch size 1).

    Attributes:
        name: label in tables and figures.
        accuracy: share of the images whose largest logit is their label.
        parameters: learned values, shared ones counted once.
        storage_bytes: size of the model's file.
        macs_per_sample: multiply-accumulates per sample.
        peak_activation_bytes: peak of live activations at batch size 1.
        latency_ms: median time of a run at batch size 1 on one thread; ``latency_ms_low`` and
            ``latency_ms_high`` are its 95 % confidence interval.
        correct: (images,) bool, whether each image is classified correctly.
        model: the model itself, so that ``compare`` can time two models alternately.
        sample: (1, 1, 28, 28), the image used for timing.
    """

    name: str
    accuracy: float
    parameters: int
    storage_bytes: int
    macs_per_sample: int
    peak_activation_bytes: int
    latency_ms: float
    latency_ms_low: float
    latency_ms_high: float
    correct: Tensor = field(repr=False, compare=False)
    model: nn.Module = field(repr=False, compare=False)
    sample: Tensor = field(repr=False, compare=False)


def measure(
    model: nn.Module,
    data: Images,
    *,
    name: str,
    rounds: int = 25,
    seed: int = 0,
    clock: Clock = time.perf_counter,
) -> Measurement:
    """Measure the model's accuracy on ``data`` and its costs; the model and its mode are not changed.

    Args:
        model: images (n, 1, 28, 28) → logits (n, 10).
        data: labelled images: validation for choices, test once at the end.
        name: label in tables and figures.
        rounds: timed runs at batch size 1.
        seed: of the bootstrap for the latency's interval.
        clock: returns seconds since a fixed moment.

    Raises:
        BadSetting: there are no images.
        Unsupported: the model does not return logits (n, classes), or its MACs
            can't be counted.
    """
    if len(data) == 0:
        raise BadSetting(
            "data must have at least one image, got none; try the validation split of fashion_mnist()"
        )
    correct = right_answers(model, data)
    sample = one_at_a_time(data.first(1).inputs())
    time_ms = latency(model, sample, rounds=rounds, seed=seed, clock=clock)
    return Measurement(
        name=name,
        accuracy=float(correct.double().mean()),
        parameters=count_parameters(model),
        storage_bytes=storage_bytes(model),
        macs_per_sample=count_macs(model, sample),
        peak_activation_bytes=peak_activation_bytes(model, sample),
        latency_ms=time_ms.value,
        latency_ms_low=time_ms.low,
        latency_ms_high=time_ms.high,
        correct=correct,
        model=model,
        sample=sample,
    )


def accuracy_drop(baseline: Measurement, other: Measurement, *, seed: int = 0) -> Interval:
    """Return the loss of accuracy as a fraction, baseline minus other, with its paired bootstrap interval.

    Paired: the same resampled images are used for both models, so errors that both make cancel, and the
    interval is narrower than those of the two accuracies.

    Raises:
        BadSetting: the two were measured on different numbers of images.
    """
    if baseline.correct.shape != other.correct.shape:
        raise BadSetting(
            f"baseline and other must be measured on the same images, got {len(baseline.correct)} for "
            f"{baseline.name} and {len(other.correct)} for {other.name}; measure both with the same "
            "data"
        )
    return paired_drop(baseline.correct, other.correct, seed=seed)


def paired_drop(before: Tensor, after: Tensor, *, seed: int = 0) -> Interval:
    """``accuracy_drop`` from two results (images,) of ``right_answers`` on the same images."""
    return bootstrap(before.double() - after.double(), torch.mean, seed=seed)


def right_answers(model: Callable[[Tensor], Tensor], data: Images) -> Tensor:
    """Return (images,) bool: whether the largest logit is the label. The model may be any callable."""
    with evaluating(model):
        return torch.cat(
            [_logits(model, inputs).argmax(dim=1) == labels for inputs, labels in data.batches()]
        )


def _logits(model: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    logits = model(inputs)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(inputs):
        came = f"the shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise Unsupported(
            f"model must return logits ({len(inputs)}, classes) for inputs {tuple(inputs.shape)}, got "
            f"{came}; end it with nn.Flatten() and a linear layer"
        )
    return logits
