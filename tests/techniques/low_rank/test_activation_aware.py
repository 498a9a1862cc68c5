"""The inputs have a say: reduced-rank regression on the inputs is the oracle; plain SVD is never better."""

import re

import pytest
import torch
from torch.nn import functional as F

from compresslab.errors import CompressionError
from compresslab.techniques.low_rank.activation_aware import (
    output_error,
    whitened_channel_kernels,
    whitened_svd,
)
from compresslab.techniques.low_rank.svd import channel_kernels, from_channels, truncated_svd

SHAPES = [(5, 8), (8, 5), (6, 6)]
every_shape = pytest.mark.parametrize(("m", "n"), SHAPES)


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def round_inputs(n, seed):
    return numbers(300, n, seed=seed)


def uneven_inputs(n, seed):
    return numbers(300, n, seed=seed) @ numbers(n, n, seed=seed + 1) * torch.logspace(0, -3, n).double()


def silent_inputs(n, seed):
    """Two of them always zero, two always the same."""
    x = uneven_inputs(n, seed)
    x[:, [0, 2]] = 0
    x[:, 3] = x[:, 4]
    return x


def nearly_silent_inputs(n, seed):
    return silent_inputs(n, seed) + 1e-7 * numbers(300, n, seed=seed + 2)


def few_inputs(n, seed):
    return uneven_inputs(n, seed)[:3]


def no_inputs(n, seed):
    return torch.zeros(4, n, dtype=torch.float64)


INPUTS = [round_inputs, uneven_inputs, silent_inputs, nearly_silent_inputs, few_inputs, no_inputs]
all_inputs = pytest.mark.parametrize("inputs", INPUTS)


def moments(x):
    return x.T @ x / len(x)


def product(pair):
    first, second = pair
    return second @ first


def refuses(text):
    return pytest.raises(CompressionError, match=f"^{re.escape(text)}$")


def outputs_miss(w, changed, x):
    """The mean squared distance of the outputs, with the images themselves: no moments."""
    return (x @ (w - changed).T).square().sum(dim=1).mean()


def test_the_output_error_is_what_the_outputs_say():
    w, changed, x = numbers(3, 6), numbers(3, 6, seed=1), uneven_inputs(6, 2)
    torch.testing.assert_close(output_error(w, changed, moments(x)), outputs_miss(w, changed, x))
    assert output_error(w, w, moments(x)) == 0
    assert output_error(w.float(), changed, moments(x).float()).dtype == torch.float64


@all_inputs
@every_shape
@pytest.mark.parametrize("damping", [0.0, 1e-8, 0.01, 10.0])
def test_outputs_are_never_further_off_than_with_plain_svd_at_any_rank(inputs, m, n, damping):
    for seed in range(4):
        w, x = numbers(m, n, seed=seed), inputs(n, seed + 10)
        noise = 1e-13 * outputs_miss(w, 0 * w, x)
        for rank in range(1, min(m, n) + 1):
            ours = product(whitened_svd(w, moments(x), rank=rank, damping=damping))
            plain = product(truncated_svd(w, rank=rank))
            assert outputs_miss(w, ours, x) <= outputs_miss(w, plain, x) * (1 + 1e-9) + noise


@all_inputs
@every_shape
def test_the_outputs_miss_by_the_singular_values_that_they_drop(inputs, m, n):
    """Eckart and Young for the outputs themselves (images, m): no layer of this rank can come nearer."""
    w, x = numbers(m, n), inputs(n, 1)
    s = torch.linalg.svdvals(x @ w.T / len(x) ** 0.5)
    for rank in range(1, min(m, n) + 1):
        ours = outputs_miss(w, product(whitened_svd(w, moments(x), rank=rank)), x)
        torch.testing.assert_close(
            ours, s[rank:].square().sum(), rtol=1e-4, atol=1e-7 * float(s.square().sum())
        )


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_no_search_by_turns_finds_better_factors(rank):
    """Least squares for one factor, then for the other, from many starts: no decomposition in it."""
    w, x = numbers(4, 5), uneven_inputs(5, 1)
    ours = outputs_miss(w, product(whitened_svd(w, moments(x), rank=rank, damping=0.0)), x)
    found = []
    for seed in range(5):
        second = numbers(4, rank, seed=seed)
        for _ in range(300):
            first = torch.linalg.lstsq(second, w).solution
            second = torch.linalg.lstsq(x @ first.T, x @ w.T).solution.T
        found.append(outputs_miss(w, second @ first, x))
    assert min(found) >= ours * (1 - 1e-9)
    torch.testing.assert_close(min(found), ours, rtol=1e-3, atol=0.0)  # and it comes there in the end


@every_shape
def test_it_is_the_truncated_product_with_the_whitening_undone(m, n):
    """As published: the Cholesky factor of G, and its inverse."""
    w, g = numbers(m, n), moments(uneven_inputs(n, 1))
    factor = torch.linalg.cholesky(g)
    for rank in range(1, min(m, n) + 1):
        published = product(truncated_svd(w @ factor, rank=rank)) @ torch.linalg.inv(factor)
        torch.testing.assert_close(product(whitened_svd(w, g, rank=rank, damping=0.0)), published)


@every_shape
def test_with_round_inputs_or_none_at_all_or_much_damping_it_is_plain_svd(m, n):
    w = numbers(m, n)
    for rank in range(1, min(m, n) + 1):
        plain = product(truncated_svd(w, rank=rank))
        for g, damping in (
            (3 * torch.eye(n), 1e-8),
            (torch.zeros(n, n), 1e-8),
            (moments(uneven_inputs(n, 1)), 1e12),
        ):
            ours = product(whitened_svd(w, g, rank=rank, damping=damping))
            torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-8)


@all_inputs
@every_shape
def test_full_rank_gives_the_weights_back_even_where_no_input_points(inputs, m, n):
    w = numbers(m, n)
    torch.testing.assert_close(product(whitened_svd(w, moments(inputs(n, 1)), rank=min(m, n))), w)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_factors_weigh_the_same_in_the_weights_type_and_share_nothing_with_them(dtype):
    w, g = numbers(5, 8).to(dtype), moments(uneven_inputs(8, 1)).to(dtype)
    before = w.clone(), g.clone()
    first, second = whitened_svd(w, g, rank=5)
    torch.testing.assert_close(first @ first.T, second.T @ second)
    for result in (first, second, *whitened_channel_kernels(w[:, :, None, None], g, rank=5)):
        assert result.dtype == dtype
        assert result.is_contiguous()
        result.zero_()
    assert torch.equal(w, before[0])
    assert torch.equal(g, before[1])


# convolutions


def patches(x, weight, groups):
    """What goes into each output of each group: (groups, images · positions, n)."""
    unfolded = F.unfold(x, weight.shape[2:])  # (images, groups · n, positions)
    return unfolded.unflatten(1, (groups, -1)).permute(1, 0, 3, 2).flatten(1, 2)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolutions_outputs_are_nearer_than_with_plain_channel_kernels(groups):
    weight, x = numbers(6, 4 // groups, 3, 2), numbers(20, 4, 7, 6).cumsum(dim=2)
    g = torch.stack([moments(rows) for rows in patches(x, weight, groups)])
    wanted = F.conv2d(x, weight, groups=groups)
    for rank in range(1, 6 // groups):
        first, second = whitened_channel_kernels(weight, g, rank=rank)
        assert first.shape == (groups * rank, 4 // groups, 3, 2)
        assert second.shape == (6, rank, 1, 1)
        answers = F.conv2d(F.conv2d(x, first, groups=groups), second, groups=groups)
        plain = from_channels(*channel_kernels(weight, rank=rank, groups=groups), groups=groups)
        of_plain = (F.conv2d(x, plain, groups=groups) - wanted).square().sum(dim=1).mean()
        ours = (answers - wanted).square().sum(dim=1).mean()
        assert ours < 0.9 * of_plain
        changed = from_channels(first, second, groups=groups).reshape(groups, 6 // groups, -1)
        torch.testing.assert_close(ours, output_error(weight.reshape(changed.shape), changed, g))


def test_a_single_group_may_have_moments_without_the_groups():
    weight, g = numbers(6, 4, 3, 2), moments(uneven_inputs(24, 1))
    alone, stacked = (whitened_channel_kernels(weight, given, rank=3) for given in (g, g[None]))
    for one, other in zip(alone, stacked, strict=True):
        assert torch.equal(one, other)


# refusals


def test_ranks_weights_and_dampings_out_of_range_are_refused():
    with refuses(
        "rank must be a whole number from 1 to 5 for a matrix of 5 by 8, got 6; "
        "try 1, half of where it stops saving"
    ):
        whitened_svd(numbers(5, 8), torch.eye(8), rank=6)
    with refuses("w must be finite, got NaN or infinity; look for a training that diverged"):
        whitened_svd(numbers(5, 8) / 0, torch.eye(8), rank=5)
    for damping in (-0.1, float("inf"), float("nan"), None):
        with refuses(f"damping must be a finite share, 0 or more, got {damping}; try 0.01"):
            whitened_svd(numbers(5, 8), torch.eye(8), rank=5, damping=damping)


@pytest.mark.parametrize("shape", [(5, 5), (8,), (1, 8, 8)])
def test_moments_of_another_shape_are_refused(shape):
    text = (
        f"moments must be (8, 8) for weights (5, 8), got {shape}; "
        "try input_second_moments(model, batches)[name], w.flatten(1)"
    )
    with refuses(text):
        whitened_svd(numbers(5, 8), torch.ones(shape), rank=1)
    with refuses(text):
        output_error(numbers(5, 8), numbers(5, 8), torch.ones(shape))


def test_moments_of_a_convolution_have_a_row_for_each_weight_of_a_filter():
    with refuses(
        "moments must be (1, 8, 8) for weights (1, 5, 8), got (1, 7, 7); "
        "try input_second_moments(model, batches)[name], w.flatten(1)"
    ):
        whitened_channel_kernels(numbers(5, 2, 2, 2), torch.eye(7), rank=1)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 2.0])
def test_moments_that_are_no_moments_are_refused(wrong):
    g = torch.eye(8)
    g[1, 3] = wrong
    text = (
        "moments E[x xᵀ] must be finite and symmetric, got some that are not; "
        "try x.T @ x / len(x), with the layer's inputs x (images, n)"
    )
    with refuses(text):
        whitened_svd(numbers(5, 8), g, rank=1)


def test_what_stands_for_the_weights_has_their_shape():
    with refuses("changed must have the shape (5, 8) of the weights, got (8, 5); try second @ first"):
        output_error(numbers(5, 8), numbers(8, 5), torch.eye(8))
