"""A low-rank update: nothing at first, only it learns, and merged it leaves an ordinary network."""

import copy
import re

import pytest
import torch
from torch import nn

from compresslab.data.images import Images
from compresslab.errors import CompressionError
from compresslab.techniques.low_rank.lora import UpdatedLinear, add_updates, merge_updates
from compresslab.training.loop import fit


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 2, 5, stride=4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(72, 16),
            nn.Tanh(),
            nn.Linear(16, 10, bias=False),
        ).eval()


def images(n=40):
    chance = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, 1, 28, 28), dtype=torch.uint8, generator=chance)
    return Images(pixels, torch.arange(n) % 10)


X = images().inputs()


def adapted(model, *, rank=3, seed=0, **settings):
    return add_updates(model, rank=rank, generator=torch.Generator().manual_seed(seed), **settings)


def moved(model, *, seed=1):
    """The updates somewhere else than at the start."""
    model, chance = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if name.endswith((".a", ".b")):
            p.data = torch.randn(p.shape, generator=chance)
    return model


def test_at_first_the_network_answers_as_before():
    model = network()
    assert torch.equal(adapted(model)(X), model(X))
    assert torch.equal(merge_updates(adapted(model))(X), model(X))


def test_only_the_updates_are_trained_and_they_are_few():
    result = adapted(network())
    trained = {name: tuple(p.shape) for name, p in result.named_parameters() if p.requires_grad}
    assert trained == {"3.a": (3, 72), "3.b": (16, 3), "5.a": (3, 16), "5.b": (10, 3)}


@pytest.mark.parametrize("alpha", [1.0, 6])
def test_the_update_is_b_a_scaled_by_alpha_over_the_rank(alpha):
    result = moved(adapted(network(), alpha=alpha))
    merged = merge_updates(result)
    for place in (3, 5):
        update, w = result[place], network()[place].weight
        wanted = w.double() + alpha / 3 * update.b.double() @ update.a.double()
        torch.testing.assert_close(merged[place].weight.double(), wanted, rtol=0, atol=1e-5)
        assert torch.linalg.matrix_rank((merged[place].weight - w).double(), rtol=1e-4) == 3


def test_merging_leaves_the_function_and_an_ordinary_network_that_is_trained_as_a_whole():
    result = moved(adapted(network()))
    merged = merge_updates(result)
    torch.testing.assert_close(merged(X), result(X), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(merged(X), network()(X), atol=0.1)
    assert [type(m) for m in merged.modules()] == [type(m) for m in network().modules()]
    assert all(p.requires_grad for p in merged.parameters())
    assert merged.state_dict().keys() == network().state_dict().keys()


def test_training_changes_the_updates_and_nothing_else_and_then_they_merge():
    start = adapted(network(), alpha=30)
    trained = fit(start, images(300), images(), epochs=1, learning_rate=0.3, augmented=False).model
    changed = {
        name for name, p in trained.named_parameters() if not torch.equal(p, start.get_parameter(name))
    }
    assert changed == {"3.a", "3.b", "5.a", "5.b"}
    torch.testing.assert_close(merge_updates(trained)(X), trained(X), rtol=0, atol=1e-5)
    assert not torch.allclose(trained(X), start(X), atol=1e-3)


def test_a_rank_above_a_layers_is_the_layers():
    result = adapted(network(), rank=12, alpha=12)
    assert [tuple(result[place].a.shape) for place in (3, 5)] == [(12, 72), (10, 16)]
    torch.testing.assert_close(merge_updates(moved(result))(X), moved(result)(X), rtol=1e-4, atol=1e-4)


def test_the_first_a_comes_from_the_generator_and_lies_within_its_bound():
    a = adapted(network())[3].a
    assert torch.equal(a, adapted(network())[3].a)
    assert not torch.equal(a, adapted(network(), seed=1)[3].a)
    bound = 72**-0.5
    assert 0.9 * bound < a.abs().max() <= bound
    assert abs(float(a.detach().mean())) < 0.1 * bound


class Kept(nn.Linear):
    """A layer of another kind."""


class Twice(nn.Module):
    """One layer in two places, in a block in two places, and one of another kind."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        self.again, self.layer, self.other = self.block, self.block[0], Kept(4, 4)

    def forward(self, x):
        return self.other(self.layer(self.again(self.block(x))))


def test_what_is_shared_stays_shared_and_another_kind_is_left_alone():
    model, x = Twice(), torch.randn(3, 4)
    result = moved(adapted(model))
    merged = merge_updates(result)
    for changed, kind in ((result, UpdatedLinear), (merged, nn.Linear)):
        assert changed.block is changed.again
        assert changed.layer is changed.block[0]
        assert (type(changed.layer), type(changed.other)) == (kind, Kept)
    torch.testing.assert_close(merged(x), result(x), rtol=1e-4, atol=1e-4)


def test_a_model_that_is_one_layer_is_adapted_and_works_on_tokens():
    layer, x = nn.Linear(6, 4), torch.randn(2, 5, 6)
    result = moved(adapted(layer))
    assert torch.equal(adapted(layer)(x), layer(x))
    torch.testing.assert_close(merge_updates(result)(x), result(x), rtol=1e-4, atol=1e-4)


def test_updates_of_updates_merge_too_and_the_first_ones_are_frozen():
    once = moved(adapted(network()))
    both = moved(adapted(once, rank=2), seed=2)
    assert torch.equal(adapted(once, rank=2)(X), once(X))
    merged = merge_updates(both)
    assert [type(m) for m in merged.modules()] == [type(m) for m in network().modules()]
    torch.testing.assert_close(merged(X), both(X), rtol=1e-4, atol=1e-4)
    trained = [tuple(p.shape) for p in both.parameters() if p.requires_grad]
    assert trained == [(2, 72), (16, 2), (2, 16), (10, 2)]


@pytest.mark.parametrize("training", [True, False])
def test_the_given_models_are_left_alone_and_nothing_is_shared(training):
    model = network().train(training)
    for apply, given in ((adapted, model), (merge_updates, moved(adapted(model)))):
        before = {name: (p.clone(), p.requires_grad) for name, p in given.named_parameters()}
        result = apply(given)
        assert {module.training for module in (*result.modules(), *given.modules())} == {training}
        for p in result.parameters():
            p.data.fill_(7)
        for name, p in given.named_parameters():
            assert torch.equal(p, before[name][0])
            assert p.requires_grad == before[name][1]


def test_updates_have_the_layers_type():
    result = adapted(network().double())
    assert {p.dtype for p in result.parameters()} == {torch.float64}
    assert result(X.double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("refused", "says"),
    [
        (
            lambda: adapted(network(), rank=0),
            "rank must be a whole number from 1 up, got 0; LoRA often takes 4 or 8",
        ),
        (
            lambda: adapted(network(), rank=0.5),
            "rank must be a whole number from 1 up, got 0.5; LoRA often takes 4 or 8",
        ),
        (
            lambda: adapted(network(), rank=True),
            "rank must be a whole number from 1 up, got True; LoRA often takes 4 or 8",
        ),
        (
            lambda: adapted(network(), alpha=0),
            "alpha must be a positive number, got 0; the same as rank makes a scale of 1",
        ),
        (
            lambda: adapted(network(), alpha=float("inf")),
            "alpha must be a positive number, got inf; the same as rank makes a scale of 1",
        ),
        (
            lambda: adapted(nn.Conv2d(1, 2, 3)),
            "model must have a Linear layer to adapt, got Conv2d without any; give the whole network",
        ),
        (
            lambda: merge_updates(network()),
            "model must have updates to merge, as add_updates makes them, got Sequential without any; "
            "give the whole network",
        ),
    ],
)
def test_errors_say_what_came_and_what_to_try(refused, says):
    with pytest.raises(CompressionError, match=f"^{re.escape(says)}$"):
        refused()
