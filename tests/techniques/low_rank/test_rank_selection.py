"""Ranks that pay, ranks that keep, ranks that fit a budget: brute force says which they are."""

import copy
import itertools
import re

import pytest
import torch
from torch import nn

from compresslab.errors import CompressionError
from compresslab.measurement.costs import count_macs
from compresslab.techniques.low_rank.factorization import factorize
from compresslab.techniques.low_rank.layer_splits import (
    CHANNELS,
    SPACE,
    SPLITS,
    TUCKER,
    count_weights,
    thin_layers,
)
from compresslab.techniques.low_rank.rank_selection import (
    break_even_rank,
    rank_for_energy,
    rank_for_weights,
    ranks_for_energy,
    ranks_for_weights,
    ranks_under_budget,
    scan_ranks,
    spread_ranks,
)
from compresslab.techniques.pruning.sparse_layers import SparseConv2d, store_sparsely

every_split = pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())
SHARES = (0.2, 0.6)
X = torch.randn(2, 2, 9, 9, generator=torch.Generator().manual_seed(1))


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(2, 12, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(12, 12, 3, stride=2, groups=2),
            nn.Conv2d(12, 12, 3, groups=12),
            nn.Flatten(),
            nn.Linear(48, 32),
            nn.Tanh(),
            nn.Linear(32, 10),
        )


def moved(model):
    """A measure: how far the outputs move."""
    wanted = model(X).detach()
    return lambda changed: float((changed(X).detach() - wanted).norm())


def refuses(says):
    return pytest.raises(CompressionError, match=f"^{re.escape(says)}$")


def test_at_the_break_even_rank_weights_are_saved_and_at_the_next_they_are_not():
    for m, n in itertools.product(range(1, 41), repeat=2):
        saving = [rank for rank in range(1, m * n + 1) if rank * (m + n) < m * n]
        assert break_even_rank(m, n) == len(saving) == max(saving, default=0)


def test_a_square_layer_breaks_even_at_half_of_its_rank():
    assert [break_even_rank(n, n) for n in (2, 8, 9, 64)] == [0, 3, 4, 31]
    layer = nn.Linear(8, 8)
    assert count_weights(thin_layers(CHANNELS, "", layer, 4)) == 64


@pytest.mark.parametrize("energy", [1e-6, 0.3, 0.5, 0.9, 0.999, 1])
def test_the_rank_for_an_energy_is_the_first_whose_squares_suffice(energy):
    for seed in range(10):
        s = torch.rand(9, generator=torch.Generator().manual_seed(seed)).sort(descending=True).values
        squares = [float(value) ** 2 for value in s]
        rank = 1
        while sum(squares[:rank]) < energy * sum(squares) - 1e-12:
            rank += 1
        assert rank_for_energy(s, energy=energy) == rank


def test_energy_is_of_squares_and_exact_at_its_edge():
    s = torch.tensor([2.0, 1.0, 1.0, 1.0, 1.0])  # of the squares 1/2, 1/8, 1/8, 1/8, 1/8
    assert [rank_for_energy(s, energy=e) for e in (0.4, 0.5, 0.51, 0.625, 0.9, 1)] == [1, 1, 2, 2, 5, 5]
    assert rank_for_energy(torch.zeros(3), energy=0.9) == 1
    assert rank_for_energy(torch.tensor([1.0, 0.0, 0.0]), energy=1) == 1


def test_each_layers_energy_is_of_its_matrix_and_the_neediest_group_decides():
    model, ranks = network(), ranks_for_energy(network(), energy=0.8)
    assert list(ranks) == ["0", "2", "5", "7"]  # not the depthwise one
    matrices = {name: [model[int(name)].weight.detach().clone().flatten(1)] for name in ranks}
    matrices["2"] = matrices["2"][0].split(6)  # two groups
    for name, parts in matrices.items():
        assert ranks[name] == max(rank_for_energy(torch.linalg.svdvals(w), energy=0.8) for w in parts)
    model[2].weight.data[:6] = model[2].weight.data[:1]  # now the first group has rank 1
    changed = ranks_for_energy(model, energy=0.8)["2"]
    assert changed == rank_for_energy(torch.linalg.svdvals(matrices["2"][1]), energy=0.8) > 1


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5, 0.99])
@pytest.mark.parametrize("multiple", [1, 4])
@every_split
def test_ranks_have_at_most_the_share_and_the_next_ones_more(split, share, multiple):
    model = network()
    found = ranks_for_weights(model, share=share, split=split, multiple=multiple)
    for name in ("0", "2", "3", "5", "7"):
        layer = model[int(name)]
        if split.why_not(layer):
            assert name not in found
            continue
        ranks = split.ranks(layer, multiple=multiple)
        fits = [
            count_weights(thin_layers(split, name, layer, rank, filled=False)) <= share * layer.weight.numel()
            for rank in ranks
        ]
        place = ranks.index(found[name]) if name in found else -1
        assert fits == [True] * (place + 1) + [False] * (len(fits) - place - 1)
    assert count_weights(factorize(model, found, split=split)) <= count_weights(model)


def test_exactly_the_share_is_within_it_and_multiples_of_eight_are():
    layer = nn.Linear(48, 16)  # 768 weights, 64 a rank
    assert [rank_for_weights(layer, share=s) for s in (0.5, 0.49, 64 / 768, 0.08)] == [6, 5, 1, None]
    assert [rank_for_weights(layer, share=s, multiple=8) for s in (0.99, 0.5)] == [8, None]
    pair = rank_for_weights(nn.Conv2d(24, 40, 3), share=0.5, split=TUCKER, multiple=8)
    assert all(rank % 8 == 0 for rank in pair)


def test_a_layer_that_cannot_be_split_or_is_of_another_kind_has_no_rank():
    assert rank_for_weights(nn.Conv2d(8, 8, 3, groups=8), share=0.9) is None
    assert rank_for_weights(nn.Conv2d(8, 8, 1), share=0.9, split=SPACE) is None
    assert rank_for_weights(SparseConv2d(nn.Conv2d(8, 8, 3)), share=0.9) is None
    sparse = store_sparsely(network())
    assert ranks_for_weights(sparse, share=0.9) == ranks_for_energy(sparse, energy=0.9) == {}
    assert scan_ranks(sparse, moved(sparse), shares=SHARES) == {}


def spectra_of(seed):
    values = torch.rand(3, 4, generator=torch.Generator().manual_seed(seed))
    return list(values.sort(dim=1, descending=True).values)


def kept(spectra, ranks):
    return sum(float(s[:rank].double().square().sum()) for s, rank in zip(spectra, ranks, strict=True))


def most_kept(spectra, costs, budget):
    """The largest Σ s² of all choices within the budget, by trying them all."""
    choices = itertools.product(*(range(1, len(s) + 1) for s in spectra))
    return max(kept(spectra, c) for c in choices if spent(costs, c) <= budget)


def spent(costs, ranks):
    return sum(cost * rank for cost, rank in zip(costs, ranks, strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_where_all_ranks_cost_the_same_the_spread_is_the_best_of_all(seed):
    spectra, costs = spectra_of(seed), [3, 3, 3]
    for budget in range(9, 40):
        ranks = spread_ranks(spectra, costs, budget=budget)
        assert spent(costs, ranks) <= budget
        assert kept(spectra, ranks) == pytest.approx(most_kept(spectra, costs, budget))


@pytest.mark.parametrize("seed", range(4))
def test_where_they_do_not_it_is_within_the_budget_and_one_step_of_the_best(seed):
    spectra, costs = spectra_of(seed), [7, 2, 4]
    step = max(float(s[1]) ** 2 for s in spectra)
    for budget in range(13, 54):
        ranks = spread_ranks(spectra, costs, budget=budget)
        assert spent(costs, ranks) <= budget
        assert kept(spectra, ranks) >= most_kept(spectra, costs, budget) - step
    assert ranks == [4, 4, 4]


def test_it_is_the_square_for_its_price_that_counts_and_a_cheap_rank_fills_what_is_left():
    cheap, dear = torch.tensor([3.0, 1.0, 1.0, 1.0]), torch.tensor([3.0, 2.0, 2.0])
    assert spread_ranks([cheap, dear], [1, 5], budget=11) == [4, 1]  # 1 / 1 before 4 / 5
    assert spread_ranks([cheap, dear], [1, 3], budget=8) == [2, 2]  # 4 / 3 before 1 / 1, then what fits


@pytest.mark.parametrize("split", [CHANNELS, TUCKER], ids=repr)
def test_the_scan_makes_each_layer_thin_alone(split):
    model, seen = network(), []
    found = scan_ranks(
        model, lambda thin: float(seen.append(thin) or len(seen)), shares=(0.1, 0.6), split=split
    )
    assert list(found) == ["0", "2", "5", "7"]
    ranks = [
        {name: rank}
        for name in found
        for share in (0.1, 0.6)
        if (rank := rank_for_weights(model[int(name)], share=share, split=split)) is not None
    ]
    assert len(ranks) == len(seen) > 4
    for thin, alone in zip(seen, ranks, strict=True):
        assert torch.equal(thin(X), factorize(model, alone, split=split)(X))
    assert [d for row in found.values() for d in row if d is not None] == list(range(1, len(seen) + 1))
    assert None in found["0"]


def test_the_scan_leaves_the_model_alone():
    model = network().train()
    before, modules = copy.deepcopy(model.state_dict()), list(model.modules())
    scan_ranks(model, moved(model), shares=SHARES)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [(m, m.training) for m in model.modules()] == [(m, True) for m in modules]


@pytest.mark.parametrize(("split", "multiple"), [(CHANNELS, 1), (SPACE, 2), (TUCKER, 1), (TUCKER, 4)])
def test_the_budget_is_met_as_count_macs_counts_and_the_choice_near_the_best(split, multiple):
    model, settings = network(), {"shares": SHARES, "split": split, "multiple": multiple}
    sensitivities = scan_ranks(model, moved(model), **settings)
    del sensitivities["7"]  # stays whole
    rows = [[(0.0, None), *zip(row, SHARES, strict=True)] for row in sensitivities.values()]
    every = {}  # {ranks: (summed sensitivity, MACs)}
    for picks in itertools.product(*([pick for pick in row if pick[0] is not None] for row in rows)):
        ranks = {
            name: rank_for_weights(model[int(name)], share=share, split=split, multiple=multiple)
            for name, (_, share) in zip(sensitivities, picks, strict=True)
            if share is not None
        }
        every[str(ranks)] = sum(d for d, _ in picks), count_macs(factorize(model, ranks, split=split), X)
    step = max(d for row in sensitivities.values() for d in row if d is not None)
    whole, least = count_macs(model, X), min(macs for _, macs in every.values())
    for budget in torch.linspace(least, whole, 6).int().tolist():
        ranks = ranks_under_budget(model, X, sensitivities, macs_per_sample=budget, **settings)
        total, macs = every[str(ranks)]
        assert macs <= budget
        assert total <= min(d for d, macs in every.values() if macs <= budget) + step
    assert ranks == {}  # the whole budget


class Odd(nn.Module):
    """A layer that runs twice, on inputs of two sizes, and one that doesn't run."""

    def __init__(self):
        super().__init__()
        self.twice, self.never = nn.Conv2d(8, 8, 3), nn.Linear(8, 8)

    def forward(self, x):
        return self.twice(self.twice(x))


def test_a_layer_costs_what_all_of_its_calls_cost():
    model, x = Odd(), torch.randn(1, 8, 9, 9)
    thin = count_macs(factorize(model, {"twice": 2}), x)  # share 0.3
    sensitivities = {"twice": [0.5], "never": [0.0]}
    found = ranks_under_budget(model, x, sensitivities, shares=(0.3,), macs_per_sample=thin)
    assert found == {"twice": 2}
    with refuses(f"budget must be at least {thin:,} here, got {thin - 1:,}; try stronger choices"):
        ranks_under_budget(model, x, sensitivities, shares=(0.3,), macs_per_sample=thin - 1)


@pytest.mark.parametrize(
    ("refused", "says"),
    [
        (
            lambda m: break_even_rank(0, 8),
            "m and n must be at least 1, got 0 and 8; try the sizes of layer.weight",
        ),
        (
            lambda m: rank_for_energy(torch.ones(3), energy=90),
            "energy must be a fraction in (0, 1], got 90; did you mean 0.9?",
        ),
        (
            lambda m: ranks_for_energy(m, energy=0),
            "energy must be a fraction in (0, 1], got 0; 0.9 keeps most of a layer",
        ),
        (
            lambda m: rank_for_energy(torch.ones(3, 3), energy=0.9),
            "s must be a list of singular values, got shape (3, 3); try torch.linalg.svdvals(w)",
        ),
        (
            lambda m: rank_for_energy(torch.ones(0), energy=0.9),
            "s must be a list of singular values, got shape (0,); try torch.linalg.svdvals(w)",
        ),
        (
            lambda m: ranks_for_weights(m, share=50),
            "share must be a fraction in (0, 1), got 50; did you mean 0.5?",
        ),
        (
            lambda m: rank_for_weights(m[0], share=1),
            "share must be a fraction in (0, 1), got 1; 0.5 halves the weights",
        ),
        (
            lambda m: scan_ranks(m, moved(m), shares=(0.5, 0.0)),
            "share must be a fraction in (0, 1), got 0.0; 0.5 halves the weights",
        ),
        (
            lambda m: ranks_for_weights(m, share=0.5, multiple=0),
            "multiple must be a whole number from 1 up, got 0; 8 suits a processor",
        ),
        (
            lambda m: spread_ranks(spectra_of(0), [700, 200, 400], budget=1299),
            "budget must be at least 1,300, rank 1 everywhere, got 1,299; leave a layer whole",
        ),
        (
            lambda m: ranks_for_weights(nn.ReLU(), share=0.5),
            "model must have a Conv2d or Linear layer, got ReLU without any; give the whole network",
        ),
    ],
)
def test_errors_say_what_came_and_what_to_try(refused, says):
    with refuses(says):
        refused(network())
