"""A scan compresses one layer at a time; torch's softmax says how far the outputs then move."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.analysis.sensitivity import accuracy_sensitivity, divergence, output_sensitivity, scan
from compresslab.data.images import Images
from compresslab.errors import BadSetting
from compresslab.training.loop import accuracy


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(784, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 10)
        )


def images(n=30):
    pixels = torch.randint(0, 256, (n, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    return Images(pixels.to(torch.uint8), torch.arange(n) % 10)


def mean_kl(z, changed):
    p, q = F.softmax(z, 1).double(), F.softmax(changed, 1).double()
    return float((p * (p / q).log()).sum(1).mean())


def test_each_layer_is_compressed_with_each_strength_and_measured_in_its_place():
    made = []

    def compress(name, strength):
        made.append((name, strength))
        return None if (name, strength) == ("b", 1) else nn.Linear(strength, 1)

    found = scan(iter("ab"), (1, 3), compress, lambda network: 10 * network.in_features)
    assert found == {"a": [10, 30], "b": [None, 30]}
    assert made == [("a", 1), ("a", 3), ("b", 1), ("b", 3)]
    assert scan([], (1,), compress, float) == {}


def test_the_divergence_is_that_of_the_probabilities():
    z, changed = torch.randn(7, 5), torch.randn(7, 5)
    assert float(divergence(z, changed)) == pytest.approx(mean_kl(z, changed), rel=1e-5)
    assert float(divergence(z, z + 3)) == pytest.approx(0, abs=1e-6)


def test_outputs_are_compared_in_evaluation_mode_and_both_networks_are_left_alone():
    model, other, x = network().train(), network(1).train(), images().inputs()
    with torch.no_grad():
        wanted = mean_kl(copy.deepcopy(model).eval()(x), copy.deepcopy(other).eval()(x))
    before = [copy.deepcopy(m.state_dict()) for m in (model, other)]
    measure = output_sensitivity(model, x)
    assert measure(other) == measure(other) == pytest.approx(wanted, rel=1e-5)
    assert measure(model) == pytest.approx(0, abs=1e-7)
    for m, state in zip((model, other), before, strict=True):
        assert m.training
        assert all(torch.equal(tensor, state[name]) for name, tensor in m.state_dict().items())
        assert all(p.grad is None for p in m.parameters())


def test_accuracy_is_compared_with_that_of_the_model():
    model, other = network(), network(1)
    measure = accuracy_sensitivity(model, images())
    assert measure(model) == 0
    assert measure(other) == pytest.approx(accuracy(model, images()) - accuracy(other, images()))
    assert measure(other) != 0


def test_no_images_are_refused():
    says = r"^inputs must have at least one image, got none; try validation\.first\(500\)\.inputs\(\)$"
    with pytest.raises(BadSetting, match=says):
        output_sensitivity(network(), images().inputs()[:0])
