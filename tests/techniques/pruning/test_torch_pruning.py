"""torch-pruning, an independent implementation, asked again: what it keeps, leaves, and how it scores."""

import copy

import pytest
import torch
from torch import nn

from compresslab.experiments.pruning.methods import torch_prunings_channels
from compresslab.measurement.costs import count_macs, count_parameters
from compresslab.models.pretrained import load_baseline
from compresslab.techniques.pruning.channel_groups import dependency_groups
from compresslab.techniques.pruning.channel_removal import remove_channels
from compresslab.techniques.pruning.channel_selection import channel_scores
from compresslab.techniques.pruning.criteria import magnitude
from compresslab.techniques.pruning.masks import prunable_layers

torch_pruning = pytest.importorskip("torch_pruning", reason="torch-pruning, an oracle, is not installed")

X = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model():
    return load_baseline()


@pytest.fixture(scope="module")
def theirs(model):
    """The network that torch-pruning leaves, and {its layer: the channels that it took away}."""
    network = copy.deepcopy(model)
    pruner = torch_pruning.pruner.MetaPruner(
        network,
        X[:1],
        pruning_ratio=0.29,
        ignored_layers=[network.head],
        num_heads={},  # a dict of its own
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
    )
    names = {module: name for name, module in network.named_modules()}
    gone = {}
    for group in pruner.step(interactive=True):
        gone[names[group[0].dep.target.module]] = set(group[0].idxs)
        group.prune()
    return network.eval(), gone


def test_the_channels_that_are_stored_are_those_that_it_keeps_of_the_baseline(model, theirs):
    _, gone = theirs
    keep = {}
    for name, group in dependency_groups(model).items():
        (writer,) = gone.keys() & set(group.writers)  # it takes a group by any of its writers
        keep[name] = [channel for channel in range(group.channels) if channel not in gone[writer]]
    assert torch_prunings_channels() == keep


def test_without_those_channels_our_network_is_the_one_that_it_leaves(model, theirs):
    network, _ = theirs
    ours = remove_channels(model, torch_prunings_channels())
    assert {n: p.shape for n, p in ours.named_parameters()} == {
        n: p.shape for n, p in network.named_parameters()
    }
    assert count_parameters(ours) == count_parameters(network) < count_parameters(model)
    assert count_macs(ours, X) == count_macs(network, X) < count_macs(model, X) / 1.9
    with torch.no_grad():
        torch.testing.assert_close(ours(X), network(X), rtol=1e-5, atol=1e-5)
        assert not torch.allclose(ours(X), model(X), atol=0.1)


@pytest.mark.parametrize("power", [1, 2])
def test_channels_of_a_group_score_as_much_as_it_says_over_all_who_share_them(model, power):
    graph = torch_pruning.DependencyGraph().build_dependency(model, X[:1])
    importance = torch_pruning.importance.MagnitudeImportance(
        p=power, group_reduction="sum", normalizer=None, target_types=[nn.Conv2d, nn.Linear]
    )
    scores = {name: magnitude(layer.weight, power=power) for name, layer in prunable_layers(model).items()}
    for name, group in dependency_groups(model).items():
        every = list(range(group.channels))
        asked = graph.get_pruning_group(
            model.get_submodule(name), torch_pruning.prune_conv_out_channels, idxs=every
        )
        torch.testing.assert_close(channel_scores(group, scores), importance(asked))
