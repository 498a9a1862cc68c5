"""Groups live or die whole, and the lowest go: torch.nn.utils.prune and brute force are the oracles."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from compresslab.errors import CompressionError
from compresslab.measurement.costs import count_macs, storage_bytes
from compresslab.techniques.pruning.criteria import magnitude
from compresslab.techniques.pruning.granularity import (
    channel,
    channel_mask,
    fine,
    fine_grained_mask,
    global_masks,
    group_mask,
    group_scores,
    kernel,
    kernel_mask,
    layer,
    local_masks,
    magnitudes,
    n_of_m_mask,
    prune_by_magnitude,
    vector,
    vector_mask,
)

SHARES = (0.0, 0.1, 0.25, 0.5, 0.7, 0.9, 0.999)
SHAPES = ((6, 4, 3, 2), (5, 8), (3, 4, 1, 1))
AXES = {fine: (), vector: (3,), kernel: (2, 3), channel: (1, 2, 3), layer: (0, 1, 2, 3)}  # inside a group
every_granularity = pytest.mark.parametrize("granularity", list(AXES))


def sums(scores, granularity):
    """The groups' sums by torch's axes: (out, in, height, width), with a group's axes of length 1."""
    four = scores.reshape(*scores.shape, *[1] * (4 - scores.dim()))
    return four.sum(dim=AXES[granularity], keepdim=True) if AXES[granularity] else four


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
    for index in (0, 4):
        prune.l1_unstructured(theirs[index], "weight", amount=sparsity)
    ours = prune_by_magnitude(model, sparsity=sparsity)
    for index in (0, 4):
        assert torch.equal(ours[index].weight, theirs[index].weight)
        assert torch.equal(ours[index].bias, model[index].bias)


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
    [
        (50, r"got 50; did you mean 0\.5\?"),
        (87.5, r"did you mean 0\.875\?"),
        (1, "got 1; try 0.5"),
        (-0.1, "try 0.5"),
        (float("nan"), "got nan; try 0.5"),
        ("0.5", "try 0.5"),
        (None, "try 0.5"),
        (100, "try 0.5"),
    ],
)
def test_a_sparsity_that_is_no_fraction_is_refused_with_advice(sparsity, advice):
    for refuse in (
        lambda: fine_grained_mask(torch.ones(4), sparsity=sparsity),
        lambda: prune_by_magnitude(network(), sparsity=sparsity),
    ):
        with pytest.raises(CompressionError, match=rf"sparsity must be a fraction in \[0, 1\), .*{advice}"):
            refuse()


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(
        CompressionError, match="scores must be numbers, got NaN; look for a division by zero"
    ):
        fine_grained_mask(magnitude(torch.tensor([1.0, float("nan")])), sparsity=0.5)


def test_a_model_without_layers_to_prune_is_refused():
    with pytest.raises(
        CompressionError, match="Conv2d or Linear layer, got ReLU without any; give the whole"
    ):
        prune_by_magnitude(nn.ReLU(), sparsity=0.5)


@every_granularity
@pytest.mark.parametrize("shape", SHAPES)
def test_a_groups_score_is_the_sum_of_its_weights(shape, granularity):
    scores = torch.rand(shape, dtype=torch.float64)
    assert torch.allclose(group_scores(scores, granularity), sums(scores, granularity).flatten())


@every_granularity
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9])
def test_groups_live_or_die_whole_and_the_lowest_go(shape, granularity, sparsity):
    scores = torch.rand(shape)
    before = scores.clone()
    mask = group_mask(scores, granularity, sparsity=sparsity)
    share = sums(mask.double(), granularity) / sums(torch.ones(shape).double(), granularity)
    assert (mask.shape, mask.dtype) == (shape, torch.bool)
    assert share.unique().tolist() in ([0], [1], [0, 1])
    assert int((share == 0).sum()) == round(sparsity * share.numel())
    kept, dropped = (sums(scores, granularity)[share == alive] for alive in (1, 0))
    assert not len(kept) or not len(dropped) or kept.min() >= dropped.max()
    assert torch.equal(scores, before)


@pytest.mark.parametrize(
    ("mask_of", "granularity"),
    [(fine_grained_mask, fine), (vector_mask, vector), (kernel_mask, kernel), (channel_mask, channel)],
)
def test_a_mask_with_a_name_is_that_of_its_granularity(mask_of, granularity):
    scores = torch.rand(4, 3, 3, 3)
    assert torch.equal(mask_of(scores, sparsity=0.4), group_mask(scores, granularity, sparsity=0.4))


@every_granularity
def test_among_equal_groups_exactly_the_share_goes_the_first_ones_first(granularity):
    mask = granularity(group_mask(torch.ones(6, 4, 3, 2), granularity, sparsity=0.5))
    dropped = round(0.5 * len(mask))
    assert not mask[:dropped].any()
    assert mask[dropped:].all()


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.8])
def test_the_channels_that_go_are_those_of_torchs_norms(power, shape, sparsity):
    weight = torch.randn(shape)
    theirs = prune.LnStructured(amount=sparsity, n=power, dim=0).compute_mask(weight, torch.ones(shape))
    assert torch.equal(channel_mask(weight.abs() ** power, sparsity=sparsity), theirs.bool())


@pytest.mark.parametrize("sparsity", SHARES)
def test_random_scores_drop_as_many_as_torchs_random_pruning(sparsity):
    weight = torch.randn(6, 4, 3, 3)
    single = prune.RandomUnstructured(amount=sparsity).compute_mask(weight, torch.ones_like(weight))
    whole = prune.RandomStructured(amount=sparsity, dim=0).compute_mask(weight, torch.ones_like(weight))
    assert fine_grained_mask(torch.rand(weight.shape), sparsity=sparsity).sum() == single.sum()
    assert channel_mask(torch.rand(weight.shape), sparsity=sparsity).sum() == whole.sum()


@pytest.mark.parametrize("shape", [(3, 8), (2, 4, 3, 3), (2, 12, 1, 2)])
def test_two_of_four_is_the_best_of_the_six_patterns_in_every_run_of_inputs(shape):
    scores = torch.rand(shape)
    mask = n_of_m_mask(scores)
    assert (mask.shape, mask.dtype) == (shape, torch.bool)
    patterns = torch.tensor([[i in pair for i in range(4)] for pair in itertools.combinations(range(4), 2)])
    for out, *place in itertools.product(range(shape[0]), *map(range, shape[2:])):
        for start in range(0, shape[1], 4):
            run = (out, slice(start, start + 4), *place)
            best = max(patterns, key=lambda pattern: float(scores[run][pattern].sum()))
            assert torch.equal(mask[run], best)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 4), (3, 4), (2, 8)])
def test_n_of_m_stay_even_among_ties_and_the_first_go_first(n, m):
    mask = n_of_m_mask(torch.zeros(3, 8), n=n, m=m).reshape(-1, m)
    assert not mask[:, : m - n].any()
    assert mask[:, m - n :].all()


def test_local_thresholds_take_the_same_share_of_every_layer_or_each_its_own():
    scores = {"small": torch.rand(4, 5) / 100, "large": torch.rand(6, 5)}
    same = local_masks(scores, sparsity=0.5)
    assert {name: int(mask.sum()) for name, mask in same.items()} == {"small": 10, "large": 15}
    own = local_masks(scores, sparsity={"small": 0.75, "large": 0}, granularity=channel)
    assert torch.equal(own["small"], channel_mask(scores["small"], sparsity=0.75))
    assert own["large"].all()


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.9])
def test_a_global_threshold_takes_what_torchs_does(sparsity):
    model = network()
    layers = {"0": model[0], "4": model[4]}
    ours = global_masks(magnitudes(model), sparsity=sparsity)
    prune.global_unstructured(
        [(found, "weight") for found in layers.values()], prune.L1Unstructured, amount=sparsity
    )
    for name, found in layers.items():
        assert torch.equal(ours[name], found.weight_mask.bool())


@pytest.mark.parametrize("granularity", [vector, kernel, channel, layer])
@pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.8])
def test_a_global_threshold_drops_whole_groups_lowest_a_weight_first_and_never_too_many(
    granularity, sparsity
):
    scores = {"conv": torch.rand(6, 4, 3, 3), "wide": torch.rand(5, 8), "deep": torch.rand(3, 6, 2, 2) + 0.2}
    masks = global_masks(scores, sparsity=sparsity, granularity=granularity)
    fates = torch.cat([granularity(mask).double().mean(1) for mask in masks.values()])
    means = torch.cat([granularity(s).mean(1) for s in scores.values()])
    sizes = torch.cat([granularity(s).shape[1] * torch.ones(len(granularity(s))) for s in scores.values()])
    kept, target = fates == 1, round(sparsity * sum(s.numel() for s in scores.values()))
    assert torch.equal(fates, kept.double())
    assert not (~kept).any() or means[kept].min() >= means[~kept].max()
    assert sizes[~kept].sum() <= target < sizes[~kept].sum() + sizes[kept][means[kept].argmin()]


def test_a_global_threshold_is_exact_among_ties():
    masks = global_masks({"a": torch.ones(3, 3), "b": torch.ones(2, 2)}, sparsity=10 / 13)
    assert not masks["a"].any()
    assert masks["b"].tolist() == [[False, True], [True, True]]


def test_a_model_may_lose_whole_channels():
    model = network()
    pruned = prune_by_magnitude(model, sparsity=0.5, granularity=channel)
    for index in (0, 4):
        expected = channel_mask(model[index].weight.detach().abs(), sparsity=0.5)
        assert torch.equal(pruned[index].weight != 0, expected)


def test_groups_that_scores_do_not_have_are_refused():
    for refuse in (vector, kernel, channel, n_of_m_mask):
        with pytest.raises(
            CompressionError, match=r"or \(out, in, height, width\), got \(3,\); give .*, or choose fine"
        ):
            refuse(torch.ones(3))


@pytest.mark.parametrize(("n", "m"), [(5, 4), (0, 4), (2.0, 4), (2, "4")])
def test_n_of_m_that_make_no_sense_are_refused(n, m):
    with pytest.raises(CompressionError, match=rf"whole numbers, 1 ≤ n ≤ m, got {n} of {m}; try 2 of 4"):
        n_of_m_mask(torch.ones(4, 4), n=n, m=m)


def test_inputs_that_m_does_not_divide_are_refused():
    with pytest.raises(
        CompressionError, match=r"a multiple of 4 inputs for 2 of 4, got 1 in \(16, 1, 3, 3\); leave this"
    ):
        n_of_m_mask(torch.ones(16, 1, 3, 3))


def test_a_layer_without_a_share_and_scores_that_are_no_numbers_are_refused():
    scores = {"a": torch.ones(2, 2), "b": torch.ones(2, 2)}
    with pytest.raises(CompressionError, match="a share for each layer, got none for b; give 0 to spare it"):
        local_masks(scores, sparsity={"a": 0.5})
    for refuse in (n_of_m_mask, lambda s: global_masks({"a": s}, sparsity=0.5)):
        with pytest.raises(CompressionError, match="scores must be numbers, got NaN"):
            refuse(torch.full((4, 4), torch.nan))
    with pytest.raises(CompressionError, match=r"got 50; did you mean 0\.5\?"):
        global_masks(scores, sparsity=50)
