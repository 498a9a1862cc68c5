"""Fine-grained pruning drops exactly the lowest scores; torch.nn.utils.prune is the oracle."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from compresslab.costs import count_macs, storage_bytes
from compresslab.errors import CompressionError
from compresslab.techniques.pruning import fine_grained_mask, magnitude, prune_by_magnitude

SHARES = (0.0, 0.1, 0.25, 0.5, 0.7, 0.9, 0.999)


def network():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))


@pytest.mark.parametrize("sparsity", SHARES)
@pytest.mark.parametrize("shape", [(7,), (8, 5), (4, 3, 3, 3), (1, 1)])
def test_exactly_the_asked_share_goes_and_what_stays_scores_at_least_as_high(shape, sparsity):
    scores = torch.randn(shape).abs()
    mask = fine_grained_mask(scores, sparsity=sparsity)
    assert mask.shape == shape
    assert mask.dtype == torch.bool
    assert (~mask).sum() == round(sparsity * scores.numel())
    assert not mask.any() or mask.all() or scores[mask].min() >= scores[~mask].max()


@pytest.mark.parametrize("sparsity", SHARES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_zeros_are_where_torch_puts_them(sparsity, dtype):
    model = network().to(dtype)
    theirs = copy.deepcopy(model)
    for layer in (theirs[0], theirs[4]):
        prune.l1_unstructured(layer, "weight", amount=sparsity)
    ours = prune_by_magnitude(model, sparsity=sparsity)
    for layer in (0, 4):
        assert torch.equal(ours[layer].weight, theirs[layer].weight)
        assert torch.equal(ours[layer].bias, model[layer].bias)


def test_among_ties_the_first_position_goes_first():
    mask = fine_grained_mask(torch.ones(2, 3), sparsity=0.5)
    assert mask.tolist() == [[False, False, False], [True, True, True]]
    transposed = fine_grained_mask(torch.ones(3, 2).T, sparsity=0.5)  # row-major in the shape that is seen
    assert transposed.tolist() == mask.tolist()


def test_pruning_twice_by_the_same_share_changes_nothing_more():
    once = prune_by_magnitude(network(), sparsity=0.6)
    twice = prune_by_magnitude(once, sparsity=0.6)
    assert all(torch.equal(a, b) for a, b in zip(once.parameters(), twice.parameters(), strict=True))


def test_zeros_alone_save_neither_bytes_nor_macs():
    model, x = network(), torch.randn(1, 1, 4, 4)
    pruned = prune_by_magnitude(model, sparsity=0.9)
    assert storage_bytes(pruned) == storage_bytes(model)
    assert count_macs(pruned, x) == count_macs(model, x)


@pytest.mark.parametrize(
    ("sparsity", "advice"),
    [(50, r"got 50; did you mean 0\.5\?"), (87.5, r"did you mean 0\.875\?"), (1, "got 1; try 0.5"),
     (-0.1, "try 0.5"), (float("nan"), "got nan; try 0.5"), ("0.5", "try 0.5"), (None, "try 0.5"),
     (100, "try 0.5")],
)  # fmt: skip
def test_a_sparsity_that_is_no_fraction_is_refused_with_advice(sparsity, advice):
    for refuse in (
        lambda: fine_grained_mask(torch.ones(4), sparsity=sparsity),
        lambda: prune_by_magnitude(network(), sparsity=sparsity),
    ):
        with pytest.raises(CompressionError, match=rf"sparsity is a fraction in \[0, 1\), .*{advice}"):
            refuse()


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(CompressionError, match="scores are numbers, got NaN; look for a division by zero"):
        fine_grained_mask(magnitude(torch.tensor([1.0, float("nan")])), sparsity=0.5)


def test_a_model_without_layers_to_prune_is_refused():
    with pytest.raises(
        CompressionError, match="Conv2d or Linear layers to prune, got ReLU without any; give the whole"
    ):
        prune_by_magnitude(nn.ReLU(), sparsity=0.5)
