"""The cut decomposition: Eckart and Young hold it, and two convolutions do what the rebuilt one does."""

import itertools
import re

import pytest
import torch
from torch.nn import functional as F

from compresslab.errors import CompressionError
from compresslab.techniques.low_rank.svd import (
    channel_kernels,
    channel_matrices,
    check_rank,
    dropped_error,
    from_channels,
    from_space,
    space_kernels,
    space_matrices,
    truncated_svd,
)

SHAPES = [(5, 8), (8, 5), (6, 6), (1, 4), (4, 1)]
# out, in, kernel, groups, and the convolution's other settings: height and width differ wherever they can
CONVOLUTIONS = [
    (6, 4, (3, 5), 1, {}),
    (6, 4, (3, 5), 2, {"padding": (1, 2)}),
    (4, 6, (5, 3), 1, {"stride": (2, 1), "padding": (0, 1)}),
    (9, 6, (3, 3), 3, {"stride": (1, 3), "dilation": (2, 1), "padding": 2}),
    (5, 3, (1, 4), 1, {"dilation": (1, 2)}),
]
every_convolution = pytest.mark.parametrize(("out", "inputs", "kernel", "groups", "settings"), CONVOLUTIONS)


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def refuses(text):
    return pytest.raises(CompressionError, match=f"^{re.escape(text)}$")


def each_way(setting):
    """A convolution's setting as (height, width)."""
    return (setting, setting) if isinstance(setting, int) else setting


def column_and_row(settings):
    """The settings of the two convolutions of a spatial split: each its own direction's."""
    rest = {"stride": 1, "padding": 0, "dilation": 1}
    both = {name: each_way(settings.get(name, neutral)) for name, neutral in rest.items()}
    column = {name: (both[name][0], neutral) for name, neutral in rest.items()}
    return column, {name: (neutral, both[name][1]) for name, neutral in rest.items()}


# matrices


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_the_squared_error_is_the_sum_of_the_dropped_squares(m, n):
    w = numbers(m, n)
    of_gram = torch.linalg.eigvalsh(w @ w.T if m <= n else w.T @ w).flip(0)  # s², by another road
    for rank in range(1, min(m, n) + 1):
        first, second = truncated_svd(w, rank=rank)
        assert first.shape == (rank, n)
        assert second.shape == (m, rank)
        torch.testing.assert_close((w - second @ first).square().sum(), of_gram[rank:].sum())


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_no_other_matrix_of_that_rank_is_nearer(rank):
    w = numbers(6, 9)
    first, second = truncated_svd(w, rank=rank)
    ours = (w - second @ first).square().sum()
    for seed in range(50):
        left = numbers(6, rank, seed=seed)
        best_behind = torch.linalg.lstsq(left, w).solution  # the best there is for this left factor
        assert ours < (w - left @ best_behind).square().sum()
        near = (second + 0.01 * left) @ (first + 0.01 * numbers(rank, 9, seed=seed + 50))
        assert ours < (w - near).square().sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_full_rank_gives_the_matrix_back_in_its_own_type(m, n, dtype):
    w = numbers(m, n).to(dtype)
    first, second = truncated_svd(w, rank=min(m, n))
    assert first.dtype == second.dtype == dtype
    tolerance = {} if dtype is not torch.bfloat16 else {"atol": 0.1, "rtol": 0.1}
    torch.testing.assert_close(second @ first, w, **tolerance)


def test_both_factors_carry_the_root_of_the_singular_values():
    first, second = truncated_svd(numbers(6, 9), rank=4)
    s = torch.linalg.svdvals(numbers(6, 9))[:4]
    torch.testing.assert_close(first @ first.T, s.diag())
    torch.testing.assert_close(second.T @ second, s.diag())


def test_a_batch_is_its_matrices_one_by_one():
    w = numbers(2, 3, 5, 4)
    first, second = truncated_svd(w, rank=2)
    errors = dropped_error(w)
    assert errors.shape == (2, 3, 5)
    for i, j in itertools.product(range(2), range(3)):
        alone = truncated_svd(w[i, j], rank=2)
        torch.testing.assert_close(second[i, j] @ first[i, j], alone[1] @ alone[0])
        torch.testing.assert_close(errors[i, j], dropped_error(w[i, j]))


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_the_error_is_foretold_at_every_rank_from_all_down_to_nothing(m, n):
    w = numbers(m, n)
    errors = dropped_error(w.float())
    assert errors.shape == (min(m, n) + 1,)
    assert errors.dtype == torch.float64
    assert (errors[0], errors[-1]) == (1, 0)
    assert (errors.diff() < 0).all()
    for rank in range(1, min(m, n)):
        first, second = truncated_svd(w, rank=rank)
        measured = (w - second @ first).norm() / w.norm()
        torch.testing.assert_close(errors[rank], measured, rtol=1e-5, atol=1e-6)


def test_a_matrix_of_zeros_has_no_error_and_tiny_singular_values_are_not_lost():
    assert not dropped_error(torch.zeros(3, 2)).any()
    assert not truncated_svd(torch.zeros(3, 2), rank=1)[0].any()
    w = torch.tensor([1e6, 1.0, 1e-6, 1e-6], dtype=torch.float64).diag()
    torch.testing.assert_close(dropped_error(w)[3], torch.tensor(1e-12).double(), rtol=1e-6, atol=0.0)


# convolutions


@every_convolution
def test_two_kernels_one_after_the_other_are_the_rebuilt_convolution(out, inputs, kernel, groups, settings):
    weight, x, bias = numbers(out, inputs // groups, *kernel), numbers(2, inputs, 11, 12), numbers(out)
    for rank in range(1, min(channel_matrices(weight, groups=groups).shape[1:]) + 1):
        first, second = channel_kernels(weight, rank=rank, groups=groups)
        assert first.shape == (groups * rank, inputs // groups, *kernel)
        assert second.shape == (out, rank, 1, 1)
        between = F.conv2d(x, first, groups=groups, **settings)
        ours = F.conv2d(between, second, bias, groups=groups)
        rebuilt = from_channels(first, second, groups=groups)
        torch.testing.assert_close(ours, F.conv2d(x, rebuilt, bias, groups=groups, **settings))
    torch.testing.assert_close(ours, F.conv2d(x, weight, bias, groups=groups, **settings))


@every_convolution
def test_a_column_and_then_a_row_are_the_rebuilt_convolution(out, inputs, kernel, groups, settings):
    weight, x, bias = numbers(out, inputs // groups, *kernel), numbers(2, inputs, 11, 12), numbers(out)
    of_column, of_row = column_and_row(settings)
    for rank in range(1, min(space_matrices(weight, groups=groups).shape[1:]) + 1):
        vertical, horizontal = space_kernels(weight, rank=rank, groups=groups)
        assert vertical.shape == (groups * rank, inputs // groups, kernel[0], 1)
        assert horizontal.shape == (out, rank, 1, kernel[1])
        between = F.conv2d(x, vertical, groups=groups, **of_column)
        ours = F.conv2d(between, horizontal, bias, groups=groups, **of_row)
        rebuilt = from_space(vertical, horizontal, groups=groups)
        torch.testing.assert_close(ours, F.conv2d(x, rebuilt, bias, groups=groups, **settings))
    torch.testing.assert_close(ours, F.conv2d(x, weight, bias, groups=groups, **settings))


@pytest.mark.parametrize("groups", [1, 2])
def test_what_a_split_loses_is_what_its_matrices_drop(groups):
    weight = numbers(6, 4 // groups, 3, 5)
    for kernels, rebuild, matrices in (
        (channel_kernels, from_channels, channel_matrices),
        (space_kernels, from_space, space_matrices),
    ):
        pair = kernels(weight, rank=2, groups=groups)
        lost = (weight - rebuild(*pair, groups=groups)).square().sum()
        laid_out = matrices(weight, groups=groups)
        dropped = dropped_error(laid_out)[:, 2] * laid_out.flatten(1).norm(dim=1)
        torch.testing.assert_close(lost, dropped.square().sum())


def test_filters_that_are_a_column_times_a_row_are_exact_at_rank_one():
    blur = torch.tensor([1.0, 2.0, 1.0]).outer(torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]))[None, None]
    torch.testing.assert_close(from_space(*space_kernels(blur, rank=1)), blur)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_given_stays_and_shares_no_memory_with_the_results(dtype):
    weight = numbers(6, 4, 3, 3).to(dtype).to(memory_format=torch.channels_last)
    before = weight.clone()
    results = [
        *truncated_svd(weight.flatten(1), rank=6),
        *channel_kernels(weight, rank=6),
        *space_kernels(weight, rank=12),
        channel_matrices(weight),
        space_matrices(weight),
        channel_matrices(weight.contiguous()[:, :, :1, :1]),
        space_matrices(weight[:, :1, :, :1]),
    ]
    for result in results:
        assert result.dtype == dtype
        assert result.is_contiguous()  # as safetensors wants it
        result.zero_()
    assert torch.equal(weight, before)


def test_weights_that_want_gradients_give_factors_that_do_not():
    weight = torch.nn.Parameter(torch.ones(2, 2, 1, 1))
    for result in (*channel_kernels(weight, rank=1), *space_kernels(weight, rank=1), dropped_error(weight)):
        assert not result.requires_grad


# refusals


@pytest.mark.parametrize("rank", [0, -1, 7, 2.0, True, None])
def test_a_rank_that_the_matrix_cannot_have_is_refused_and_never_clipped(rank):
    text = (
        f"rank must be a whole number from 1 to 6 for a matrix of 6 by 12, got {rank}; "
        "try 2, half of where it stops saving"
    )
    for refused in (
        lambda: truncated_svd(numbers(6, 12), rank=rank),
        lambda: channel_kernels(numbers(6, 3, 2, 2), rank=rank),
        lambda: space_kernels(numbers(6, 3, 2, 2), rank=rank),
        lambda: check_rank(rank, (5, 6, 12)),
    ):
        with refuses(text):
            refused()


def test_the_rank_to_try_is_one_that_the_matrix_can_have():
    with pytest.raises(
        CompressionError, match=r"^rank must be a whole number from 1 to 1 .*, got 2; try 1, half of"
    ):
        check_rank(2, (1, 1))


@pytest.mark.parametrize("function", [dropped_error, lambda w: truncated_svd(w, rank=1)])
def test_what_is_no_matrix_of_finite_floats_is_refused(function):
    for w, came in ((torch.ones(3), "(3,) torch.float32"), (torch.ones(2, 2).int(), "(2, 2) torch.int32")):
        text = (
            f"w must be a matrix (m, n) of floats, or a batch of them, got {came}; try "
            f"layer.weight.flatten(1)"
        )
        with refuses(text):
            function(w)
    for wrong in (float("nan"), float("inf")):
        with refuses("w must be finite, got NaN or infinity; look for a training that diverged"):
            function(torch.tensor([[1.0, wrong]]))


@pytest.mark.parametrize(("shape", "groups"), [((6, 4), 1), ((6, 4, 3, 3), 4), ((6, 4, 3, 3), 0)])
def test_a_weight_that_is_no_convolutions_is_refused(shape, groups):
    text = (
        "weight must be a convolution's (out, in / groups, kh, kw), out a multiple of groups, got "
        f"{shape} with groups={groups}; try layer.weight, groups=layer.groups"
    )
    weight = torch.ones(shape)
    for refused in (
        lambda: channel_kernels(weight, rank=1, groups=groups),
        lambda: space_kernels(weight, rank=1, groups=groups),
        lambda: from_channels(weight, weight, groups=groups),
        lambda: from_space(weight, weight, groups=groups),
    ):
        with refuses(text):
            refused()


@pytest.mark.parametrize(
    ("rebuild", "kind", "first", "second"),
    [
        (from_channels, "1 × 1", (4, 3, 3, 3), (6, 3, 1, 1)),  # another rank
        (from_channels, "1 × 1", (4, 3, 1, 1), (6, 2, 3, 3)),  # the kernel is in the second
        (from_channels, "1 × 1", (4, 3), (6, 2, 1, 1)),
        (from_space, "1 × kw behind kh × 1", (4, 3, 3, 1), (6, 3, 1, 3)),
        (from_space, "1 × kw behind kh × 1", (4, 3, 1, 3), (6, 2, 3, 1)),  # row before column
        (from_space, "1 × kw behind kh × 1", (4, 3, 3, 1), (6, 2, 3, 1)),
    ],
)
def test_kernels_that_do_not_follow_each_other_are_refused(rebuild, kind, first, second):
    text = (
        f"first must have groups · rank filters, and second be (out, rank, …), {kind}, got "
        f"{first} and {second} with groups=2; give them in the order in which they run"
    )
    with refuses(text):
        rebuild(torch.ones(first), torch.ones(second), groups=2)
