"""Offline distillation: training a student on the cached outputs of a fixed teacher.

A fixed teacher has the same outputs for the same image every time. So its logits, features, attention maps
and embeddings are computed once for a fixed set of views (images that were shifted, mirrored and erased in
advance), and each training step looks them up. Teacher and student see the same view (Beyer et al. 2021,
arXiv:2106.05237, call this consistent teaching).

    loss of a step = loss(student(view), knowledge[view], label)         only the student gets gradients

What it saves: one run of the teacher in every step. What it costs: memory for the cached outputs, mostly
features, and a fixed set of views. What is left out: a teacher that is trained at the same time (``online``)
or is an earlier version of the student (``self_distillation``).

Source: Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network", arXiv:1503.02531.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from compresslab.data.augmentation import augment
from compresslab.data.images import Images
from compresslab.errors import check_seed, check_whole
from compresslab.models.surgery import evaluating, layer_outputs
from compresslab.techniques.distillation.feature import attention_map
from compresslab.techniques.distillation.response import UNLABELLED
from compresslab.training.loop import Trained, fit

__all__ = ["Knowledge", "Pupil", "distill", "draw_views", "know", "numbered", "without_labels"]


@dataclass(frozen=True)
class Knowledge:
    """A teacher's cached outputs for n views.

    Attributes:
        logits: (n, classes), its response.
        embeddings: (n, width), the inputs of its last layer; relations are taken between rows.
        attention: {layer: (n, height · width)}, its attention maps.
        features: {layer: (n, channels, height, width)}, in half precision if autocast produced it.
    """

    logits: Tensor
    embeddings: Tensor
    attention: Mapping[str, Tensor] = field(default_factory=dict)
    features: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def storage_bytes(self) -> int:
        """Memory of the cached outputs in bytes."""
        kept = [self.logits, self.embeddings, *self.attention.values(), *self.features.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in kept)


class Pupil(nn.Module):
    """A student with modules that only training needs: (n, 1, 28, 28) → the student's logits.

    Attributes:
        student: the network that is kept.
        companion: a regressor, exits or nothing; its parameters are trained too, and discarded afterwards.
    """

    def __init__(self, student: nn.Module, companion: nn.Module | None = None) -> None:
        super().__init__()
        self.student = student
        self.companion = companion if companion is not None else nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.student(inputs)


def draw_views(images: Images, count: int, *, seed: int) -> Images:
    """Return ``count`` augmented copies of each image: (count · n) images.

    Raises:
        CompressionError: count is below 1.
    """
    count = check_whole("count", count, hint="4 views an image do well")
    generator = torch.Generator().manual_seed(check_seed(seed))
    pixels = torch.cat([augment(images.pixels, generator) for _ in range(count)])
    return Images(pixels, images.labels.repeat(count))


def without_labels(images: Images) -> Images:
    """Return the same images with ``UNLABELLED`` as every label."""
    return Images(images.pixels, torch.full_like(images.labels, UNLABELLED))


def numbered(views: Images) -> Images:
    """Return the same views with their indices, 0 … n - 1, as labels, which ``fit`` passes to the loss."""
    return Images(views.pixels, torch.arange(len(views)))


def know(
    teacher: nn.Module,
    images: Images,
    *,
    embedding: str = "pool",
    attention: Sequence[str] = (),
    features: Sequence[str] = (),
    precision: torch.dtype = torch.float32,
) -> Knowledge:
    """Run the teacher on the images, in evaluation mode without gradients, and return its outputs.

    Args:
        teacher: images (n, 1, 28, 28) → logits (n, classes). Not changed.
        images: the views that the student will see; their labels are not read.
        embedding: the submodule whose output (n, width) is the embedding.
        attention: submodules whose outputs (n, channels, height, width) give attention maps.
        features: submodules whose outputs are kept as they are.
        precision: float32, or bfloat16 for autocast.
    """
    layers = [embedding, *attention, *features]
    collected: list[list[Tensor]] = [[] for _ in range(1 + len(layers))]
    with evaluating(teacher), torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        for inputs, _ in images.batches():
            logits, outputs = layer_outputs(teacher, inputs, layers)
            maps = [attention_map(output.float()) for output in outputs[1 : 1 + len(attention)]]
            kept = [logits.float(), outputs[0].float(), *maps, *outputs[1 + len(attention) :]]
            for column, part in zip(collected, kept, strict=True):
                column.append(part.contiguous())
    logits, embeddings, *rest = (torch.cat(column) for column in collected)
    split = len(attention)
    return Knowledge(
        logits,
        embeddings,
        dict(zip(attention, rest[:split], strict=True)),
        dict(zip(features, rest[split:], strict=True)),
    )


def distill(
    pupil: Pupil, views: Images, validation: Images, teach: Callable[..., Tensor], **settings
) -> Trained:
    """Train a copy of the pupil on fixed views and return its student; the given pupil is not changed.

    Args:
        pupil: the student, with its companion.
        views: training images, in batches of 128; ``teach`` gets their indices instead of labels.
        validation: images for the choice of the epoch.
        teach: (pupil, views (b, 1, 28, 28), indices of the views (b,)) → scalar to minimise.
        **settings: of ``compresslab.training.loop.fit``: epochs, learning_rate, seed, precision, …

    Returns:
        The student of the best epoch, without its companion, and the history.
    """
    trained = fit(pupil, numbered(views), validation, loss=teach, augmented=False, **settings)
    return Trained(trained.model.student, trained.history)  # type: ignore[arg-type]
