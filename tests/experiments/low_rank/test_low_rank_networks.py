"""What lab 04's long runs keep: networks that come back as they were, a training that goes on."""

import json
import re

import pytest
import torch
from torch import nn

from compresslab.data.images import Images, Splits
from compresslab.errors import CompressionError
from compresslab.experiments import bench as bench_page
from compresslab.experiments.bench import Bench
from compresslab.experiments.long_runs import write_results
from compresslab.experiments.low_rank import plan as experiments
from compresslab.experiments.low_rank import runs
from compresslab.experiments.low_rank.plan import (
    KEPT_SEED,
    LAB,
    load_against_tensorly,
    load_network,
    network_ranks,
)
from compresslab.models.residual import ResidualNetwork
from compresslab.training import loop as training


def tiny(name="baseline", seed=5):
    """Stands for a trained network."""
    torch.manual_seed(seed)
    perceptron = nn.Sequential(nn.Flatten(), nn.Linear(784, 30), nn.ReLU(), nn.Linear(30, 10))
    return (ResidualNetwork(8, [(16, 4), (16, 1)]) if name == "baseline" else perceptron).eval()


def drawn(count):
    """Images of noise."""
    generator = torch.Generator().manual_seed(count)
    pixels = torch.randint(0, 256, (count, 1, 28, 28), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 10)


DATA = Splits(drawn(140), drawn(20), drawn(15))
MADE = {
    "tucker": ("baseline", "tucker", {"blocks.0.conv2": [5, 4], "head": 3}),
    "space": ("baseline", "space", {"blocks.0.conv2": 6}),
    "cp": ("baseline", "cp", {"blocks.1.conv1": 4}),
    "svd_mlp": ("mlp", "whitened", {"1": 4, "3": 3}),
}  # name: (network, way, ranks as JSON gives them back)
TEXT = f"no network {{!r}} is kept; there are {{}}. Repeat the runs with: compresslab train {LAB}"


@pytest.fixture(autouse=True)
def small_world(monkeypatch):
    """Tiny networks of random weights for the trained ones."""
    monkeypatch.setattr(bench_page, "fast_precision", lambda: torch.float32)
    for page in (experiments, runs):
        monkeypatch.setattr(page, "load_baseline", tiny)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """(folder of the results, {name: the network that was trained}): made by the true run, of one step."""
    networks, results, train = {}, {}, runs.fit
    bench = Bench(DATA, tmp_path / LAB)
    for name, (network, way, ranks) in MADE.items():

        def note(*given, name=name, **settings):
            trained = train(*given, **settings)
            networks[name] = trained.model
            return trained

        monkeypatch.setattr(runs, "fit", note)
        asked = {"network": network, "way": way, "ranks": ranks, "epochs": 1, "learning_rate": 0.05}
        asked |= {"augmented": False, "seed": KEPT_SEED}
        key = f"networks/{name}/{KEPT_SEED}"
        results[key] = runs.make_thin(bench, key, **asked) | asked
    write_results(results, tmp_path / f"{LAB}.json")
    return tmp_path, networks


def test_named_networks_come_back_as_thin_as_they_were_with_their_outputs(kept, monkeypatch):
    folder, networks = kept
    monkeypatch.setattr(experiments, "load_baseline", lambda name: tiny(name, seed=6))
    x = DATA.test.inputs()
    for name, (_, _, ranks) in MADE.items():
        back = load_network(name, folder=folder)
        assert not any(module.training for module in back.modules())
        with torch.no_grad():
            assert torch.equal(back(x), networks[name](x)), name
        assert network_ranks(name, folder=folder) == runs.as_ranks(ranks)
    assert network_ranks("tucker", folder=folder)["blocks.0.conv2"] == (5, 4)


@pytest.mark.parametrize("load", [load_network, network_ranks])
def test_a_network_that_is_not_kept_says_which_are(kept, load):
    folder, _ = kept
    with pytest.raises(CompressionError) as refusal:
        load("thick", folder=folder)
    assert str(refusal.value) == TEXT.format("thick", "cp, space, svd_mlp, tucker")
    with pytest.raises(CompressionError) as refusal:
        load("cp", folder=folder / "nowhere")
    assert str(refusal.value) == TEXT.format("cp", "none")


def test_a_file_that_is_missing_damaged_or_of_other_results_is_named(kept):
    folder, _ = kept
    place = folder / LAB / "cp.safetensors"
    says = rf"^{re.escape(str(place))} can't be loaded \(.+\); it holds what a long run found\. "
    others = (folder / LAB / "space.safetensors").read_bytes()
    for content in (others, place.read_bytes()[:-9], b"", None):
        place.write_bytes(content) if content is not None else place.unlink()
        with pytest.raises(CompressionError, match=says + "Get it back with: git checkout -- data/results$"):
            load_network("cp", folder=folder)


def test_an_interrupted_training_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    blind = Bench(Splits(DATA.train, DATA.validation, None), tmp_path)
    asked = {"network": "mlp", "way": "channels", "ranks": {"1": 3}, "epochs": 3, "augmented": False}
    asked |= {"learning_rate": 0.05, "seed": 0}
    whole = runs.make_thin(blind, "tries/long/mlp/0", **asked)
    kept, keep = [], training.keep_checkpoint

    def keep_until_the_power_fails(place, *state, **note):
        keep(place, *state, **note)
        kept.append(place)
        if len(kept) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "keep_checkpoint", keep_until_the_power_fails)
    with pytest.raises(KeyboardInterrupt):
        runs.make_thin(blind, "tries/long/mlp/0", **asked)
    assert [*blind.folder.iterdir()] == [blind.checkpoint("tries/long/mlp/0")]
    assert runs.make_thin(blind, "tries/long/mlp/0", **asked) == whole
    assert len(kept) == 3  # the third epoch alone
    assert [*blind.folder.iterdir()] == []


def test_how_tucker_compares_with_tensorlys_is_read_or_what_brings_it_back_is_said(tmp_path):
    place = tmp_path / LAB / "tensorly.json"
    place.parent.mkdir()
    place.write_text(json.dumps({"seconds_ratio": 0.5}))
    assert load_against_tensorly(folder=tmp_path) == {"seconds_ratio": 0.5}
    says = "can't be read .*; it says how Tucker .* Get it back with: git checkout -- data/results$"
    for content in ("{", "7", None):
        place.write_text(content) if content else place.unlink()
        with pytest.raises(CompressionError, match=f"^{re.escape(str(place))} {says}"):
            load_against_tensorly(folder=tmp_path)
