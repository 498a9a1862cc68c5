"""Outputs of layers: a network run by hand, layer by layer, is the oracle; and nothing is left behind."""

import pytest
import torch
from torch import nn

from compresslab.errors import CompressionError
from compresslab.models.residual import student
from compresslab.models.surgery import layer_outputs


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


def test_the_outputs_are_those_of_the_layers_in_the_order_of_the_names():
    model, images = student().eval(), torch.randn(2, 1, 28, 28)
    output, (pooled, first) = layer_outputs(model, images, ["pool", "blocks.0"])
    by_hand = model.blocks[0](model.stem(images))
    assert torch.equal(first, by_hand)
    assert torch.equal(pooled, model.pool(model.blocks[1](by_hand)))
    assert torch.equal(output, model(images))


def test_gradients_flow_through_an_output_into_the_layers_before_it_only():
    model = student()
    _, (first,) = layer_outputs(model, torch.randn(2, 1, 28, 28), ["blocks.0"])
    first.square().sum().backward()
    assert model.stem[0].weight.grad.abs().max() > 0
    assert model.head.weight.grad is None


def test_no_hook_stays_after_a_run():
    model = student()
    layer_outputs(model, torch.randn(2, 1, 28, 28), ["stem", "head"])
    assert hooks(model) == 0


def test_no_hook_stays_after_an_error():
    model = student()
    with pytest.raises(RuntimeError, match="channels"):
        layer_outputs(model, torch.randn(2, 3, 28, 28), ["stem", "head"])
    assert hooks(model) == 0


def test_the_whole_model_may_be_named_and_no_layer_at_all_too():
    model, x = nn.Sequential(nn.Linear(2, 3), nn.ReLU()), torch.ones(1, 2)
    output, (whole,) = layer_outputs(model, x, [""])
    assert whole is output
    assert layer_outputs(model, x, [])[1] == ()


def test_of_a_layer_that_runs_twice_the_last_output_is_kept():
    layer = nn.Linear(2, 2)
    model, x = nn.Sequential(layer, layer), torch.ones(1, 2)
    output, (kept,) = layer_outputs(model, x, ["0"])
    assert kept is output


def test_a_layer_that_is_not_there_is_refused_with_the_names_that_are():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    with pytest.raises(CompressionError, match=r"layers must name layers of the model \(0, 1\), got 'block'"):
        layer_outputs(model, torch.ones(1, 2), ["0", "block"])
    assert hooks(model) == 0


def test_a_name_in_place_of_a_list_is_refused():
    with pytest.raises(CompressionError, match=r"a list of names, got the text 'stem'; try \['stem'\]"):
        layer_outputs(student(), torch.ones(1, 1, 28, 28), "stem")


def test_a_layer_that_never_ran_is_refused():
    class Partly(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    model = Partly()
    with pytest.raises(CompressionError, match=r"layers that its forward calls \(used\), got 'spare'"):
        layer_outputs(model, torch.ones(1, 2), ["used", "spare"])
    assert hooks(model) == 0
