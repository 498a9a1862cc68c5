"""A budget goes where it does the least damage: all choices, tried one by one, say which that is."""

import copy
import itertools
import re

import pytest
import torch
from torch import nn

from compresslab.analysis.allocation import Choice, least_damage
from compresslab.analysis.sensitivity import answers_moved
from compresslab.errors import CompressionError


def choices_of(seed, *, layers=3, strengths=4):
    """Costs and damages in no order: measured damage needn't rise as the cost falls."""
    rng = torch.Generator().manual_seed(seed)
    costs = torch.randint(1, 60, (layers, strengths), generator=rng).tolist()
    damages = torch.rand(layers, strengths, generator=rng).tolist()
    return {
        name: [Choice(*pair) for pair in zip(cost, damage, strict=True)]
        for name, cost, damage in zip("abc", costs, damages, strict=True)
    }


def total(choices, picks):
    """(cost, damage) of all layers together."""
    chosen = [choices[name][place] for name, place in picks.items()]
    return sum(c.cost for c in chosen), sum(c.damage for c in chosen)


def all_totals(choices):
    places = itertools.product(*(range(len(layer)) for layer in choices.values()))
    return [total(choices, dict(zip(choices, p, strict=True))) for p in places]


@pytest.mark.parametrize("seed", range(8))
def test_the_budget_is_met_within_one_step_of_the_least_damage_of_all_choices(seed):
    choices = choices_of(seed)
    every = all_totals(choices)
    step = max(c.damage for layer in choices.values() for c in layer)
    for budget in range(min(cost for cost, _ in every), max(cost for cost, _ in every) + 1, 5):
        picks = least_damage(choices, budget=budget)
        cost, damage = total(choices, picks)
        assert list(picks) == list(choices)
        assert cost <= budget
        assert damage <= min(d for c, d in every if c <= budget) + step


@pytest.mark.parametrize("seed", range(8))
def test_where_the_budget_is_no_limit_each_layer_has_its_least_damage(seed):
    choices = choices_of(seed)
    picks = least_damage(choices, budget=10**6)
    assert all(layer[picks[name]].damage == min(c.damage for c in layer) for name, layer in choices.items())


@pytest.mark.parametrize("seed", range(8))
def test_the_least_budget_has_the_cheapest_choices_and_one_less_is_refused(seed):
    choices = choices_of(seed)
    least = min(cost for cost, _ in all_totals(choices))
    assert total(choices, least_damage(choices, budget=least))[0] == least
    says = f"budget must be at least {least:,} here, got {least - 1:,}; try stronger choices"
    with pytest.raises(CompressionError, match=f"^{re.escape(says)}$"):
        least_damage(choices, budget=least - 1)


def test_the_order_of_the_choices_is_of_no_importance():
    choices = choices_of(3)
    turned = {name: layer[::-1] for name, layer in choices.items()}
    for budget in range(60, 160, 10):
        picks = least_damage(turned, budget=budget)
        assert total(turned, picks) == total(choices, least_damage(choices, budget=budget))


def test_of_equal_damage_the_cheapest_is_taken_and_of_equal_choices_the_first():
    assert least_damage({"a": [Choice(9, 0.1), Choice(5, 0.1), Choice(5, 0.1)]}, budget=100) == {"a": 1}


def test_a_compression_that_helps_is_taken_without_need():
    assert least_damage({"a": [Choice(9, 0.0), Choice(5, -0.1)], "b": [Choice(9, 0.0)]}, budget=100) == {
        "a": 1,
        "b": 0,
    }


def test_asking_how_far_answers_move_leaves_both_networks_alone():
    model, x = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)).train(), torch.randn(8, 4)
    other = copy.deepcopy(model)
    nn.init.normal_(other[0].weight)
    before = [copy.deepcopy(m.state_dict()) for m in (model, other)]
    damage = answers_moved(model, x)
    assert damage(other) == damage(other) > damage(model)  # no chance in it: dropout is off
    for m, state in zip((model, other), before, strict=True):
        assert m.training
        assert all(torch.equal(t, state[name]) for name, t in m.state_dict().items())
        assert all(p.grad is None for p in m.parameters())
