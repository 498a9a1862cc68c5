"""What lab 03 compares: scores of every layer, masks that leave the classes be, channels for so many MACs."""

import itertools
import json
import re

import pytest
import torch

from compresslab.data.images import Images
from compresslab.errors import CompressionError
from compresslab.experiments.pruning.methods import (
    CHANNEL_CHOICES,
    CRITERIA,
    GRANULARITIES,
    choose_masks,
    masks_of_two_in_four,
    torch_prunings_channels,
)
from compresslab.measurement.costs import count_macs
from compresslab.models.residual import ResidualNetwork
from compresslab.techniques.pruning.channel_groups import dependency_groups
from compresslab.techniques.pruning.channel_removal import remove_channels
from compresslab.techniques.pruning.channel_selection import channel_scores, keep_channels
from compresslab.techniques.pruning.granularity import magnitudes
from compresslab.techniques.pruning.masks import prunable_layers

IMAGES = Images(
    torch.randint(0, 256, (20, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8),
    torch.arange(20) % 10,
)
X = IMAGES.first(1).inputs()
OURS = ("magnitude", "taylor", "magnitude_of_eight", "taylor_of_eight")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return ResidualNetwork(16, [(16, 4), (32, 2)]).eval()


def of(criterion, model, images=IMAGES, seed=0):
    return torch.cat([scores.flatten() for scores in CRITERIA[criterion](model, images, seed).values()])


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_criterion_scores_every_weight_and_no_score_is_negative(criterion, model):
    scores = CRITERIA[criterion](model, IMAGES, 0)
    wanted = {name: layer.weight.shape for name, layer in prunable_layers(model).items()}
    assert {name: s.shape for name, s in scores.items()} == wanted
    assert all((s >= 0).all() and s.any() and not s.requires_grad for s in scores.values())


def test_no_two_criteria_rank_the_weights_alike(model):
    ranks = {name: of(name, model).argsort() for name in CRITERIA}
    for one, other in itertools.combinations(CRITERIA, 2):
        assert not torch.equal(ranks[one], ranks[other]), (one, other)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_chance_has_a_say_in_random_alone_and_nothing_else_has(criterion, model):
    once = of(criterion, model)
    assert torch.equal(once, of(criterion, model))
    assert torch.equal(once, of(criterion, model, seed=1)) == (criterion != "random")
    other_images = Images(255 - IMAGES.pixels, IMAGES.labels)
    blind = criterion in ("random", "magnitude")
    assert torch.equal(once, of(criterion, model, other_images)) == blind
    other_labels = Images(IMAGES.pixels, (IMAGES.labels + 1) % 10)
    assert torch.equal(once, of(criterion, model, other_labels)) == (blind or criterion == "wanda")
    with torch.no_grad():
        for weight in (layer.weight for layer in prunable_layers(model).values()):
            weight.mul_(-2)
    assert torch.equal(once, of(criterion, model)) == (criterion == "random")


@pytest.mark.parametrize("name", GRANULARITIES)
def test_the_last_layer_is_pruned_weight_by_weight_and_the_others_in_groups(name, model):
    granularity = GRANULARITIES[name]
    masks = choose_masks(magnitudes(model), granularity, sparsity=0.5, model=model)
    assert masks.keys() == magnitudes(model).keys()
    for layer, mask in masks.items():
        groups = granularity(mask) if layer != "head" else mask.reshape(-1, 1)
        assert (groups == groups[:, :1]).all(), layer  # a group lives or dies whole
        assert (~groups[:, 0]).sum() == round(0.5 * len(groups)), layer
    weight, kept = model.head.weight.detach().abs(), masks["head"]
    assert weight[kept].min() >= weight[~kept].max()
    assert kept.any(dim=1).all()  # no class is without inputs


def test_two_in_four_leaves_the_stem_dense_and_halves_the_rest(model):
    masks = masks_of_two_in_four(magnitudes(model))
    assert magnitudes(model).keys() - masks.keys() == {"stem.0"}  # one input: nothing to choose from
    for name, mask in masks.items():
        weight = prunable_layers(model)[name].weight.detach().abs()
        quads, alive = (t.movedim(1, -1).reshape(-1, 4) for t in (weight, mask))
        assert (alive.sum(dim=1) == 2).all()
        assert ((quads * alive).sum(dim=1) >= (quads * ~alive).sum(dim=1)).all()


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("choice", OURS)
def test_what_is_kept_costs_at_most_what_is_allowed(choice, share, model):
    budget = int(share * count_macs(model, X))
    keep = CHANNEL_CHOICES[choice](model, IMAGES, budget)
    assert 0.4 * budget < count_macs(remove_channels(model, keep), X) <= budget
    if choice.endswith("_of_eight"):
        assert all(len(kept) % 8 == 0 for kept in keep.values())


@pytest.mark.parametrize("criterion", ["magnitude", "taylor"])
def test_in_widths_of_eight_each_group_keeps_its_best_by_the_criterion_that_is_named(criterion, model):
    keep = CHANNEL_CHOICES[f"{criterion}_of_eight"](model, IMAGES, int(0.5 * count_macs(model, X)))
    scores = CRITERIA[criterion](model, IMAGES, 0)
    assert sum(map(len, keep.values())) < sum(g.channels for g in dependency_groups(model).values())
    for name, group in dependency_groups(model).items():
        best = channel_scores(group, scores).argsort(descending=True)[: len(keep[name])]
        assert keep[name].tolist() == sorted(best.tolist()), name


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_by_magnitude_every_group_loses_the_smallest_share_that_suffices(share, model):
    budget = int(share * count_macs(model, X))
    keep = CHANNEL_CHOICES["magnitude"](model, IMAGES, budget)
    scores = {name: channel_scores(g, magnitudes(model)) for name, g in dependency_groups(model).items()}
    for step in range(200):  # the plainest search: from none up
        wanted = keep_channels(scores, sparsity=step / 200)
        if count_macs(remove_channels(model, wanted), X) <= budget:
            break
    assert all(torch.equal(keep[name], kept) for name, kept in wanted.items())


def test_as_much_as_all_may_cost_keeps_all(model):
    for choice in OURS:
        keep = CHANNEL_CHOICES[choice](model, IMAGES, count_macs(model, X))
        assert {name: len(k) for name, k in keep.items()} == {
            name: group.channels for name, group in dependency_groups(model).items()
        }


def test_in_one_line_the_lowest_go_each_groups_measured_by_its_mean(model):
    keep = CHANNEL_CHOICES["taylor"](model, IMAGES, int(0.6 * count_macs(model, X)))
    scores = CRITERIA["taylor"](model, IMAGES, 0)
    kept, gone = [], []
    for name, group in dependency_groups(model).items():
        line = channel_scores(group, scores)
        alive = torch.zeros(group.channels, dtype=torch.bool).index_fill(0, keep[name], True)
        kept.append(line[alive] / line.mean())
        gone.append(line[~alive] / line.mean())
    assert torch.cat(kept).min() >= torch.cat(gone).max()


def test_torch_prunings_channels_are_read_from_their_file(tmp_path):
    place = tmp_path / "03_pruning" / "torch_pruning_keeps.json"
    with pytest.raises(CompressionError, match=f"^{re.escape(str(place))} can't be read"):
        torch_prunings_channels(folder=tmp_path)
    place.parent.mkdir()
    place.write_text("{")
    says = r"; it says which channels torch-pruning keeps. Get it back with: git checkout -- data/results$"
    with pytest.raises(CompressionError, match=says):
        torch_prunings_channels(folder=tmp_path)
    place.write_text(json.dumps({"stem.0": [0, 2]}))
    assert torch_prunings_channels(folder=tmp_path) == {"stem.0": [0, 2]}
    kept = CHANNEL_CHOICES["torch_pruning"](None, IMAGES, 0)
    assert {name: channels.tolist() for name, channels in kept.items()} == torch_prunings_channels()
