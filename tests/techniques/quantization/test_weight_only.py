"""Weight-only layers: the numbers of the grid are what is multiplied and what the file holds."""

import re

import pytest
import torch
from torch import nn

from compresslab.errors import CompressionError
from compresslab.measurement.costs import storage_bytes
from compresslab.models.residual import baseline, student
from compresslab.storage import load_model, read, save_model
from compresslab.techniques.quantization.affine import channel_range, scale_and_zero_point
from compresslab.techniques.quantization.weight_only import (
    QuantizedConv2d,
    QuantizedLinear,
    WeightGrid,
    on_grid,
    quantize_layer,
    quantize_weights,
    replace_layers,
)

every_width = pytest.mark.parametrize("bits", [2, 3, 4, 8])


def layers():
    torch.manual_seed(0)
    yield nn.Linear(13, 5), torch.randn(2, 13)
    yield nn.Linear(6, 5, bias=False), torch.randn(2, 6)
    yield nn.Conv2d(4, 6, 3, 2, padding=1, groups=2), torch.randn(2, 4, 8, 8)
    yield nn.Conv2d(3, 5, (1, 3), dilation=2, padding="same", padding_mode="reflect"), torch.randn(2, 3, 8, 8)


@every_width
@pytest.mark.parametrize("group_size", [None, 4])
def test_a_layer_computes_as_the_original_does_with_the_nearest_weights_on_the_grid(bits, group_size):
    levels = 2 ** (bits - 1) - 1
    for layer, x in layers():
        ours = quantize_layer(layer, bits=bits, group_size=group_size)(x)
        with torch.no_grad():
            for row in layer.weight.flatten(1):  # views: the original's own weights are moved
                for group in row.split(group_size or len(row)):
                    step = group.abs().max() / levels
                    group.copy_((group / step).round() * step)
        assert torch.allclose(ours, layer(x), atol=1e-6)


def test_integers_lie_in_the_symmetric_range_and_reach_its_end_in_each_channel():
    for layer, _ in layers():
        q = quantize_layer(layer, bits=4).grid.integers(layer.weight)
        assert (q.flatten(1).abs().amax(1) == 7).all()


@every_width
def test_an_asymmetric_grid_is_kept_in_the_file_with_its_zero_points(bits, tmp_path):
    layer, x = next(layers())
    scale, zero = scale_and_zero_point(*channel_range(layer.weight + 0.2), bits=bits, symmetric=False)
    model = nn.Sequential(on_grid(layer, WeightGrid(scale, zero, bits=bits)))
    save_model(model, tmp_path / "one")
    other = nn.Sequential(on_grid(nn.Linear(13, 5), WeightGrid(scale * 2, zero * 0, bits=bits)))
    assert torch.equal(load_model(tmp_path / "one", into=other)(x), model(x))


@pytest.mark.parametrize(("bits", "packed"), [(8, 65), (4, 33), (3, 25), (2, 17)])
def test_the_file_holds_packed_integers_a_scale_a_channel_and_the_bias(bits, packed, tmp_path):
    layer, _ = next(layers())  # 5 × 13 weights
    ledger = save_model(quantize_layer(layer, bits=bits), tmp_path / "one")
    assert dict(ledger.parts) == {"/integers": packed, "/scale": 20, "/bias": 20}
    assert read(tmp_path / "one")[0]["/integers"].dtype == torch.uint8


def test_four_bits_make_the_baselines_file_seven_times_smaller():
    torch.manual_seed(0)
    model = baseline()
    assert storage_bytes(model) / storage_bytes(quantize_weights(model, bits=4)) >= 7


def test_what_others_do_to_the_weight_is_moved_to_the_grid_for_the_output_and_for_the_file(tmp_path):
    for layer, x in layers():
        quantized = quantize_layer(layer, bits=3)
        with torch.no_grad():
            quantized.weight += 0.03 * torch.randn_like(quantized.weight)
        save_model(quantized, tmp_path / "one")
        back = load_model(tmp_path / "one", into=quantize_layer(layer, bits=3))
        assert torch.equal(back(x), quantized(x))
        assert not torch.equal(back.weight, quantized.weight)


def test_quantizing_again_changes_nothing():
    for layer, x in layers():
        once = quantize_layer(layer, bits=4)
        assert torch.allclose(quantize_layer(once, bits=4)(x), once(x), atol=1e-6)


def test_the_layers_to_skip_stay_as_they_are():
    model = student()
    result = quantize_weights(model, bits=2, skip=["head", "stem.0"])
    kinds = {name: type(layer) for name, layer in result.named_modules()}
    assert kinds["head"] is nn.Linear
    assert kinds["stem.0"] is nn.Conv2d
    assert kinds["blocks.0.conv1"] is QuantizedConv2d
    assert torch.equal(result.head.weight, model.head.weight)


def test_a_model_that_is_one_layer_and_a_layer_in_two_places_are_replaced_too():
    shared = nn.Linear(4, 4)
    result = quantize_weights(nn.Sequential(shared, nn.ReLU(), nn.Sequential(shared)), bits=8)
    assert type(result[0]) is QuantizedLinear
    assert result[0] is result[2][0]
    assert type(quantize_weights(shared, bits=8)) is QuantizedLinear


def test_names_are_those_of_the_model():
    seen = []
    replace_layers(student(), lambda name, layer: seen.append(name) or layer)
    modules = student().named_modules()
    assert seen == [name for name, layer in modules if isinstance(layer, nn.Conv2d | nn.Linear)]


def test_no_random_number_is_drawn_and_the_mode_and_what_is_trained_are_kept():
    model = student().eval()
    model.head.weight.requires_grad_(False)
    state = torch.random.get_rng_state()
    result = quantize_weights(model, bits=4)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(module.training for module in result.modules())
    assert not result.head.weight.requires_grad
    assert result.head.bias.requires_grad


def test_a_file_of_other_settings_is_refused(tmp_path):
    layer = next(layers())[0]
    save_model(quantize_layer(layer, bits=4), tmp_path / "four")
    with pytest.raises(
        CompressionError, match=r"four: QuantizedLinear can't be rebuilt .*integers must be \(65,\)"
    ):
        load_model(tmp_path / "four", into=quantize_layer(layer, bits=8))


LAYER = nn.Linear(6, 4)
WRONG = {
    "skip must name layers of the model (0), got 'head'; leave it out": lambda: quantize_weights(
        nn.Sequential(LAYER), bits=4, skip=["head"]
    ),
    "model must have a Conv2d or Linear layer, got ReLU without any; give the whole network": lambda: (
        quantize_weights(nn.ReLU(), bits=4)
    ),
    "scale must be one number or (4, 1) (channels, groups) for weights (4, 6), got (3, 1); compute them from "
    "to_groups(w, size=group_size)": lambda: QuantizedLinear(LAYER, WeightGrid(torch.ones(3), bits=4)),
}


@pytest.mark.parametrize("says", WRONG)
def test_bad_input_is_refused_with_its_text(says):
    with pytest.raises(CompressionError, match=f"^{re.escape(says)}$"):
        WRONG[says]()
