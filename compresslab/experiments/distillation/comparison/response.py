"""The student alone, response distillation, and the controls that put something else in KD's place.

    kd = (1 - share) · cross-entropy(labels) + share · T² · KL(teacher ‖ student), both at temperature T

The controls: labels that are smoothed, the teacher's most likely class alone, and the teacher's logits with
those of the wrong classes permuted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from compresslab.experiments.distillation.comparison.learning import Learned, fresh, learn, taught
from compresslab.experiments.distillation.comparison.task import Task
from compresslab.models.residual import student as small_student
from compresslab.techniques.distillation.controls import (
    hard_labels,
    permute_wrong_classes,
    smoothed_cross_entropy,
)
from compresslab.techniques.distillation.offline import Pupil
from compresslab.techniques.distillation.response import (
    decoupled_loss,
    kd_loss,
    labelled_cross_entropy,
    warm_up,
)
from compresslab.training.loop import BATCH_SIZE

__all__ = ["alone", "by_hard_labels", "dkd", "kd", "permuted"]

DKD_WARM_UP = 1 / 12  # of the steps: 20 of 240 epochs in the paper


def alone(
    task: Task,
    *,
    seed: int,
    longer: int = 1,
    smoothing: float = 0.0,
    make: Callable[[], nn.Module] = small_student,
) -> Learned:
    """Train on the labels alone, smoothed or not, for ``longer`` passes over the views."""
    labels = task.labelled.labels

    def loss(pupil: nn.Module, views: Tensor, index: Tensor) -> Tensor:
        return smoothed_cross_entropy(pupil(views), labels[index], smoothing=smoothing)

    pupil = Pupil(fresh(seed, make))
    return Learned(learn(task, pupil, task.labelled, loss, seed=seed, passes=longer))


def by_hard_labels(task: Task, *, seed: int, smoothing: float = 0.0) -> Learned:
    """Train on the teacher's most likely class of each view, smoothed or not, whatever its label."""
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


def dkd(task: Task, *, seed: int, temperature: float, beta: float) -> Learned:
    """Train by cross-entropy and decoupled KD, whose weight rises in the first twelfth of the steps."""
    logits, labels = taught(task).logits, task.views.labels
    rising, steps = max(1, round(DKD_WARM_UP * len(labels) / BATCH_SIZE)), itertools.count(1)

    def loss(pupil: nn.Module, views: Tensor, index: Tensor) -> Tensor:
        mine, y = pupil(views), labels[index]
        decoupled = decoupled_loss(mine, logits[index], y, temperature=temperature, beta=beta)
        return labelled_cross_entropy(mine, y) + warm_up(next(steps), steps=rising) * decoupled

    return Learned(learn(task, Pupil(fresh(seed)), task.views, loss, seed=seed))
