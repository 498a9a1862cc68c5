"""A transformer taught from the inside: what is shipped, what each way adds, who is left alone."""

import copy
import functools

import pytest
import torch

from compresslab.data.images import Images, Splits
from compresslab.experiments.distillation.setting import few_labels
from compresslab.experiments.distillation.transformer import (
    deep_transformer,
    learn_inside,
    shallow_transformer,
)

WAYS = {"response": True, "tinybert": False}  # by answers alone?


@functools.cache
def setting():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (192, 1, 28, 28), generator=generator, dtype=torch.uint8)
    images = Images(pixels, torch.arange(192) % 10)
    data = Splits(images, images.first(20), None)
    return few_labels(data, labelled=64, unlabelled=128, views=(2, 1), passes=1, learning_rate=0.05)


@functools.cache
def grown(seed=9):
    torch.manual_seed(seed)
    return deep_transformer().eval()


@functools.cache
def run(method, seed=0):
    return learn_inside(setting(), grown(), answers_alone=WAYS[method], seed=seed)


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("method", WAYS)
def test_what_is_shipped_is_the_small_transformer_and_nothing_else(method):
    network = run(method).network
    plain = shallow_transformer().state_dict()
    assert {n: t.shape for n, t in network.state_dict().items()} == {n: t.shape for n, t in plain.items()}
    assert network(setting().validation.inputs()).shape == (20, 10)


@pytest.mark.parametrize("method", WAYS)
def test_a_seed_gives_the_same_student_again_and_another_seed_another(method):
    again = learn_inside(setting(), grown(), answers_alone=WAYS[method], seed=0).network
    assert equal(run(method).network, again)
    assert not equal(run(method, seed=1).network, again)


def test_what_is_inside_teaches_something_else_than_the_answers():
    assert not equal(run("response").network, run("tinybert").network)


def test_another_teacher_makes_another_student():
    other = learn_inside(setting(), grown(5), answers_alone=True, seed=0).network
    assert not equal(run("response").network, other)


def test_the_teacher_is_left_alone():
    teacher = copy.deepcopy(grown()).train()
    learn_inside(setting(), teacher, answers_alone=False, seed=0)
    assert teacher.training
    assert equal(teacher, grown())
    assert all(p.grad is None for p in teacher.parameters())


def test_the_projections_weights_are_reported_where_it_was_used():
    assert run("tinybert").details == {"projection_parameters": 2 * 32 * 64}
    assert run("response").details == {}


def test_the_teacher_is_deeper_and_wider_and_has_as_many_heads():
    deep, shallow = deep_transformer(), shallow_transformer()
    assert len(deep.blocks) % len(shallow.blocks) == 0
    assert len(deep.blocks) > len(shallow.blocks)
    assert [block.attention.heads for block in (deep.blocks[0], shallow.blocks[0])] == [4, 4]
    assert deep.head.in_features > shallow.head.in_features
