"""One training of a student in a task, as all methods use it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compresslab.data.images import Images
from compresslab.errors import BadSetting
from compresslab.experiments.distillation.comparison.task import Task
from compresslab.models.residual import student as small_student
from compresslab.techniques.distillation.offline import Knowledge, Pupil, distill

__all__ = ["Learned", "Loss", "fresh", "learn", "taught"]

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]  # of the pupil, inputs and indices of views


@dataclass(frozen=True)
class Learned:
    """A trained student.

    Attributes:
        network: the student.
        details: further results of the run, as JSON values.
        beside: other networks that are measured like the student, such as an ensemble, by name.
    """

    network: nn.Module
    details: dict[str, Any] = field(default_factory=dict)
    beside: dict[str, nn.Module] = field(default_factory=dict)


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
