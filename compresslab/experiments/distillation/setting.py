"""The common setting of the compared distillation methods: few labels, many unlabelled images.

Labels are expensive, images are cheap. So the setting has 500 labelled and 11,500 unlabelled images, and a
pretrained teacher, whose 50,000 training labels are not available. Every method sees the same views of the
same images in the same number of steps, at its best of three learning rates. The student alone has the same
three learning rates and sees only the labelled images, in new views, for at least as many steps. Each image
has a fixed number of views, drawn in advance, so that a teacher's outputs for them can be cached
(``offline``).
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

IMAGES, LABELLED = 12_000, 500  # training images, and how many of them have a label
LABELLED_VIEWS = 20_000  # in total, over all labelled images


@dataclass(frozen=True)
class Setting:
    """The data and the training settings of every method.

    Attributes:
        views: all views; the label of an unlabelled image is UNLABELLED (-1).
        labelled: the labelled images without augmentation, each as often as it has views.
        unlabelled: the unlabelled images without augmentation, once each, in the order of the last views.
        validation: images for choices.
        passes: over all views.
        learning_rate: the peak of the one-cycle schedule.
        precision: float32, or bfloat16 for autocast.
        knowledge: a teacher's outputs for the views, or None.
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
        """The number of batches of views per run."""
        return self.passes * -(-len(self.views) // BATCH_SIZE)

    def training(self, seed: int) -> dict[str, Any]:
        """Return the settings of ``compresslab.training.loop.fit`` that all methods share."""
        rate, precision = self.learning_rate, self.precision
        return {"epochs": self.passes, "learning_rate": rate, "precision": precision, "seed": seed}

    @property
    def taught(self) -> Knowledge:
        """The teacher's outputs.

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
    """Return the setting made of the first training images.

    Args:
        data: train for the images, validation for choices.
        labelled: number of images that keep their label.
        unlabelled: number of the following images, without labels.
        views: per labelled and per unlabelled image.
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
    """Return the images whose label is one of the classes."""
    chosen = torch.isin(images.labels, torch.tensor(classes))
    return Images(images.pixels[chosen], images.labels[chosen])


def _tensors(images: Images) -> tuple[Tensor, Tensor]:
    return images.pixels, images.labels
