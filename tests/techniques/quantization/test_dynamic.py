"""Dynamic quantization, held against sums of integers and ONNX's definition of the range."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.techniques.quantization.dynamic import QuantizedInput, quantize_dynamic


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def integers(values, step, zero, low, high):
    return (values.double() / step + zero).round().clamp(low, high).long()


def in_integers(layer, x):
    """The oracle: ONNX's DynamicQuantizeLinear, an integer sum, one multiplication back to reals."""
    low, high = min(x.min().item(), 0.0), max(x.max().item(), 0.0)
    s_x = (high - low) / 255
    z_x = round(-low / s_x)
    q_x = integers(x, s_x, z_x, 0, 255)
    s_w = layer.weight.double().flatten(1).abs().amax(1) / 127
    q_w = integers(layer.weight, s_w.reshape(-1, *[1] * (layer.weight.dim() - 1)), 0, -127, 127)
    if isinstance(layer, nn.Linear):
        return (q_x - z_x) @ q_w.t() * (s_x * s_w) + layer.bias.double()
    # float64 sums integers of this size exactly
    sums = F.conv2d((q_x - z_x).double(), q_w.double(), None, layer.stride, layer.padding)
    return sums * (s_x * s_w).reshape(-1, 1, 1) + layer.bias.double().reshape(-1, 1, 1)


@pytest.mark.parametrize("shift", [0.0, 2.0, -5.0])  # ranges around zero, mostly above it, wholly below it
@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_the_output_is_that_of_integer_arithmetic(kind, shift):
    torch.manual_seed(0)
    layer = nn.Linear(200, 7) if kind == "linear" else nn.Conv2d(5, 7, 3, stride=2, padding=1)
    x = (drawn(4, 200) if kind == "linear" else drawn(2, 5, 9, 9)) + shift
    with torch.no_grad():
        ours, theirs = quantize_dynamic(layer)(x), in_integers(layer, x)
    assert torch.allclose(ours.double(), theirs, rtol=0, atol=2e-6 * float(theirs.abs().max()))


def test_the_range_is_found_anew_at_each_call():
    grid = QuantizedInput()
    for width in (1e-3, 1.0, 1e3):
        x = drawn(1000) * width
        assert (grid(x) - x).abs().max() <= (x.max() - x.min()) / 255
        assert len(grid(x).unique()) > 100


def test_an_image_depends_on_the_others_in_its_batch():
    grid, x = QuantizedInput(), drawn(2, 50)
    assert not torch.equal(grid(torch.cat([x, 100 * x]))[:2], grid(x))


def test_an_input_of_zeros_stays_zero():
    assert not QuantizedInput()(torch.zeros(2, 3)).any()


def test_each_layer_of_a_network_quantizes_its_own_input():
    model = quantize_dynamic(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2, 3)))
    assert [name for name, module in model.named_modules() if type(module) is QuantizedInput] == [
        "0.0",
        "3.0",
    ]
