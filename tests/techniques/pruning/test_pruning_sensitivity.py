"""The scan prunes one layer at a time; brute force over all choices is the oracle of the budget."""

import copy
import functools
import itertools

import pytest
import torch
from torch import nn

from compresslab.analysis.sensitivity import output_sensitivity
from compresslab.data.images import Images
from compresslab.errors import CompressionError
from compresslab.techniques.pruning.granularity import channel, local_masks, magnitudes
from compresslab.techniques.pruning.masks import masks_of
from compresslab.techniques.pruning.sensitivity import (
    scan_sensitivity,
    sparsities_under_budget,
)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 10))


def images(n=30):
    chance = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, 1, 28, 28), dtype=torch.uint8, generator=chance)
    return Images(pixels, torch.arange(n) % 10)


def test_each_layer_is_pruned_alone_to_each_share():
    model, seen = network(), []

    def measure(pruned):
        seen.append({name: int((~mask).sum()) for name, mask in masks_of(pruned).items()})
        return len(seen)

    assert scan_sensitivity(model, measure, sparsities=(0.5, 0.9)) == {"1": [1, 2], "4": [3, 4]}
    assert seen == [
        {"1": 2352, "4": 0},
        {"1": 4234, "4": 0},
        {"1": 0, "4": 30},
        {"1": 0, "4": 54},
    ]


def test_the_scan_takes_other_scores_and_granularities():
    model, seen = network(), []
    scan_sensitivity(
        model,
        lambda pruned: float(bool(seen.append(masks_of(pruned)))),
        sparsities=(0.5,),
        score=lambda m: {name: -s for name, s in magnitudes(m).items()},
        select=functools.partial(local_masks, granularity=channel),
    )
    expected = local_masks({"4": -magnitudes(model)["4"]}, sparsity=0.5, granularity=channel)
    assert torch.equal(seen[1]["4"], expected["4"])


def test_more_pruning_moves_the_answers_more_and_the_model_is_left_alone():
    model = network().train()
    before = copy.deepcopy(model.state_dict())
    found = scan_sensitivity(
        model, output_sensitivity(model, images().inputs()), sparsities=(0.0, 0.3, 0.6, 0.99)
    )
    for row in found.values():
        assert row[0] == pytest.approx(0, abs=1e-7)
        assert row == sorted(row)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def summed(found, sparsities, choice):
    return sum(found[name][sparsities.index(choice[name])] for name in found)


def kept(weights, choice):
    return sum(n - round(choice[name] * n) for name, n in weights.items())


def least(found, weights, sparsities, budget):
    """The least summed sensitivity of all choices within the budget, by trying them all."""
    every = (dict(zip(found, s, strict=True)) for s in itertools.product(sparsities, repeat=len(found)))
    return min(summed(found, sparsities, choice) for choice in every if kept(weights, choice) <= budget)


@pytest.mark.parametrize("seed", range(5))
def test_where_each_step_hurts_more_than_the_one_before_the_choice_is_the_best_of_all(seed):
    rng, sparsities = torch.Generator().manual_seed(seed), (0.0, 0.25, 0.5, 0.75)
    convex = (
        torch.rand(4, 3, generator=rng).sort(dim=1).values.cumsum(dim=1)
    )  # layers of one size, equal steps
    found = {name: [0.0, *rises] for name, rises in zip("abcd", convex.tolist(), strict=True)}
    weights = dict.fromkeys(found, 8)
    for budget in range(8, 33):
        chosen = sparsities_under_budget(found, weights, sparsities=sparsities, budget=budget)
        assert kept(weights, chosen) <= budget
        assert summed(found, sparsities, chosen) == pytest.approx(least(found, weights, sparsities, budget))


@pytest.mark.parametrize("seed", range(8))
def test_the_choice_is_within_the_budget_and_within_one_step_of_the_best(seed):
    rng, sparsities = torch.Generator().manual_seed(seed), (0.0, 0.4, 0.7, 0.9)
    found = {name: torch.rand(4, generator=rng).tolist() for name in "abcd"}  # in no order: nor is accuracy
    weights = {name: int(torch.randint(5, 60, (), generator=rng)) for name in found}
    budget = sum(n - round(0.9 * n) for n in weights.values()) + 10 * seed
    chosen = sparsities_under_budget(found, weights, sparsities=sparsities, budget=budget)
    step = max(max(row) - min(row) for row in found.values())
    assert list(chosen) == list(found)
    assert kept(weights, chosen) <= budget
    assert summed(found, sparsities, chosen) <= least(found, weights, sparsities, budget) + step


def test_it_is_the_price_of_a_weight_that_counts_not_the_sensitivity_of_a_step():
    found, weights = (
        {"a": [0.0, 0.2], "b": [0.0, 0.2], "large": [0.0, 0.3]},
        {"a": 10, "b": 10, "large": 90},
    )
    chosen = sparsities_under_budget(found, weights, sparsities=(0.0, 0.5), budget=100)
    assert chosen == {"a": 0.0, "b": 0.0, "large": 0.5}


def test_what_is_left_of_the_budget_goes_to_the_layer_that_suffers_most():
    """The small layers' steps are the cheapest but don't suffice; the large one's frees more than asked."""
    found = {"a": [0.0, 0.005], "b": [0.0, 0.01], "large": [0.0, 1.0]}
    weights = {"a": 20, "b": 20, "large": 1000}
    choose = functools.partial(sparsities_under_budget, found, weights, sparsities=(0.0, 0.5))
    assert choose(budget=1040) == {"a": 0.0, "b": 0.0, "large": 0.0}
    assert choose(budget=1030) == {"a": 0.5, "b": 0.0, "large": 0.0}
    assert choose(budget=1015) == {"a": 0.0, "b": 0.0, "large": 0.5}
    assert choose(budget=530) == {"a": 0.5, "b": 0.0, "large": 0.5}
    assert choose(budget=520) == {"a": 0.5, "b": 0.5, "large": 0.5}


def test_the_choice_makes_masks_within_the_budget():
    model = network()
    scores = magnitudes(model)
    weights = {name: s.numel() for name, s in scores.items()}
    found = scan_sensitivity(model, output_sensitivity(model, images().inputs()), sparsities=(0.0, 0.5, 0.9))
    chosen = sparsities_under_budget(found, weights, sparsities=(0.0, 0.5, 0.9), budget=1000)
    assert sum(int(mask.sum()) for mask in local_masks(scores, sparsity=chosen).values()) <= 1000


def test_a_budget_below_the_largest_sparsities_is_refused():
    with pytest.raises(CompressionError, match="at least 2,000 here, got 1,999; try stronger choices"):
        sparsities_under_budget({"a": [0.0, 1.0]}, {"a": 20_000}, sparsities=(0.0, 0.9), budget=1999)


def test_percentages_are_refused():
    with pytest.raises(CompressionError, match=r"got 90; did you mean 0\.9\?"):
        scan_sensitivity(network(), lambda pruned: 0.0, sparsities=(0.5, 90))
