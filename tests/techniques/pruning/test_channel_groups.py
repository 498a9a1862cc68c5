"""Which channels go together: by hand on small networks, and as torch-pruning finds them on the baselines."""

import copy
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.errors import CompressionError
from compresslab.models.residual import ResidualBlock, baseline, mlp, student
from compresslab.techniques.pruning.channel_groups import Group, Member, dependency_groups
from compresslab.techniques.quantization import quantize_weights
from compresslab.techniques.quantization.static import quantize_static


def who(group):
    return {(member.layer, member.role, member.each) for member in group.members}


def test_a_shortcut_ties_all_who_write_into_the_same_sum_and_all_who_read_it():
    groups = dependency_groups(student())
    assert list(groups) == ["stem.0", "blocks.0.conv1", "blocks.0.conv2", "blocks.1.conv1", "blocks.1.conv2"]
    assert groups["blocks.0.conv2"].channels == 16
    assert who(groups["blocks.0.conv2"]) == {
        ("blocks.0.conv2", "writes", 1),
        ("blocks.0.norm2", "scales", 1),
        ("blocks.0.shortcut.0", "writes", 1),
        ("blocks.0.shortcut.1", "scales", 1),
        ("blocks.1.conv1", "reads", 1),
        ("blocks.1.shortcut.0", "reads", 1),
    }


def test_through_a_shortcut_without_a_layer_a_whole_chain_of_blocks_is_one_group():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 1),
        *(ResidualBlock(4, 4) for _ in range(3)),
        nn.Conv2d(4, 2, 1),
    )
    group = dependency_groups(model)["0"]
    assert group.writers == ("0", "1.conv2", "2.conv2", "3.conv2")
    readers = [member.layer for member in group.members if member.role == "reads"]
    assert readers == ["1.conv1", "2.conv1", "3.conv1", "4"]


@pytest.mark.parametrize("make", [baseline, student])
def test_the_groups_are_those_that_torch_pruning_finds(make):
    pruning = pytest.importorskip("torch_pruning", reason="torch-pruning, an oracle, is not installed")
    model = make().eval()
    names = {layer: name for name, layer in model.named_modules()}
    graph = pruning.DependencyGraph().build_dependency(model, torch.randn(1, 1, 28, 28))
    groups = dependency_groups(model)
    for name, group in groups.items():
        theirs = graph.get_pruning_group(model.get_submodule(name), pruning.prune_conv_out_channels, idxs=[0])
        assert {(member.layer, member.dimension == 0) for member in group.members} == {
            (names[item.target.module], graph.is_out_channel_pruning_fn(item.handler))
            for item, _ in theirs
            if item.target.module in names
        }
    written = [writer for group in groups.values() for writer in group.writers]
    assert sorted(written) == sorted(n for n, m in model.named_modules() if isinstance(m, nn.Conv2d))


def test_the_network_s_own_input_and_output_have_no_group():
    assert list(dependency_groups(mlp())) == ["1", "3", "5"]  # neither the pixels nor the ten logits
    assert dependency_groups(nn.Sequential(nn.Conv2d(3, 3, 1))) == {}


def test_what_is_added_to_the_input_or_to_the_output_stays_with_it():
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.outer = nn.Conv2d(2, 5, 1), nn.Conv2d(5, 2, 1)

        def forward(self, x):
            return x + self.outer(F.relu(self.inner(x)))

    assert list(dependency_groups(Around())) == ["inner"]


def test_behind_a_flatten_each_channel_has_as_many_entries_as_pixels():
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.MaxPool2d(2), nn.Flatten(), nn.BatchNorm1d(6 * 4), nn.Linear(6 * 4, 3)
    )
    (group,) = dependency_groups(model).values()
    assert who(group) == {("0", "writes", 1), ("3", "scales", 4), ("4", "reads", 4)}


def test_a_depthwise_convolution_filters_each_channel_by_itself():
    model = nn.Sequential(nn.Conv2d(1, 6, 1), nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 2, 1))
    assert list(dependency_groups(model)) == ["0"]
    assert who(dependency_groups(model)["0"]) == {
        ("0", "writes", 1),
        ("1", "filters", 1),
        ("2", "reads", 1),
    }


def test_a_layer_that_runs_twice_ties_what_it_reads_to_what_it_read_before():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.again, self.last = nn.Linear(2, 4), nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x):
            return self.last(self.again(self.again(self.first(x))))

    groups = dependency_groups(Twice())
    assert list(groups) == ["first"]
    assert groups["first"].writers == ("first", "again")


def test_compressed_layers_are_followed_as_the_layers_that_they_stand_for():
    torch.manual_seed(0)
    model = student().eval()
    quantized = dependency_groups(quantize_weights(model, bits=4))
    assert quantized == dependency_groups(model)
    steps = dependency_groups(quantize_static(model, torch.randn(2, 1, 28, 28)))
    assert [group.channels for group in steps.values()] == [8, 16, 16, 32, 32]


def test_a_group_prints_who_shares_it_before_anything_is_removed():
    group = Group(
        "stem",
        8,
        (
            Member("stem", "Conv2d", "writes"),
            Member("a.norm", "BatchNorm2d", "scales"),
            Member("head", "Linear", "reads", 49),
        ),
    )
    assert str(group).splitlines() == [
        "stem: 8 channels",
        "  stem    Conv2d       writes   dimension 0",
        "  a.norm  BatchNorm2d  scales   dimension 0",
        "  head    Linear       reads    dimension 1, 49 entries per channel",
    ]


def test_the_given_model_is_left_alone():
    model = student().train()
    before = copy.deepcopy(model.state_dict())
    dependency_groups(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
        self.a, self.b = nn.Conv2d(1, 4, 1), nn.Conv2d(1, 4, 1)

    def forward(self, x):
        return self.function(self.a(x), self.b(x))


KNOWN = (
    "; channels are followed through Conv2d (dense or depthwise), Linear behind a Flatten, BatchNorm, "
    "pooling, Flatten, sums of two values, and activations that leave zero at zero: "
    "build the network of these"
)
CHECK = "; a layer must have one per channel, or equally many behind a Flatten of maps: check what it reads"


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (nn.Sequential(nn.Conv2d(1, 4, 1), nn.Sigmoid()), "1 is Sigmoid()" + KNOWN),
        (Function(lambda a, b: torch.cat((a, b))), "cat is cat" + KNOWN),
        (Function(lambda a, b: a + 1), "add is add" + KNOWN),
        (nn.Sequential(nn.Conv2d(1, 4, 1), nn.Flatten(2)), "1 is Flatten(start_dim=2, end_dim=-1)" + KNOWN),
        (
            nn.Sequential(nn.Conv2d(1, 4, 1), nn.Linear(4, 2)),
            "1 is Linear(in_features=4, out_features=2, bias=True)" + KNOWN,
        ),
        (
            nn.Sequential(nn.Conv2d(4, 4, 1, groups=2)),
            "0 is Conv2d(4, 4, kernel_size=(1, 1), stride=(1, 1), groups=2)" + KNOWN,
        ),
        (nn.Sequential(nn.Linear(2, 3), nn.Linear(6, 2)), "1 has 6 entries for 3 channels" + CHECK),
        (
            nn.Sequential(nn.Conv2d(1, 3, 1), nn.Flatten(), nn.Linear(10, 2)),
            "2 has 10 entries for 3 channels" + CHECK,
        ),
    ],
)
def test_where_channels_can_not_be_followed_the_error_names_the_layer(model, says):
    with pytest.raises(CompressionError, match=f"^{re.escape(says)}$"):
        dependency_groups(model)


def test_a_sum_of_unequally_many_channels_is_refused():
    class Broadcast(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.four = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 4, 1)

        def forward(self, x):
            return self.one(x) + self.four(x)

    says = "the sum add joins 1 and 4 channels; both sides must have equally many: give them one shape"
    with pytest.raises(CompressionError, match=f"^{re.escape(says)}$"):
        dependency_groups(Broadcast())
