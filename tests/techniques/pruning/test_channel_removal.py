"""Removed channels change no output that their zeros had not changed; the file says how wide the rest is."""

import copy
import re

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from compresslab.errors import CompressionError
from compresslab.measurement.costs import count_macs, count_parameters
from compresslab.models.residual import baseline, mlp, student
from compresslab.storage import load_model, save_model
from compresslab.techniques.pruning.channel_groups import Group, Member, dependency_groups
from compresslab.techniques.pruning.channel_removal import (
    empty_like,
    load_pruned,
    recalibrate_batch_norm,
    remove_channels,
)
from compresslab.techniques.pruning.channel_selection import channel_scores
from compresslab.techniques.quantization import quantize_weights


def conv_net():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=4),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.GELU(),
        nn.Conv2d(6, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.BatchNorm1d(8 * 4),
        nn.Linear(8 * 4, 12),
        nn.ReLU(),
        nn.Linear(12, 10),
    )


def small_mlp():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 10)
    )


def lively(model, seed=0):
    """The model with random numbers in its norms: fresh ones (mean 0, variance 1) would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)):
        numbers = ((norm.running_mean, -1), (norm.running_var, 0.1), (norm.weight, -1), (norm.bias, -1))
        for tensor, low in numbers:
            if tensor is not None:
                tensor.data.uniform_(low, 2, generator=generator)
    return model.eval()


def some(model, seed=0):
    """For every group about half of its channels, at random."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randperm(group.channels, generator=generator)[: group.channels // 2 + 1]
        for name, group in dependency_groups(model).items()
    }


@torch.no_grad()
def silenced(model, keep):
    """The model with what is not kept at zero: γ and β of the norms, or rows and biases without a norm."""
    model, groups = copy.deepcopy(model), dependency_groups(model)
    for name, kept in keep.items():
        normed = any(member.role == "scales" for member in groups[name].members)
        for member in groups[name].members:
            if member.role in ("scales", "filters") or (member.role == "writes" and not normed):
                layer = model.get_submodule(member.layer)
                gone = torch.ones(groups[name].channels, dtype=torch.bool)
                gone[kept] = False
                for tensor in (layer.weight, layer.bias):
                    if tensor is not None:
                        tensor[gone.repeat_interleave(member.each)] = 0
    return model


X = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
every_network = pytest.mark.parametrize("make", [baseline, student, mlp, conv_net, small_mlp])


def close(a, b):
    return torch.allclose(a, b, rtol=0, atol=1e-5 * max(1, b.abs().max().item()))


@every_network
def test_the_smaller_network_answers_as_the_masked_one(make):
    torch.manual_seed(0)
    model = lively(make())
    keep = some(model)
    smaller = remove_channels(model, keep)
    with torch.no_grad():
        masked, answers = silenced(model, keep)(X), smaller(X)
        assert close(answers, masked)
        assert not close(masked, model(X))  # the channels that went were not dead before
    assert count_parameters(smaller) < count_parameters(model)


@every_network
def test_it_is_an_ordinary_network_that_says_its_sizes_and_trains(make):
    smaller = remove_channels(lively(make()), some(make()))
    assert [(n, type(m)) for n, m in smaller.named_modules()] == [
        (n, type(m)) for n, m in make().named_modules()
    ]
    for module in smaller.modules():
        if isinstance(module, nn.Conv2d):
            out, each, *_ = module.weight.shape
            assert (module.out_channels, module.in_channels) == (out, each * module.groups)
        elif isinstance(module, nn.Linear):
            assert (module.out_features, module.in_features) == module.weight.shape
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.num_features == len(module.weight) == len(module.running_var)
    smaller.train()(X).square().sum().backward()
    assert all(parameter.grad is not None for parameter in smaller.parameters())


@pytest.mark.parametrize("make", [baseline, student])
def test_shapes_and_parameters_are_those_of_torch_pruning_for_the_same_channels(make):
    pruning = pytest.importorskip("torch_pruning", reason="torch-pruning, an oracle, is not installed")
    torch.manual_seed(0)
    model = lively(make())
    keep = some(model)
    ours, theirs = remove_channels(model, keep), copy.deepcopy(model)
    graph = pruning.DependencyGraph().build_dependency(theirs, X[:1])  # no pruner: those leak num_heads
    for name, kept in keep.items():
        layer = theirs.get_submodule(name)
        gone = [c for c in range(layer.out_channels) if c not in set(kept.tolist())]
        graph.get_pruning_group(layer, pruning.prune_conv_out_channels, idxs=gone).prune()
    assert count_parameters(ours) == count_parameters(theirs)
    assert count_macs(ours, X) == count_macs(theirs, X)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(t, ours.state_dict()[name]) for name, t in theirs.state_dict().items())


def test_half_the_channels_leave_a_quarter_of_the_weights_between_them():
    model = nn.Sequential(*(nn.Conv2d(1 if i == 0 else 64, 64, 3) for i in range(4)), nn.Conv2d(64, 1, 1))
    smaller = remove_channels(model, {name: range(32) for name in dependency_groups(model)})
    inner = [sum(layer.weight.numel() for layer in net[1:4]) for net in (model, smaller)]
    assert inner[1] * 4 == inner[0]


def test_the_given_model_is_left_alone_and_nothing_is_shared_with_it():
    model = student().train()
    model.head.weight.requires_grad = False
    before = copy.deepcopy(model.state_dict())
    smaller = remove_channels(model, {"blocks.1.conv2": [0, 5]})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    ours = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert not ours & {tensor.data_ptr() for tensor in smaller.state_dict().values()}
    assert all(module.training for module in smaller.modules())
    assert [p.requires_grad for p in smaller.parameters()] == [p.requires_grad for p in model.parameters()]


def test_the_order_of_the_indices_does_not_matter_and_all_channels_change_nothing():
    torch.manual_seed(0)
    model = lively(student())
    with torch.no_grad():
        one, other = (remove_channels(model, {"stem.0": kept})(X) for kept in ([6, 1, 3], (1, 3, 6)))
        assert torch.equal(one, other)
        assert torch.equal(remove_channels(model, {"stem.0": range(8)})(X), model(X))


def test_channels_can_be_removed_again_and_of_compressed_layers():
    torch.manual_seed(0)
    rough = quantize_weights(lively(student()), bits=4)
    keep = some(rough)
    smaller = remove_channels(rough, keep)
    plain = remove_channels(lively(student()), keep)
    assert [p.shape for p in smaller.parameters()] == [p.shape for p in plain.parameters()]
    with torch.no_grad():
        assert close(smaller(X), remove_channels(remove_channels(rough, {}), keep)(X))
        assert remove_channels(smaller, {"stem.0": [0]})(X).isfinite().all()


def test_a_layer_that_stands_in_two_places_is_thinner_in_both():
    torch.manual_seed(0)
    same = nn.Linear(6, 6)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 6), same, nn.ReLU(), same, nn.Linear(6, 2))
    smaller = remove_channels(model, {"1": [0, 2]})
    assert smaller[2] is smaller[4]
    assert smaller(X).shape == (3, 2)


def test_scores_of_a_channel_are_the_sum_over_all_weights_that_it_has():
    group = Group(
        "a",
        2,
        (
            Member("a", "Conv2d", "writes"),
            Member("n", "BatchNorm2d", "scales"),
            Member("l", "Linear", "reads", 3),
        ),
    )
    scores = {
        "a": torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1).expand(2, 1, 2, 2),
        "n": torch.tensor([10.0, 20.0]),
        "l": torch.tensor([[100.0, 100.0, 100.0, 0.0, 0.0, 1000.0], [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]]),
        "someone else": torch.ones(7),
    }
    assert channel_scores(group, scores).tolist() == [4 + 10 + 303, 8 + 20 + 1006]
    assert channel_scores(group, {"n": scores["n"]}).tolist() == [10, 20]


@pytest.mark.parametrize("make", [baseline, mlp, conv_net])
def test_a_pruned_network_is_saved_and_loaded_without_knowing_its_widths(make, tmp_path):
    model = make()
    smaller = remove_channels(lively(make()), some(model))
    save_model(smaller, tmp_path / "thin.safetensors")
    back = load_pruned(tmp_path / "thin.safetensors", into=model)
    with torch.no_grad():
        assert torch.equal(back.eval()(X), smaller(X))
    empty = empty_like(model, smaller.state_dict())
    assert all(not tensor.any() for tensor in empty.parameters())
    assert [str(module) for module in empty.modules()] == [str(module) for module in smaller.modules()]
    assert load_model(tmp_path / "thin.safetensors", into=empty) is not empty
    assert count_parameters(model) == count_parameters(make())


def test_recalibrated_norms_have_the_statistics_of_the_batches_and_the_weights_stay():
    torch.manual_seed(0)
    model = lively(student())
    model.stem.train()
    model.stem[1].num_batches_tracked += 7  # as after a training: these seven must not count
    batches = [(x, torch.zeros(4)) for x in torch.randn(3, 4, 1, 28, 28)]
    before = copy.deepcopy(model.state_dict())
    fresh = recalibrate_batch_norm(model, batches)
    expected = copy.deepcopy(model)
    update_bn(batches, expected)
    for name, tensor in expected.state_dict().items():
        assert torch.allclose(fresh.state_dict()[name], tensor, atol=1e-6), name
        assert torch.equal(model.state_dict()[name], before[name])
    assert not torch.equal(fresh.stem[1].running_mean, before["stem.1.running_mean"])
    assert [m.training for m in fresh.modules()] == [m.training for m in model.modules()]
    assert {m.momentum for m in fresh.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


def test_only_the_norms_learn_from_the_batches():
    class Still(nn.Module):
        def forward(self, x):
            assert not self.training
            return x

    model = nn.Sequential(Still(), nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).train()
    once = recalibrate_batch_norm(model, [X])
    with torch.no_grad():
        assert torch.allclose(once[2].running_mean, model[1](X).mean((0, 2, 3)), atol=1e-6)
    assert recalibrate_batch_norm(mlp(), [X]) is not None  # nothing to learn there


GROUPS = "stem.0, blocks.0.conv1, blocks.0.conv2, blocks.1.conv1, blocks.1.conv2"
SIXTEEN = "keep of group stem.0 must be different whole numbers from 0 to 7"


@pytest.mark.parametrize(
    ("keep", "says"),
    [
        ({"stem": [0]}, f"a group must be one of {GROUPS}, got 'stem'; see dependency_groups(model)"),
        ({"head": [0]}, f"a group must be one of {GROUPS}, got 'head'; see dependency_groups(model)"),
        (
            {"stem.0": []},
            "keep must leave group stem.0 at least one of its 8 channels, got none; nothing would pass",
        ),
        ({"stem.0": [0, 8]}, f"{SIXTEEN}, got [0, 8]; of a mask, give mask.nonzero().flatten()"),
        ({"stem.0": [-1]}, f"{SIXTEEN}, got [-1]; of a mask, give mask.nonzero().flatten()"),
        ({"stem.0": [3, 3]}, f"{SIXTEEN}, got [3, 3]; of a mask, give mask.nonzero().flatten()"),
        ({"stem.0": [0.5]}, f"{SIXTEEN}, got [0.5]; of a mask, give mask.nonzero().flatten()"),
        (
            {"stem.0": [True, False]},
            f"{SIXTEEN}, got [True, False]; of a mask, give mask.nonzero().flatten()",
        ),
        ({"stem.0": 3}, f"{SIXTEEN}, got 3; of a mask, give mask.nonzero().flatten()"),
    ],
)
def test_what_can_not_be_kept_is_refused(keep, says):
    with pytest.raises(CompressionError, match=f"^{re.escape(says)}$"):
        remove_channels(student(), keep)


@pytest.mark.parametrize(
    ("refused", "says"),
    [
        (
            lambda: channel_scores(dependency_groups(mlp())["1"], {"7": torch.ones(3)}),
            "scores must have one of the layers 1, 3 of group 1, got none of them; try {'1': "
            "magnitude(weight)}",
        ),
        (
            lambda: channel_scores(dependency_groups(mlp())["1"], {"3": torch.ones(1024)}),
            "scores of 3 must have 1024 entries in dimension 1, got the shape (1024,); give "
            "scores in the weight's shape",
        ),
        (
            lambda: empty_like(student(), mlp().state_dict()),
            "the state dict is of another network: 1.bias is only in the state dict; "
            "give the network as it was before pruning",
        ),
        (
            lambda: empty_like(nn.Linear(2, 3), {"weight": torch.ones(3, 3), "bias": torch.ones(3)}),
            "weight is (3, 3) in the state dict and (3, 2) in the model; pruning leaves fewer channels and "
            "the same kernel: give the network as it was before pruning",
        ),
        (
            lambda: recalibrate_batch_norm(student(), []),
            "batches must have at least one batch of images, got none; try train.batches(500)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(refused, says):
    with pytest.raises(CompressionError, match=f"^{re.escape(says)}$"):
        refused()
