"""A network that teaches itself: generations, its own exits, and the labels that it is sure of."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.data.images import Images
from compresslab.errors import CompressionError
from compresslab.measurement.costs import count_macs, count_parameters
from compresslab.models.residual import ResidualNetwork, baseline, mlp, student
from compresslab.techniques.distillation.online import Peers
from compresslab.techniques.distillation.response import UNLABELLED
from compresslab.techniques.distillation.self_distillation import (
    EarlyExits,
    balanced_choice,
    born_again,
    confident_labels,
    early_exit_loss,
    exit_hint_loss,
    own_teacher_loss,
)
from compresslab.training.loop import fit


def drawn(*shape, seed=0, spread=1.0):
    return spread * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def three_blocks(seed=0):
    torch.manual_seed(seed)
    return ResidualNetwork(4, [(4, 2), (6, 2), (8, 2)])


# generations


def test_each_generation_is_taught_by_the_one_before_it():
    taught_by = []

    def learn(teacher):
        taught_by.append(teacher)
        return nn.Linear(2, 2)

    first = nn.Linear(2, 2)
    line = born_again(first, learn, generations=3)
    assert len(line) == 4
    assert line[0] is first
    assert all(teacher is network for teacher, network in zip(taught_by, line, strict=False))


def test_generations_answer_together_as_peers_do():
    line = born_again(three_blocks(0), lambda teacher: three_blocks(1).eval(), generations=1)
    ensemble, images = Peers(line).eval(), torch.randn(3, 1, 28, 28)
    mean = sum(network.eval()(images).softmax(dim=1) for network in line) / 2
    torch.testing.assert_close(ensemble(images).softmax(dim=1), mean)


@pytest.mark.parametrize("generations", [0, -1, 1.5])
def test_generations_are_counted_from_one(generations):
    with pytest.raises(CompressionError, match=f"from 1 up, got {generations}; try 3"):
        born_again(nn.Linear(2, 2), lambda teacher: nn.Linear(2, 2), generations=generations)


@pytest.mark.parametrize("learn", [lambda teacher: teacher, lambda teacher: nn.Sequential(teacher)])
def test_a_student_that_is_its_teacher_is_refused(learn):
    with pytest.raises(
        CompressionError, match="learn must return a fresh student, got one that shares weights"
    ):
        born_again(nn.Linear(2, 2), learn, generations=1)


# early exits


@pytest.mark.parametrize("make", [baseline, student, three_blocks])
def test_every_block_but_the_last_has_an_exit_in_the_shape_of_the_deepest(make):
    model = EarlyExits(make()).eval()
    logits, features = model.outputs(torch.randn(2, 1, 28, 28))
    assert len(logits) == len(features) == len(model.network.blocks)
    assert {tuple(z.shape) for z in logits} == {(2, 10)}
    assert len({f.shape for f in features}) == 1


def test_the_deepest_answer_is_that_of_the_given_network():
    given, images = three_blocks().eval(), torch.randn(2, 1, 28, 28)
    model = EarlyExits(given).eval()
    logits, features = model.outputs(images)
    for answer in (logits[-1], model(images), model.network(images)):
        torch.testing.assert_close(answer, given(images))
    torch.testing.assert_close(features[-1], given.blocks(given.stem(images)))


def test_an_exit_reads_its_own_block_and_nothing_later():
    model, images = EarlyExits(three_blocks()).eval(), torch.randn(2, 1, 28, 28)
    before, _ = model.outputs(images)
    nn.init.zeros_(model.network.blocks[1].norm2.weight)  # the second block says something else
    after, _ = model.outputs(images)
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, False, False]


def test_what_is_shipped_has_no_exits_and_an_answer_does_not_compute_them():
    given = three_blocks()
    model = EarlyExits(given)
    assert model.network.state_dict().keys() == given.state_dict().keys()
    left_behind = count_parameters(model.exits) + count_parameters(model.heads)
    assert count_parameters(model) == count_parameters(given) + left_behind
    image = torch.zeros(1, 1, 28, 28)
    assert count_macs(model, image) == count_macs(given, image)


def test_the_given_network_is_left_alone():
    given = three_blocks()
    model = EarlyExits(given)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert all(
        torch.equal(tensor, three_blocks().state_dict()[name]) for name, tensor in given.state_dict().items()
    )


def test_the_loss_is_that_of_the_paper_term_by_term():
    logits, labels = [drawn(5, 3, seed=s, spread=2) for s in range(3)], torch.tensor([0, 1, 2, 0, 1])
    soft = F.softmax(logits[-1] / 3, dim=1)
    wanted = F.cross_entropy(logits[-1], labels)
    for z in logits[:-1]:
        taught = 9 * F.kl_div(F.log_softmax(z / 3, dim=1), soft, reduction="batchmean")
        wanted = wanted + 0.7 * F.cross_entropy(z, labels) + 0.3 * taught
    torch.testing.assert_close(early_exit_loss(logits, labels, temperature=3.0, weight=0.3), wanted)


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
def test_the_deepest_exit_learns_from_the_labels_alone(weight):
    logits, labels = [drawn(5, 3, seed=s).requires_grad_() for s in range(3)], torch.tensor([0, 1, 2, 0, 1])
    early_exit_loss(logits, labels, weight=weight).backward()
    alone = logits[-1].detach().requires_grad_()
    F.cross_entropy(alone, labels).backward()
    torch.testing.assert_close(logits[-1].grad, alone.grad)
    assert all(z.grad.any() for z in logits)


def test_without_labels_the_deepest_exit_still_teaches_the_others():
    logits = [drawn(5, 3, seed=s).requires_grad_() for s in range(3)]
    early_exit_loss(logits, torch.full((5,), UNLABELLED)).backward()
    assert [bool(z.grad.any()) for z in logits] == [True, True, False]


def test_features_are_drawn_to_the_deepest_which_stay_where_they_are():
    features = [drawn(2, 3, 4, 4, seed=s).requires_grad_() for s in range(3)]
    loss = exit_hint_loss(features)
    entries = features[0].numel()
    wanted = sum(((f - features[-1]) ** 2).sum() / entries for f in features[:-1])
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    assert features[-1].grad is None
    torch.testing.assert_close(features[0].grad, (2 * (features[0] - features[-1]) / entries).detach())


def test_features_in_half_precision_are_compared_in_float32():
    half = [drawn(2, 3, 4, 4, seed=s).bfloat16() for s in range(3)]
    assert exit_hint_loss(half).dtype == torch.float32
    assert torch.equal(exit_hint_loss(half), exit_hint_loss([f.float() for f in half]))


def test_the_loss_of_fit_adds_the_hint():
    model, images, labels = EarlyExits(three_blocks()).eval(), torch.randn(4, 1, 28, 28), torch.arange(4)
    logits, features = model.outputs(images)
    wanted = early_exit_loss(logits, labels, temperature=2.0, weight=0.3) + 5 * exit_hint_loss(features)
    loss = own_teacher_loss(model, images, labels, temperature=2.0, weight=0.3, hint_weight=5.0)
    torch.testing.assert_close(loss, wanted)


def test_deep_knowledge_reaches_shallow_blocks_without_any_label():
    model = EarlyExits(three_blocks()).eval()
    own_teacher_loss(model, torch.randn(4, 1, 28, 28), torch.full((4,), UNLABELLED)).backward()
    assert model.network.blocks[0].conv1.weight.grad.any()
    assert not model.network.head.weight.grad.any()
    deepest = model.network.blocks[-1].conv2.weight.grad
    assert deepest is None or not deepest.any()


def test_exits_train_with_fit_and_the_network_comes_out():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (64, 1, 28, 28), generator=generator, dtype=torch.uint8)
    images = Images(pixels, torch.arange(64) % 2)
    trained = fit(
        EarlyExits(three_blocks()), images, images, epochs=5, loss=own_teacher_loss, augmented=False
    )
    assert trained.history[-1].loss < trained.history[0].loss
    assert isinstance(trained.model.network, ResidualNetwork)


@pytest.mark.parametrize(
    ("network", "came"),
    [
        (mlp(), "a Sequential"),
        (ResidualNetwork(4, [(4, 2)]), "a ResidualNetwork of 1"),
    ],
)
def test_a_network_without_a_block_to_leave_from_is_refused(network, came):
    text = (
        f"network must be a ResidualNetwork of two or more blocks, got {came}; try compresslab.models.student"
    )
    with pytest.raises(CompressionError, match=text):
        EarlyExits(network)


def test_one_exit_alone_has_no_teacher():
    with pytest.raises(CompressionError, match="logits must have two or more exits, got 1; EarlyExits"):
        early_exit_loss([torch.zeros(2, 3)], torch.zeros(2, dtype=torch.long))
    with pytest.raises(CompressionError, match="features must have two or more exits, got 0; EarlyExits"):
        exit_hint_loss([])


def test_a_setting_out_of_range_is_refused():
    model, images, labels = EarlyExits(student()), torch.zeros(2, 1, 28, 28), torch.zeros(2, dtype=torch.long)
    with pytest.raises(CompressionError, match="weight"):
        own_teacher_loss(model, images, labels, weight=30)
    with pytest.raises(CompressionError, match="temperature"):
        own_teacher_loss(model, images, labels, temperature=0.0)
    with pytest.raises(CompressionError, match=r"hint_weight must be a number from 0 up, got -1; try 0.1"):
        own_teacher_loss(model, images, labels, hint_weight=-1)


def test_a_network_without_exits_cannot_be_its_own_teacher():
    text = r"model must be EarlyExits, got a ResidualNetwork; try EarlyExits\(student\(\)\)"
    with pytest.raises(CompressionError, match=text):
        own_teacher_loss(student(), torch.zeros(2, 1, 28, 28), torch.zeros(2, dtype=torch.long))


# pseudo-labels


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.9, 1.0])
def test_a_label_is_the_likeliest_class_where_that_is_likely_enough(threshold):
    logits = drawn(200, 4, spread=3)
    labels = confident_labels(logits, threshold=threshold)
    for z, label in zip(logits.tolist(), labels.tolist(), strict=True):
        powers = [torch.tensor(x, dtype=torch.float64).exp().item() for x in z]
        sure = max(powers) / sum(powers) >= threshold
        assert label == (powers.index(max(powers)) if sure else UNLABELLED)
    assert labels.dtype == torch.int64


def test_a_probability_at_the_threshold_is_enough():
    evens = torch.zeros(1, 2)  # both classes: exactly 0.5
    assert confident_labels(evens, threshold=0.5).tolist() == [0]


def test_a_higher_threshold_only_takes_labels_away():
    logits = drawn(300, 5, spread=2)
    found = [confident_labels(logits, threshold=t) for t in (0.0, 0.4, 0.6, 0.8, 0.99)]
    for lower, higher in itertools.pairwise(found):
        kept = higher != UNLABELLED
        assert torch.equal(lower[kept], higher[kept])
        assert kept.sum() < (lower != UNLABELLED).sum()


@pytest.mark.parametrize("threshold", [90, -0.1, float("nan")])
def test_a_threshold_is_a_probability(threshold):
    text = rf"threshold must be a fraction in \[0, 1\], got {threshold}; (try 0.9|did you mean .*\?)"
    with pytest.raises(CompressionError, match=text):
        confident_labels(torch.zeros(1, 2), threshold=threshold)


@pytest.mark.parametrize("per_class", [1, 7, 60, 500])
def test_each_class_has_the_same_number_of_images_its_surest_first(per_class):
    logits = drawn(200, 3, spread=3)
    labels = confident_labels(logits, threshold=0.6)
    chosen = balanced_choice(logits, labels, per_class=per_class)
    assert chosen.shape == (3 * per_class,)
    probability = logits.softmax(dim=1).max(dim=1).values
    for label in range(3):
        mine = chosen[labels[chosen] == label].tolist()
        available = (labels == label).nonzero().squeeze(1).tolist()
        by_confidence = sorted(available, key=lambda i: -probability[i])
        assert mine == list(itertools.islice(itertools.cycle(by_confidence), per_class))


def test_an_image_without_a_label_is_never_chosen_and_a_class_without_images_stays_away():
    labels = torch.tensor([2, UNLABELLED, 0, UNLABELLED])
    chosen = balanced_choice(drawn(4, 3), labels, per_class=3)
    assert chosen.tolist() == [2, 2, 2, 0, 0, 0]


def test_nothing_to_choose_from_is_refused():
    with pytest.raises(CompressionError, match="got UNLABELLED alone; lower the threshold"):
        balanced_choice(torch.zeros(2, 3), torch.full((2,), UNLABELLED), per_class=1)
    with pytest.raises(CompressionError, match="per_class must be a whole number from 1 up, got 0; try 1000"):
        balanced_choice(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), per_class=0)
