"""The ranks that lab 04's plan derives; its networks come back; an interrupted training goes on."""

import itertools
import json

import pytest
import torch
from torch import nn

from compresslab.data.images import Images, Splits
from compresslab.errors import BadSetting, DamagedFile
from compresslab.experiments.experiment import TUNING, Context, Run
from compresslab.experiments.low_rank import plan, runs
from compresslab.experiments.low_rank.plan import (
    COMPARED,
    MLP_BUDGET,
    SHARES,
    PerceptronRanks,
    Ranks,
    load_against_tensorly,
    load_network,
    network_ranks,
)
from compresslab.measurement.costs import count_macs
from compresslab.models.residual import ResidualNetwork
from compresslab.techniques.low_rank.factorization import thin_like
from compresslab.techniques.low_rank.layer_splits import CHANNELS, SPLITS
from compresslab.training import loop as training

ONE = torch.zeros(1, 1, 28, 28)


def tiny(name="baseline", seed=5):
    """Stands for a trained network."""
    torch.manual_seed(seed)
    hidden = [(nn.Linear(m, n), nn.ReLU()) for m, n in itertools.pairwise((784, 30, 400))]
    perceptron = nn.Sequential(nn.Flatten(), *itertools.chain(*hidden), nn.Linear(400, 10))
    return (ResidualNetwork(8, [(16, 2), (16, 2)]) if name == "baseline" else perceptron).eval()


@pytest.fixture
def small_world(monkeypatch):
    """Tiny networks of random weights for the trained ones; nothing cached of other tests."""
    for module in (plan, runs):
        monkeypatch.setattr(module, "load_baseline", tiny)
    for function in (plan._ranks, plan._perceptron_ranks):
        function.cache_clear()
    yield
    for function in (plan._ranks, plan._perceptron_ranks):
        function.cache_clear()


@pytest.mark.parametrize("way", [*COMPARED, "channels", "random"])
def test_ranks_of_a_budget_meet_its_macs(small_world, monkeypatch, way):
    monkeypatch.setattr(plan, "MULTIPLE", 1)
    split = SPLITS.get(Ranks(way, 1.0).scanned, CHANNELS)
    layers = [f"blocks.{block}.conv{n}" for block in (0, 1) for n in (1, 2)]
    damages = {name: [0.01 * (place + 1) for place in range(len(SHARES))] for name in layers}
    (scan,) = Ranks(way, 1.0).after
    whole = count_macs(tiny(), ONE)
    macs = []
    for budget in (1.2, 1.5, 2.0):
        ranks = Ranks(way, budget).value({scan: {"damages": damages}})
        assert json.loads(json.dumps(ranks)) == ranks
        macs.append(count_macs(thin_like(tiny(), runs.as_ranks(ranks), split=split), ONE))
        assert macs[-1] <= whole / budget
    assert macs[0] > macs[1] > macs[2] > 0.3 * whole  # and use what they may


def test_the_perceptrons_hidden_layers_meet_their_budget_and_use_it(small_world, monkeypatch):
    perceptron = tiny("mlp")
    with torch.no_grad():  # some directions matter more than others, as in trained ones
        for layer in (perceptron[1], perceptron[3]):
            u, s, v = torch.linalg.svd(layer.weight, full_matrices=False)
            layer.weight.copy_(u * (s * 0.7 ** torch.arange(len(s))) @ v)
    monkeypatch.setattr(plan, "load_baseline", lambda name="baseline": perceptron)
    ranks = PerceptronRanks().value({})
    assert ranks.keys() == {"1", "3"}  # the last layer stays whole
    assert min(ranks.values()) > 1
    thin, whole = count_macs(thin_like(perceptron, ranks), ONE), count_macs(perceptron, ONE)
    assert whole / MLP_BUDGET - (30 + 400) < thin <= whole / MLP_BUDGET  # no room for one more rank


@pytest.mark.parametrize("name", ["tucker", "space", "cp", "svd_mlp"])
def test_the_ranks_of_a_stored_network_are_those_of_its_layers(name):
    network = load_network(name)
    for layer, rank in network_ranks(name).items():
        first = next(network.get_submodule(layer).children())
        assert first.weight.shape[0] == (rank if isinstance(rank, int) else rank[1])


def test_the_ranks_of_no_network_are_refused():
    with pytest.raises(BadSetting, match=r"name must be one of .*tucker.* got 'thick'"):
        network_ranks("thick")


def drawn(count):
    """Images of noise."""
    generator = torch.Generator().manual_seed(count)
    pixels = torch.randint(0, 256, (count, 1, 28, 28), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 10)


def test_an_interrupted_training_goes_on_from_its_checkpoint(small_world, tmp_path, monkeypatch):
    data, run = Splits(drawn(140), drawn(20), None), Run(f"{TUNING}/long/mlp/0", "make_thin")
    asked = {"network": "mlp", "way": "channels", "ranks": {"1": 3}, "epochs": 3, "augmented": False}
    asked |= {"learning_rate": 0.05, "seed": 0}
    (tmp_path / "whole").mkdir()
    whole = runs.make_thin(Context(data, tmp_path / "whole", run), **asked)
    kept, keep, context = [], training.keep_checkpoint, Context(data, tmp_path, run)

    def keep_until_the_power_fails(path, *state, **note):
        keep(path, *state, **note)
        kept.append(path)
        if len(kept) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "keep_checkpoint", keep_until_the_power_fails)
    with pytest.raises(KeyboardInterrupt):
        runs.make_thin(context, **asked)
    assert runs.make_thin(context, **asked) == whole
    assert kept == [context.checkpoint] * 3  # the third epoch alone


def test_how_tucker_compares_with_tensorlys_is_read(tmp_path):
    assert load_against_tensorly()
    with pytest.raises(DamagedFile, match=r"tensorly\.json can't be read .*; it says how Tucker"):
        load_against_tensorly(folder=tmp_path)
