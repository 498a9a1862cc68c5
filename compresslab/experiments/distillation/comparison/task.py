"""The two tasks of the comparison: all images labelled, or few labels and many images.

- ``all_labels``: 12,000 images, each with its label and in 30 views.
- ``few_labels``: 500 images with a label, in 120 views each, and 11,500 without one, in 12 views each.

Views are drawn in advance, so that every method sees the same ones and a teacher's outputs for them can be
cached. Each view is seen once. A student that learns from labels alone sees, with few labels, as many views
as the others, all of the labelled images. Tuning runs take a third of the views.

Choices use all 10,000 validation images, also with few labels: rivals are compared at their best, which
costs more labels than the task has. So each try says what the first 500 of them would have chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from compresslab.data.images import Images, Splits
from compresslab.techniques.distillation.offline import Knowledge, draw_views, without_labels

__all__ = ["ALL_LABELS", "FEW_LABELS", "TASKS", "THIRDS", "Size", "Task", "draw_task"]

ALL_LABELS, FEW_LABELS = "all_labels", "few_labels"
THIRDS = 3  # the full length; tuning runs have one


@dataclass(frozen=True)
class Size:
    """The images of a task, and the views of each in a third of its length."""

    labelled: int
    unlabelled: int
    labelled_views: int
    unlabelled_views: int


TASKS = {ALL_LABELS: Size(12_000, 0, 10, 0), FEW_LABELS: Size(500, 11_500, 40, 4)}
SMALL = {ALL_LABELS: Size(200, 0, 1, 0), FEW_LABELS: Size(100, 100, 2, 1)}


@dataclass(frozen=True)
class Task:
    """The data and the training settings that all methods share.

    Attributes:
        views: of all images; the label of an unlabelled image is UNLABELLED (-1).
        labelled: views of the labelled images alone, as many; the same ones if all images are labelled.
        unlabelled: the unlabelled images without augmentation, once each, in the order of the last views.
        validation: images for choices.
        learning_rate: the peak of the one-cycle schedule.
        precision: float32, or bfloat16 for autocast.
        knowledge: a teacher's outputs for the views, or None.
        teacher: the teacher, for features that are too large to cache, or None.
    """

    views: Images
    labelled: Images
    unlabelled: Images
    validation: Images
    learning_rate: float = 0.1
    precision: torch.dtype = torch.float32
    knowledge: Knowledge | None = None
    teacher: nn.Module | None = None

    def training(self, seed: int) -> dict[str, Any]:
        """Return the settings of ``compresslab.training.loop.fit`` that all methods share."""
        return {"learning_rate": self.learning_rate, "precision": self.precision, "seed": seed}


def draw_task(data: Splits, size: Size, *, thirds: int = THIRDS) -> Task:
    """Return the task made of the first training images, without a teacher.

    The views of a shorter task are the first ones of a longer task.

    Args:
        data: train for the images, validation for choices.
        size: how many images with and without a label, and how many views.
        thirds: the length.
    """
    every = data.train.first(size.labelled + size.unlabelled)
    known, rest = every.first(size.labelled), Images(*(t[size.labelled :] for t in _tensors(every)))
    views = draw_views(known, thirds * size.labelled_views, seed=1)
    if not len(rest):
        return Task(views, views, rest, data.validation)
    unknown = without_labels(rest)
    more = draw_views(unknown, thirds * size.unlabelled_views, seed=2)
    all_views = Images(*(torch.cat(pair) for pair in zip(_tensors(views), _tensors(more), strict=True)))
    alone = draw_views(known, len(all_views) // len(known), seed=3)
    return Task(all_views, alone, unknown, data.validation)


def _tensors(images: Images) -> tuple[torch.Tensor, torch.Tensor]:
    return images.pixels, images.labels
