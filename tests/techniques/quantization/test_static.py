"""The quantized network lives on its grids, stays near the original; its ranges come from the images."""

import re

import pytest
import torch
from torch import nn

from compresslab.errors import CompressionError
from compresslab.models.graph import INPUT, ActivationGrid, trace
from compresslab.models.residual import mlp, student
from compresslab.storage import save_model
from compresslab.techniques.quantization.batch_norm_folding import fold_batch_norm
from compresslab.techniques.quantization.static import integer_layer, observe, quantize_static

X = torch.randn(16, 1, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return student().eval()


def grids(network):
    return {node.name: op for node, op in network.walk() if isinstance(op, ActivationGrid)}


def layers(network):
    return {node.name: op for node, op in network.walk() if isinstance(op, nn.Conv2d | nn.Linear)}


@torch.no_grad()
def test_its_outputs_stay_near_the_original_ones(model):
    wanted, got = model(X), quantize_static(model, X)(X)
    assert (got - wanted).norm() < 0.05 * wanted.norm()
    assert not torch.equal(got, wanted)


def test_every_range_is_the_smallest_and_largest_value_that_was_seen():
    convolution = nn.Conv2d(1, 2, 3)
    network = trace(nn.Sequential(convolution, nn.ReLU(), nn.Conv2d(2, 1, 1)))
    ranges = observe(network, X)
    with torch.no_grad():
        rectified = convolution(X).relu()
    assert set(ranges) == {INPUT, "_1", "_2"}  # not _0: the ReLU's own range is that of its output
    assert ranges[INPUT] == (X.min(), X.max())
    assert ranges["_1"] == (rectified.min(), rectified.max())


def test_a_value_that_something_beside_the_relu_reads_has_a_range_of_its_own():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(1, 1, 3)

        def forward(self, x):
            y = self.layer(x)
            return y.relu() + y

    assert "layer" in observe(trace(Twice()), X)


@torch.no_grad()
def test_after_every_grid_there_are_at_most_256_values_on_it_and_zero_is_one_of_them(model):
    network = quantize_static(model, X)
    for name, value in network.values(X):
        if name in grids(network):
            grid = grids(network)[name]
            q = value / grid.scale + grid.zero_point
            assert (q - q.round()).abs().max() < 1e-3
            assert q.round().min() >= 0
            assert q.round().max() <= 255
            assert grid(torch.zeros(1)).item() == 0


@torch.no_grad()
def test_a_grid_of_a_rectified_value_begins_at_zero_so_its_clamp_is_the_relu(model):
    network = quantize_static(model, X)
    relu_grids = [grid for name, grid in grids(network).items() if "relu" in name]
    assert len(relu_grids) == 4
    assert all(grid.zero_point == 0 for grid in relu_grids)


def test_weights_are_whole_numbers_of_steps_one_step_a_channel_and_biases_lie_on_the_grid_of_the_sums(model):
    network = quantize_static(model, X)
    inputs = {node.name: node.inputs[0] for node in network.nodes}
    folded = trace(fold_batch_norm(model))
    for name, layer in layers(network).items():
        scale = layer.grid.scale.flatten()
        original = getattr(folded, name).weight.flatten(1)
        assert torch.allclose(scale, original.abs().amax(dim=1) / 127)
        q = layer.weight.flatten(1) / scale[:, None]
        assert (q - q.round()).abs().max() < 1e-3
        q = layer.bias.double() / (scale.double() * grids(network)[inputs[name]].scale.double())
        assert (q - q.round()).abs().max() < 1e-2  # a bias is stored as float32: 24 bits


def test_a_reduced_range_ends_at_63(model):
    assert {
        layer.grid.integers(layer.weight).abs().max().item()
        for layer in layers(quantize_static(model, X, reduce_range=True)).values()
    } == {63}
    assert {
        layer.grid.integers(layer.weight).abs().max().item()
        for layer in layers(quantize_static(model, X)).values()
    } == {127}


def test_the_calibration_that_is_given_decides_the_ranges(model):
    half = quantize_static(model, X, calibrate=lambda x: (x.min() / 2, x.max() / 2))
    whole = quantize_static(model, X)
    assert torch.allclose(2 * half.input_grid.scale, whole.input_grid.scale)


def test_a_flattened_value_keeps_its_grid():
    torch.manual_seed(0)
    network = quantize_static(mlp(), torch.randn(4, 1, 28, 28))
    assert torch.equal(grids(network)["_0_grid"].scale, network.input_grid.scale)
    assert torch.equal(grids(network)["_0_grid"].zero_point, network.input_grid.zero_point)


def test_a_network_may_begin_with_a_relu():
    network = quantize_static(nn.Sequential(nn.ReLU(), nn.Conv2d(1, 1, 3)), X)
    assert [node.name for node in network.nodes] == ["input_grid", "_0", "_0_grid", "_1", "_1_grid"]


def test_quantizing_a_quantized_network_finds_the_same_integers(model):
    once = quantize_static(model, X)
    again = quantize_static(once, X)
    assert len(again.nodes) == len(once.nodes)
    for a, b in zip(layers(once).values(), layers(again).values(), strict=True):
        assert torch.equal(a.grid.integers(a.weight), b.grid.integers(b.weight))


def test_its_file_is_about_a_quarter(model, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 256), nn.ReLU(), nn.Linear(256, 10))
    before = save_model(model, tmp_path / "before").total
    assert before / save_model(quantize_static(model, X), tmp_path / "after").total > 3.5


def test_a_bias_beside_weights_of_almost_nothing_still_fits_in_32_bits():
    layer = nn.Linear(2, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1e-12, 0.0], [0.0, 0.0], [1.0, -1.0]]))
        layer.bias.copy_(torch.tensor([5.0, 5.0, 5.0]))
    s_x = torch.tensor(0.01)
    integer = integer_layer(layer, input_scale=s_x)
    q = integer.bias.double() / (integer.grid.scale.flatten() * s_x).double()
    assert q.abs().max() < 2**31
    assert torch.allclose(integer.bias, layer.bias, atol=0.01)  # within a step of the sums' grid


def test_no_images_are_refused(model):
    says = "inputs must be images to calibrate with, got none; try fashion_mnist().train.first(500).inputs()"
    with pytest.raises(CompressionError, match=re.escape(says)):
        quantize_static(model, X[:0])


def test_an_unknown_operation_is_named():
    with pytest.raises(CompressionError, match=r"^1 is Tanh\(\); a graph can have Conv2d"):
        quantize_static(nn.Sequential(nn.Conv2d(1, 1, 3), nn.Tanh()), X)
