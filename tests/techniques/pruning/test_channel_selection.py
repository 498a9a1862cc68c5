"""How wide each layer stays: exact numbers, the lowest scores first, and a budget that is really kept."""

import re

import pytest
import torch

from compresslab.errors import CompressionError
from compresslab.measurement.costs import count_macs
from compresslab.models.residual import baseline, student
from compresslab.techniques.pruning.channel_groups import dependency_groups
from compresslab.techniques.pruning.channel_removal import remove_channels
from compresslab.techniques.pruning.channel_selection import keep_channels, keep_channels_within

X = torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def drawn(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(group.channels, generator=generator)
        for name, group in dependency_groups(model).items()
    }


def test_each_group_loses_exactly_its_share_of_the_lowest_scores():
    scores = drawn(baseline())
    for name, kept in keep_channels(scores, sparsity=0.3).items():
        removed = torch.ones(len(scores[name]), dtype=torch.bool)
        removed[kept] = False
        assert removed.sum() == round(0.3 * len(removed))
        assert scores[name][kept].min() >= scores[name][removed].max()
        assert kept.tolist() == sorted(kept.tolist())


def test_among_equal_scores_exactly_as_many_go_the_first_ones_first():
    assert keep_channels({"a": torch.ones(8)}, sparsity=0.25)["a"].tolist() == [2, 3, 4, 5, 6, 7]


def test_a_group_may_have_a_share_of_its_own_and_others_stay_whole():
    kept = keep_channels(drawn(student()), sparsity={"stem.0": 0.5, "blocks.1.conv1": 0.25})
    assert {name: len(channels) for name, channels in kept.items()} == {"stem.0": 4, "blocks.1.conv1": 24}


@pytest.mark.parametrize(
    ("channels", "sparsity", "wanted"),
    [(32, 0.5, 16), (32, 0.4, 24), (32, 0.9, 8), (32, 0.0, 32), (20, 0.1, 16), (4, 0.5, 4), (8, 0.9, 8)],
)
def test_widths_can_be_multiples_of_eight(channels, sparsity, wanted):
    scores = {"a": torch.arange(float(channels))}
    kept = keep_channels(scores, sparsity=sparsity, multiple=8)["a"]
    assert kept.tolist() == list(range(channels - wanted, channels))


@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_the_budget_is_kept_and_not_one_channel_more_is_removed_than_it_takes(share, multiple):
    model = student()
    scores, budget = drawn(model), int(count_macs(model, X) * share)
    kept = keep_channels_within(model, scores, X, macs_per_sample=budget, multiple=multiple)
    assert count_macs(remove_channels(model, kept), X) <= budget
    removed = {
        (value.item(), name, c)
        for name, values in scores.items()
        for c, value in enumerate(values)
        if c not in kept[name]
    }
    _, name, channel = max(removed)  # the one that went last comes back, with its multiple
    back = scores[name].argsort(descending=True)[: len(kept[name]) + multiple]
    assert channel in back
    assert count_macs(remove_channels(model, kept | {name: back}), X) > budget
    assert all(len(channels) % multiple == 0 for channels in kept.values())


def test_over_all_groups_the_lowest_scores_go_first_but_no_group_is_emptied():
    model = student()
    scores = drawn(model)
    scores["stem.0"] -= 1  # all of them come before all others
    budget = int(count_macs(model, X) * 0.4)
    kept = keep_channels_within(model, scores, X, macs_per_sample=budget)
    assert kept["stem.0"].tolist() == [scores["stem.0"].argmax().item()]
    others = [name for name in scores if name != "stem.0"]
    left = min(scores[name][kept[name]].min() for name in others)
    gone = [value.item() for name in others for c, value in enumerate(scores[name]) if c not in kept[name]]
    assert gone
    assert max(gone) <= left


def test_a_budget_that_holds_already_removes_nothing():
    model = student()
    kept = keep_channels_within(model, drawn(model), X, macs_per_sample=count_macs(model, X))
    assert {n: len(c) for n, c in kept.items()} == {
        n: g.channels for n, g in dependency_groups(model).items()
    }


ONE = {"a": torch.ones(8)}


@pytest.mark.parametrize(
    ("refused", "says"),
    [
        (
            lambda: keep_channels(ONE, sparsity=0.95),
            "sparsity must leave group a at least one of its 8 channels, got 0.95; try 0.875 or less",
        ),
        (
            lambda: keep_channels(ONE, sparsity=50),
            "sparsity must be a fraction in [0, 1), got 50; did you mean 0.5?",
        ),
        (
            lambda: keep_channels(ONE, sparsity={"b": 0.5}),
            "sparsity must name groups that have scores (a), got 'b'; leave it out",
        ),
        (
            lambda: keep_channels(ONE, sparsity=0.5, multiple=0),
            "multiple must be a whole number of at least 1, got 0; try 8",
        ),
        (
            lambda: keep_channels_within(student(), ONE, X, macs_per_sample=10**6),
            "a group must be one of stem.0, blocks.0.conv1, blocks.0.conv2, blocks.1.conv1, "
            "blocks.1.conv2, got 'a'; see dependency_groups(model)",
        ),
        (
            lambda: keep_channels_within(student(), {}, X, macs_per_sample=10**6),
            "scores must be {group: channel scores}, got none; make them of dependency_groups(model)",
        ),
    ],
)
def test_what_can_not_be_kept_is_refused(refused, says):
    with pytest.raises(CompressionError, match=f"^{re.escape(says)}$"):
        refused()


def test_a_budget_that_even_the_smallest_network_exceeds_is_refused_with_what_is_left():
    model = student()
    smallest = remove_channels(model, {name: [0] for name in dependency_groups(model)})
    says = (
        f"macs_per_sample must be at least {count_macs(smallest, X):,} with these groups and multiple=1, "
        "got 1,000; allow more, or score more groups"
    )
    with pytest.raises(CompressionError, match=f"^{re.escape(says)}$"):
        keep_channels_within(model, drawn(model), X, macs_per_sample=1000)
