"""Dead weights stay dead, whatever the optimizer does; torch's own pruning answers the same."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from compresslab.errors import CompressionError
from compresslab.techniques.pruning.masks import (
    keep_masks,
    masked,
    masks_of,
    prunable_layers,
    sparsities,
    sparsity_table,
)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))


def half(model):
    """Random masks of about half the weights."""
    chance = torch.Generator().manual_seed(1)
    return {
        name: torch.rand(found.weight.shape, generator=chance) < 0.5
        for name, found in prunable_layers(model).items()
    }


def step(model, optimizer):
    optimizer.zero_grad()
    x, y = torch.randn(8, 1, 4, 4), torch.arange(8) % 5
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1)


def alive_among_the_dead(model, masks):
    return sum(int((model.get_submodule(name).weight[~mask] != 0).sum()) for name, mask in masks.items())


def test_the_layers_are_the_convolutions_and_linear_layers_by_name():
    model = network()
    assert prunable_layers(model) == {"0": model[0], "4": model[4]}


def test_the_masked_network_answers_as_one_that_torch_pruned():
    model, x = network().eval(), torch.randn(3, 1, 4, 4)
    masks = half(model)
    theirs = copy.deepcopy(model)
    for name, mask in masks.items():
        prune.custom_from_mask(theirs.get_submodule(name), "weight", mask)
    assert torch.equal(masked(model, masks)(x), theirs(x))


def test_only_dead_weights_change_and_the_model_is_left_alone():
    model = network()
    before, masks = copy.deepcopy(model.state_dict()), half(model)
    pruned = masked(model, masks)
    assert [type(module) for module in pruned.modules()] == [type(module) for module in model.modules()]
    for name, tensor in pruned.state_dict().items():
        mask = masks.get(name.removesuffix(".weight"), torch.ones_like(tensor, dtype=torch.bool))
        assert torch.equal(tensor[mask], before[name][mask])
        assert not tensor[~mask].any()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not {p.data_ptr() for p in pruned.parameters()} & {p.data_ptr() for p in model.parameters()}


def test_a_dead_weight_is_a_zero_even_where_it_was_infinite():
    layer = nn.Linear(2, 1)
    nn.init.constant_(layer.weight, torch.inf)
    assert masked(layer, {"": torch.tensor([[False, True]])}).weight.tolist() == [[0.0, torch.inf]]


def test_the_masks_can_be_read_back():
    model = network()
    masks = half(model)
    assert all(torch.equal(found, masks[name]) for name, found in masks_of(masked(model, masks)).items())


def test_a_layer_without_a_mask_stays_as_it_is():
    model = network()
    pruned = masked(model, {"4": torch.zeros(5, 16, dtype=torch.bool)})
    assert torch.equal(pruned[0].weight, model[0].weight)
    assert not pruned[4].weight.any()


def test_no_dead_weight_is_alive_after_steps_with_momentum_and_weight_decay():
    model = network()
    masks = half(model)
    optimizer, keep = sgd(model), keep_masks(masks)
    for _ in range(3):  # momentum builds up on the weights that are about to die
        step(model, optimizer)
    keep(model)
    for _ in range(5):
        living = model[4].weight.detach().clone()
        step(model, optimizer)
        assert alive_among_the_dead(model, masks)  # the optimizer revives them …
        keep(model)
        assert not alive_among_the_dead(model, masks)  # … and the mask ends that
        assert not torch.equal(model[4].weight, living)


def test_zeroing_the_gradients_is_not_enough_once_there_is_momentum():
    """What the docstring of ``keep_masks`` says of it."""
    model = network()
    masks = half(model)
    optimizer = sgd(model)
    step(model, optimizer)
    keep_masks(masks)(model)
    for name, mask in masks.items():
        model.get_submodule(name).weight.register_hook(lambda gradient, mask=mask: gradient * mask)
    step(model, optimizer)
    assert alive_among_the_dead(model, masks)


def test_the_living_learn_as_if_the_dead_had_never_been_there():
    """With masks kept, the velocity of the dead moves nobody: the living step as torch's pruned ones do."""
    ours = masked(network(), half(network()))
    theirs, keep = network(), keep_masks(half(network()))
    for name, mask in half(theirs).items():
        prune.custom_from_mask(theirs.get_submodule(name), "weight", mask)
    for model in (ours, theirs):
        torch.manual_seed(2)
        optimizer = sgd(model)
        for _ in range(4):
            step(model, optimizer)
            if model is ours:
                keep(model)
    x = torch.randn(6, 1, 4, 4)
    assert torch.allclose(ours.eval()(x), theirs.eval()(x), atol=1e-5)


def test_the_report_counts_the_zeros_of_each_layer_and_of_all():
    model = network()
    masks = {"0": torch.ones(4, 1, 3, 3, dtype=torch.bool), "4": torch.zeros(5, 16, dtype=torch.bool)}
    masks["0"][0] = False
    masks["4"][:, 0] = True
    pruned = masked(model, masks)
    assert sparsities(pruned) == {"0": 0.25, "4": 1 - 5 / 80}
    table = sparsity_table(pruned)
    assert table.headings == ("layer", "weights", "alive", "sparsity")
    assert table.rows == (
        ("0", "36", "27", "0.250"),
        ("4", "80", "5", "0.938"),
        ("all layers", "116", "32", "0.724"),
    )


def test_masks_that_do_not_fit_are_refused():
    model = network()
    right = torch.ones(5, 16, dtype=torch.bool)
    with pytest.raises(CompressionError, match=r"must name layers of the model \(0, 4\), got 'head'"):
        masked(model, {"head": right})
    with pytest.raises(
        CompressionError,
        match=r"mask of 4 must be torch.bool \(5, 16\) as its weight, got torch.bool \(16, 5\);",
    ):
        masked(model, {"4": right.T})
    with pytest.raises(CompressionError, match=r"got torch.float32 \(5, 16\); compute it from scores"):
        masked(model, {"4": right.float()})


def test_a_model_without_layers_is_refused():
    for refuse in (prunable_layers, masks_of, sparsities, sparsity_table, lambda model: masked(model, {})):
        with pytest.raises(CompressionError, match="Linear layer, got ReLU without any; give the whole net"):
            refuse(nn.ReLU())
