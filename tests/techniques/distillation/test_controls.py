"""Controls: what each one keeps of the teacher, and what it takes away."""

import pytest
import torch
from torch.nn import functional as F

from compresslab.errors import BadSetting
from compresslab.techniques.distillation.controls import (
    hard_labels,
    permute_wrong_classes,
    smoothed_cross_entropy,
)
from compresslab.techniques.distillation.response import UNLABELLED, labelled_cross_entropy

LABELS = torch.tensor([3, 0, UNLABELLED, 4, 1, UNLABELLED])


def drawn(images=6, classes=5, seed=0):
    return 3 * torch.randn(
        images, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# hard labels


def test_a_hard_label_is_the_most_likely_class_and_has_no_gradient():
    z = drawn().requires_grad_()
    assert hard_labels(z).tolist() == [row.index(max(row)) for row in z.tolist()]
    assert not hard_labels(z).requires_grad


# label smoothing


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_smoothing_is_torchs_over_the_labelled_images(smoothing):
    z = drawn().requires_grad_()
    ours = smoothed_cross_entropy(z, LABELS, smoothing=smoothing)
    theirs = F.cross_entropy(z, LABELS, ignore_index=UNLABELLED, label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    mine, wanted = (torch.autograd.grad(loss, z)[0] for loss in (ours, theirs))
    torch.testing.assert_close(mine, wanted, rtol=1e-9, atol=1e-12)


def test_without_smoothing_it_is_the_cross_entropy_and_without_labels_nothing():
    assert torch.equal(
        smoothed_cross_entropy(drawn(), LABELS, smoothing=0.0), labelled_cross_entropy(drawn(), LABELS)
    )
    z = drawn().requires_grad_()
    nothing = smoothed_cross_entropy(z, torch.full((6,), UNLABELLED), smoothing=0.1)
    nothing.backward()
    assert nothing == 0
    assert torch.equal(z.grad, torch.zeros_like(z))


def test_smoothing_beyond_a_share_is_refused():
    with pytest.raises(BadSetting, match=r"^smoothing must be a fraction in \[0, 1\], got 10"):
        smoothed_cross_entropy(drawn(), LABELS, smoothing=10)


# permuted wrong classes


def right():
    return torch.where(LABELS == UNLABELLED, drawn().argmax(dim=1), LABELS)


def test_the_right_class_stays_and_the_wrong_ones_are_the_same_in_another_order():
    z, permuted = drawn(), permute_wrong_classes(drawn(), LABELS, generator())
    rows = torch.arange(6)
    assert torch.equal(permuted[rows, right()], z[rows, right()])
    assert torch.equal(permuted.sort(dim=1).values, z.sort(dim=1).values)
    assert not torch.equal(permuted, z)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_right_class_keeps_its_probability_and_the_doubt_its_amount(temperature):
    before, after = (
        (z / temperature).softmax(dim=1)
        for z in (drawn(), permute_wrong_classes(drawn(), LABELS, generator()))
    )
    rows = torch.arange(6)
    torch.testing.assert_close(after[rows, right()], before[rows, right()])
    entropies = [-(p * p.log()).sum(dim=1) for p in (before, after)]
    torch.testing.assert_close(entropies[1], entropies[0])


def test_on_average_nothing_is_left_of_which_class_resembles_which():
    z = torch.tensor([[9.0, 4.0, 0.0, 0.0]]).repeat(6000, 1)
    mean = permute_wrong_classes(z, torch.zeros(6000, dtype=torch.int64), generator()).mean(dim=0)
    torch.testing.assert_close(mean, torch.tensor([9.0, 4 / 3, 4 / 3, 4 / 3]), rtol=0, atol=0.1)


def test_the_generator_decides_and_the_logits_are_left_alone():
    z = drawn()
    one, same, other = (permute_wrong_classes(z, LABELS, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(z, drawn())


def test_labels_of_other_images_are_refused():
    text = (
        r"^labels must be \(images,\) for logits \(images, classes\), got \(2,\) for \(6, 5\); give one label"
    )
    with pytest.raises(BadSetting, match=text):
        permute_wrong_classes(drawn(), LABELS[:2], generator())
