"""The runs of lab 01, made short, on an untrained small network: what they keep is what they measured."""

import pytest
import torch
from torch import nn

from compresslab.data.images import Images, Splits
from compresslab.experiments.experiment import Context, Run
from compresslab.experiments.quantization import runs
from compresslab.experiments.results import load_weights
from compresslab.models.residual import student
from compresslab.techniques.quantization.codebook import share_weights
from compresslab.techniques.quantization.weight_only import quantize_weights
from compresslab.training.loop import accuracy

MADE = {
    "w4_nearest": (runs.round_to_nearest, {"bits": 4}),
    "w4_rounded": (runs.round_with_data, {"bits": 4, "images": 8}),
    "mixed": (runs.mix_precisions, {"images": 8, "uniform_bits": 4}),
    "w2_aware": (runs.train_aware, {"bits": 2, "epochs": 1, "learning_rate": 0.01}),
    "codebook_2bit": (runs.cluster, {"bits": 2, "epochs": 1, "learning_rate": 0.01}),
}


def drawn(count):
    generator = torch.Generator().manual_seed(count)
    pixels = torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(count) % 10)


DATA = Splits(drawn(160), drawn(100), drawn(90))


@pytest.fixture(scope="module")
def untrained():
    torch.manual_seed(0)
    return student().eval()


@pytest.fixture(scope="module")
def ended(untrained, tmp_path_factory):
    """{name: (what its run found, the network that comes back from its file, the file)}."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "load_baseline", lambda: untrained)
        found = {}
        for name, (function, settings) in MADE.items():
            context = Context(DATA, tmp_path_factory.mktemp(name), Run(name, "", network=name))
            record = function(context, **settings)
            structure = runs.structure(name, record | settings)
            found[name] = record, load_weights(context.network_path, into=structure), context.network_path
        yield found


@pytest.mark.parametrize("name", MADE)
def test_a_run_says_what_its_network_loses_and_what_its_file_weighs(ended, untrained, name):
    record, network, path = ended[name]
    assert record["drop"] == pytest.approx(accuracy(untrained, DATA.test) - accuracy(network, DATA.test))
    assert record["drop_low"] <= record["drop"] <= record["drop_high"]
    lost = accuracy(untrained, DATA.validation) - accuracy(network, DATA.validation)
    assert record["validation_drop"] == pytest.approx(lost)
    assert record["storage_bytes"] == path.stat().st_size
    assert record["file_ratio"] > 2


def test_the_layers_have_the_forms_that_the_names_promise(ended, untrained):
    for name, distinct in (("w4_rounded", 15), ("w2_aware", 3)):
        w = ended[name][1].blocks[1].conv2.weight
        assert max(len(row.unique()) for row in w.flatten(1)) <= distinct
    assert not torch.equal(w, quantize_weights(untrained, bits=2).blocks[1].conv2.weight)
    shared = ended["codebook_2bit"][1]
    layers = [layer for layer in shared.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert all(len(layer.weight.unique()) <= 4 for layer in layers)
    untrained_codebook = share_weights(untrained, bits=2).head.grid.codebook
    assert not torch.equal(shared.head.grid.codebook, untrained_codebook)


def test_mixed_bits_take_no_more_bytes_than_uniform_ones(ended):
    assert ended["mixed"][0]["storage_bytes"] <= ended["w4_rounded"][0]["storage_bytes"]


def test_the_better_rounding_is_chosen_by_validation(ended):
    record, network, _ = ended["w4_rounded"]
    reached = record["details"]["validation_accuracy_by"]
    assert reached.keys() == {"gptq", "adaround"}
    assert accuracy(network, DATA.validation) == max(reached.values()) == reached[record["details"]["chosen"]]
