"""What would get thinner does, wherever it stands; what would not stays whole, and the table says why."""

import copy
import dataclasses
import re

import pytest
import torch
from torch import nn

from compresslab.errors import CompressionError
from compresslab.experiments.low_rank.runs import random_directions
from compresslab.techniques.low_rank.factorization import decide, factorization_table, factorize, thin_like
from compresslab.techniques.low_rank.layer_splits import (
    CHANNELS,
    SPLITS,
    TUCKER,
    count_weights,
    thin_layers,
    whitened,
)
from compresslab.techniques.pruning.sparse_layers import SparseLinear, store_sparsely

every_split = pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())


def network():
    """An ordinary convolution, a depthwise one, a 1 × 1, one in groups, a linear layer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(8, 12, (3, 5), stride=(1, 2), padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 12, 3, groups=12),
            nn.Conv2d(12, 8, 1, bias=False),
            nn.Conv2d(8, 8, 3, padding="same", padding_mode="reflect", groups=2),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, 10),
        ).eval()


X = torch.randn(2, 8, 9, 11, generator=torch.Generator().manual_seed(1))


def ranks_of(split):
    return {"0": (3, 2) if split is TUCKER else 2, "8": 3}


def kinds(model):
    return {name: type(layer) for name, layer in model.named_modules() if not list(layer.children())}


@every_split
def test_the_layers_with_a_rank_are_thin_and_nothing_else_has_changed(split):
    model, ranks = network(), ranks_of(split)
    result = factorize(model, ranks, split=split)
    by_hand = copy.deepcopy(model)
    for name, rank in ranks.items():
        by_hand[int(name)] = thin_layers(split, name, model[int(name)], rank)
    assert torch.equal(result(X), by_hand(X))
    assert kinds(result) == kinds(by_hand)
    assert not torch.allclose(result(X), model(X), atol=1e-4)
    assert count_weights(result) < count_weights(model)
    assert result[8][1].bias.equal(model[8].bias)


def test_without_a_split_it_is_by_channels_and_without_ranks_a_copy():
    model = network()
    assert torch.equal(factorize(model, {"0": 2})(X), factorize(model, {"0": 2}, split=CHANNELS)(X))
    copied = factorize(model, {})
    assert torch.equal(copied(X), model(X))
    assert kinds(copied) == kinds(model)
    assert not {id(p) for p in copied.parameters()} & {id(p) for p in model.parameters()}


def test_the_table_says_each_layers_weights_and_why_it_stays_whole():
    table = factorization_table(network(), {"0": (3, 2), "3": (1, 1), "4": (2, 2), "5": (4, 4)}, split=TUCKER)
    assert table.headings == ("layer", "rank", "weights before", "after", "why it stays whole")
    assert table.rows == (
        ("0", "(3, 2)", "1,440", "142", ""),
        ("3", "(1, 1)", "108", "108", "depthwise: its groups have one channel each"),
        ("4", "(2, 2)", "96", "96", "a 1 × 1 kernel has no height or width to split off"),
        ("5", "(4, 4)", "288", "288", "it would have 352 weights"),
        ("8", "", "320", "320", "no rank is given"),
        ("all layers", "", "2,252", "954", ""),
    )
    assert table.note == "Tucker; weights of Conv2d and Linear layers, without biases."


@every_split
def test_the_weights_of_the_table_are_those_of_the_factorized_network(split):
    model, ranks = network(), {**ranks_of(split), "5": (1, 2) if split is TUCKER else 1}
    norms = sum(p.numel() for p in model[1].parameters() if p.dim() > 1)
    decisions = decide(model, ranks, split=split)
    assert sum(d.weights_before for d in decisions) == count_weights(model) - norms
    assert sum(d.weights_after for d in decisions) == count_weights(factorize(model, ranks, split=split))
    assert [d.name for d in decisions] == ["0", "3", "4", "5", "8"]
    assert [d.reason for d in decisions if d.name in ranks] == ["", "", ""]


@every_split
def test_a_depthwise_convolution_is_left_alone_and_a_decision_says_so(split):
    model = network()
    rank = (1, 1) if split is TUCKER else 1
    assert type(factorize(model, {"3": rank}, split=split)[3]) is nn.Conv2d
    (decision,) = (d for d in decide(model, {"3": rank}, split=split) if d.name == "3")
    assert (decision.reason, decision.rank) == ("depthwise: its groups have one channel each", rank)
    with pytest.raises(dataclasses.FrozenInstanceError):
        decision.rank = 2


def test_exactly_at_break_even_nothing_is_saved_and_the_layer_stays_whole():
    """A Linear of 6 by 3 has 18 weights, two thin ones of rank 2 have 2 (6 + 3)."""
    model = nn.Sequential(nn.Linear(6, 3))
    reasons = {rank: decide(model, {"0": rank})[0].reason for rank in (1, 2, 3)}
    assert reasons == {1: "", 2: "it would have 18 weights", 3: "it would have 27 weights"}
    assert [type(factorize(model, {"0": rank})[0]) for rank in (1, 2)] == [nn.Sequential, nn.Linear]
    convolution = nn.Sequential(nn.Conv2d(2, 9, 3))  # (9, 18): 162 weights, 27 a rank
    assert [d.reason for rank in (5, 6) for d in decide(convolution, {"0": rank})] == [
        "",
        "it would have 162 weights",
    ]


@every_split
def test_a_model_that_is_one_layer_becomes_the_thin_ones(split):
    for layer, rank, x in (
        (nn.Conv2d(8, 12, 3), ranks_of(split)["0"], X),
        (nn.Linear(11, 9), 2, X),
    ):
        thin = factorize(layer, {"": rank}, split=split)
        assert isinstance(thin, nn.Sequential)
        assert torch.equal(thin(x), thin_layers(split, "", layer, rank)(x))


class Twice(nn.Module):
    """One layer in two places, and a block in two places with a layer in it."""

    def __init__(self):
        super().__init__()
        self.a = self.b = nn.Linear(8, 8)
        self.block = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.again = self.block

    def forward(self, x):
        return self.again(self.block(self.b(self.a(x).tanh())))


def test_what_is_shared_stays_shared():
    model, x = Twice(), torch.randn(3, 8)
    result = factorize(model, {"a": 2, "block.0": 3})
    assert result.a is result.b
    assert result.again is result.block
    assert isinstance(result.a, nn.Sequential)
    assert isinstance(result.again[0], nn.Sequential)
    a, b = (thin_layers(CHANNELS, "", layer, rank) for layer, rank in ((model.a, 2), (model.block[0], 3)))
    torch.testing.assert_close(result(x), b(b(a(a(x).tanh())).tanh()).tanh())
    assert [d.name for d in decide(model, {})] == ["a", "block.0"]


def test_a_layer_of_another_kind_is_left_alone_with_a_reason():
    model = store_sparsely(network())
    result = factorize(model, {"0": 2, "8": 2})
    assert isinstance(result[8], SparseLinear)
    assert torch.equal(result(X), model(X))
    reasons = {d.name: d.reason for d in decide(model, {"0": 2, "8": 2})}
    assert reasons["0"] == "a SparseConv2d computes otherwise"
    assert reasons["8"] == "a SparseLinear computes otherwise"


@pytest.mark.parametrize("training", [True, False])
def test_mode_and_what_is_trained_are_kept(training):
    model = network().train(training)
    model[0].requires_grad_(False)
    result = factorize(model, {"0": 2, "8": 2})
    assert {module.training for module in result.modules()} == {training}
    still = {name for name, p in result.named_parameters() if not p.requires_grad}
    assert still == {"0.0.weight", "0.1.weight", "0.1.bias"}


@every_split
def test_a_network_to_load_into_has_the_structure_and_zeros_and_decomposes_nothing(split):
    def never(*given):
        raise AssertionError

    model, ranks = network(), ranks_of(split)
    blind = dataclasses.replace(split, kernels=never, matrices=never)
    empty, full = thin_like(model, ranks, split=blind), factorize(model, ranks, split=split)
    assert all(not p.any() for place in (0, 8) for p in empty[place].parameters())
    assert [n for n, _ in empty.named_modules()] == [n for n, _ in full.named_modules()]
    empty.load_state_dict(full.state_dict())
    assert torch.equal(empty(X), full(X))


def test_a_factorized_network_can_be_factorized_again():
    model = network()
    once = factorize(model, {"0": 6})
    again = factorize(once, {"0.0": 2, "8": 2})
    assert type(again[0][0]) is nn.Sequential
    assert count_weights(again) < count_weights(once) < count_weights(model)
    assert again(X).shape == model(X).shape


@pytest.mark.parametrize("apply", [factorize, thin_like, decide, factorization_table])
@pytest.mark.parametrize(
    ("model", "ranks", "says"),
    [
        (
            nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)),
            {"1": 1},
            "ranks must name layers of the model (0, 2), got '1'; leave it out",
        ),
        (
            nn.Sequential(nn.Linear(4, 3)),
            {"0": 4},
            "rank must be a whole number from 1 to 3 for channel split of this Linear, got 4; "
            "ranks_for_weights(model, share=0.5) finds ranks that save",
        ),
        (
            nn.ReLU(),
            {},
            "model must have a Conv2d or Linear layer, got ReLU without any; give the whole network",
        ),
    ],
)
def test_errors_say_what_came_and_what_to_try(apply, model, ranks, says):
    with pytest.raises(CompressionError, match=f"^{re.escape(says)}$"):
        apply(model, ranks)


@pytest.mark.parametrize("split", [whitened({}), random_directions(0)], ids=repr)
def test_a_layer_in_groups_stays_whole_where_the_split_knows_of_whole_inputs_only(split):
    grouped = nn.Sequential(nn.Conv2d(8, 8, 3, groups=2))
    assert decide(grouped, {"0": 1}, split=split)[0].reason.startswith("in groups")
    assert isinstance(factorize(grouped, {"0": 1}, split=split)[0], nn.Conv2d)
