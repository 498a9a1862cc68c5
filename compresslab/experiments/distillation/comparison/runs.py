"""Run functions of the comparison: train a teacher, or a student by a method, and measure it.

A run that diverged counts with the accuracy of the untrained student.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from safetensors.torch import load
from torch import nn

from compresslab.data.fashion_mnist import fashion_mnist
from compresslab.data.images import Splits
from compresslab.errors import Diverged
from compresslab.experiments.distillation.comparison.feature_and_relation import ATTENTION
from compresslab.experiments.distillation.comparison.learning import Learned, fresh
from compresslab.experiments.distillation.comparison.methods import METHODS
from compresslab.experiments.distillation.comparison.peers_and_self import deep_student
from compresslab.experiments.distillation.comparison.task import SMALL, TASKS, Task, draw_task
from compresslab.experiments.experiment import Context
from compresslab.models.residual import baseline, student
from compresslab.techniques.distillation.offline import Knowledge, know
from compresslab.training.loop import accuracy, cross_entropy, fast_precision, fit

__all__ = ["FEW", "structure", "teach", "train_teacher"]

DEEP = ("deep_alone", "own_teacher")  # methods
FEW = 500  # validation images that a task of few labels could afford


def structure(name: str, record: Mapping[str, Any]) -> nn.Module:
    """Return an untrained network of a stored one's structure."""
    if "label_smoothing" in record:
        return baseline()
    return deep_student() if record["method"] in DEEP else student()


def train_teacher(
    context: Context, *, epochs: int, learning_rate: float, label_smoothing: float, seed: int
) -> dict[str, Any]:
    """Train the baseline's architecture on all training images; the record is the teacher's model card."""
    settings = context.training(epochs=epochs, learning_rate=learning_rate, seed=seed)
    loss = functools.partial(cross_entropy, label_smoothing=label_smoothing)
    data, checkpoint = context.data, context.checkpoint
    busy = time.process_time()
    torch.manual_seed(seed)
    trained = fit(baseline(), data.train, data.validation, loss=loss, checkpoint=checkpoint, **settings)
    context.save_network(trained.model)
    return {
        "cpu_seconds": round(time.process_time() - busy, 1),
        "architecture": "baseline",
        "recipes_tried": 1,
        "best_epoch": trained.history.index(trained.best) + 1,
        "validation_accuracy": accuracy(trained.model, data.validation),
        "test_accuracy": accuracy(trained.model, data.test),
        "precision": str(settings["precision"]).removeprefix("torch."),
        "history": [asdict(epoch) for epoch in trained.history],
    }


def teach(
    context: Context,
    *,
    task: str,
    method: str,
    thirds: int,
    learning_rate: float,
    seed: int,
    **settings: Any,
) -> dict[str, Any]:
    """Train a student by a method, and measure it on validation and, if nothing is tuned, on test.

    Args:
        context: of the run; the network that it is given, if any, is the teacher.
        task: a name in TASKS.
        method: a name in METHODS.
        thirds: the length.
        learning_rate: the peak of the one-cycle schedule.
        seed: of the first weights and the order of the views.
        **settings: the method's own, tuned.
    """
    given, cost = _task(task, thirds, context.small), dict[str, float]()
    for weights in context.networks.values():
        teacher = _teacher(weights)
        knowledge, caching = _knowledge(weights, task, thirds, context.small)
        given, cost = replace(given, knowledge=knowledge, teacher=teacher), {"caching_cpu_seconds": caching}
    given = replace(given, learning_rate=learning_rate)
    start, busy = time.perf_counter(), time.process_time()
    try:
        learned = METHODS[method](given, seed=seed, **settings)
    except Diverged as error:
        learned = Learned(fresh(seed).eval(), {"diverged": str(error)})
    # a run on a busy computer takes more seconds, but not more of the processor's
    spent = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - busy}
    found = {name: round(seconds, 1) for name, seconds in spent.items()} | cost
    context.save_network(learned.network)
    for name, network in learned.beside.items():
        found |= {f"{name}_{key}": value for key, value in _measured(context, network).items()}
    return found | _measured(context, learned.network) | learned.details


def _measured(context: Context, network: nn.Module) -> dict[str, float]:
    """Return its accuracy on validation, on few images of it and, if nothing is tuned, on test."""
    validation = context.data.validation
    few = validation.first(min(FEW, len(validation)))
    found = {
        "validation_accuracy": accuracy(network, validation),
        "few_validation_accuracy": accuracy(network, few),
    }
    if not context.is_tuning:
        found["test_accuracy"] = accuracy(network, context.data.test)
    return found


def _teacher(weights: bytes) -> nn.Module:
    network = baseline()
    network.load_state_dict(load(weights))
    return network.eval()


@functools.lru_cache(maxsize=2)
def _task(name: str, thirds: int, small: bool) -> Task:
    data = fashion_mnist()
    seen = Splits(data.train, data.validation.first(100) if small else data.validation, None)  # type: ignore[arg-type]
    drawn = draw_task(seen, (SMALL if small else TASKS)[name], thirds=thirds)
    return replace(drawn, precision=fast_precision())


@functools.lru_cache(maxsize=2)
def _knowledge(weights: bytes, task: str, thirds: int, small: bool) -> tuple[Knowledge, float]:
    """Return a teacher's outputs for all views of a task, and the processor's seconds for them."""
    views, layers = _task(task, thirds, small).views, list(ATTENTION.values())
    busy = time.process_time()
    knowledge = know(_teacher(weights), views, attention=layers, precision=fast_precision())
    return knowledge, round(time.process_time() - busy, 1)
