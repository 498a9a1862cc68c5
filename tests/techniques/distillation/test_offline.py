"""A fixed teacher: its knowledge is what it says of each view, and only the student learns and is shipped."""

import copy

import pytest
import torch
from torch import nn

from compresslab.data.images import Images, normalize
from compresslab.errors import CompressionError
from compresslab.models.residual import ResidualNetwork
from compresslab.storage import load_model, save_model
from compresslab.techniques.distillation.feature import Regressor, attention_map
from compresslab.techniques.distillation.offline import (
    Knowledge,
    Pupil,
    distill,
    draw_views,
    know,
    numbered,
    without_labels,
)
from compresslab.techniques.distillation.response import UNLABELLED, response_loss
from compresslab.training.loop import BATCH_SIZE


def network(seed, *, width=4):
    torch.manual_seed(seed)
    return ResidualNetwork(width, [(width, 4), (2 * width, 2)])


def drawn(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, 1, 28, 28), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(n) % 10)


def state(model):
    return copy.deepcopy(model.state_dict())


def same(before, model):
    now = model.state_dict()
    return before.keys() == now.keys() and all(torch.equal(before[name], now[name]) for name in now)


# -- what the teacher knows ------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_the_teacher_is_left_alone(training):
    teacher = network(0).train(training)
    before, modes = state(teacher), [(m, m.training) for m in teacher.modules()]
    know(teacher, drawn(3), attention=["blocks.0"], features=["blocks.1"])
    assert same(before, teacher)
    assert [(m, m.training) for m in teacher.modules()] == modes
    assert all(p.grad is None and p.requires_grad for p in teacher.parameters())
    assert not any(m._forward_hooks for m in teacher.modules())


def test_what_it_knows_of_a_view_is_what_it_answers_when_asked_alone():
    teacher, images = network(0).eval(), drawn(503)  # two batches
    found = know(teacher, images, attention=["blocks.0", "blocks.1"], features=["blocks.0"])
    for number in (0, 1, 499, 500, 502):
        x = images.inputs()[number : number + 1]
        first = teacher.blocks[0](teacher.stem(x))
        second = teacher.blocks[1](first)
        for wanted, kept in (
            (teacher(x), found.logits),
            (teacher.pool(second), found.embeddings),
            (attention_map(first), found.attention["blocks.0"]),
            (first, found.features["blocks.0"]),
            (attention_map(second), found.attention["blocks.1"]),
        ):
            torch.testing.assert_close(kept[number : number + 1], wanted, rtol=1e-4, atol=1e-5)
    assert [len(kept) for kept in (found.logits, found.embeddings)] == [503, 503]
    assert (list(found.attention), list(found.features)) == (["blocks.0", "blocks.1"], ["blocks.0"])


def test_a_layer_may_give_its_attention_and_its_features():
    found = know(network(0), drawn(3), attention=["blocks.1"], features=["blocks.1"])
    torch.testing.assert_close(attention_map(found.features["blocks.1"]), found.attention["blocks.1"])


def test_knowledge_has_no_gradient_and_may_be_learned_from():
    found = know(network(0), drawn(4), features=["blocks.1"])
    assert not any(t.requires_grad for t in (found.logits, found.embeddings, *found.features.values()))
    logits = torch.zeros(4, 10, requires_grad=True)
    response_loss(logits, found.logits).backward()  # tensors of inference mode would refuse
    assert logits.grad.any()


def test_the_labels_are_not_read():
    images = drawn(5)
    assert torch.equal(know(network(0), images).logits, know(network(0), without_labels(images)).logits)


def test_another_layer_may_be_the_embedding():
    images, teacher = drawn(5), nn.Sequential(nn.Flatten(), nn.Linear(784, 6), nn.ReLU(), nn.Linear(6, 10))
    found = know(teacher, images, embedding="2")
    torch.testing.assert_close(found.embeddings, teacher[:3](images.inputs()))


def test_in_bfloat16_features_take_half_and_the_rest_stays_in_full():
    found = know(
        network(0), drawn(3), attention=["blocks.1"], features=["blocks.1"], precision=torch.bfloat16
    )
    plain = know(network(0), drawn(3), attention=["blocks.1"], features=["blocks.1"])
    assert found.features["blocks.1"].dtype == torch.bfloat16
    assert found.logits.dtype == found.embeddings.dtype == found.attention["blocks.1"].dtype == torch.float32
    torch.testing.assert_close(found.logits, plain.logits, rtol=0.05, atol=0.05)


def test_the_bytes_of_knowledge_are_those_of_its_tensors():
    halves = {"b": torch.zeros(3, 2, 5, 5, dtype=torch.bfloat16)}
    knowledge = Knowledge(torch.zeros(3, 10), torch.zeros(3, 8), {"a": torch.zeros(3, 49)}, halves)
    assert knowledge.storage_bytes == 4 * 3 * (10 + 8 + 49) + 2 * 3 * 2 * 5 * 5
    assert Knowledge(torch.zeros(3, 10), torch.zeros(3, 8)).storage_bytes == 4 * 3 * 18


# -- views -----------------------------------------------------------------------------------------------


def test_views_repeat_the_labels_in_order_and_differ_each_time():
    images = drawn(7)
    views = draw_views(images, 3, seed=0)
    assert views.labels.tolist() == 3 * images.labels.tolist()
    rounds = views.pixels.reshape(3, 7, 1, 28, 28)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (rounds[a] != rounds[b]).flatten(1).any(dim=1).all()


def test_a_view_is_of_the_image_in_its_place():
    pixels = (
        torch.arange(0, 250, 25, dtype=torch.uint8).reshape(10, 1, 1, 1).repeat(1, 1, 28, 28)
    )  # plain greys
    views = draw_views(Images(pixels, torch.arange(10)), 4, seed=0)
    middle = views.pixels[:, 0, 2:26, 2:26].flatten(1)  # a shift brings black to the edges at most
    assert torch.equal(middle.mode(dim=1).values, pixels[:, 0, 0, 0].repeat(4))  # and noise to less than half


def test_views_come_again_from_their_seed_and_the_images_stay():
    images = drawn(7)
    before = images.pixels.clone()
    first, again, other = (draw_views(images, 2, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.pixels, again.pixels)
    assert not torch.equal(first.pixels, other.pixels)
    assert torch.equal(images.pixels, before)


@pytest.mark.parametrize("count", [0, -1])
def test_fewer_than_one_view_is_refused(count):
    text = f"^count must be a whole number from 1 up, got {count}; 4 views an image do well$"
    with pytest.raises(CompressionError, match=text):
        draw_views(drawn(2), count, seed=0)


def test_labels_are_forgotten_or_become_numbers_and_the_images_keep_theirs():
    images = drawn(12)
    assert without_labels(images).labels.tolist() == [UNLABELLED] * 12
    assert numbered(images).labels.tolist() == list(range(12))
    assert without_labels(images).labels.dtype == numbered(images).labels.dtype == torch.int64
    assert images.labels.tolist() == [n % 10 for n in range(12)]
    assert torch.equal(without_labels(images).pixels, images.pixels)
    assert torch.equal(numbered(images).pixels, images.pixels)


# -- teaching --------------------------------------------------------------------------------------------


def a_lesson(views, knowledge):
    """Of the teacher's logits, and of the companion where there is one that has weights."""

    def teach(pupil, images, index):
        loss = response_loss(pupil(images), knowledge.logits[index])
        return loss + sum(p.square().sum() for p in pupil.companion.parameters())

    return teach


@pytest.fixture
def taught():
    views = draw_views(drawn(150), 2, seed=0)  # three steps an epoch: the very first is of rate 0
    knowledge = know(network(9, width=8), views)
    pupil = Pupil(network(0), Regressor(8, 16))
    before = state(pupil)
    trained = distill(pupil, views, drawn(20, 1), a_lesson(views, knowledge), epochs=2, seed=0)
    return pupil, before, trained


def test_the_given_pupil_is_left_alone_and_shares_nothing_with_the_result(taught):
    pupil, before, trained = taught
    assert same(before, pupil)
    assert all(module.training for module in pupil.modules())
    assert all(p.grad is None for p in pupil.parameters())
    given = {t.untyped_storage().data_ptr() for t in (*pupil.parameters(), *pupil.buffers())}
    result = {t.untyped_storage().data_ptr() for t in (*trained.model.parameters(), *trained.model.buffers())}
    assert not given & result


def test_what_comes_back_is_the_student_without_its_companion(taught):
    pupil, before, trained = taught
    assert type(trained.model) is ResidualNetwork
    assert trained.model.state_dict().keys() == pupil.student.state_dict().keys()
    assert not trained.model.training
    assert len(trained.history) == 2
    weights = {f"student.{name}": p for name, p in trained.model.named_parameters()}
    assert not any(torch.equal(before[name], p) for name, p in weights.items() if name.endswith("weight"))


def test_the_result_goes_to_a_file_and_comes_back_with_the_same_outputs(taught, tmp_path):
    student = taught[2].model
    save_model(student, tmp_path / "student.safetensors")
    back = load_model(tmp_path / "student.safetensors", into=network(5)).eval()
    x = drawn(3).inputs()
    with torch.no_grad():
        assert torch.equal(back(x), student(x))
        assert student(x).shape == (3, 10)


def test_each_view_comes_with_its_own_number_once_an_epoch():
    views, seen = drawn(BATCH_SIZE + 9), []

    def teach(pupil, images, index):
        assert pupil.training
        assert torch.equal(images, normalize(views.pixels[index]))
        seen.append(index)
        return pupil(images).square().mean()

    distill(Pupil(network(0)), views, drawn(5), teach, epochs=2)
    assert [len(index) for index in seen] == [BATCH_SIZE, 9] * 2
    for epoch in (seen[:2], seen[2:]):
        assert torch.cat(epoch).sort().values.tolist() == list(range(len(views)))


def test_a_student_comes_to_say_what_its_teacher_says():
    views = draw_views(drawn(128), 2, seed=0)
    knowledge = know(network(9, width=8), views)
    lesson = a_lesson(views, knowledge)
    trained = distill(Pupil(network(0)), views, drawn(20, 1), lesson, epochs=8, learning_rate=0.05)
    assert trained.history[-1].loss < 0.5 * trained.history[0].loss


def test_a_pupil_answers_as_its_student():
    student, x = network(0).eval(), drawn(3).inputs()
    assert torch.equal(Pupil(student)(x), student(x))
    assert Pupil(student).student is student


def test_a_teacher_without_the_named_layer_is_refused_and_left_in_its_mode():
    teacher = network(0).train()
    with pytest.raises(CompressionError, match=r"^layers must name .* \(.*\), got 'blocks\.7'"):
        know(teacher, drawn(2), features=["blocks.7"])
    assert teacher.training
