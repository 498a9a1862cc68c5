"""Ramps by their closed forms; pruning in steps by what must be dead, alive and untouched after each."""

import copy
import functools
import itertools

import pytest
import torch
from torch import nn

from compresslab.data.images import Images
from compresslab.errors import CompressionError
from compresslab.techniques.pruning import schedule
from compresslab.techniques.pruning.granularity import channel, global_masks, local_masks, magnitudes
from compresslab.techniques.pruning.masks import masked, masks_of
from compresslab.techniques.pruning.schedule import (
    cubic_sparsity,
    fit_masked,
    geometric_sparsity,
    prune_iteratively,
    rewind,
)
from compresslab.training.loop import fit

TRAIN, VALIDATION = (
    Images(
        torch.randint(0, 256, (n, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(n)),
        torch.arange(n) % 10,
    )
    for n in (150, 20)
)
QUICK = {"epochs": 2, "learning_rate": 0.05, "augmented": False}
every_ramp = pytest.mark.parametrize("ramp", [cubic_sparsity, geometric_sparsity])


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10)
    ).eval()


def dead(model):
    return {name: int((~mask).sum()) for name, mask in masks_of(model).items()}


@every_ramp
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.95])
def test_a_ramp_starts_at_zero_ends_at_the_target_and_never_falls(ramp, steps, sparsity):
    shares = [ramp(step, steps=steps, sparsity=sparsity) for step in range(-1, steps + 3)]
    assert shares[0] == shares[1] == 0
    assert shares[-1] == shares[-2] == shares[-3] == sparsity
    assert shares == sorted(shares)


@pytest.mark.parametrize(("step", "steps"), [(1, 4), (3, 4), (5, 9)])
def test_the_cubic_ramp_is_the_papers(step, steps):
    found = cubic_sparsity(step, steps=steps, sparsity=0.9, initial=0.2)
    assert found == pytest.approx(0.9 + (0.2 - 0.9) * (1 - step / steps) ** 3)
    assert cubic_sparsity(0, steps=steps, sparsity=0.9, initial=0.2) == pytest.approx(0.2)


def test_the_geometric_ramp_takes_the_same_share_of_what_lives_each_time():
    alive = [1 - geometric_sparsity(step, steps=5, sparsity=0.9) for step in range(6)]
    shares = [after / before for before, after in itertools.pairwise(alive)]
    assert shares == pytest.approx([0.1**0.2] * 5)


@pytest.mark.parametrize("select", [local_masks, global_masks])
def test_the_target_is_reached_exactly_in_the_steps_asked(select):
    model = network()
    sparsities = [cubic_sparsity(step, steps=3, sparsity=0.9) for step in (1, 2, 3)]
    pruned = prune_iteratively(model, TRAIN, VALIDATION, sparsities=sparsities, select=select, **QUICK)
    assert [found.sparsity for found in pruned.rounds] == sparsities
    assert pruned.rounds[-1].sparsity == 0.9
    total = sum(mask.numel() for mask in pruned.masks.values())
    assert sum(dead(pruned.model).values()) == round(0.9 * total)
    if select is local_masks:
        assert dead(pruned.model) == {"1": round(0.9 * 784 * 8), "4": 72}
    assert all(torch.equal(mask, pruned.masks[name]) for name, mask in masks_of(pruned.model).items())
    assert not pruned.model.training


def test_each_step_trains_by_fit_from_where_the_one_before_ended(monkeypatch):
    calls = []

    def watched(model, train, validation, **settings):
        trained = fit(model, train, validation, **settings)
        calls.append((copy.deepcopy(model), settings, trained))
        return trained

    monkeypatch.setattr(schedule, "fit", watched)
    pruned = prune_iteratively(network(), TRAIN, VALIDATION, sparsities=[0.5, 0.8], **QUICK)
    (first, settings, after), (second, _, last) = calls
    assert {name: settings[name] for name in QUICK} == QUICK
    expected = local_masks(magnitudes(after.model), sparsity=0.8)
    assert torch.equal(second[1].weight, after.model[1].weight * expected["1"])
    assert torch.equal(second[2].running_mean, after.model[2].running_mean)
    assert not torch.equal(first[1].bias, second[1].bias)
    assert pruned.model is last.model
    assert [found.trained_accuracy for found in pruned.rounds] == [
        trained.best.validation_accuracy for *_, trained in calls
    ]


def test_what_is_dead_stays_dead_whatever_it_scores():
    seen, chance = [], torch.Generator().manual_seed(0)

    def anything(model):
        seen.append(masks_of(model))
        return {name: torch.randn(mask.shape, generator=chance) for name, mask in seen[-1].items()}

    pruned = prune_iteratively(
        network(), TRAIN, VALIDATION, sparsities=[0.3, 0.6, 0.8], score=anything, **QUICK
    )
    seen.append(masks_of(pruned.model))
    for before, after in itertools.pairwise(seen):
        assert not any((after[name] & ~mask).any() for name, mask in before.items())
    assert [int((~masks["4"]).sum()) for masks in seen] == [0, 24, 48, 64]


def test_among_scores_of_zero_the_dead_go_first():
    falling = torch.arange(80.0).flip(0).reshape(10, 8)  # the last row goes first, against the order of ties
    scores = iter([falling, torch.zeros(10, 8)])
    pruned = prune_iteratively(
        network(), TRAIN, VALIDATION, sparsities=[0.25, 0.5], score=lambda model: {"4": next(scores)}, **QUICK
    )
    assert dead(pruned.model)["4"] == 40


def test_a_group_that_is_dead_in_part_is_judged_by_the_living():
    model = network()
    with torch.no_grad():
        model[4].weight[0, 0], model[4].weight[0, 1:] = 0, 5  # a dead weight in the strongest neuron
    select = functools.partial(local_masks, granularity=channel)
    pruned = prune_iteratively(model, TRAIN, VALIDATION, sparsities=[0.5], select=select, **QUICK)
    assert pruned.masks["4"][0].tolist() == [False] + [True] * 7


def test_a_model_that_is_sparser_already_stays_so():
    model = prune_iteratively(network(), TRAIN, VALIDATION, sparsities=[0.8], **QUICK).model
    again = prune_iteratively(model, TRAIN, VALIDATION, sparsities=[0.5], **QUICK).model
    assert dead(again) == dead(model)


def test_the_given_model_is_left_alone():
    model = network()
    before = copy.deepcopy(model.state_dict())
    pruned = prune_iteratively(model, TRAIN, VALIDATION, sparsities=[0.5], early=model, **QUICK)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not {p.data_ptr() for p in pruned.model.parameters()} & {p.data_ptr() for p in model.parameters()}


def test_training_with_masks_moves_the_living_alone():
    model = network()
    masks = local_masks(magnitudes(model), sparsity=0.9)
    trained = fit_masked(model, masks, TRAIN, VALIDATION, **QUICK).model
    assert all(torch.equal(mask, masks[name]) for name, mask in masks_of(trained).items())
    assert not torch.equal(trained[4].weight[masks["4"]], model[4].weight[masks["4"]])


def test_rewinding_gives_early_weights_under_late_masks():
    early, late = network(seed=1), masked(network(), local_masks(magnitudes(network()), sparsity=0.7))
    before, masks, ticket = copy.deepcopy(early.state_dict()), masks_of(late), rewind(late, early)
    for name, tensor in ticket.state_dict().items():
        mask = masks.get(name.removesuffix(".weight"), torch.ones_like(tensor, dtype=torch.bool))
        assert torch.equal(tensor, before[name] * mask)
    assert all(torch.equal(tensor, before[name]) for name, tensor in early.state_dict().items())


def test_every_step_may_start_from_the_early_weights(monkeypatch):
    starts, early = [], network(seed=1)
    monkeypatch.setattr(
        schedule, "fit", lambda model, *rest, **more: starts.append(model) or fit(model, *rest, **more)
    )
    prune_iteratively(network(), TRAIN, VALIDATION, sparsities=[0.5, 0.8], early=early, **QUICK)
    for start, count in zip(starts, (40, 64), strict=True):
        mask = masks_of(start)["4"]
        assert int((~mask).sum()) == count
        assert torch.equal(start[4].weight, early[4].weight * mask)


def test_an_interrupted_run_goes_on_and_ends_as_one_that_was_not(tmp_path, monkeypatch):
    run = functools.partial(prune_iteratively, network(), TRAIN, VALIDATION, sparsities=[0.5, 0.8], **QUICK)
    whole, calls = run(), []

    def breaks(model, *rest, **more):
        calls.append(model)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(model, *rest, **more)

    monkeypatch.setattr(schedule, "fit", breaks)
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=tmp_path / "run")
    assert [file.name for file in tmp_path.iterdir()] == ["run.1"]
    resumed = run(checkpoint=tmp_path / "run")
    assert resumed.rounds == whole.rounds
    assert all(map(torch.equal, resumed.model.state_dict().values(), whole.model.state_dict().values()))
    assert not list(tmp_path.iterdir())


@every_ramp
def test_a_ramp_out_of_range_is_refused(ramp):
    with pytest.raises(CompressionError, match="whole number from 1 up, got 0; 1 is one-shot, try 4"):
        ramp(1, steps=0, sparsity=0.5)
    with pytest.raises(CompressionError, match=r"got 50; did you mean 0\.5\?"):
        ramp(1, steps=4, sparsity=50)
    with pytest.raises(CompressionError, match=r"got -1; try 0\.5"):
        cubic_sparsity(1, steps=4, sparsity=0.5, initial=-1)


@pytest.mark.parametrize("sparsities", [[], [0.8, 0.5]])
def test_sparsities_that_do_not_rise_are_refused(sparsities):
    with pytest.raises(
        CompressionError, match=r"at least one, got \[.*\]; try \[0\.5, 0\.8, 0\.9\], or \[0\.9\] at"
    ):
        prune_iteratively(network(), TRAIN, VALIDATION, sparsities=sparsities, **QUICK)


def test_a_percentage_is_refused_before_any_training():
    with pytest.raises(CompressionError, match=r"got 90; did you mean 0\.9\?"):
        prune_iteratively(network(), TRAIN, VALIDATION, sparsities=[0.5, 90], **QUICK)
