"""Integer arithmetic is exact where it must be; its answers are the simulation's, up to one step."""

import itertools

import pytest
import torch
from torch import nn

from compresslab.errors import CompressionError
from compresslab.models.graph import trace
from compresslab.models.residual import student
from compresslab.techniques.quantization.integer_arithmetic import (
    Integers,
    fixed_point,
    in_fixed_point,
    in_float32,
    integer_conv2d,
    integer_linear,
    requantize,
    run_in_integers,
)
from compresslab.techniques.quantization.static import quantize_static

X = torch.randn(16, 1, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return quantize_static(student(), X)


def draw(low, high, *shape, seed=0):
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.int32)


@pytest.mark.parametrize("multiplier", [0.75, 1.0, 1 / 3, 0.999999999, 2.0**-31, 3e-9, 1e6])
def test_a_multiplier_becomes_an_integer_and_a_shift_with_31_significant_bits(multiplier):
    m, n = fixed_point(torch.tensor(multiplier, dtype=torch.float64))
    assert 2**30 <= m.item() <= 2**31
    assert m.item() * 2.0 ** -n.item() == pytest.approx(multiplier, rel=2**-31)


def test_a_tiny_multiplier_is_shifted_by_62_at_most():
    m, n = fixed_point(torch.tensor(1e-15, dtype=torch.float64))
    assert n.item() == 62
    assert m.item() == round(1e-15 * 2**62)


@pytest.mark.parametrize("bad", [0.0, -1.0, 2.0**31, float("nan")])
def test_a_multiplier_that_can_not_be_one_is_refused(bad):
    with pytest.raises(
        CompressionError, match=r"^multiplier must be a positive number below 2\^30, got .*; look"
    ):
        fixed_point(torch.tensor([1.0, bad]))


def test_requantizing_rounds_halves_up_and_clamps():
    sums, half = torch.tensor([-3, -1, 0, 1, 3, 5, 10**9, -(10**9)], dtype=torch.int32), torch.tensor(0.5)
    assert requantize(sums, half, 10).tolist() == [9, 10, 10, 11, 12, 13, 255, 0]
    assert requantize(sums, half, 10).dtype == torch.int32


def test_requantizing_is_rounding_in_the_reals():
    sums, multiplier = draw(-(2**31), 2**31 - 1, 5, 2000), torch.rand(5, 1, dtype=torch.float64) * 1e-7
    real = (sums.double() * multiplier + 128).clamp(0, 255)
    assert (requantize(sums, multiplier, 128) - real).abs().max() <= 0.5 + 1e-6


@pytest.mark.parametrize("to_grid", [in_fixed_point, in_float32])
def test_the_sum_of_two_values_on_different_grids_is_rounded_once(to_grid):
    a = Integers(draw(0, 256, 1000), torch.tensor(0.021), 7)
    b = Integers(draw(0, 256, 1000, seed=1), torch.tensor(0.013), 200)
    real = sum(term.scale.double() * (term.q - term.zero_point) for term in (a, b)) / 0.03 + 100
    assert (to_grid([a, b], torch.tensor(0.03), 100) - real.clamp(0, 255)).abs().max() <= 0.5 + 1e-4


def test_a_convolution_of_integers_is_the_plain_sum_of_products():
    q, w, b = draw(0, 256, 2, 4, 5, 6), draw(-127, 128, 6, 2, 3, 2, seed=1), draw(-(2**30), 2**30, 6, seed=2)
    z, stride, padding = 77, 2, 1
    got = integer_conv2d(q, w, b, zero_point=z, stride=stride, padding=padding, groups=2)
    assert got.dtype == torch.int32
    padded = torch.full((2, 4, 7, 8), z)  # padding is real zeros, whose integer is the zero point
    padded[:, :, 1:-1, 1:-1] = q
    for n, o, y, x in itertools.product(range(2), range(6), *map(range, got.shape[2:])):
        group = slice(2 * (o // 3), 2 * (o // 3) + 2)
        seen = padded[n, group, stride * y : stride * y + 3, stride * x : stride * x + 2]
        assert got[n, o, y, x] == ((seen - z) * w[o]).sum() + b[o]


def test_a_linear_layer_of_integers_is_exact_where_float32_is_not():
    q, w = torch.full((1, 300), 255, dtype=torch.int32), torch.full((1, 300), 127, dtype=torch.int32)
    q[0, 0], w[0, 0], b = 1, 1, torch.tensor([2**25 + 1], dtype=torch.int32)
    assert integer_linear(q, w, b, zero_point=0).item() == 299 * 255 * 127 + 1 + 2**25 + 1
    assert integer_linear(q, w, zero_point=255).item() == -254


@pytest.mark.parametrize("to_grid", [in_fixed_point, in_float32])
@torch.no_grad()
def test_a_network_in_integers_answers_like_its_simulation_up_to_one_step(network, to_grid):
    simulated, exact = network(X), run_in_integers(network, X, to_grid=to_grid)
    steps = ((simulated - exact) / network.head_grid.scale).round().abs()
    assert steps.max() <= 1
    assert (steps > 0).double().mean() <= 0.05  # 160 outputs


@torch.no_grad()
def test_a_relu_whose_input_is_read_by_others_too_is_the_clamp_of_the_grid_after_it():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(1, 3, 3)

        def forward(self, x):
            y = self.layer(x)
            return y.relu() + y

    torch.manual_seed(0)
    network = quantize_static(Twice(), X)
    assert network.layer_grid.zero_point > 0
    steps = ((network(X) - run_in_integers(network, X)) / network.add_grid.scale).round().abs()
    assert steps.max() <= 1
    assert (steps > 0).double().mean() <= 0.005


@torch.no_grad()
def test_a_network_in_integers_is_not_the_network_in_floats(network):
    torch.manual_seed(0)
    assert not torch.equal(run_in_integers(network, X), student().eval()(X))


def test_a_network_in_floats_is_refused():
    with pytest.raises(
        CompressionError, match=r"^_0 reads the images as floats; a network on integers begins"
    ):
        run_in_integers(trace(nn.Sequential(nn.Conv2d(1, 1, 3))), X)


def test_a_layer_without_integers_is_named(network):
    network.head = nn.Linear(32, 10)
    with pytest.raises(CompressionError, match=r"^Linear\(in_features=32.* has no integers; QuantizedConv2d"):
        run_in_integers(network, X)
