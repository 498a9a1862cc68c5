"""The long runs: each is kept as it ends, none is run twice, and what is loaded is what was measured."""

import json
import os

import pytest
import torch
from torch import nn

from compresslab.data.images import Images, Splits
from compresslab.errors import CompressionError
from compresslab.experiments.quantization import plan as experiments
from compresslab.experiments.quantization.plan import EXPERIMENTS, LAB, load_experiment, run_experiments
from compresslab.models.residual import student
from compresslab.techniques.quantization.codebook import share_weights
from compresslab.techniques.quantization.weight_only import quantize_weights
from compresslab.training.loop import accuracy

SETTINGS = {
    "w4_rounded": {"bits": 4, "images": 8},
    "mixed": {"images": 8, "uniform_bits": 4},
    "w2_aware": {"bits": 2, "epochs": 1, "learning_rate": 0.01},
    "codebook_2bit": {"bits": 2, "epochs": 1, "learning_rate": 0.01},
}


@pytest.fixture
def data():
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (160, 1, 28, 28), dtype=torch.uint8, generator=rng)
    images = Images(pixels, torch.arange(160) % 10)
    return Splits(images, images, images)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Four experiments, made short, on an untrained small network."""
    torch.manual_seed(0)
    network = student().eval()
    monkeypatch.setattr(experiments, "load_baseline", lambda: network)
    kept = {
        name: experiments.Experiment(EXPERIMENTS[name].run, EXPERIMENTS[name].empty, settings)
        for name, settings in SETTINGS.items()
    }
    monkeypatch.setattr(experiments, "EXPERIMENTS", kept)
    return kept


def test_every_experiment_leaves_its_weights_and_its_figures(data, tmp_path):
    results = run_experiments(data, folder=tmp_path)
    assert list(results) == list(SETTINGS)
    assert json.loads((tmp_path / f"{LAB}.json").read_text()) == json.loads(json.dumps(results))
    base = accuracy(experiments.load_baseline(), data.test)
    for name, result in results.items():
        loaded = load_experiment(name, folder=tmp_path)
        assert result["drop"] == pytest.approx(base - accuracy(loaded, data.test))
        assert result["drop_low"] <= result["drop"] <= result["drop_high"]
        assert result["storage_bytes"] == os.path.getsize(tmp_path / LAB / f"{name}.safetensors")
        assert result["settings"] == SETTINGS[name]
        assert not list(tmp_path.rglob("*.checkpoint.safetensors"))


def test_the_layers_have_the_forms_that_the_names_promise(data, tmp_path):
    run_experiments(data, folder=tmp_path)
    for name, distinct in (("w4_rounded", 15), ("w2_aware", 3)):
        w = load_experiment(name, folder=tmp_path).blocks[1].conv2.weight
        assert max(len(row.unique()) for row in w.flatten(1)) <= distinct
    untrained = quantize_weights(experiments.load_baseline(), bits=2)
    assert not torch.equal(w, untrained.blocks[1].conv2.weight)
    shared = load_experiment("codebook_2bit", folder=tmp_path)
    layers = [layer for layer in shared.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert all(len(layer.weight.unique()) <= 4 for layer in layers)
    untrained = share_weights(experiments.load_baseline(), bits=2)
    assert not torch.equal(shared.head.grid.codebook, untrained.head.grid.codebook)


def test_mixed_bits_take_no_more_bytes_than_uniform_ones(data, tmp_path):
    results = run_experiments(data, folder=tmp_path)
    assert results["mixed"]["storage_bytes"] <= results["w4_rounded"]["storage_bytes"]


def test_what_is_there_is_not_run_again_and_what_is_missing_or_changed_is(data, tmp_path, small, monkeypatch):
    first = run_experiments(data, folder=tmp_path)
    ran = []

    def run(name, model, data, folder):
        ran.append(name)
        return dict(first[name], settings=dict(small[name].settings))

    monkeypatch.setattr(experiments, "_run", run)
    assert run_experiments(data, folder=tmp_path) == json.loads(json.dumps(first))
    assert ran == []
    (tmp_path / LAB / "mixed.safetensors").rename(tmp_path / "away")
    small["w2_aware"] = experiments.Experiment(
        small["w2_aware"].run, small["w2_aware"].empty, SETTINGS["w2_aware"] | {"epochs": 2}
    )
    run_experiments(data, folder=tmp_path)
    assert ran == ["mixed", "w2_aware"]


def test_an_interrupted_run_keeps_what_has_ended_and_reads_no_test_image(data, tmp_path, small, monkeypatch):
    def interrupted(*args, **settings):
        raise KeyboardInterrupt

    small["w2_aware"] = experiments.Experiment(interrupted, EXPERIMENTS["w2_aware"].empty, {})
    with pytest.raises(KeyboardInterrupt):
        run_experiments(Splits(data.train, data.validation, None), folder=tmp_path)
    kept = json.loads((tmp_path / f"{LAB}.json").read_text())
    assert list(kept) == ["w4_rounded", "mixed"]
    assert not any("drop" in result for result in kept.values())


def test_an_experiment_that_has_not_ended_is_refused(tmp_path):
    with pytest.raises(
        CompressionError, match="its run has ended, got 'mixed'; run them with: compresslab train"
    ):
        load_experiment("mixed", folder=tmp_path)
