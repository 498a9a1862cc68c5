"""Run functions of lab 02, each from a ``Context`` and settings to results: train a student and measure it.

Students are trained in the setting of ``few_labels``. A student that was trained on half of the classes is
measured on the others. A run that diverged counts with the accuracy of the untrained student.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from safetensors.torch import load
from torch import nn

from compresslab.data.fashion_mnist import fashion_mnist
from compresslab.data.images import Images, Splits
from compresslab.errors import Diverged
from compresslab.experiments.distillation.methods import (
    HINT,
    LAYERS,
    METHODS,
    Learned,
    learn_alone,
    learn_together,
)
from compresslab.experiments.distillation.setting import (
    IMAGES,
    LABELLED,
    LABELLED_VIEWS,
    Setting,
    few_labels,
    of_classes,
)
from compresslab.experiments.distillation.transformer import (
    deep_transformer,
    learn_inside,
    shallow_transformer,
)
from compresslab.experiments.experiment import Context
from compresslab.models.pretrained import load_baseline
from compresslab.models.residual import Mirrored, ResidualNetwork, baseline, student
from compresslab.models.surgery import evaluating, layer_outputs
from compresslab.techniques.distillation.offline import Knowledge, know
from compresslab.techniques.distillation.retrieval import one_shot_accuracy, recall_at_1
from compresslab.training.loop import accuracy, fast_precision, fit

__all__ = [
    "SEEN",
    "SEEN_TEACHER",
    "STUDENTS",
    "TRANSFORMER",
    "UNSEEN",
    "double",
    "embed",
    "half",
    "setting_for",
    "structure",
    "teach",
    "teach_seen_classes",
    "teach_transformer",
    "train_seen_classes_teacher",
    "train_transformer_teacher",
]

SEEN, UNSEEN = (0, 2, 4, 6, 8), (1, 3, 5, 7, 9)  # even and odd classes: fixed before the first run
SEEN_TEACHER, TRANSFORMER = "seen_classes_teacher", "transformer_teacher"  # names of networks, and keys


def half() -> ResidualNetwork:
    """The student's architecture with half of its widths."""
    return ResidualNetwork(4, [(8, 2), (16, 2)])


def double() -> ResidualNetwork:
    """The student's architecture with twice its widths."""
    return ResidualNetwork(16, [(32, 2), (64, 2)])


STUDENTS = {"half": half, "student": student, "double": double}


def structure(name: str, record: Mapping[str, Any]) -> nn.Module:
    """Return an untrained network of a stored one's structure."""
    return {SEEN_TEACHER: baseline, TRANSFORMER: deep_transformer}.get(name, student)()


def teach(
    context: Context,
    *,
    method: str,
    learning_rate: float,
    seed: int,
    student: str = "student",
    teacher: str = "teacher",
    peer: str = "",
    labels: int = LABELLED,
    longer: int = 1,
) -> dict[str, Any]:
    """Train a student by a method, and measure it on validation and, if nothing is tuned, on test.

    Args:
        context: of the run.
        method: a name in METHODS, or "alone".
        learning_rate: the peak of the one-cycle schedule.
        seed: of the first weights, the order of the images and their augmentation.
        student: a name in STUDENTS.
        teacher: a shipped network, for methods that learn offline.
        peer: a name in STUDENTS, for the second student of mutual learning; "" for one like the first.
        labels: how many images have one.
        longer: how many times as long a student alone learns.
    """
    make = STUDENTS[student]
    setting = setting_for(context, method, learning_rate, teacher=teacher, labels=labels)

    def learn() -> Learned:
        if method == "alone":
            return learn_alone(setting, make, seed=seed, longer=longer)
        strength = METHODS[method].strength
        if peer:
            return learn_together(setting, make, STUDENTS[peer], strength=strength, seed=seed)
        return METHODS[method].run(setting, make, strength=strength, seed=seed)

    return _taught(context, learn, make, setting, seed)


def teach_seen_classes(context: Context, *, method: str, learning_rate: float, seed: int) -> dict[str, Any]:
    """Train a student on the seen classes alone, and measure its embeddings on the others."""
    setting = setting_for(context, method, learning_rate, teacher=SEEN_TEACHER)

    def learn() -> Learned:
        if method == "alone":
            return learn_alone(setting, student, seed=seed)
        return METHODS[method].run(setting, student, strength=METHODS[method].strength, seed=seed)

    return _taught(context, learn, student, setting, seed, seen=True)


def teach_transformer(context: Context, *, method: str, learning_rate: float, seed: int) -> dict[str, Any]:
    """Train a small transformer alone, by its teacher's logits ("response"), or by all ("tinybert")."""
    setting = setting_for(context, "alone", learning_rate)

    def learn() -> Learned:
        if method == "alone":
            return learn_alone(setting, shallow_transformer, seed=seed)
        teacher = deep_transformer()
        teacher.load_state_dict(load(context.networks[TRANSFORMER]))
        return learn_inside(setting, teacher.eval(), answers_alone=method == "response", seed=seed)

    return _taught(context, learn, shallow_transformer, setting, seed)


def train_seen_classes_teacher(context: Context, *, epochs: int, seed: int) -> dict[str, Any]:
    """Train the baseline on the seen classes alone."""
    train, validation = (of_classes(part, SEEN) for part in (context.data.train, context.data.validation))
    settings = context.training(epochs=epochs, learning_rate=0.1, seed=seed)
    trained = fit(baseline(), train, validation, checkpoint=context.checkpoint, **settings)
    context.save_network(trained.model)
    return {}


def train_transformer_teacher(
    context: Context, *, epochs: int, learning_rate: float, seed: int
) -> dict[str, Any]:
    """Train the deep transformer on all labels."""
    settings = context.training(epochs=epochs, learning_rate=learning_rate, seed=seed)
    data, checkpoint = context.data, context.checkpoint
    trained = fit(deep_transformer(), data.train, data.validation, checkpoint=checkpoint, **settings)
    context.save_network(trained.model)
    return {}


def setting_for(
    context: Context, method: str, learning_rate: float, *, teacher: str = "teacher", labels: int = LABELLED
) -> Setting:
    """Return the setting that a student learns in, with its teacher's knowledge if the method needs it.

    Args:
        context: of the run.
        method: a name in METHODS, or "alone".
        learning_rate: the peak of the one-cycle schedule.
        teacher: a shipped network, or SEEN_TEACHER: then nobody sees the other classes.
        labels: how many images have one.
    """
    seen = teacher == SEEN_TEACHER
    setting = replace(_setting(seen, context.small, labels), learning_rate=learning_rate)
    if method in METHODS and METHODS[method].strategy == "offline":
        weights = context.networks[SEEN_TEACHER] if seen else b""
        knowledge = _knowledge(teacher, weights, method == "fitnet", context.small, labels)
        setting = replace(setting, knowledge=knowledge)
    return setting


def embed(network: nn.Module, images: Images) -> torch.Tensor:
    """Return the inputs of a network's last layer: (n, width), for images in order."""
    layer = "network.pool" if isinstance(network, Mirrored) else "pool"
    with evaluating(network):
        return torch.cat([layer_outputs(network, inputs, [layer])[1][0] for inputs, _ in images.batches()])


def _taught(
    context: Context,
    learn: Callable[[], Learned],
    make: Callable[[], nn.Module],
    setting: Setting,
    seed: int,
    *,
    seen: bool = False,
) -> dict[str, Any]:
    """Measure what was learnt, and keep the network; the seconds are those of the student's training."""
    start = time.perf_counter()
    try:
        learned = learn()
    except Diverged as error:
        torch.manual_seed(seed)
        learned = Learned(make(), {"diverged": str(error)})
    found = {"seconds": round(time.perf_counter() - start, 1)}
    network = learned.network
    found["validation_accuracy"] = accuracy(network, setting.validation)
    if seen:
        found |= _on_unseen_classes(network, of_classes(context.data.test, UNSEEN))
    elif not context.is_tuning:
        found["test_accuracy"] = accuracy(network, context.data.test)
    context.save_network(network)
    return found | learned.details


def _on_unseen_classes(network: nn.Module, images: Images) -> dict[str, float]:
    embeddings = embed(network, images)
    generator = torch.Generator().manual_seed(0)
    return {
        "recall_at_1": recall_at_1(embeddings, images.labels),
        "one_shot_accuracy": one_shot_accuracy(embeddings, images.labels, episodes=1000, generator=generator),
    }


@functools.lru_cache(maxsize=2)
def _setting(seen: bool, small: bool, labels: int) -> Setting:
    if small:
        count, every, views, passes = 100, 200, (2, 1), 1
    else:
        count, every, views, passes = labels, IMAGES, (LABELLED_VIEWS // labels, 4), 2
    data = fashion_mnist()
    train, validation = data.train.first(every), data.validation.first(100) if small else data.validation
    if seen:
        count = len(of_classes(train.first(count), SEEN))
        train, validation = of_classes(train, SEEN), of_classes(validation, SEEN)
    return few_labels(
        Splits(train, validation, data.test),
        labelled=count,
        unlabelled=len(train) - count,
        views=views,
        passes=passes,
        precision=fast_precision(),
    )


@functools.lru_cache(maxsize=2)
def _knowledge(teacher: str, weights: bytes, hints: bool, small: bool, labels: int) -> Knowledge:
    """Return a teacher's outputs for all views, cached; ``weights`` if it is not a pretrained network."""
    seen = teacher == SEEN_TEACHER
    if seen:
        network: nn.Module = baseline()
        network.load_state_dict(load(weights))
    else:
        network = load_baseline(teacher)
    more: dict[str, Any] = {}
    if teacher == "teacher":
        more = {"attention": list(LAYERS.values()), "features": [HINT[1]] if hints else []}
    embedding = {"mlp": "6", "teacher": "network.pool"}.get(teacher, "pool")
    views = _setting(seen, small, labels).views
    return know(network, views, embedding=embedding, precision=fast_precision(), **more)
