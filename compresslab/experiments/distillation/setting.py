"""The setting in which the methods are compared: few labels, many images, the same for everyone.

Labels cost money, images hardly any. So the student's maker has 500 labelled images and 11,500 without
labels, and a network that somebody else trained on all 50,000 labels, which are no longer at hand. Every
method sees the same views of the same images in the same number of steps, at its best of three learning
rates; the student alone has its best of the same three, only the labelled images to learn from, and sees them
in fresh views for at least as many steps. Each image has a fixed number of views, drawn beforehand, so that a
teacher's knowledge of them can be written down (``offline``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compresslab.data.images import Images, Splits
from compresslab.errors import BadSetting
from compresslab.techniques.distillation.offline import Knowledge, draw_views, without_labels
from compresslab.training.loop import BATCH_SIZE

__all__ = ["Setting", "few_labels", "of_classes"]

IMAGES, LABELLED = 12_000, 500  # of these images, so many have a label
LABELLED_VIEWS = 20_000  # of all labelled images together


@dataclass(frozen=True)
class Setting:
    """What every method is given.

    Attributes:
        views: all views; where the maker has no label, the label is UNLABELLED (-1).
        labelled: the labelled images themselves, as often as they have views.
        unlabelled: the others, as they are, once each; they are the last views, in this order, repeated.
        validation: images to choose by.
        passes: over all views.
        learning_rate: the peak of the one-cycle schedule.
        precision: float32, or bfloat16 to autocast.
        knowledge: what a teacher says of the views, or None.
    """

    views: Images
    labelled: Images
    unlabelled: Images
    validation: Images
    passes: int = 2
    learning_rate: float = 0.1
    precision: torch.dtype = torch.float32
    knowledge: Knowledge | None = None

    @property
    def steps(self) -> int:
        """How many batches of views a run sees."""
        return self.passes * -(-len(self.views) // BATCH_SIZE)

    def training(self, seed: int) -> dict[str, Any]:
        """What ``compresslab.training.loop.fit`` is told, whatever is taught: its settings, by name."""
        rate, precision = self.learning_rate, self.precision
        return {"epochs": self.passes, "learning_rate": rate, "precision": precision, "seed": seed}

    @property
    def taught(self) -> Knowledge:
        """The knowledge.

        Raises:
            CompressionError: this setting has no teacher.
        """
        if self.knowledge is None:
            raise BadSetting(
                "this method learns from a teacher, and the setting has knowledge None; "
                "give it some: dataclasses.replace(setting, knowledge=know(teacher, setting.views))"
            )
        return self.knowledge


def few_labels(
    data: Splits,
    *,
    labelled: int = LABELLED,
    unlabelled: int = IMAGES - LABELLED,
    views: tuple[int, int] = (LABELLED_VIEWS // LABELLED, 4),
    **settings,
) -> Setting:
    """The setting made of the first images of train.

    Args:
        data: train to draw from, validation to choose by.
        labelled: how many images keep their label.
        unlabelled: how many of those that follow are given without.
        views: how many of a labelled and of an unlabelled image.
        **settings: passes, learning_rate, precision, knowledge.

    Raises:
        CompressionError: more images than there are.
    """
    if not 0 < labelled < labelled + unlabelled <= len(data.train):
        raise BadSetting(
            f"labelled and unlabelled images come out of {len(data.train)}, got {labelled} and {unlabelled}; "
            f"try {len(data.train) // 6} and {len(data.train) // 2}"
        )
    taught = data.train.first(labelled)
    rest = Images(
        data.train.pixels[labelled : labelled + unlabelled],
        data.train.labels[labelled : labelled + unlabelled],
    )
    unknown = without_labels(rest)
    drawn = draw_views(taught, views[0], seed=1), draw_views(unknown, views[1], seed=2)
    every = Images(*(torch.cat(parts) for parts in zip(*map(_tensors, drawn), strict=True)))
    often = Images(taught.pixels.repeat(views[0], 1, 1, 1), taught.labels.repeat(views[0]))
    return Setting(every, often, unknown, data.validation, **settings)


def of_classes(images: Images, classes: tuple[int, ...]) -> Images:
    """Those images whose label is one of the classes."""
    chosen = torch.isin(images.labels, torch.tensor(classes))
    return Images(images.pixels[chosen], images.labels[chosen])


def _tensors(images: Images) -> tuple[Tensor, Tensor]:
    return images.pixels, images.labels
