"""The engine answers like our own arithmetic, on bytes, and from a small file."""

import os

import pytest
import torch
from torch import nn

from compresslab.data.fashion_mnist import fashion_mnist
from compresslab.deployment import (
    Deployed,
    has_vnni,
    load_deployed,
    quantize_dynamic_onnx,
    read_onnx,
    write_onnx,
)
from compresslab.measurement.timing import speedup
from compresslab.models.graph import trace
from compresslab.models.pretrained import load_baseline
from compresslab.models.residual import mlp
from compresslab.techniques.pruning import prune_by_magnitude
from compresslab.techniques.quantization.integer_arithmetic import in_float32, run_in_integers
from compresslab.techniques.quantization.static import quantize_static
from compresslab.techniques.quantization.weight_only import WeightGrid, on_grid, quantize_weights

REDUCE = not has_vnni()  # else the engine's sums overflow on this processor


class Residual(nn.Module):
    """A tiny network with every operation that can be deployed."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=2, bias=False)
        self.third = nn.Conv2d(6, 8, (1, 3), stride=2)
        self.pool, self.flat, self.head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)

    def forward(self, x):
        y = self.first(x).relu()
        return self.head(self.flat(self.pool(self.third((self.second(y) + y).relu()))))


X = torch.randn(64, 1, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Residual().eval()


@pytest.fixture
def quantized(model):
    return quantize_static(model, X, reduce_range=REDUCE)


@pytest.fixture
def stored(quantized, tmp_path):
    write_onnx(quantized, tmp_path / "tiny.onnx", image_shape=(1, 12, 12))
    return tmp_path / "tiny.onnx"


def steps_apart(network, a, b):
    """By how many steps of the last grid each output differs."""
    last = getattr(network, network.nodes[-1].name)
    return ((a - b) / last.scale).round().abs()


@torch.no_grad()
def test_in_floats_the_engine_answers_like_torch(model, tmp_path):
    write_onnx(model, tmp_path / "m.onnx", image_shape=(1, 12, 12))
    assert torch.allclose(load_deployed(tmp_path / "m.onnx")(X), model(X), atol=1e-5)


@torch.no_grad()
def test_on_bytes_the_engine_answers_like_the_simulation(quantized, stored):
    apart = steps_apart(quantized, load_deployed(stored)(X), quantized(X))
    assert apart.max() <= 1
    assert (apart > 0).double().mean() <= 0.02  # of 320 outputs


@pytest.mark.parametrize("name", ["student", "baseline"])
@torch.no_grad()
def test_on_real_images_the_engine_is_at_most_one_step_from_our_integers_in_at_most_one_in_200(
    name, tmp_path
):
    data = fashion_mnist()
    network = quantize_static(load_baseline(name), data.train.first(100).inputs(), reduce_range=REDUCE)
    write_onnx(network, tmp_path / "m.onnx")
    x = data.test.first(200).inputs()
    engine = load_deployed(tmp_path / "m.onnx")(x)
    apart = steps_apart(network, engine, run_in_integers(network, x, to_grid=in_float32))
    assert apart.max() <= 1
    # without VNNI the engine has other kernels, which round sums in another order
    assert (apart > 0).double().mean() <= (0.005 if has_vnni() else 0.03)
    # the simulation rounds in other places: once in a while an early value falls to the other side
    assert steps_apart(network, engine, network(x)).max() <= 2


def test_every_step_between_the_first_grid_and_the_last_runs_on_bytes(stored):
    kinds = load_deployed(stored).node_kinds()
    assert (kinds["QLinearConv"], kinds["QLinearAdd"], kinds["QGemm"]) == (3, 1, 1)
    assert kinds["QLinearGlobalAveragePool"] == 1
    assert kinds["QuantizeLinear"] == kinds["DequantizeLinear"] == 1  # where images come in, logits go out
    assert not {"Conv", "Gemm", "Add", "Relu", "GlobalAveragePool"} & kinds.keys()


def test_a_weight_takes_one_byte_of_the_file(tmp_path):
    torch.manual_seed(0)
    network = quantize_static(mlp(), torch.randn(4, 1, 28, 28))
    size = write_onnx(network, tmp_path / "m.onnx")
    weights = sum(p.numel() for p in network.parameters() if p.dim() > 1)
    assert size == os.path.getsize(tmp_path / "m.onnx")
    assert weights < size < 1.03 * weights


def test_the_file_is_read_by_anyone_and_holds_integers(stored, quantized):
    import onnx

    model = onnx.load(stored)
    onnx.checker.check_model(model, full_check=True)
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    q = tensors["third_weight_integers"]
    assert q.dtype == "int8"
    assert (torch.tensor(q) == quantized.third.grid.integers(quantized.third.weight)).all()
    assert tensors["third_bias_integers"].dtype == "int32"


@torch.no_grad()
def test_weights_that_have_no_grid_a_channel_are_written_as_floats(model, tmp_path):
    grouped = trace(model)
    grouped.third = on_grid(grouped.third, WeightGrid(torch.rand(8, 3) + 0.1, bits=4, group_size=6))
    asymmetric = trace(model)
    scale, zero = torch.rand(8) + 0.1, torch.randint(0, 16, (8,))
    asymmetric.third = on_grid(asymmetric.third, WeightGrid(scale, zero, bits=4))
    for network in (grouped, asymmetric):
        write_onnx(network, tmp_path / "m.onnx", image_shape=(1, 12, 12))
        assert torch.allclose(load_deployed(tmp_path / "m.onnx")(X), network(X), atol=1e-4)


@torch.no_grad()
def test_integer_weights_without_activation_grids_are_written_as_integers(model, tmp_path):
    network = quantize_weights(trace(model), bits=8)
    write_onnx(network, tmp_path / "m.onnx", image_shape=(1, 12, 12))
    assert torch.allclose(load_deployed(tmp_path / "m.onnx")(X), network(X), atol=1e-5)
    stored = {t.name: t.data_type for t in read_onnx(tmp_path / "m.onnx").graph.initializer}
    assert stored["third_weight_integers"] == 3  # int8
    assert stored["third_bias"] == 1  # float32


@torch.no_grad()
def test_a_network_that_was_pruned_after_quantizing_is_deployed_as_it_is_now(quantized, tmp_path):
    pruned = prune_by_magnitude(quantized, sparsity=0.5)
    write_onnx(pruned, tmp_path / "m.onnx", image_shape=(1, 12, 12))
    apart = steps_apart(pruned, load_deployed(tmp_path / "m.onnx")(X), pruned(X))
    assert apart.max() <= 1
    assert steps_apart(pruned, pruned(X), quantized(X)).max() > 1


@pytest.mark.parametrize("make", [mlp, Residual])
@torch.no_grad()
def test_dynamic_quantization_stays_near_and_shrinks(make, tmp_path):
    torch.manual_seed(0)
    model = make().eval()
    shape = (1, 28, 28) if make is mlp else (1, 12, 12)
    before = write_onnx(model, tmp_path / "float.onnx", image_shape=shape)
    after = quantize_dynamic_onnx(tmp_path / "float.onnx", tmp_path / "dynamic.onnx")
    x = torch.randn(8, *shape)
    wanted, got = model(x), load_deployed(tmp_path / "dynamic.onnx")(x)
    assert (got - wanted).norm() < 0.1 * wanted.norm()
    assert os.path.getsize(tmp_path / "dynamic.onnx") == after
    assert make is not mlp or before / after > 3.9
    kinds = load_deployed(tmp_path / "dynamic.onnx").node_kinds()
    assert kinds.get("DynamicQuantizeMatMul" if make is mlp else "ConvInteger", 0) >= 3


def test_it_is_called_with_any_batch_and_can_be_clocked(stored):
    deployed = load_deployed(stored, threads=2)
    assert isinstance(deployed, Deployed)
    assert deployed.threads == 2
    assert deployed.storage_bytes == os.path.getsize(stored)
    assert deployed(X[:1]).shape == (1, 5)
    channels_last = X.expand(-1, 1, -1, -1).to(memory_format=torch.channels_last)
    assert torch.equal(deployed(channels_last), deployed(X))
    assert speedup(deployed, deployed, X, rounds=5).value > 0


def test_the_network_that_is_written_is_left_alone(model, quantized, tmp_path):
    for network in (model, quantized):
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        write_onnx(network, tmp_path / "m.onnx")
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
