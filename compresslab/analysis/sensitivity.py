"""Sensitivity: how much worse a network is with one part of it compressed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.data.images import Images, check_some_images
from compresslab.models.surgery import evaluating
from compresslab.training.loop import accuracy

__all__ = ["Damage", "accuracy_lost", "answers_moved"]

Damage = Callable[[nn.Module], float]  # a compressed network → how much worse it is


def accuracy_lost(model: nn.Module, images: Images) -> Damage:
    """The damage as the model's accuracy less the changed one's, in [-1, 1]; validation images."""
    before = accuracy(model, images)
    return lambda changed: before - accuracy(changed, images)


@torch.no_grad()
def answers_moved(model: nn.Module, inputs: Tensor) -> Damage:
    """The damage as mean KL(softmax z ‖ softmax z'), in nats, z the model's logits and z' the changed one's.

    It needs no labels, and sees changes that are too small to turn an answer over.

    Args:
        model: in whatever mode; it runs in evaluation mode and is left alone.
        inputs: validation images (m, 1, 28, 28), a few hundred.

    Raises:
        CompressionError: no images.
    """
    check_some_images("inputs", len(inputs), hint="validation.first(500).inputs()")
    with evaluating(model):
        before = model(inputs).log_softmax(dim=1)  # (m, classes)

    def damage(changed: nn.Module) -> float:
        with evaluating(changed):
            after = changed(inputs).log_softmax(dim=1)
        return float(F.kl_div(after, before, reduction="batchmean", log_target=True))

    return damage
