"""Augmentation moves, mirrors and erases; each image still comes from the image it was."""

import pytest
import torch
from torch import nn

from compresslab.data.augmentation import augment


def augmented(pixels: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return augment(pixels, torch.Generator().manual_seed(seed))


def candidates(image: torch.Tensor) -> torch.Tensor:
    """The 50 images (50, 28, 28) that moving by up to two and mirroring can give, from their definition."""
    padded = nn.functional.pad(image, (2, 2, 2, 2))
    moved = [padded[row : row + 28, column : column + 28] for row in range(5) for column in range(5)]
    return torch.stack([*moved, *(each.flip(1) for each in moved)])


@pytest.fixture(scope="module")
def pixels():
    return torch.randint(
        0, 256, (400, 1, 28, 28), generator=torch.Generator().manual_seed(9), dtype=torch.uint8
    )


def test_augmentation_keeps_shape_and_dtype_and_leaves_its_input_alone(pixels):
    before = pixels.clone()
    result = augmented(pixels)
    assert (result.shape, result.dtype) == (pixels.shape, torch.uint8)
    assert torch.equal(pixels, before)


def test_augmentation_is_decided_by_its_generator(pixels):
    assert torch.equal(augmented(pixels, 1), augmented(pixels, 1))
    assert not torch.equal(augmented(pixels, 1), augmented(pixels, 2))


def test_each_image_is_moved_perhaps_mirrored_and_perhaps_has_one_rectangle_erased(pixels):
    mirrored, erased, shifts = 0, 0, set()
    for image, result in zip(pixels[:, 0], augmented(pixels)[:, 0], strict=True):
        different = candidates(image) != result  # (50, 28, 28)
        best = int(different.flatten(1).sum(1).argmin())
        changed = different[best]
        mirrored += best >= 25
        shifts.add(best % 25)
        if changed.any():
            erased += 1
            rows, columns = changed.any(dim=1).nonzero(), changed.any(dim=0).nonzero()
            tall, wide = (int(line.max() - line.min()) + 1 for line in (rows, columns))
            assert tall <= 14
            assert wide <= 14
            assert changed.sum() > 0.9 * tall * wide, "what changed is one rectangle, full of noise"
    assert mirrored == pytest.approx(200, abs=50)  # five standard deviations of 400 throws of a coin
    assert erased == pytest.approx(200, abs=50)
    assert shifts == set(range(25))
