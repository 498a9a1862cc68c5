"""Labelled images in train, validation and test splits, and their normalization."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from compresslab.errors import BadSetting

__all__ = ["MEAN", "STANDARD_DEVIATION", "Images", "Splits", "check_some_images", "normalize"]

MEAN, STANDARD_DEVIATION = 0.2860, 0.3530  # over the 60,000 training images; a test recomputes them


@dataclass(frozen=True)
class Images:
    """Labelled images: ``pixels`` (n, 1, 28, 28) uint8 and ``labels`` (n,) int64."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> Images:
        """The first ``count`` images: a fixed subset, for a lab with little time."""
        if not 0 < count <= len(self):
            raise BadSetting(
                f"count must be a whole number from 1 to {len(self)} here, got {count}; try "
                f"{min(1000, len(self))}"
            )
        return Images(self.pixels[:count], self.labels[:count])

    def inputs(self) -> Tensor:
        """The normalized images (n, 1, 28, 28) float32: mean 0 and standard deviation 1 on train."""
        return normalize(self.pixels)

    def batches(self, size: int = 500) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over pairs of inputs (≤ size, 1, 28, 28) float32 and labels (≤ size,) int64, in order."""
        for start in range(0, len(self), size):
            yield normalize(self.pixels[start : start + size]), self.labels[start : start + size]


@dataclass(frozen=True)
class Splits:
    """The three splits: ``train`` for training, ``validation`` for every choice, ``test`` for the report."""

    train: Images
    validation: Images
    test: Images


def check_some_images(name: str, count: int, *, hint: str) -> None:
    """Raise if an argument that holds images holds none.

    Args:
        name: the argument, for the message.
        count: how many images it held.
        hint: code that makes some.

    Raises:
        CompressionError: none.
    """
    if count == 0:
        raise BadSetting(f"{name} must have at least one image, got none; try {hint}")


def normalize(pixels: Tensor) -> Tensor:
    """Return pixels 0…255 (any shape) as float32, scaled to mean 0 and standard deviation 1 on train."""
    return pixels.to(torch.float32).div_(255).sub_(MEAN).div_(STANDARD_DEVIATION)
