"""The inputs have a say: reduced-rank regression on the inputs is the oracle; plain SVD is never better."""

import re

import pytest
import torch
from torch.nn import functional as F

from compresslab.analysis.layer_inputs import output_error
from compresslab.errors import CompressionError
from compresslab.techniques.low_rank.activation_aware import (
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


def gram(x):
    return x.T @ x / len(x)


def product(pair):
    first, second = pair
    return second @ first


def refuses(text):
    return pytest.raises(CompressionError, match=f"^{re.escape(text)}$")


def outputs_miss(w, changed, x):
    """The mean squared distance of the outputs, with the images themselves: no gram."""
    return (x @ (w - changed).T).square().sum(dim=1).mean()


@all_inputs
@every_shape
@pytest.mark.parametrize("damping", [0.0, 1e-8, 0.01, 10.0])
def test_outputs_are_never_further_off_than_with_plain_svd_at_any_rank(inputs, m, n, damping):
    for seed in range(4):
        w, x = numbers(m, n, seed=seed), inputs(n, seed + 10)
        noise = 1e-13 * outputs_miss(w, 0 * w, x)
        for rank in range(1, min(m, n) + 1):
            ours = product(whitened_svd(w, gram(x), rank=rank, damping=damping))
            plain = product(truncated_svd(w, rank=rank))
            assert outputs_miss(w, ours, x) <= outputs_miss(w, plain, x) * (1 + 1e-9) + noise


@all_inputs
@every_shape
def test_the_outputs_miss_by_the_singular_values_that_they_drop(inputs, m, n):
    """Eckart and Young for the outputs themselves (images, m): no layer of this rank can come nearer."""
    w, x = numbers(m, n), inputs(n, 1)
    s = torch.linalg.svdvals(x @ w.T / len(x) ** 0.5)
    for rank in range(1, min(m, n) + 1):
        ours = outputs_miss(w, product(whitened_svd(w, gram(x), rank=rank)), x)
        torch.testing.assert_close(
            ours, s[rank:].square().sum(), rtol=1e-4, atol=1e-7 * float(s.square().sum())
        )


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_no_search_by_turns_finds_better_factors(rank):
    """Least squares for one factor, then for the other, from many starts: no decomposition in it."""
    w, x = numbers(4, 5), uneven_inputs(5, 1)
    ours = outputs_miss(w, product(whitened_svd(w, gram(x), rank=rank, damping=0.0)), x)
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
    w, g = numbers(m, n), gram(uneven_inputs(n, 1))
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
            (gram(uneven_inputs(n, 1)), 1e12),
        ):
            ours = product(whitened_svd(w, g, rank=rank, damping=damping))
            torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-8)


@all_inputs
@every_shape
def test_full_rank_gives_the_weights_back_even_where_no_input_points(inputs, m, n):
    w = numbers(m, n)
    torch.testing.assert_close(product(whitened_svd(w, gram(inputs(n, 1)), rank=min(m, n))), w)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_factors_weigh_the_same_in_the_weights_type_and_share_nothing_with_them(dtype):
    w, g = numbers(5, 8).to(dtype), gram(uneven_inputs(8, 1)).to(dtype)
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
    g = torch.stack([gram(rows) for rows in patches(x, weight, groups)])
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
        torch.testing.assert_close(ours, output_error(weight.reshape(changed.shape), changed, g).sum())


def test_a_single_group_may_have_moments_without_the_groups():
    weight, g = numbers(6, 4, 3, 2), gram(uneven_inputs(24, 1))
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


def test_another_matrix_than_the_inputs_gram_matrix_is_refused():
    with refuses(
        "gram must have shape (5, 8, 8) for weights (5, 5, 8), got (8, 5); "
        "try gram_matrices(model, batches)[name], w.flatten(1)"
    ):
        whitened_svd(numbers(5, 5, 8), torch.ones(8, 5), rank=1)
    with refuses(
        "gram must have shape (1, 8, 8) for weights (1, 5, 8), got (1, 7, 7); "
        "try gram_matrices(model, batches)[name], w.flatten(1)"
    ):
        whitened_channel_kernels(numbers(5, 2, 2, 2), torch.eye(7), rank=1)
