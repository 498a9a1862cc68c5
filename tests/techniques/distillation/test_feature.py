"""Features: the regressor, hints and attention maps, held against loops, torch and torchdistill."""

import pytest
import torch
from torch.nn import functional as F

from compresslab.errors import CompressionError
from compresslab.measurement.costs import count_parameters
from compresslab.techniques.distillation.feature import (
    Regressor,
    attention_loss,
    attention_map,
    cosine_hint_loss,
    hint_loss,
    unit_length,
)

every_loss = pytest.mark.parametrize("loss", [hint_loss, cosine_hint_loss, attention_loss])


@pytest.fixture
def reference():
    """The losses of torchdistill, an independent implementation."""
    reason = "torchdistill, the independent reference, is missing: pip install torchdistill"
    return pytest.importorskip("torchdistill.losses.mid_level", reason=reason)


def drawn(n=6, c=3, h=4, w=5, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, c, h, w, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


# the regressor


def test_the_regressor_is_one_matrix_applied_at_every_place():
    regressor, x = Regressor(3, 7).double(), drawn()
    matrix, bias = regressor.conv.weight[:, :, 0, 0], regressor.conv.bias
    by_hand = (x.permute(0, 2, 3, 1) @ matrix.T + bias).permute(0, 3, 1, 2)
    torch.testing.assert_close(regressor(x), by_hand)
    assert count_parameters(regressor) == 3 * 7 + 7


def test_a_regressor_learns_to_translate_and_no_gradient_reaches_the_teacher():
    torch.manual_seed(0)
    regressor, mine = Regressor(3, 2).double(), drawn()
    theirs = Regressor(3, 2).double()(mine.detach())
    optimizer = torch.optim.Adam(regressor.parameters(), lr=0.1)
    first = hint_loss(regressor(mine), theirs)
    for _ in range(100):
        optimizer.zero_grad()
        hint_loss(regressor(mine), theirs).backward()
        optimizer.step()
    assert hint_loss(regressor(mine), theirs) < 1e-3 * first
    assert mine.grad.abs().max() > 0


# hints


def test_the_hint_is_the_mean_square_and_its_gradient_is_twice_the_mean_difference():
    mine, theirs = drawn(seed=0), drawn(seed=1)
    value = hint_loss(mine, theirs)
    torch.testing.assert_close(value, F.mse_loss(mine, theirs))
    value.backward()
    torch.testing.assert_close(mine.grad, (2 * (mine - theirs) / mine.numel()).detach())


def test_the_cosine_hint_is_one_minus_torchs_cosine_at_each_place():
    mine, theirs = drawn(seed=0), drawn(seed=1)
    cosines = F.cosine_similarity(mine, theirs, dim=1)
    assert cosines.shape == (6, 4, 5)
    torch.testing.assert_close(cosine_hint_loss(mine, theirs), 1 - cosines.mean())
    torch.testing.assert_close(
        cosine_hint_loss(mine[:, :, 0, 0], theirs[:, :, 0, 0]), 1 - cosines[:, 0, 0].mean()
    )


def test_the_cosine_hint_sees_directions_only():
    mine = drawn()
    lengths = 0.1 + torch.rand(6, 1, 4, 5)
    assert cosine_hint_loss(mine * lengths, mine).item() == pytest.approx(0, abs=1e-12)
    assert cosine_hint_loss(-mine, mine).item() == pytest.approx(2)


def test_unit_length_leaves_zeros_alone_and_gives_them_no_gradient():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    rows = unit_length(x, dim=1)
    assert rows.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]
    (rows * torch.tensor([1.0, 2.0])).sum().backward()
    assert x.grad[1].tolist() == [0, 0]
    assert (x.grad[0] @ x[0]).item() == pytest.approx(0, abs=1e-6)  # a longer vector has the same direction


# attention


def test_an_attention_map_is_the_energy_of_all_channels_at_each_place_with_length_one():
    x = drawn()
    for image, row in zip(x, attention_map(x), strict=True):
        energy = [sum(image[c, i, j] ** 2 for c in range(3)) for i in range(4) for j in range(5)]
        length = sum(e**2 for e in energy) ** 0.5
        torch.testing.assert_close(row, torch.stack(energy) / length)
    assert attention_map(x).shape == (6, 20)


def test_attention_does_not_see_signs_order_or_size_of_the_channels():
    x = drawn()
    torch.testing.assert_close(attention_map(-7 * x.flip(1)), attention_map(x))


def test_a_map_peaks_where_the_features_are():
    x = torch.zeros(1, 2, 4, 5)
    x[0, :, 2, 3] = torch.tensor([1.0, -1.0])
    assert attention_map(x).argmax() == 2 * 5 + 3
    assert attention_map(x).max() == pytest.approx(1)


def test_attention_is_that_of_torchdistill_times_the_number_of_places(reference):
    mine, theirs = drawn(), drawn(c=8, seed=1)
    value = reference.ATLoss(at_pairs={}).compute_at_loss(mine, theirs.detach())
    torch.testing.assert_close(attention_loss(mine, theirs), value * 4 * 5, rtol=1e-6, atol=0)


def test_attention_gives_the_gradient_of_torchdistill(reference):
    mine, theirs = drawn(), drawn(c=8, seed=1)
    (value,) = torch.autograd.grad(
        reference.ATLoss(at_pairs={}).compute_at_loss(mine, theirs.detach()) * 20, mine
    )
    (ours,) = torch.autograd.grad(attention_loss(mine, theirs), mine)
    torch.testing.assert_close(ours, value, rtol=1e-6, atol=1e-12)


def test_attention_runs_from_zero_for_equal_maps_to_two_for_maps_apart():
    left, right = torch.zeros(2, 3, 4, 5), torch.zeros(2, 6, 4, 5)
    left[..., 0], right[..., 1] = 1, 1
    assert attention_loss(left, left).item() == pytest.approx(0, abs=1e-12)
    assert attention_loss(left, right).item() == pytest.approx(2)


# all of them


@every_loss
def test_the_teacher_gets_no_gradient_and_the_student_does(loss):
    mine, theirs = drawn(), drawn(seed=1)
    loss(mine, theirs).backward()
    assert theirs.grad is None
    assert mine.grad.abs().max() > 0


@every_loss
def test_an_image_seen_twice_counts_once_and_one_image_is_enough(loss):
    mine, theirs = drawn(n=1), drawn(n=1, seed=1)
    twice = loss(mine.repeat(2, 1, 1, 1), theirs.repeat(2, 1, 1, 1))
    assert twice.item() == pytest.approx(loss(mine, theirs).item())


@every_loss
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_zeros_and_equal_features_have_finite_gradients(loss, fill):
    mine = torch.full((2, 3, 4, 5), fill, requires_grad=True)
    value = loss(mine, torch.full((2, 3, 4, 5), fill))
    value.backward()
    assert value.isfinite()
    assert mine.grad.abs().max() < 1


@every_loss
def test_features_in_bfloat16_give_a_loss_in_float32(loss):
    mine, theirs = drawn(dtype=torch.bfloat16), drawn(seed=1, dtype=torch.bfloat16)
    assert loss(mine, theirs).dtype == torch.float32
    assert torch.equal(loss(mine, theirs), loss(mine.float(), theirs.float()))


@pytest.mark.parametrize("loss", [hint_loss, cosine_hint_loss])
def test_features_of_two_shapes_are_refused(loss):
    with pytest.raises(CompressionError, match=r"one shape, got \(6, 3, .* \(6, 8, .* with a Regressor"):
        loss(drawn(), drawn(c=8))


@pytest.mark.parametrize("other", [{"n": 5}, {"h": 2}, {"w": 1}])
def test_attention_at_two_resolutions_or_of_other_images_is_refused(other):
    with pytest.raises(CompressionError, match=r"agree in n, h and w, got .* layers of one resolution"):
        attention_loss(drawn(), drawn(**other))


def test_a_vector_has_no_attention_map():
    with pytest.raises(CompressionError, match=r"\(n, c, h, w\), got \(6, 3\); take them from a convolution"):
        attention_map(torch.ones(6, 3))
