"""A traced network answers like the model it was traced from, and what can't be written down is named."""

import pytest
import torch
from torch import nn

from compresslab.errors import CompressionError
from compresslab.models.graph import (
    INPUT,
    ActivationGrid,
    Add,
    GraphNetwork,
    Node,
    fx_graph,
    plain_layer,
    trace,
)
from compresslab.models.residual import mlp

X = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Branching(nn.Module):
    """Every way to write the operations: modules, functions, methods; and a value that is read twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2, bias=False)
        self.rest = nn.Sequential(
            nn.Dropout(), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
        )

    def forward(self, x):
        y = torch.relu(self.first(x))
        y = nn.functional.relu(y + self.second(y), inplace=True)
        y = y.add(y).relu()
        return self.rest(torch.add(y, self.second(y)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Branching()


class Doubled(nn.Linear):
    """A stand-in for a compressed layer: it multiplies with something else than its weight."""

    def forward(self, x):
        return nn.functional.linear(x, 2 * self.weight, self.bias)


def test_the_steps_answer_like_the_model_in_evaluation_mode(model):
    traced = trace(model)
    assert torch.equal(traced(X), model.eval()(X))
    assert not any(operation.training for _, operation in traced.walk())


def test_the_nodes_say_what_reads_what(model):
    nodes = {node.name: node for node in trace(model).nodes}
    assert nodes["first"].inputs == (INPUT,)
    assert nodes["second"].inputs == ("relu",)
    assert nodes["add"].inputs == ("relu", "second")
    assert nodes["add_1"].inputs == ("relu_1", "relu_1")
    assert not any("dropout" in name or "rest_0" in name for name in nodes)


def test_the_given_model_is_left_alone_and_nothing_is_shared(model):
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    traced = trace(model)
    ours = {p.data_ptr() for p in model.parameters()}
    assert not ours & {p.data_ptr() for p in traced.parameters()}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_a_forward_that_differs_in_training_is_written_down_as_in_evaluation():
    class Noisy(nn.Module):
        def forward(self, x):
            return (x + torch.randn_like(x) if self.training else x).relu()

    assert [node.name for node in trace(Noisy().train()).nodes] == ["relu"]


def test_tracing_again_changes_nothing(model):
    once = trace(model)
    assert torch.equal(trace(once)(X), once(X))
    assert len(trace(once).nodes) == len(once.nodes)


def test_values_are_let_go_after_their_last_reader():
    network = trace(nn.Sequential(nn.ReLU(), nn.ReLU(), nn.ReLU()))
    names, alive = [], []
    for name, _ in (run := network.values(X)):
        names.append(name)
        alive.append(set(run.gi_frame.f_locals["alive"]))
    assert names == [INPUT, "_0", "_1", "_2"]
    assert all(len(held) == 1 for held in alive)


def test_grids_and_what_else_only_rounds_are_left_out():
    class Rounding(nn.Module):
        only_rounds = True

        def forward(self, x):
            return x.round() if x.mean() > 0 else x  # can't be traced, and need not be

    grid = ActivationGrid(torch.tensor(0.5), torch.tensor(3))
    traced = trace(nn.Sequential(grid, Rounding(), nn.ReLU()))
    assert [type(operation) for _, operation in traced.walk()] == [nn.ReLU]


def test_a_grid_moves_every_value_to_the_nearest_of_its_numbers():
    grid = ActivationGrid(torch.tensor(0.5), torch.tensor(3))
    x = torch.linspace(-3, 140, 999)
    allowed = 0.5 * (torch.arange(256.0) - 3)
    nearest = allowed[(x[:, None] - allowed).abs().argmin(dim=1)]
    assert torch.equal(grid(allowed), allowed)
    assert ((grid(x) - x).abs() <= (nearest - x).abs() + 1e-6).all()
    assert "zero_point=3" in repr(grid)


def test_a_compressed_layer_becomes_one_that_multiplies_with_the_same_numbers():
    torch.manual_seed(0)
    layer, x = Doubled(3, 2), torch.randn(4, 3)
    plain = plain_layer(layer)
    assert type(plain) is nn.Linear
    assert torch.equal(plain.weight, 2 * layer.weight)
    assert torch.equal(plain(x), layer(x))


@pytest.mark.parametrize("bias", [True, False])
def test_a_plain_convolution_stays_as_it_is(bias):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 2), dilation=2, groups=2, bias=bias)
    x = torch.randn(2, 4, 9, 9)
    assert torch.equal(plain_layer(layer)(x), layer(x))


def test_making_a_plain_layer_draws_no_random_numbers():
    layer, state = nn.Linear(3, 2), torch.get_rng_state()
    plain_layer(layer)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_layer_of_two_products_is_refused():
    class Factored(nn.Linear):
        def forward(self, x):
            return nn.functional.linear(nn.functional.linear(x, self.weight[:1]), self.weight[:, :1])

    with pytest.raises(
        CompressionError,
        match=r"^Factored must multiply once .*, got weights \[\(1, 3\), \(2, 1\)\]; ",
    ):
        plain_layer(Factored(3, 2))


class Scaled(nn.Module):
    def forward(self, x):
        return x * 2


class Deciding(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Two(nn.Module):
    def forward(self, x, y):
        return x + y


class Pair(nn.Module):
    def forward(self, x):
        return x, x


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), r"^1 is BatchNorm2d\(2.* fold_batch_norm\("),
        (
            nn.Sequential(nn.ReLU(), nn.Tanh()),
            r"^1 is Tanh\(\); a graph can have .*: build the network of these$",
        ),
        (nn.Sequential(nn.Flatten(0)), r"^0 is Flatten"),
        (
            nn.Sequential(nn.AdaptiveAvgPool2d(2)),
            r"^0 is AdaptiveAvgPool2d\(output_size=2\); a graph can have",
        ),
        (nn.Conv2d(1, 1, 3, padding="same"), "Conv2d"),
        (nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")), r"^0 is Conv2d\(.*circular"),
        (Scaled(), r"^mul is mul; a graph can have"),
        (Deciding(), r"^Deciding can't be traced \(.*\); its forward does the same"),
        (Two(), r"^Two has 2 inputs, or several outputs; a graph must have one of each"),
        (Pair(), r"^Pair has 1 inputs, or several outputs"),
        (nn.Sequential(nn.Identity()), r"^Sequential does nothing with its input; a graph must have at"),
    ],
)
def test_what_can_not_be_written_down_is_named(model, says):
    with pytest.raises(CompressionError, match=says):
        trace(model)


def test_what_the_output_does_not_need_is_left_out():
    class Idle(nn.Module):
        def forward(self, x):
            x.tanh()
            return x.relu()

    assert [node.op for node in fx_graph(Idle()).nodes] == ["placeholder", "call_method", "output"]


def test_the_wide_multilayer_perceptron_is_made_of_steps():
    assert [type(operation).__name__ for _, operation in trace(mlp()).walk()] == [
        "Flatten",
        *["Linear", "ReLU"] * 3,
        "Linear",
    ]


def test_a_network_can_be_written_by_hand():
    nodes = [Node("twice", (INPUT, INPUT)), Node("positive", ("twice",))]
    network = GraphNetwork(nodes, {"twice": Add(), "positive": nn.ReLU()})
    assert torch.equal(network(X), (2 * X).relu())
