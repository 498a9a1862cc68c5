"""Modules found, replaced and observed: in place, once, and with nothing left behind."""

import re

import pytest
import torch
from torch import nn

from compresslab.errors import CompressionError
from compresslab.models.surgery import (
    check_layer_names,
    evaluating,
    forward_hooks,
    replace_modules,
    ungrouped_layers,
    weight_layers,
)


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Dropout(0.5), nn.Flatten(), nn.Linear(27, 4)
        )


def images():
    return torch.randn(6, 2, 5, 5, generator=torch.Generator().manual_seed(1))


def refuses(says):
    return pytest.raises(CompressionError, match=f"^{re.escape(says)}$")


# find


def test_layers_have_their_names_and_order_and_a_shared_one_its_first():
    model = network()
    model.again = model[3]
    assert weight_layers(model) == ungrouped_layers(model) == {"0": model[0], "3": model[3]}
    assert list(weight_layers(model)) == ["0", "3"]
    assert weight_layers(model[0]) == {"": model[0]}


@pytest.mark.parametrize("find", [weight_layers, ungrouped_layers])
def test_a_model_without_layers_is_refused(find):
    with refuses("model must have a Conv2d or Linear layer, got ReLU without any; give the whole network"):
        find(nn.ReLU())


def test_a_convolution_in_groups_is_found_but_not_among_the_ungrouped():
    model = nn.Sequential(nn.Conv2d(4, 4, 1, groups=2))
    assert list(weight_layers(model)) == ["0"]
    with refuses(
        "model must have convolutions of one group here, got 2 groups in '0'; "
        "use a method that needs no layer inputs"
    ):
        ungrouped_layers(model)


def test_an_unknown_name_is_refused_with_the_known_ones():
    check_layer_names("skip", ["stem", "head"], {"stem": 1, "head": 2})
    with refuses("skip must name layers of the model (stem, head), got 'tail'; leave it out"):
        check_layer_names("skip", ["stem", "tail"], ["", "stem", "head"])
    with refuses("ranks must name layers that run (none), got 'tail'; leave it out"):
        check_layer_names("ranks", {"tail": 4}, [], of="layers that run")
    with refuses("skip must be a list of names, got the text 'head'; try ['head']"):
        check_layer_names("skip", "head", ["h", "e", "a", "d", "head"])


# replace


def test_a_module_in_two_places_is_made_once_by_its_first_name_and_stands_in_both():
    shared, asked = nn.Linear(2, 2), []

    def make(name, module):
        if isinstance(module, nn.Linear):
            asked.append(name)
            return nn.Identity()
        return None

    model = nn.Sequential(shared, nn.Sequential(nn.ReLU(), shared))
    changed = replace_modules(model, make)
    assert changed is model
    assert asked == ["0"]
    assert model[0] is model[1][1]
    assert isinstance(model[0], nn.Identity)


def test_what_is_inside_comes_before_it_and_the_model_itself_last():
    names = []
    model = nn.Sequential(nn.Sequential(nn.ReLU(), nn.ReLU()), nn.ReLU())
    assert replace_modules(model, lambda name, module: names.append(name)) is model
    assert names == ["0.0", "0.1", "0", "1", ""]


@pytest.mark.parametrize("model", [nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2))])
def test_a_model_may_be_replaced_itself(model):
    other = nn.Identity()
    assert replace_modules(model, lambda name, module: None if name else other) is other


# observe


def test_a_hook_is_called_at_every_run_and_what_it_returns_becomes_the_output():
    model, x, calls = network().eval(), images(), []

    def hook(name, layer, given, y):
        calls.append((name, layer, given.shape, y.shape))
        return torch.zeros_like(y) if name == "head" else None

    with forward_hooks({"stem": model[0], "head": model[3]}, hook):
        assert not model(x).any()
        model(x[:2])
    assert calls == [
        ("stem", model[0], (6, 2, 5, 5), (6, 3, 3, 3)), ("head", model[3], (6, 27), (6, 4)),
        ("stem", model[0], (2, 2, 5, 5), (2, 3, 3, 3)), ("head", model[3], (2, 27), (2, 4)),
    ]  # fmt: skip
    assert model(x).any()
    assert len(calls) == 4


def test_no_hook_is_left_after_an_error_in_the_block_or_in_the_hook():
    model = network()
    with pytest.raises(ZeroDivisionError), forward_hooks(weight_layers(model), lambda *given: 1 / 0):
        model(images())
    assert model(images()).shape == (6, 4)
    assert not any(module._forward_hooks for module in model.modules())


def test_evaluation_mode_ends_with_its_block_and_each_module_has_its_own_mode_again():
    model = network().train()
    model[0].eval()

    def block():
        with evaluating(model, "no model"):
            assert not any(module.training for module in model.modules())
            assert not torch.is_grad_enabled()
            raise KeyError

    with pytest.raises(KeyError):
        block()
    assert torch.is_grad_enabled()
    assert [module.training for module in model] == [False, True, True, True]
    assert model.training
