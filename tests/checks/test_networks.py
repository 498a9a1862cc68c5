"""Networks as plain data: built the same every time, whatever else is random."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compresslab.checks.networks import build
from compresslab.errors import CompressionError

LINEAR = ["Linear", {"in_features": 4, "out_features": 4}]


def same_weights(one, other):
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_a_list_becomes_the_layers_it_names():
    model = build([LINEAR, ["ReLU", {}], ["Linear", {"in_features": 4, "out_features": 2, "bias": False}]])
    assert [type(layer) for layer in model] == [nn.Linear, nn.ReLU, nn.Linear]
    assert model[2].bias is None
    assert model(torch.ones(3, 4)).shape == (3, 2)


def test_the_weights_are_the_same_every_time_and_the_random_numbers_are_left_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = build([LINEAR])
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert same_weights(one, build([LINEAR]))


def test_the_network_is_in_evaluation_mode():
    assert not any(module.training for module in build([["BatchNorm1d", {"num_features": 4}]]).modules())


def test_the_same_layer_is_one_module():
    model = build([LINEAR, ["ReLU", {}], ["Same", {"as": 0}]])
    assert model[0] is model[2]
    assert len(list(model.parameters())) == 2


def test_a_residual_part_adds_its_input():
    model = build([["Residual", {"layers": [LINEAR]}]])
    x = torch.randn(2, 4)
    assert torch.allclose(model(x), x + model[0].branch(x))


def test_a_sequential_part_has_a_name_of_its_own():
    assert list(build([["Sequential", {"layers": [LINEAR]}]]).state_dict()) == ["0.0.weight", "0.0.bias"]


@pytest.mark.parametrize("kind", ["Lambda", "linear", "_Residual", "Module"])
def test_a_layer_that_is_not_listed_is_refused(kind):
    with pytest.raises(CompressionError, match=f"no layer is called '{kind}'; there are AvgPool2d"):
        build([[kind, {}]])
