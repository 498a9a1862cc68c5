"""Measure: what a model gets right, and what it costs, in one value with its units.

The same for every model, compressed by whatever means: there is no branch per technique. Accuracy comes from
the images given; bytes from a file that is really written; MACs and activation memory from watched runs;
latency from the honest clock. What each number leaves out, ``costs``, ``memory`` and ``clock`` say.
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
    """What one model gets right and what it costs. Shares are fractions; costs are for one sample (batch 1).

    Attributes:
        name: what tables and pictures call it.
        accuracy: share of the images whose largest logit is their label.
        parameters: numbers that it learns, shared ones once.
        storage_bytes: size of its file.
        macs_per_sample: multiply-accumulates of one run at batch 1.
        peak_activation_bytes: most bytes of activations alive at once, batch 1.
        latency_ms: median of one run at batch 1 on one thread; ``latency_ms_low`` and ``_high`` are its 95
            % interval.
        correct: (images,) bool, which images it gets right.
        model: the model itself, so that ``compare`` can clock two in turns.
        sample: (1, 1, 28, 28), the image that it was clocked on.
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
    """What the model gets right on ``data`` and what it costs; the model, and its mode, are left alone.

    Args:
        model: images (n, 1, 28, 28) → logits (n, 10).
        data: labelled images: validation to choose by, test once at the end.
        name: what tables and pictures call it.
        rounds: timed runs at batch 1.
        seed: of the latency's resampling.
        clock: seconds since some fixed moment.

    Raises:
        CompressionError: no images, something else than logits (n, classes), or MACs that can't be counted.
    """
    if len(data) == 0:
        raise BadSetting("data has at least one image, got none; try the validation split of fashion_mnist()")
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
    """How much accuracy was lost, as a fraction: baseline less other, with its paired bootstrap interval.

    Paired: each resampled image is taken from both, so what both get wrong cancels, and the interval is
    narrower than the two accuracies' own.

    Raises:
        CompressionError: the two were measured on different numbers of images.
    """
    if baseline.correct.shape != other.correct.shape:
        raise BadSetting(
            f"both are measured on the same images, got {len(baseline.correct)} for {baseline.name} and "
            f"{len(other.correct)} for {other.name}; measure both with the same data"
        )
    return paired_drop(baseline.correct, other.correct, seed=seed)


def paired_drop(before: Tensor, after: Tensor, *, seed: int = 0) -> Interval:
    """``accuracy_drop`` of two ``right_answers`` (images,) on the same images."""
    return bootstrap(before.double() - after.double(), torch.mean, seed=seed)


def right_answers(model: Callable[[Tensor], Tensor], data: Images) -> Tensor:
    """(images,) bool: the largest logit is the label. The model may be whatever is called like one."""
    with evaluating(model):
        return torch.cat(
            [_logits(model, inputs).argmax(dim=1) == labels for inputs, labels in data.batches()]
        )


def _logits(model: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    logits = model(inputs)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(inputs):
        came = f"the shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise Unsupported(
            f"a model returns logits ({len(inputs)}, classes) for inputs {tuple(inputs.shape)}, got {came}; "
            "end it with nn.Flatten() and a linear layer"
        )
    return logits
