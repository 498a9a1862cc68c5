"""Parameters, MACs and bytes: each against a hand formula or torch's own count."""

import os
import tempfile

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from compresslab.errors import CompressionError
from compresslab.measurement.activations import peak_activation_bytes
from compresslab.measurement.costs import count_macs, count_parameters, layer_costs, storage_bytes
from compresslab.models.residual import baseline, student
from compresslab.storage import save_model

IMAGE = torch.randn(1, 1, 28, 28)


class Calls(nn.Module):
    """A module around a plain function, with the weights it needs."""

    def __init__(self, function, *weights):
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList(weights)

    def forward(self, x):
        return self.function(x, *self.weights)


def by_torch(model, x):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(x[:1])
    return counter.get_total_flops() / 2


def by_hand(model, x):
    """Every output of a convolution or linear layer needs one multiplication a weight of its filter."""
    macs = []

    def count(layer, inputs, output):
        macs.append(output[0].numel() * layer.weight[0].numel())

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    model.eval()(x[:1])
    for hook in hooks:
        hook.remove()
    return sum(macs)


def mlp():
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 20),
        nn.BatchNorm1d(20),
        nn.GELU(),
        nn.Dropout(0.5),
        nn.Linear(20, 10),
        nn.LayerNorm(10),
        nn.Softmax(dim=1),
    )


def convolutions():
    mixed = Calls(lambda x: torch.cat([x, F.avg_pool2d(x, 3, 1, 1) + x], dim=1))
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU6(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3, groups=2),
        mixed,
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 3),
    )


# --- MACs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [baseline, student, mlp, convolutions])
def test_macs_are_half_of_torchs_flops_and_the_sum_over_the_layers_by_hand(network):
    model, x = network(), torch.randn(3, 1, 28, 28)
    assert count_macs(model, x) == by_torch(model, x) == by_hand(model, x) > 0


def test_the_macs_of_a_small_convolution_are_those_on_paper():
    layer = nn.Conv2d(4, 6, kernel_size=3, stride=2, padding=1, groups=2)  # 9 → 5 pixels a side
    assert count_macs(layer, torch.randn(1, 4, 9, 9)) == 6 * 5 * 5 * (4 // 2) * 3 * 3


def test_macs_do_not_depend_on_the_batch_or_on_the_callers_modes():
    model = student().train()
    with torch.inference_mode():
        assert count_macs(model, torch.randn(7, 1, 28, 28)) == count_macs(model, IMAGE)
    assert all(module.training for module in model.modules())


def test_training_state_is_not_touched_by_counting():
    model = student().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count_macs(model, IMAGE), peak_activation_bytes(model, IMAGE), layer_costs(model, IMAGE)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def attention(x):
    return F.scaled_dot_product_attention(x, x, x)


WORDS = torch.randn(1, 4, 8)
BYTES = torch.ones(32, 32, dtype=torch.int8)
UNCOUNTED = {
    "attention": (Calls(attention), torch.randn(1, 2, 4, 8), "_scaled_dot_product_flash_attention_for_cpu"),
    "transformer": (
        nn.TransformerEncoderLayer(8, 2, batch_first=True),
        WORDS,
        "_transformer_encoder_layer_fwd",
    ),
    "LSTM": (nn.LSTM(8, 4), WORDS, "mkldnn_rnn_layer|aten.lstm"),
    "matrix times vector": (Calls(lambda x, v: x[0] @ v, torch.randn(8)), WORDS, "aten.mv"),
    "dot product": (Calls(lambda x: x[0, 0] @ x[0, 0]), WORDS, "aten.dot"),
    "int8 product": (Calls(lambda x: torch._int_mm(x[0], x[0])), BYTES[None], "aten._int_mm"),
    "sparse COO": (
        Calls(lambda x, w: torch.sparse.mm(w.data.to_sparse(), x[0].T), torch.eye(8)),
        WORDS,
        "sparse",
    ),
    "distances": (Calls(lambda x: torch.cdist(x, x)), WORDS, "aten._cdist_forward"),
    "bilinear": (Calls(lambda x: F.bilinear(x, x, torch.ones(2, 8, 8))), WORDS, "aten._trilinear"),
}


@pytest.mark.parametrize("case", UNCOUNTED)
def test_an_operator_that_torch_counts_as_nothing_is_an_error(case):
    model, x, operator = UNCOUNTED[case]
    with pytest.raises(CompressionError, match=operator) as caught:
        count_macs(model, x)
    assert "are not known: FlopCounterMode counts 0. Countable are dense matrix products" in str(caught.value)
    assert "count it by hand from its shapes, or, if by convention it costs none, add it to" in str(
        caught.value
    )


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_a_sparse_weight_that_torch_counts_as_dense_is_an_error():
    weight = torch.eye(8).to_sparse_csr()
    with pytest.raises(
        CompressionError, match=r"aten.mm.default on a sparse tensor .* counts it as if it were dense"
    ):
        count_macs(Calls(lambda x: F.linear(x[0], weight)), WORDS)


def test_the_advice_for_attention_works():
    def plain(x):
        with sdpa_kernel(SDPBackend.MATH):
            return attention(x)

    assert count_macs(Calls(plain), torch.randn(1, 2, 4, 8)) == 2 * (2 * 4 * 4 * 8)  # scores, then values


# --- parameters and bytes --------------------------------------------------------------------------


def test_a_shared_parameter_counts_once():
    model = nn.Sequential(nn.Linear(5, 5, bias=False), nn.Linear(5, 5))
    assert count_parameters(model) == 25 + 25 + 5
    model[1].weight = model[0].weight
    assert count_parameters(model) == 25 + 5


def test_storage_bytes_are_those_of_a_file_and_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    model = student()
    save_model(model, tmp_path / "m")
    assert storage_bytes(model) == os.path.getsize(tmp_path / "m")
    assert not os.listdir(tmp_path / "scratch")
    assert storage_bytes(model.half()) < 0.6 * os.path.getsize(tmp_path / "m")


def test_inputs_without_a_sample_are_refused():
    for cost in (count_macs, peak_activation_bytes, layer_costs):
        with pytest.raises(
            CompressionError, match=r"at least one sample, got the shape \(0, 3\); for one image that is"
        ):
            cost(nn.Linear(3, 2), torch.zeros(0, 3))


# --- layers ---------------------------------------------------------------------------------------


class Watch:
    """A clock that moves on by one second whenever it is read."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        self.now += 1
        return self.now


@pytest.mark.parametrize("network", [baseline, student, mlp, convolutions])
def test_the_layers_sum_to_the_whole_model(network):
    model = network()
    layers = layer_costs(model, IMAGE, clock=Watch())
    with tempfile.TemporaryDirectory() as folder:
        header = save_model(model, f"{folder}/m").header
    assert sum(layer.macs for layer in layers) == count_macs(model, IMAGE)
    assert sum(layer.parameters for layer in layers) == count_parameters(model)
    assert sum(layer.storage_bytes for layer in layers) == storage_bytes(model) - header


def test_a_shared_weight_belongs_to_the_first_layer_that_has_it():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    first, second = layer_costs(model, torch.randn(1, 4), clock=Watch())
    assert (first.parameters, second.parameters) == (20, 4)
    assert (first.storage_bytes, second.storage_bytes) == (80, 16)


def test_a_layer_says_what_it_is_and_what_it_returns():
    first, second = layer_costs(nn.Sequential(nn.Conv2d(1, 3, 5), nn.ReLU()), IMAGE, clock=Watch())
    assert (first.name, first.kind, first.output_shape) == ("0", "Conv2d", (3, 24, 24))
    assert (first.parameters, first.storage_bytes, first.macs) == (78, 4 * 78, 3 * 24 * 24 * 25)
    assert (second.name, second.macs, second.output_bytes) == ("1", 0, 4 * 3 * 24 * 24)
    assert first.latency_ms == second.latency_ms == 1000  # each between two readings of the watch


def test_layers_come_in_the_order_they_run_and_one_that_runs_twice_is_summed():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.idle, self.first = nn.Linear(4, 2), nn.Linear(9, 9), nn.Linear(4, 4)

        def forward(self, x):
            return self.last(self.first(self.first(x)))

    layers = layer_costs(Backwards(), torch.randn(1, 4), clock=Watch())
    assert [layer.name for layer in layers] == ["first", "last", "idle"]
    assert [layer.macs for layer in layers] == [2 * 16, 8, 0]
    assert [layer.parameters for layer in layers] == [20, 10, 90]
    assert [layer.latency_ms for layer in layers] == [2000, 1000, 0]


def test_work_outside_the_leaves_is_listed_too():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(4, 4, bias=False)

        def forward(self, x):
            h = self.embed(x)
            return h @ h.mT

    layers = {layer.name: layer for layer in layer_costs(Attention(), torch.randn(1, 3, 4), clock=Watch())}
    assert (layers["embed"].macs, layers[""].macs) == (3 * 4 * 4, 3 * 4 * 3)


def test_a_layer_made_on_the_fly_belongs_to_the_module_that_made_it():
    made = Calls(lambda x, w: nn.Flatten()(F.linear(nn.ReLU()(x), w)), torch.ones(5, 4))
    layers = {layer.kind: layer for layer in layer_costs(made, torch.randn(1, 4), clock=Watch())}
    assert set(layers) == {"Calls", "ParameterList"}
    assert layers["Calls"].macs == 20


def test_no_hook_stays_behind():
    model = student()
    layer_costs(model, IMAGE, clock=Watch())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not torch.nn.modules.module._global_forward_hooks
    assert not torch.nn.modules.module._global_forward_pre_hooks
