"""Each run of lab 03, on a few made-up images and a tiny network: what it finds, keeps, and leaves behind."""

import copy

import pytest
import torch
from torch import nn

from compresslab.data.images import Images, Splits
from compresslab.experiments import experiment as experiment_module
from compresslab.experiments.experiment import TUNING, Context, Run
from compresslab.experiments.pruning import runs, studies
from compresslab.experiments.pruning.methods import CRITERIA
from compresslab.experiments.results import load_weights
from compresslab.measurement.costs import count_macs
from compresslab.models.residual import ResidualNetwork
from compresslab.techniques.pruning.granularity import global_masks, local_masks, magnitudes
from compresslab.techniques.pruning.masks import masked, masks_of
from compresslab.techniques.pruning.schedule import fit_masked
from compresslab.training import loop as training
from compresslab.training.loop import fit

SHORT = {"learning_rate": 0.1, "seed": 0}


def tiny(seed=5):
    torch.manual_seed(seed)
    return ResidualNetwork(4, [(4, 4), (8, 2)]).eval()


def drawn(count, seed):
    """Images of noise."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 1, 28, 28), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 10)


@torch.no_grad()
def reached(network, images, *, precision=torch.float32):
    """Stands for the accuracy: no two networks have the same on the same images."""
    return float(network.eval()(images.inputs()).double().abs().sum())


DATA = Splits(drawn(300, 0), drawn(510, 1), drawn(80, 2))


@pytest.fixture(autouse=True)
def small_world(monkeypatch):
    """A tiny network of random weights for the trained one; nothing cached of other tests."""
    for page in (runs, studies):
        monkeypatch.setattr(page, "load_baseline", tiny)
        monkeypatch.setattr(page, "accuracy", reached)
    monkeypatch.setattr(experiment_module, "fast_precision", lambda: torch.float32)
    monkeypatch.setattr(studies, "fast_precision", lambda: torch.float32)
    monkeypatch.setattr(studies, "student", lambda: ResidualNetwork(4, [(6, 4)]))
    monkeypatch.setattr(studies, "SCAN_IMAGES", 20)


def given(folder, key="networks/any/1", *, network="", data=DATA):
    """What a run is given; by default it is no try, and the plan names no network of it."""
    return Context(data, folder, Run(key, "", network=network))


@pytest.fixture
def context(tmp_path):
    return given(tmp_path)


@pytest.fixture
def ended(monkeypatch):
    """The networks that runs ended with."""
    networks, report = [], runs._reached

    def note(context, network):
        networks.append(network)
        return report(context, network)

    monkeypatch.setattr(runs, "_reached", note)
    return networks


def zeros(network):
    """The share of all weights of convolutions and linear layers that is zero."""
    weights = [m.weight.flatten() for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return float((torch.cat(weights) == 0).double().mean())


def test_pruning_in_rounds_ends_at_the_sparsity_asked_and_its_zeros_hold_to_the_end(context, ended):
    found = runs.prune_in_rounds(context, sparsity=0.9, rounds=2, epochs=1, more=1, **SHORT)
    assert [r[0] for r in found["rounds_reached"]] == pytest.approx([0.9 - 0.9 / 8, 0.9])
    weights = sum(scores.numel() for scores in magnitudes(tiny()).values())
    assert zeros(ended[0]) == round(0.9 * weights) / weights
    assert found["test_accuracy"] == reached(ended[0], DATA.test)
    alone = runs.prune_in_rounds(context, sparsity=0.9, rounds=2, epochs=1, more=0, **SHORT)
    assert alone["rounds_reached"] == found["rounds_reached"]
    assert all(torch.equal(mask, masks_of(ended[1])[name]) for name, mask in masks_of(ended[0]).items())
    once_more = context.training(epochs=1, **SHORT)
    longer = fit_masked(ended[1], masks_of(ended[1]), DATA.train, DATA.validation, **once_more).model
    assert found["test_accuracy"] == reached(longer, DATA.test) != alone["test_accuracy"]


def test_an_interrupted_training_at_the_end_goes_on_from_its_checkpoint(context, tmp_path, monkeypatch):
    settings = {"sparsity": 0.5, "rounds": 1, "epochs": 1, "more": 3} | SHORT
    whole = runs.prune_in_rounds(given(tmp_path / "whole"), **settings)
    kept, keep, end = [], training.keep_checkpoint, context.checkpoint

    def keep_until_the_power_fails(place, *state, **note):
        keep(place, *state, **note)
        kept.append(place)
        if kept.count(end) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "keep_checkpoint", keep_until_the_power_fails)
    with pytest.raises(KeyboardInterrupt):
        runs.prune_in_rounds(context, **settings)
    assert [file for file in context.folder.iterdir() if file.is_file()] == [end]
    kept.clear()
    assert runs.prune_in_rounds(context, **settings) == whole
    assert kept.count(end) == 1  # the third epoch alone


def test_two_in_four_keeps_two_weights_of_every_four_inputs_after_training_too(context, ended):
    found = runs.prune_two_in_four(context, epochs=1, **SHORT)
    before = tiny()
    for name, layer in ended[0].named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.shape[1] % 4 == 0:
            alive = (layer.weight != 0).movedim(1, -1).unflatten(-1, (-1, 4)).sum(-1)
            assert (alive == 2).all(), name
            assert not torch.equal(layer.weight, before.get_submodule(name).weight * (layer.weight != 0))
    assert (ended[0].stem[0].weight != 0).all()
    masks = {name: mask for name, mask in masks_of(ended[0]).items() if name != "stem.0"}
    assert found["pruned_accuracy"] == reached(masked(before, masks), DATA.validation)
    assert found["test_accuracy"] == reached(ended[0], DATA.test)


@pytest.mark.parametrize("choice", ["magnitude", "taylor"])
def test_channels_are_removed_until_the_macs_suffice_and_the_thin_network_learns(context, ended, choice):
    whole = count_macs(tiny(), DATA.test.inputs()[:1])
    found = runs.prune_channels(context, choice=choice, macs=whole // 2, epochs=2, **SHORT)
    assert found["macs_per_sample"] == count_macs(ended[0], DATA.test.inputs()[:1]) <= whole // 2
    assert found["channels"]["stem.0"] == ended[0].stem[0].out_channels
    assert len(found["history"]) == 2
    assert found["validation_accuracy"] == reached(ended[0], DATA.validation) != found["pruned_accuracy"]
    assert found["test_accuracy"] == reached(ended[0], DATA.test)


RUNS = {
    "rounds": (runs.prune_in_rounds, {"sparsity": 0.5, "rounds": 1, "more": 1}),
    "nm": (runs.prune_two_in_four, {}),
    "thin": (runs.prune_channels, {"choice": "magnitude", "macs": 30_000}),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_network_that_the_plan_names_is_kept(tmp_path, ended, name, monkeypatch):
    run, settings = RUNS[name]
    other = given(tmp_path / "other")
    assert "storage_bytes" not in run(other, epochs=1, **settings | SHORT)
    assert not other.network_path.exists()
    context = given(tmp_path, network=name)
    found = run(context, epochs=1, **settings | SHORT)
    kept = context.network_path
    assert kept.stat().st_size == found["storage_bytes"]
    monkeypatch.setattr(runs, "load_baseline", lambda: tiny(seed=6))
    back = load_weights(kept, into=runs.structure(name, found))
    with torch.no_grad():
        assert torch.equal(back.eval()(DATA.test.inputs()), ended[1](DATA.test.inputs()))


@pytest.mark.parametrize("name", RUNS)
def test_a_try_reads_no_test_image_and_keeps_nothing(tmp_path, name):
    run, settings = RUNS[name]
    blind = Splits(DATA.train, DATA.validation, None)
    found = run(given(tmp_path, f"{TUNING}/{name}/0", data=blind), epochs=1, **settings | SHORT)
    assert "validation_accuracy" in found
    assert "test_accuracy" not in found
    assert not given(tmp_path).network_path.exists()
    with pytest.raises(AttributeError):  # a reported one does read
        run(given(tmp_path / "reported", data=blind), epochs=1, **settings | SHORT)


# studies


def test_the_study_of_masks_says_what_the_masked_network_reaches(context):
    settings = {"granularity": "kernel", "sparsities": [0.0, 0.6], "images": 50, "seed": 0}
    found = [studies.study_masks(context, criterion=name, **settings) for name in CRITERIA]
    none, most = zip(*(each["test_accuracies"] for each in found), strict=True)
    assert set(none) == {reached(tiny(), DATA.test)}
    assert len(set(most)) == len(CRITERIA)  # every criterion has its own opinion


@pytest.fixture
def trainings(monkeypatch):
    """What the studies trained: (network before, masks, images, settings, network after, validation)."""
    calls, train = [], studies.fit_masked

    def note(network, masks, images, validation, **settings):
        trained = train(network, masks, images, validation, **settings)
        calls.append((network, masks, images, settings, trained.model, validation))
        return trained

    monkeypatch.setattr(studies, "fit_masked", note)
    return calls


def test_tuning_reports_the_masked_network_after_one_pass_with_the_same_zeros(context, trainings):
    settings = {"criterion": "taylor", "granularity": "channel", "sparsity": 0.5, "images": 200}
    found = studies.study_tuning(context, **settings, learning_rate=0.1, seed=3)
    ((_, masks, images, told, after, validation),) = trainings
    assert found == {"test_accuracy": reached(after, DATA.test)}
    assert torch.equal(images.pixels, context.sample(200, 3).pixels)
    assert torch.equal(validation.pixels, DATA.validation.pixels[:500])
    assert told == {"epochs": 1, "learning_rate": 0.1, "seed": 3, "precision": torch.float32}
    assert all(not after.get_submodule(name).weight[~mask].any() for name, mask in masks.items())
    assert (~masks["blocks.0.conv1"]).flatten(1).all(dim=1).sum() == 2  # half of the four filters


@pytest.mark.parametrize("sparsity", [0.5, 0.8])
def test_an_allocation_keeps_as_many_weights_as_asked_the_scan_at_most(context, trainings, sparsity):
    alive, settings = {}, {"sparsity": sparsity, "images": 130, "learning_rate": 0.1, "seed": 0}
    for allocation in studies.ALLOCATIONS:
        studies.study_allocation(context, allocation=allocation, **settings)
        masks = trainings[-1][1]
        alive[allocation] = sum(int(mask.sum()) for mask in masks.values())
        assert masks.keys() == magnitudes(tiny()).keys()
        uniform = local_masks(magnitudes(tiny()), sparsity=sparsity)
        assert any(not torch.equal(mask, uniform[name]) for name, mask in masks.items())
    weights = sum(scores.numel() for scores in magnitudes(tiny()).values())
    assert alive["global"] == weights - round(sparsity * weights)
    assert 0.9 * alive["global"] < alive["scan"] <= alive["global"]


def test_the_scan_finds_no_damage_where_nothing_is_pruned_and_more_where_more_is(context):
    damages = studies.scan(context, sparsities=[0.0, 0.95], images=20)["damages"]
    assert damages.keys() == magnitudes(tiny()).keys()
    assert all(abs(none) < 1e-6 < much for none, much in damages.values())


def test_the_surgeon_compares_three_ways_at_the_same_sparsities(context, monkeypatch):
    shares = []
    monkeypatch.setattr(
        studies, "accuracy", lambda network, images, precision: shares.append(zeros(network)) or 0.5
    )
    found = studies.study_surgeon(context, sparsities=[0.25, 0.75], images=40, seed=0)
    assert found == {way: [0.5, 0.5] for way in ("magnitude", "compensated", "sparse_gpt")}
    assert shares == pytest.approx([0.25] * 3 + [0.75] * 3, abs=0.02)


LOTTERY = {"sparsity": 0.7, "channel_macs": 0.6, "epochs": 2, "learning_rate": 0.2, "seed": 2}


@pytest.mark.parametrize("early_steps", [1, 4, 100])
def test_a_rewound_ticket_begins_with_the_weights_of_the_early_step(context, trainings, early_steps):
    found = studies.study_lottery(context, early_steps=early_steps, **LOTTERY)
    torch.manual_seed(2)
    start, other = studies.student(), studies.student()
    steps, settings = [start], context.training(epochs=2, learning_rate=0.2, seed=2)

    def after_step(model):
        steps.append(copy.deepcopy(model))

    dense = fit(start, DATA.train, DATA.validation, after_step=after_step, **settings).model
    early = steps[early_steps] if early_steps < len(steps) else start
    masks = global_masks(magnitudes(dense), sparsity=0.7)
    for call, network in zip(trainings[1:5], (dense, early, start, other), strict=True):
        assert all(torch.equal(call[1][name], mask) for name, mask in masks.items())
        for (name, ours), wanted in zip(call[0].named_parameters(), network.parameters(), strict=True):
            assert torch.equal(ours, wanted), name
    assert found["rewound"] == reached(trainings[2][4], DATA.test)


def test_the_lotterys_networks_are_trained_for_as_long_and_the_thin_ones_are_of_one_size(context, trainings):
    found = studies.study_lottery(context, early_steps=1, **LOTTERY)
    assert found.keys() == {
        "dense",
        "dense_longer",
        "fine_tuned",
        "rewound",
        "from_the_start",
        "other_weights",
        "channels_fine_tuned",
        "channels_from_scratch",
        "channels_from_scratch_longer",
    }
    assert [call[3]["epochs"] for call in trainings] == [4, 2, 2, 2, 2, 2, 2, 4]
    assert [round(zeros(call[4]), 2) for call in trainings] == [0, 0.7, 0.7, 0.7, 0.7, 0, 0, 0]
    x = DATA.test.inputs()[:1]
    whole, *thin = (count_macs(call[4], x) for call in (trainings[0], *trainings[5:]))
    assert len(set(thin)) == 1
    assert thin[0] <= 0.6 * whole
    tuned, scratch = trainings[5][0], trainings[6][0]
    assert [p.shape for p in tuned.parameters()] == [p.shape for p in scratch.parameters()]
    assert not torch.equal(tuned.head.weight, scratch.head.weight)
