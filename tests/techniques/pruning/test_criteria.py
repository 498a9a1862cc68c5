"""A criterion scores every weight and changes none; the loss itself says what each estimates."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.errors import CompressionError
from compresslab.techniques.pruning import magnitude
from compresslab.techniques.pruning.criteria import (
    batch_norm_scale,
    gradient,
    optimal_brain_damage,
    random_scores,
    taylor,
    wanda,
)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def test_the_score_is_the_distance_from_zero():
    weight = torch.tensor([[-2.0, 0.0], [0.5, -0.0]], requires_grad=True)
    scores = magnitude(weight)
    assert scores.tolist() == [[2.0, 0.0], [0.5, 0.0]]
    assert not scores.requires_grad
    assert weight.tolist() == [[-2.0, 0.0], [0.5, 0.0]]


def test_scores_are_even_and_scale_with_the_weights():
    weight = torch.randn(4, 3, dtype=torch.float64)
    assert torch.equal(magnitude(weight), magnitude(-weight))
    assert torch.allclose(magnitude(-3 * weight), 3 * magnitude(weight))
    assert magnitude(weight).dtype == torch.float64


def test_the_sum_of_a_channel_is_its_norm_and_the_two_norms_can_disagree():
    filters = torch.tensor([[0.0, 0.0, 1.9], [1.0, 1.0, 1.0]])  # one large weight against three small ones
    for power in (1, 2):
        sums = magnitude(filters, power=power).sum(dim=1)
        assert torch.allclose(sums, torch.linalg.vector_norm(filters, power, dim=1) ** power)
    assert magnitude(filters).sum(dim=1).argmin() == 0
    assert magnitude(filters, power=2).sum(dim=1).argmin() == 1


@pytest.mark.parametrize("power", [0, 3, -1])
def test_a_power_of_no_norm_here_is_refused(power):
    with pytest.raises(
        CompressionError, match=rf"^power must be 1 or 2, got {power}; try 1: the absolute value$"
    ):
        magnitude(torch.ones(2), power=power)


def without(weight, position):
    changed = weight.clone()
    changed[position] = 0
    return changed


def test_taylor_is_the_square_of_what_the_loss_moves_by_where_weights_are_small():
    x, weight = drawn(20, 4), 1e-5 * drawn(3, 4, seed=1).requires_grad_()
    labels = torch.arange(20) % 3

    def loss(w):
        return F.cross_entropy((x @ w.T).double(), labels)

    (slope,) = torch.autograd.grad(loss(weight), weight)
    scores = taylor(weight, slope)
    for position in [(0, 0), (1, 3), (2, 1)]:
        moved = (loss(without(weight, position)) - loss(weight)).item()
        assert math.sqrt(scores[position]) == pytest.approx(abs(moved), rel=1e-3)
    assert not scores.requires_grad


def test_a_steep_weight_at_zero_counts_for_the_gradient_and_not_for_taylor():
    weight, slope = torch.tensor([0.0, 2.0]), torch.tensor([-9.0, 0.5])
    assert gradient(slope).tolist() == [9.0, 0.5]
    assert taylor(weight, slope).tolist() == [0.0, 1.0]


def test_optimal_brain_damage_is_what_the_loss_rises_by_at_the_minimum_of_a_quadratic_loss():
    x, y = drawn(30, 4), drawn(30, 1, seed=1)
    weight = torch.linalg.lstsq(x, y).solution.flatten()

    def loss(w):
        return (x @ w - y.flatten()).square().mean()

    hessian = torch.autograd.functional.hessian(loss, weight)
    scores = optimal_brain_damage(weight, hessian.diagonal())
    rises = torch.stack([loss(without(weight, j)) - loss(weight) for j in range(4)])
    assert torch.allclose(scores, rises, rtol=1e-9)
    assert torch.equal(optimal_brain_damage(-weight, hessian.diagonal()), scores)


@pytest.mark.parametrize("shape", [(5, 3), (4, 2, 3, 3)])
def test_wanda_is_a_loop_over_outputs_and_inputs(shape):
    weight, norms = drawn(*shape), drawn(*shape[1:], seed=1).abs()
    scores, flat, norm = wanda(weight, norms).flatten(1), weight.flatten(1), norms.flatten()
    for i in range(flat.shape[0]):
        for j in range(flat.shape[1]):
            assert scores[i, j].item() == abs(flat[i, j].item()) * norm[j].item()
    assert wanda(weight, norms).shape == shape


def test_wanda_asks_for_one_norm_an_input():
    text = (
        r"input_norm must have shape \(3,\) for a weight of shape \(5, 3\), got \(5,\); try "
        r"input_norms\(model, batches\)\[name\]"
    )
    with pytest.raises(CompressionError, match=f"^{text}$"):
        wanda(torch.ones(5, 3), torch.ones(5))


@pytest.mark.parametrize(
    ("score", "says"),
    [
        (
            taylor,
            r"^gradient must have .* \(2, 3\), got \(3,\); try mean_gradients\(model, "
            r"batches\)\[name\]$",
        ),
        (
            optimal_brain_damage,
            r"^hessian_diagonal must have .* got \(3,\); try squared_gradients\(model, batches\)",
        ),
    ],
)
def test_evidence_in_another_shape_is_refused_though_it_would_broadcast(score, says):
    with pytest.raises(CompressionError, match=says):
        score(torch.ones(2, 3), torch.ones(3))


def test_a_batch_norm_scores_its_channels_by_how_strongly_it_passes_them_on():
    norm = nn.BatchNorm2d(3)
    norm.weight.data = torch.tensor([-2.0, 0.1, 0.0])
    assert torch.equal(batch_norm_scale(norm.weight), torch.tensor([2.0, 0.1, 0.0]))
    assert not batch_norm_scale(norm.weight).requires_grad


def test_random_scores_repeat_with_their_seed_and_know_nothing_of_the_weights():
    weight = drawn(100, 50)
    scores = random_scores(weight, generator=rng(3))
    assert torch.equal(scores, random_scores(-2 * weight, generator=rng(3)))
    assert not torch.equal(scores, random_scores(weight, generator=rng(4)))
    assert scores.shape == weight.shape
    correlation = torch.corrcoef(torch.stack([scores.flatten().double(), weight.abs().flatten()]))[0, 1]
    assert abs(correlation) < 0.05
    assert 0 <= scores.min() < 0.01 < 0.99 < scores.max() < 1


# torch-pruning


@pytest.fixture
def reference():
    """The importances of torch-pruning, an independent implementation."""
    reason = "torch-pruning, the independent reference, is missing: pip install torch-pruning"
    return pytest.importorskip("torch_pruning", reason=reason)


def test_channels_rank_as_torch_pruning_ranks_them(reference):
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 4, 3),
        nn.Flatten(),
        nn.Linear(16, 3),
    )
    nn.init.normal_(model[1].weight, generator=rng())
    x = torch.randn(8, 1, 6, 6, generator=rng(1))
    groups = reference.DependencyGraph().build_dependency(model, example_inputs=x)
    F.cross_entropy(model(x), torch.arange(8) % 3).backward()
    filters = reference.prune_conv_out_channels
    group = groups.get_pruning_group(model[0], filters, idxs=list(range(12)))
    settings = {"group_reduction": "first", "normalizer": None}
    products = taylor(model[0].weight, model[0].weight.grad).sqrt()  # theirs is the sum of |w g|
    pairs = [
        (reference.importance.TaylorImportance(**settings), products.flatten(1).sum(dim=1)),
        (reference.importance.BNScaleImportance(**settings), batch_norm_scale(model[1].weight)),
    ] + [
        (
            reference.importance.MagnitudeImportance(p=p, **settings),
            magnitude(model[0].weight, power=p).flatten(1).sum(dim=1),
        )
        for p in (1, 2)
    ]
    for theirs, ours in pairs:
        assert theirs(group).argsort().tolist() == ours.argsort().tolist()
