"""Peers: who is taught by whom, by how much, and whose weights feel it; torch's kl_div is the oracle."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.data.images import Images
from compresslab.errors import CompressionError
from compresslab.models.residual import ResidualNetwork, student
from compresslab.techniques.distillation.online import (
    Peers,
    ensemble_logits,
    ensemble_losses,
    mutual_loss,
    peer_losses,
)
from compresslab.techniques.distillation.response import UNLABELLED
from compresslab.training.loop import fit

both_lessons = pytest.mark.parametrize("lessons", [peer_losses, ensemble_losses])


def drawn(peers, *, n=6, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [3 * torch.randn(n, classes, generator=generator, dtype=torch.float64) for _ in range(peers)]


def network(seed, *, width=4):
    torch.manual_seed(seed)
    return ResidualNetwork(width, [(width, 4), (2 * width, 2)])


def divergence(theirs, mine, temperature):
    """T² · KL(theirs ‖ mine), softened, from torch."""
    soft = F.softmax(theirs / temperature, dim=1)
    return temperature**2 * F.kl_div(F.log_softmax(mine / temperature, dim=1), soft, reduction="batchmean")


@pytest.mark.parametrize("peers", [2, 3, 5])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_peers_loss_is_the_mean_over_the_others_of_torchs_divergence(peers, temperature):
    logits = drawn(peers)
    losses = peer_losses(logits, temperature=temperature)
    assert losses.shape == (peers,)
    for k, mine in enumerate(logits):
        terms = [divergence(z, mine, temperature) for j, z in enumerate(logits) if j != k]
        torch.testing.assert_close(losses[k], sum(terms) / (peers - 1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_an_ensembles_lesson_is_the_divergence_from_the_mean_of_the_others(temperature):
    logits = drawn(3)
    soft = [F.softmax(z / temperature, dim=1) for z in logits]
    losses = ensemble_losses(logits, temperature=temperature)
    for k, mine in enumerate(logits):
        mean = sum(p for j, p in enumerate(soft) if j != k) / 2
        log_q = F.log_softmax(mine / temperature, dim=1)
        wanted = temperature**2 * F.kl_div(log_q, mean, reduction="batchmean")
        torch.testing.assert_close(losses[k], wanted, rtol=1e-9, atol=1e-12)


@both_lessons
def test_peers_that_agree_teach_nothing(lessons):
    same = drawn(1)[0]
    shifted = same + 5  # the same probabilities
    torch.testing.assert_close(lessons([same, same, shifted]), torch.zeros(3, dtype=torch.float64))


def test_two_peers_have_the_same_lesson_either_way():
    logits = drawn(2)
    torch.testing.assert_close(ensemble_losses(logits, temperature=2.0), peer_losses(logits, temperature=2.0))


def test_one_teacher_who_is_the_mean_never_asks_more_than_the_mean_of_many():  # KL is convex
    for seed in range(20):
        logits = drawn(4, seed=seed)
        assert (ensemble_losses(logits) < peer_losses(logits)).all()


@both_lessons
@pytest.mark.parametrize("peers", [2, 3])
def test_the_gradient_of_a_peers_loss_reaches_that_peers_logits_alone(lessons, peers):
    logits = [z.requires_grad_() for z in drawn(peers)]
    losses = lessons(logits)
    for k in range(peers):
        gradients = torch.autograd.grad(
            losses[k], logits, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        assert [bool(gradient.any()) for gradient in gradients] == [j == k for j in range(peers)]


def test_the_gradient_of_two_peers_is_the_difference_of_their_probabilities():
    one, other = (z.requires_grad_() for z in drawn(2))
    peer_losses([one, other]).sum().backward()
    difference = (one.softmax(dim=1) - other.softmax(dim=1)) / len(
        one
    )  # of KL(other ‖ one), other held fixed
    torch.testing.assert_close(one.grad, difference.detach())
    torch.testing.assert_close(other.grad, -difference.detach())


def test_the_ensembles_probabilities_are_the_mean_of_its_members():
    logits = drawn(3)
    mean = sum(z.softmax(dim=1) for z in logits) / 3
    torch.testing.assert_close(ensemble_logits(logits).softmax(dim=1), mean)
    torch.testing.assert_close(ensemble_logits(logits).exp().sum(dim=1), torch.ones(6, dtype=torch.float64))


def test_the_ensemble_of_answers_in_half_precision_is_taken_in_float32():
    half = [z.bfloat16() for z in drawn(3)]
    assert ensemble_logits(half).dtype == torch.float32
    assert torch.equal(ensemble_logits(half), ensemble_logits([z.float() for z in half]))


def test_peers_may_be_different_networks_and_answer_as_their_ensemble():
    peers = Peers([network(0), network(1, width=8)]).eval()
    images = torch.randn(3, 1, 28, 28)
    answers = peers.outputs(images)
    assert [tuple(z.shape) for z in answers] == 2 * [(3, 10)]
    torch.testing.assert_close(peers(images), ensemble_logits(answers))
    torch.testing.assert_close(answers[1], peers.students[1](images))


def test_the_given_students_are_left_alone():
    given = network(0)
    before = {name: tensor.clone() for name, tensor in given.state_dict().items()}
    peers = Peers([given, network(1)])
    peers.train()(torch.randn(4, 1, 28, 28))
    with torch.no_grad():
        for parameter in peers.parameters():
            parameter.add_(1)
    assert all(torch.equal(before[name], tensor) for name, tensor in given.state_dict().items())


@both_lessons
def test_the_loss_of_fit_is_what_the_labels_and_the_peers_say(lessons):
    peers = Peers([network(0), network(1), network(2)]).eval()
    images, labels = torch.randn(5, 1, 28, 28), torch.tensor([0, 1, 2, 3, 4])
    logits = peers.outputs(images)
    wanted = sum(F.cross_entropy(z, labels) for z in logits) + lessons(logits, temperature=2.0).sum()
    torch.testing.assert_close(mutual_loss(peers, images, labels, temperature=2.0, lessons=lessons), wanted)


def test_where_no_label_is_known_the_peers_teach_each_other_all_the_same():
    peers = Peers([network(0), network(1)]).eval()
    images, unknown = torch.randn(5, 1, 28, 28), torch.full((5,), UNLABELLED)
    loss = mutual_loss(peers, images, unknown)
    torch.testing.assert_close(loss, peer_losses(peers.outputs(images)).sum())
    loss.backward()
    assert all(each.head.weight.grad.any() for each in peers.students)


def test_a_peer_of_a_sum_learns_as_it_would_from_its_own_loss_alone():
    peers = Peers([network(0), network(1)]).eval()
    images, labels = torch.randn(5, 1, 28, 28), torch.arange(5)
    mutual_loss(peers, images, labels).backward()
    one, other = peers.students
    alone = F.cross_entropy(one(images), labels) + divergence(other(images).detach(), one(images), 1.0)
    (wanted,) = torch.autograd.grad(alone, [one.head.weight])
    torch.testing.assert_close(one.head.weight.grad, wanted)


@both_lessons
def test_learning_together_makes_peers_agree(lessons):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (64, 1, 28, 28), generator=generator, dtype=torch.uint8)
    images = Images(pixels, torch.full((64,), UNLABELLED))
    peers = Peers([network(0), network(1)])

    def loss(model, images, labels):
        return mutual_loss(model, images, labels, lessons=lessons)

    history = fit(peers, images, images, epochs=6, loss=loss, augmented=False).history
    assert history[-1].loss < 0.5 * history[0].loss


def test_equal_peers_would_always_agree_and_are_refused():
    text = (
        "students must start from different weights, got the same in 0 and 2, which then "
        "would always agree; build"
    )
    with pytest.raises(CompressionError, match=text):
        Peers([network(0), network(1), network(0)])
    with pytest.raises(CompressionError, match="the same in 0 and 1"):
        Peers([student()] * 2)


def test_a_lone_peer_is_refused():
    with pytest.raises(
        CompressionError, match="students must be two or more, got 1; a lone student is fit's"
    ):
        Peers([student()])


@both_lessons
@pytest.mark.parametrize(
    ("shapes", "came"),
    [
        ([(2, 3)], r"\[\(2, 3\)\]"),
        ([(2, 3), (2, 4)], r"\[\(2, 3\), \(2, 4\)\]"),
        ([(3,), (3,)], r"\[\(3,\), \(3,\)\]"),
        ([], r"\[\]"),
    ],
)
def test_logits_that_do_not_belong_together_are_refused(lessons, shapes, came):
    text = rf"logits must be 2 or more tensors of one shape \(n, classes\), got {came}; Peers"
    with pytest.raises(CompressionError, match=text):
        lessons([torch.zeros(shape) for shape in shapes])


def test_an_ensemble_of_nobody_is_refused():
    with pytest.raises(CompressionError, match="logits must be 1 or more tensors"):
        ensemble_logits([])


@both_lessons
def test_a_temperature_out_of_range_is_refused(lessons):
    with pytest.raises(CompressionError, match="temperature"):
        lessons(drawn(2), temperature=-1.0)


def test_another_network_cannot_learn_as_peers():
    text = r"peers must be Peers, got a Sequential; try Peers\(\[a, b\]\)"
    with pytest.raises(CompressionError, match=text):
        mutual_loss(nn.Sequential(), torch.zeros(1, 1, 28, 28), torch.zeros(1, dtype=torch.long))
