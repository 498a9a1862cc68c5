"""A budget is spent best: all choices, tried one by one, say which that is."""

import itertools
import re

import pytest
import torch

from compresslab.analysis.allocation import Choice, allocate_exactly, allocate_greedily, allocate_units
from compresslab.errors import BadSetting

either = pytest.mark.parametrize("allocate", [allocate_exactly, allocate_greedily])
every_seed = pytest.mark.parametrize("seed", range(8))


def choices_of(seed, *, layers=3, strengths=4):
    """Costs and sensitivities in no order: a measured sensitivity needn't rise as the cost falls."""
    rng = torch.Generator().manual_seed(seed)
    costs = torch.randint(0, 60, (layers, strengths), generator=rng).tolist()
    sensitivities = torch.rand(layers, strengths, generator=rng).double().tolist()
    return {
        name: [Choice(*pair) for pair in zip(*row, strict=True)]
        for name, row in zip("abc", zip(costs, sensitivities, strict=True), strict=True)
    }


def total(choices, picks):
    """(cost, sensitivity) of all layers together."""
    chosen = [choices[name][index] for name, index in picks.items()]
    return sum(c.cost for c in chosen), sum(c.sensitivity for c in chosen)


def all_totals(choices):
    indices = itertools.product(*(range(len(layer)) for layer in choices.values()))
    return [total(choices, dict(zip(choices, i, strict=True))) for i in indices]


def least(choices, budget):
    return min(s for cost, s in all_totals(choices) if cost <= budget)


@every_seed
def test_the_exact_choice_is_the_best_of_all_and_the_greedy_one_within_one_step_of_it(seed):
    choices = choices_of(seed)
    costs = [cost for cost, _ in all_totals(choices)]
    step = max(c.sensitivity for layer in choices.values() for c in layer)
    for budget in range(min(costs), max(costs) + 1, 5):
        exact, greedy = (
            allocate(choices, budget=budget) for allocate in (allocate_exactly, allocate_greedily)
        )
        assert list(exact) == list(greedy) == list(choices)
        assert total(choices, exact)[0] <= budget >= total(choices, greedy)[0]
        assert total(choices, exact)[1] == pytest.approx(least(choices, budget))
        assert total(choices, greedy)[1] <= least(choices, budget) + step


def test_a_cheap_step_hides_a_large_one_from_the_greedy_choice_alone():
    """Going down to 50: the first step of b is the cheapest of all, and then both of its steps are taken."""
    choices = {
        "a": [Choice(30, 0.0), Choice(10, 30.0)],
        "b": [Choice(30, 0.0), Choice(20, 5.0), Choice(10, 33.0)],
    }
    assert allocate_exactly(choices, budget=40) == {"a": 1, "b": 0}
    assert allocate_greedily(choices, budget=40) == {"a": 1, "b": 0}
    choices["a"][1] = Choice(11, 30.0)
    assert allocate_exactly(choices, budget=40) == {"a": 0, "b": 2}
    assert allocate_greedily(choices, budget=40) == {"a": 1, "b": 1}


@either
@every_seed
def test_where_the_budget_is_no_limit_each_layer_has_its_least_sensitivity(allocate, seed):
    choices = choices_of(seed)
    picks = allocate(choices, budget=1000)
    for name, layer in choices.items():
        assert layer[picks[name]].sensitivity == min(c.sensitivity for c in layer)


@either
@every_seed
def test_the_least_budget_has_the_cheapest_choices_and_one_less_is_refused(allocate, seed):
    choices = choices_of(seed)
    cheapest = min(cost for cost, _ in all_totals(choices))
    assert total(choices, allocate(choices, budget=cheapest))[0] == cheapest
    says = f"budget must be at least {cheapest:,} here, got {cheapest - 1:,}; try stronger choices"
    with pytest.raises(BadSetting, match=f"^{re.escape(says)}$"):
        allocate(choices, budget=cheapest - 1)


@either
def test_the_order_of_the_choices_is_of_no_importance(allocate):
    choices = choices_of(3)
    turned = {name: layer[::-1] for name, layer in choices.items()}
    for budget in range(60, 160, 10):
        picks = allocate(turned, budget=budget)
        assert total(turned, picks) == total(choices, allocate(choices, budget=budget))


@either
def test_a_compression_that_helps_is_taken_without_need(allocate):
    choices = {"a": [Choice(9, 0.0), Choice(5, -0.1)], "b": [Choice(9, 0.0)]}
    assert allocate(choices, budget=100) == {"a": 1, "b": 0}


@either
def test_a_choice_may_take_the_whole_budget(allocate):
    assert allocate({"a": [Choice(1, 5.0), Choice(3, 1.0)]}, budget=3) == {"a": 1}


def test_of_equal_sensitivity_the_cheapest_is_taken_and_of_equal_choices_the_first():
    equal = [Choice(9, 0.1), Choice(5, 0.1), Choice(5, 0.1)]
    assert allocate_greedily({"a": equal}, budget=100) == {"a": 1}


# units


@every_seed
def test_units_are_the_best_of_all_where_they_cost_the_same_and_else_within_one_of_it(seed):
    rng = torch.Generator().manual_seed(seed)
    gains = torch.rand(3, 4, generator=rng).sort(descending=True).values.tolist()
    for costs in ([1, 1, 1], [2, 3, 5]):
        for budget in range(sum(costs) * 4 + 2):
            bought = allocate_units(gains, costs, budget=budget)
            worth = {
                n: sum(sum(row[:k]) for row, k in zip(gains, n, strict=True))
                for n in itertools.product(range(5), repeat=3)
                if sum(k * cost for k, cost in zip(n, costs, strict=True)) <= budget
            }
            off = 1e-12 if costs == [1, 1, 1] else max(map(max, gains))
            assert worth[tuple(bought)] >= max(worth.values()) - off
