"""The compared methods: each trains one student in a ``Task`` by its loss, with its tuned settings.

    loss = (1 - share) · cross-entropy(labels) + share · KD at a temperature + weight · the method's own term

Features and relations alone have share 0, so that the first two terms are the cross-entropy; "on top of KD"
they have KD's own share and temperature. The controls put something else in KD's place: labels that are
smoothed, the teacher's most likely class, or the teacher's logits with those of the wrong classes permuted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from compresslab.data.images import Images
from compresslab.errors import BadSetting
from compresslab.experiments.distillation.comparison.task import Task
from compresslab.models.residual import student as small_student
from compresslab.techniques.distillation.controls import (
    hard_labels,
    permute_wrong_classes,
    smoothed_cross_entropy,
)
from compresslab.techniques.distillation.offline import Knowledge, Pupil, distill
from compresslab.techniques.distillation.response import kd_loss

__all__ = ["METHODS", "Learned", "fresh", "learn", "taught"]

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]  # of the pupil, inputs and indices of views


@dataclass(frozen=True)
class Learned:
    """A trained student, and further results of the run as JSON values."""

    network: nn.Module
    details: dict[str, Any] = field(default_factory=dict)


def fresh(seed: int, make: Callable[[], nn.Module] = small_student) -> nn.Module:
    """Return a network with first weights of its own."""
    torch.manual_seed(seed)
    return make()


def learn(task: Task, pupil: Pupil, views: Images, loss: Loss, *, seed: int, passes: int = 1) -> nn.Module:
    """Return the pupil's student after its passes over the views."""
    return distill(pupil, views, task.validation, loss, epochs=passes, **task.training(seed)).model


def taught(task: Task) -> Knowledge:
    """Return the teacher's outputs.

    Raises:
        BadSetting: the task has no teacher.
    """
    if task.knowledge is None:
        raise BadSetting("knowledge must be a teacher's outputs for the task's views, got None; try know(…)")
    return task.knowledge


def alone(task: Task, *, seed: int, longer: int = 1, smoothing: float = 0.0) -> Learned:
    """Train on the labels alone, smoothed or not, for ``longer`` passes over the views."""
    labels = task.labelled.labels

    def loss(pupil: nn.Module, views: Tensor, index: Tensor) -> Tensor:
        return smoothed_cross_entropy(pupil(views), labels[index], smoothing=smoothing)

    pupil = Pupil(fresh(seed))
    return Learned(learn(task, pupil, task.labelled, loss, seed=seed, passes=longer))


def by_hard_labels(task: Task, *, seed: int, smoothing: float = 0.0) -> Learned:
    """Train on the teacher's most likely class of each view, whatever its label."""
    answers = hard_labels(taught(task).logits)

    def loss(pupil: nn.Module, views: Tensor, index: Tensor) -> Tensor:
        return smoothed_cross_entropy(pupil(views), answers[index], smoothing=smoothing)

    return Learned(learn(task, Pupil(fresh(seed)), task.views, loss, seed=seed))


def kd(task: Task, *, seed: int, temperature: float, share: float) -> Learned:
    """Train by Hinton's KD."""
    logits, labels = taught(task).logits, task.views.labels

    def loss(pupil: nn.Module, views: Tensor, index: Tensor) -> Tensor:
        return kd_loss(pupil(views), logits[index], labels[index], temperature=temperature, weight=share)

    return Learned(learn(task, Pupil(fresh(seed)), task.views, loss, seed=seed))


def permuted(task: Task, *, seed: int, temperature: float, share: float) -> Learned:
    """Train by KD from logits whose wrong classes are permuted, view by view."""
    known, generator = taught(task), torch.Generator().manual_seed(0)
    logits = permute_wrong_classes(known.logits, task.views.labels, generator)
    other = replace(task, knowledge=replace(known, logits=logits))
    return kd(other, seed=seed, temperature=temperature, share=share)


METHODS: dict[str, Callable[..., Learned]] = {
    "alone": alone,
    "hard_labels": by_hard_labels,
    "kd": kd,
    "permuted": permuted,
}
