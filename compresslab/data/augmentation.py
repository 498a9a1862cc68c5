"""Augmentation: random changes to training images that keep their labels valid."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["augment"]


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Return the images shifted by up to two pixels, half of them mirrored, half with a rectangle erased.

    Random erasing: Zhong et al. 2017, arXiv:1708.04896; here each side of the rectangle has 4 to 14 pixels,
    and it is filled with noise.

    Args:
        pixels: (n, 1, 28, 28) uint8. Not changed.
        generator: the source of randomness, advanced by the draws.

    Returns:
        (n, 1, 28, 28) uint8.
    """
    n, _, height, width = pixels.shape

    def draw(low: int, high: int) -> Tensor:  # one integer per image, low ≤ value < high
        return torch.randint(low, high, (n, 1), generator=generator)

    padded = nn.functional.pad(pixels, (2, 2, 2, 2))
    rows = draw(0, 5) + torch.arange(height)  # (n, height)
    columns = draw(0, 5) + torch.arange(width)
    columns = torch.where(draw(0, 2) == 1, columns.flip(1), columns)
    moved = padded[torch.arange(n)[:, None, None], 0, rows[:, :, None], columns[:, None, :]]
    tall, wide, top, left = draw(4, 15), draw(4, 15), draw(0, height - 3), draw(0, width - 3)
    inside_rows = (torch.arange(height) >= top) & (torch.arange(height) < top + tall)
    inside_columns = (torch.arange(width) >= left) & (torch.arange(width) < left + wide)
    erased = inside_rows[:, :, None] & inside_columns[:, None, :] & (draw(0, 2) == 1)[:, :, None]
    noise = torch.randint(0, 256, moved.shape, generator=generator, dtype=torch.uint8)
    return torch.where(erased, noise, moved).unsqueeze(1)
