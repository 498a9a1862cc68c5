"""Responses: torch's own divergence, gradients by hand, and the identity between DKD and KD."""

import pytest
import torch
from torch.nn import functional as F

from compresslab.errors import CompressionError
from compresslab.techniques.distillation.response import (
    UNLABELLED,
    decoupled_loss,
    full_precision,
    kd_loss,
    labelled_cross_entropy,
    response_loss,
    soften,
    warm_up,
)

every_temperature = pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
LOSSES = {
    "response": lambda z, t, y: response_loss(z, t),
    "kd": kd_loss,
    "decoupled": decoupled_loss,
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def drawn(images=7, classes=5, dtype=torch.float64, seed=0):
    """Student's and teacher's logits, and labels of which the third is missing."""
    generator = torch.Generator().manual_seed(seed)
    z, t = torch.randn(2, images, classes, generator=generator, dtype=torch.float64).to(dtype) * 3
    labels = torch.randint(0, classes, (images,), generator=generator)
    labels[2:3] = UNLABELLED
    return z.clone().requires_grad_(), t.clone().requires_grad_(), labels


# soft targets


@every_temperature
def test_soft_targets_are_the_softmax_of_the_logits_over_the_temperature(temperature):
    z, _, _ = drawn()
    powers = (z / temperature).exp()
    assert torch.allclose(soften(z, temperature=temperature), powers / powers.sum(dim=1, keepdim=True))


def test_a_higher_temperature_is_less_sure_and_keeps_the_order():
    z, _, _ = drawn()
    sharp, soft = soften(z, temperature=1.0), soften(z, temperature=5.0)
    assert (sharp.amax(dim=1) > soft.amax(dim=1)).all()
    assert torch.equal(sharp.argsort(dim=1), soft.argsort(dim=1))
    assert torch.allclose(soften(z, temperature=1e9), torch.full_like(z, 0.2))


# the response loss


@every_temperature
def test_the_response_is_torchs_divergence_times_the_temperature_squared(temperature):
    z, t, _ = drawn()
    theirs = F.kl_div((z / temperature).log_softmax(1), (t / temperature).softmax(1), reduction="batchmean")
    ours = response_loss(z, t, temperature=temperature)
    torch.testing.assert_close(ours, theirs * temperature**2, rtol=1e-12, atol=0)


@every_temperature
def test_its_gradient_is_the_difference_of_the_probabilities_times_the_temperature(temperature):
    z, t, _ = drawn()
    response_loss(z, t, temperature=temperature).backward()
    by_hand = temperature * ((z / temperature).softmax(1) - (t / temperature).softmax(1)) / len(z)
    torch.testing.assert_close(z.grad, by_hand.detach(), rtol=1e-9, atol=1e-12)


def test_at_high_temperature_it_is_half_the_mean_square_of_the_centred_logits():
    z, t, _ = drawn()
    centred = (z - z.mean(1, keepdim=True)) - (t - t.mean(1, keepdim=True))
    ours = response_loss(z, t, temperature=1e4)
    assert ours.item() == pytest.approx(centred.square().mean().item() / 2, rel=1e-3)


def test_a_student_that_answers_like_its_teacher_has_nothing_to_learn():
    z, _, _ = drawn()
    value = response_loss(z, z + 5.0)  # a constant added to all logits changes no probability
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-14)
    assert z.grad.abs().max() < 1e-14


def test_an_image_seen_twice_counts_once():
    z, t, _ = drawn()
    assert response_loss(z.repeat(2, 1), t.repeat(2, 1)).item() == pytest.approx(response_loss(z, t).item())


# cross-entropy with labels missing


def test_only_labelled_images_count_in_the_cross_entropy():
    z, _, labels = drawn()
    has = labels != UNLABELLED
    ours = labelled_cross_entropy(z, labels)
    by_hand = -z.log_softmax(1)[has, labels[has]].mean()
    torch.testing.assert_close(ours, by_hand)
    ours.backward()
    assert z.grad[~has].abs().max() == 0
    assert z.grad[has].abs().amin(1).min() > 0


def test_without_any_label_the_cross_entropy_is_zero_and_still_has_a_gradient():
    z, _, labels = drawn()
    value = labelled_cross_entropy(z, torch.full_like(labels, UNLABELLED))
    value.backward()
    assert value.item() == 0
    assert torch.equal(z.grad, torch.zeros_like(z))


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_kd_weighs_the_teacher_against_the_labels(weight):
    z, t, labels = drawn()
    kd = kd_loss(z, t, labels, temperature=2.0, weight=weight)
    hard = F.cross_entropy(z, labels, ignore_index=UNLABELLED)
    soft = 4 * F.kl_div((z / 2).log_softmax(1), (t / 2).softmax(1), reduction="batchmean")
    torch.testing.assert_close(kd, (1 - weight) * hard + weight * soft, rtol=1e-12, atol=0)


# decoupled


def labelled():
    z, t, labels = drawn()
    return z, t, labels.clamp(min=0)


@every_temperature
def test_with_beta_one_minus_the_softened_target_dkd_is_the_response(temperature):
    z, t, labels = labelled()
    p_target = (t / temperature).softmax(1).gather(1, labels[:, None]).squeeze(1).detach()
    dkd = decoupled_loss(z, t, labels, temperature=temperature, alpha=1.0, beta=1 - p_target)
    torch.testing.assert_close(dkd, response_loss(z, t, temperature=temperature), rtol=1e-10, atol=0)


def test_the_identity_needs_the_probability_at_the_same_temperature():
    z, t, labels = labelled()
    p_target = t.softmax(1).gather(1, labels[:, None]).squeeze(1).detach()
    dkd = decoupled_loss(z, t, labels, temperature=4.0, alpha=1.0, beta=1 - p_target)
    assert dkd.item() != pytest.approx(response_loss(z, t, temperature=4.0).item(), rel=1e-2)


def test_dkd_is_the_papers_sum_written_as_a_loop():
    z, t, labels = labelled()
    total = 0.0
    for z_row, t_row, y in zip((z / 3).softmax(1), (t / 3).softmax(1), labels, strict=True):
        q_y, p_y = z_row[y], t_row[y]
        total += 0.7 * (p_y * (p_y / q_y).log() + (1 - p_y) * ((1 - p_y) / (1 - q_y)).log())
        for c in set(range(5)) - {int(y)}:
            p_hat, q_hat = t_row[c] / (1 - p_y), z_row[c] / (1 - q_y)
            total += 6.0 * p_hat * (p_hat / q_hat).log()
    ours = decoupled_loss(z, t, labels, temperature=3.0, alpha=0.7, beta=6.0)
    torch.testing.assert_close(ours, 9 * total / len(z), rtol=1e-10, atol=0)


def test_alpha_moves_the_target_and_beta_the_others():
    z, t, labels = labelled()
    decoupled_loss(z, t, labels, alpha=0.0, beta=1.0).backward()
    target = z.grad.gather(1, labels[:, None])
    assert target.abs().max() == 0
    z.grad = None
    decoupled_loss(z, t, labels, alpha=1.0, beta=0.0).backward()
    assert z.grad.gather(1, labels[:, None]).abs().min() > 0


def test_an_unlabelled_images_target_is_the_teachers_most_likely_class():
    z, t, labels = drawn()
    pseudo = torch.where(labels == UNLABELLED, t.argmax(1), labels)
    assert not torch.equal(pseudo, labels)
    assert torch.equal(decoupled_loss(z, t, labels), decoupled_loss(z, t, pseudo))


# all of them


@every_loss
def test_the_teacher_gets_no_gradient_and_the_student_does(loss):
    z, t, labels = drawn()
    loss(z, t, labels).backward()
    assert t.grad is None
    assert z.grad.abs().max() > 0


@every_loss
def test_one_image_is_enough(loss):
    z, t, labels = drawn(images=1)
    assert loss(z, t, labels).isfinite()


@every_loss
@pytest.mark.parametrize("size", [1e4, 0.0])
def test_extreme_and_equal_logits_give_finite_numbers_and_gradients(loss, size):
    z, t, labels = drawn(dtype=torch.float32)
    z = (z.detach() * size).requires_grad_()
    value = loss(z, -t * size, labels)
    value.backward()
    assert value.isfinite()
    assert z.grad.isfinite().all()


@every_loss
def test_logits_in_bfloat16_give_a_loss_in_float32(loss):
    z, t, labels = drawn(dtype=torch.bfloat16)
    value = loss(z, t, labels)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(z.float(), t.float(), labels))
    assert full_precision(z.double()).dtype == torch.float64


@pytest.mark.parametrize("loss", [kd_loss, decoupled_loss, lambda z, t, y, **kw: soften(z, **kw)])
@pytest.mark.parametrize("temperature", [0, -1.0, float("inf"), float("nan")])
def test_a_temperature_that_is_no_positive_number_is_refused(loss, temperature):
    with pytest.raises(CompressionError, match=r"finite number above 0, got (0|-1\.0|inf|nan); try 4, or 1"):
        loss(*drawn(), temperature=temperature)


@every_loss
def test_two_shapes_of_logits_are_refused(loss):
    z, t, labels = drawn()
    with pytest.raises(CompressionError, match=r"one shape .*got \(7, 5\) and \(7, 4\); give both the same"):
        loss(z, t[:, :4], labels)


def test_a_weight_beyond_one_is_refused():
    with pytest.raises(CompressionError, match=r"weight .*in \[0, 1\], got 9; did you mean 0.09"):
        kd_loss(*drawn(), weight=9)


@pytest.mark.parametrize("loss", [kd_loss, decoupled_loss])
def test_labels_that_are_no_class_or_too_few_are_refused(loss):
    z, t, labels = drawn()
    with pytest.raises(
        CompressionError,
        match=(
            r"classes from 0 to 4, or -1 for none, got 5; "
            r"count .* from 0"
        ),
    ):
        loss(z, t, torch.full_like(labels, 5))
    with pytest.raises(CompressionError, match=r"got \(6,\) for \(7, 5\); give one label per image"):
        loss(z, t, labels[1:])


# the warm-up of a weight


def test_a_weight_rises_in_equal_steps_to_its_full_size_and_stays():
    shares = [warm_up(step, steps=5) for step in range(1, 9)]
    assert shares == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0, 1.0])
    assert warm_up(1, steps=1) == 1.0


def test_a_rise_of_no_step_is_refused():
    text = r"^steps must be a whole number from 1 up, got 0; a twelfth of all does well$"
    with pytest.raises(CompressionError, match=text):
        warm_up(1, steps=0)
