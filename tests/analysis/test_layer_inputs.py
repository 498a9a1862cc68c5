"""What goes into a layer is what its weight multiplies: rows times weights are the outputs."""

import re

import pytest
import torch
from torch import nn

from compresslab.analysis.layer_inputs import (
    input_rows,
    input_second_moments,
    layers_of_one_group,
    listening,
    mean_over_inputs,
    multiplying_layers,
)
from compresslab.errors import CompressionError


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Dropout(0.5), nn.Flatten(), nn.Linear(27, 4)
        )


def images(count=6):
    return torch.randn(count, 2, 5, 5, generator=torch.Generator().manual_seed(1))


def refuses(says):
    return pytest.raises(CompressionError, match=f"^{re.escape(says)}$")


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 3},
        {"kernel_size": (3, 5), "stride": (2, 1), "padding": (1, 2)},
        {"kernel_size": (2, 3), "dilation": (2, 1), "padding": "same", "padding_mode": "reflect"},
        {"kernel_size": 3, "padding": (2, 1), "padding_mode": "circular"},
        {"kernel_size": 3, "padding": "valid", "stride": 3, "bias": False},
    ],
)
def test_rows_times_weights_are_the_outputs_of_a_convolution(settings):
    layer, x = nn.Conv2d(2, 3, **settings).double(), torch.randn(4, 2, 9, 8).double()
    rows = input_rows(layer, x)
    y = rows @ layer.weight.flatten(1).T + (0 if layer.bias is None else layer.bias)
    torch.testing.assert_close(y, layer(x).flatten(2).mT)


def test_a_linear_layers_rows_are_its_tokens():
    layer, x = nn.Linear(4, 3), torch.randn(2, 5, 4)
    assert torch.equal(input_rows(layer, x), x)
    assert input_rows(layer, x[:, 0]).shape == (2, 1, 4)
    assert input_rows(layer, x[None]).shape == (1, 10, 4)


def test_layers_have_their_names_and_order_and_a_shared_one_its_first():
    model = network()
    model.again = model[3]
    assert multiplying_layers(model) == layers_of_one_group(model) == {"0": model[0], "3": model[3]}
    assert multiplying_layers(model[0]) == {"": model[0]}


def test_moments_tell_the_error_of_the_outputs_beforehand():
    """With V for W and no word on the bias, E |Wx - Vx|² = tr (W - V) G (W - V)ᵀ."""
    model, x = network().double().eval(), images().double()
    moments = input_second_moments(model, [(x, None)])
    for name, layer in multiplying_layers(model).items():
        before, seen = layer.weight.detach().clone(), []
        layer.register_forward_hook(lambda _, given, y, seen=seen: seen.append(given[0]))
        model(x)
        wanted = layer(seen[0])
        layer.weight.data += torch.randn_like(before)
        missed = (layer(seen[0]) - wanted).square().sum(1).mean()  # of an image, at a position
        d = (layer.weight - before).flatten(1)
        torch.testing.assert_close((d @ moments[name] @ d.T).trace(), missed)
        layer.weight.data = before


def test_moments_of_many_images_are_those_of_all():
    model, x = network().double(), images(120).double()  # more than are unfolded at once
    for together, apart in zip(
        input_second_moments(model, [(x, None)]).values(),
        input_second_moments(model, [(part, None) for part in x.split(7)]).values(),
        strict=True,
    ):
        torch.testing.assert_close(together, apart)
        torch.testing.assert_close(together, together.mT)
        assert together.dtype == torch.float64


def test_a_mean_weighs_every_row_alike():
    """Three images in one batch and one in the next: each counts a quarter."""
    x = torch.arange(4.0)[:, None]
    found = mean_over_inputs(
        nn.Linear(1, 1), [(x[:3], None), (x[3:], None)], lambda layer, x: (x.sum(), len(x))
    )
    assert found == {"": torch.tensor(1.5)}


def test_listening_hears_every_call_and_what_it_answers_becomes_the_output():
    model, x, heard = network(), images(), []

    def note(name, layer, given, y):
        heard.append((name, layer, given.shape, y.shape, model.training))
        return torch.zeros_like(y) if name == "3" else None

    with listening(model.train(), note):
        assert not model(x).any()
    assert heard == [
        ("0", model[0], (6, 2, 5, 5), (6, 3, 3, 3), False),
        ("3", model[3], (6, 27), (6, 4), False),
    ]
    assert model.training
    assert model(x).any()


def test_nobody_listens_any_more_after_an_error():
    model = network()
    with pytest.raises(ZeroDivisionError), listening(model, lambda *given: 1 / 0):
        model(images())
    assert model.training
    assert model(images()).shape == (6, 4)


@pytest.mark.parametrize("ask", [multiplying_layers, layers_of_one_group])
def test_a_model_without_layers_is_refused(ask):
    with refuses(
        "model has at least one Conv2d or Linear layer, got ReLU without any; give the whole network"
    ):
        ask(nn.ReLU())


def test_groups_are_welcome_where_they_do_no_harm_and_refused_elsewhere():
    model = nn.Sequential(nn.Conv2d(4, 4, 1, groups=2))
    assert list(multiplying_layers(model)) == ["0"]
    for ask in (layers_of_one_group, lambda m: listening(m, lambda *given: None).__enter__()):
        with refuses(
            "a convolution has one group here, got 2 in '0'; give a network whose layers see all of it"
        ):
            ask(model)


def test_no_images_are_refused():
    says = "batches hold images and labels, at least one, got none; try train.first(500).batches()"
    for batches in ([], [(images(0), None)]):
        with refuses(says):
            mean_over_inputs(network(), batches, lambda layer, x: (x.sum(), len(x)))
