"""CP: tensorly is the oracle, so are laws, and the tensor that has no nearest sum of two components."""

import itertools
import re
import warnings

import pytest
import torch
from torch.nn import functional

from compresslab.errors import CompressionError
from compresslab.techniques.low_rank.cp import (
    cancellation,
    cp,
    cp_kernels,
    depthwise_kernels,
    from_cp,
    khatri_rao,
)


@pytest.fixture
def tensorly():
    """The oracle, on torch; what it warns of is its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle = pytest.importorskip("tensorly", reason="tensorly, an oracle, is not installed")
        pytest.importorskip("tensorly.decomposition")
        with oracle.backend_context("pytorch"):
            yield oracle


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def components(*sizes, rank, seed=0, dtype=torch.float64):
    return [noise(size, rank, seed=seed + mode, dtype=dtype) for mode, size in enumerate(sizes)]


def missed(tensor, factors):
    return float((tensor - from_cp(factors)).norm() / tensor.norm())


def without_a_nearest_sum():
    """a⊗a⊗b + a⊗b⊗a + b⊗a⊗a: sums of two components come as near as they like, and never reach it."""
    a, b = torch.eye(2, dtype=torch.float64)
    return sum(torch.einsum("i,j,k->ijk", *order) for order in ((a, a, b), (a, b, a), (b, a, a)))


def test_the_sum_of_components_and_their_products_are_tensorlys(tensorly):
    factors = components(5, 4, 3, 2, rank=6)
    torch.testing.assert_close(from_cp(factors), tensorly.cp_to_tensor((None, factors)))
    torch.testing.assert_close(khatri_rao(factors), tensorly.tenalg.khatri_rao(factors))


@pytest.mark.parametrize("sizes", [(6, 5), (6, 5, 4), (6, 5, 4, 3)])
def test_a_tensor_made_of_a_few_components_is_recovered(sizes):
    for seed in range(3):
        made = components(*sizes, rank=3, seed=10 * seed)
        assert missed(from_cp(made), cp(from_cp(made), rank=3, sweeps=400, ridge=0)) < 1e-6
        assert missed(from_cp(made), cp(from_cp(made), rank=3, sweeps=400)) < 0.02  # 1 % for the ridge


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_error_is_no_higher_than_tensorlys(tensorly, rank):
    for seed in range(3):
        tensor = from_cp(components(9, 8, 6, rank=6, seed=seed)) + noise(9, 8, 6, seed=seed)
        theirs = tensorly.cp_to_tensor(
            tensorly.decomposition.parafac(tensor, rank=rank, n_iter_max=100, tol=0, init="svd")
        )
        wanted = float((tensor - theirs).norm() / tensor.norm())
        assert missed(tensor, cp(tensor, rank=rank, sweeps=100, ridge=0)) <= wanted * (1 + 1e-3)


def test_a_matrix_gets_the_error_of_its_dropped_singular_values():
    matrix = noise(8, 6)
    kept = torch.linalg.svdvals(matrix)
    wanted = float(kept[2:].norm() / kept.norm())
    assert missed(matrix, cp(matrix, rank=2, sweeps=300, ridge=0)) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("ridge", [0.0, 0.01, 0.1])
def test_no_sweep_raises_what_is_made_least(ridge):
    tensor = noise(6, 5, 4)

    def cost(factors):
        sizes = torch.stack([factor.norm(dim=0) for factor in factors]).prod(dim=0)
        return float((tensor - from_cp(factors)).square().sum() + ridge * sizes.square().sum())

    costs = [cost(cp(tensor, rank=4, sweeps=sweeps, ridge=ridge)) for sweeps in range(1, 20)]
    assert all(after <= before + 1e-9 for before, after in itertools.pairwise(costs))
    assert costs[-1] < costs[0]


def test_with_the_ridge_nothing_near_costs_less():
    tensor, ridge = noise(5, 4, 3), 0.05
    factors = [factor.requires_grad_() for factor in cp(tensor, rank=3, sweeps=3000, ridge=ridge)]
    sizes = torch.stack([factor.norm(dim=0) for factor in factors]).prod(dim=0)
    cost = (tensor - from_cp(factors)).square().sum() + ridge * sizes.square().sum()
    assert max(slope.abs().max() for slope in torch.autograd.grad(cost, factors)) < 1e-4


def test_orthogonal_components_do_not_cancel_and_opposite_ones_do():
    directions = [torch.linalg.qr(noise(5, 3, seed=mode)).Q * 2 for mode in range(3)]
    assert cancellation(directions) == pytest.approx(1)
    n, ones = 1000, torch.ones(1, 2)
    assert cancellation([torch.tensor([[n + 1.0, -n]]), ones, ones]) == pytest.approx(n * 2**0.5, rel=1e-2)
    assert cancellation([factor * 0 for factor in directions]) == 0


def test_without_a_ridge_components_grow_and_cancel_ever_more():
    tensor = without_a_nearest_sum()
    runs = [cp(tensor, rank=2, sweeps=sweeps, ridge=0) for sweeps in (30, 300, 3000)]
    errors, cancelled = [missed(tensor, run) for run in runs], [cancellation(run) for run in runs]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01
    assert cancelled[1] > 1.5 * cancelled[0]
    assert cancelled[2] > 1.5 * cancelled[1]
    assert cancelled[2] > 5


def test_the_ridge_holds_them_at_a_little_error():
    tensor = without_a_nearest_sum()
    few, many = (cp(tensor, rank=2, sweeps=sweeps) for sweeps in (500, 3000))
    assert cancellation(many) == pytest.approx(cancellation(few))
    assert cancellation(many) < 1.5
    assert missed(tensor, many) < 0.1


def test_each_components_norm_is_spread_evenly():
    factors = cp(noise(7, 5, 4, 3) * 1e6, rank=6)
    norms = torch.stack([factor.norm(dim=0) for factor in factors])
    torch.testing.assert_close(norms, norms[:1].expand(4, -1))


def test_a_larger_tensor_has_larger_factors_and_no_other_difference():
    tensor = noise(6, 5, 4)
    for factor, larger in zip(cp(tensor, rank=3), cp(tensor * 1000, rank=3), strict=True):
        torch.testing.assert_close(larger, factor * 10)


@pytest.mark.parametrize("ridge", [0, 0.01])
def test_more_components_than_needed_and_a_tensor_of_zeros_are_no_trouble(ridge):
    tensor = from_cp(components(5, 4, 3, rank=2))
    assert missed(tensor, cp(tensor, rank=15, ridge=ridge)) < 0.02
    assert not any(factor.any() for factor in cp(torch.zeros(3, 4, 2), rank=5, ridge=ridge))


def test_a_seed_gives_one_answer_and_the_global_generator_is_not_asked():
    tensor = noise(6, 5, 4)
    torch.manual_seed(1)
    first, second, other = (cp(tensor, rank=7, sweeps=3, seed=seed) for seed in (0, 0, 1))
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(1))
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert not torch.equal(first[0], other[0])


def conv_settings(axis, settings):
    """The settings (height, width) of a convolution along one axis only."""
    neutral = {"stride": 1, "padding": 0, "dilation": 1}
    return {
        name: (value[0], neutral[name]) if axis == 0 else (neutral[name], value[1])
        for name, value in settings.items()
    }


every_setting = pytest.mark.parametrize(
    "settings", [{}, {"stride": (2, 1), "padding": (2, 1)}, {"dilation": (1, 2), "padding": (1, 2)}]
)


@pytest.mark.parametrize("groups", [1, 2, 4])
@every_setting
def test_four_convolutions_are_the_one_with_the_rebuilt_kernel(groups, settings):
    weight, x, bias = noise(12, 16 // groups, 3, 5), noise(2, 16, 11, 12, seed=1), noise(12)
    into, column, row, out = cp_kernels(weight, rank=5, groups=groups)
    assert (into.shape, out.shape) == ((groups * 5, 16 // groups, 1, 1), (12, 5, 1, 1))
    assert (column.shape, row.shape) == ((groups * 5, 1, 3, 1), (groups * 5, 1, 1, 5))
    y = functional.conv2d(x, into, groups=groups)
    y = functional.conv2d(y, column, groups=len(column), **conv_settings(0, settings))
    y = functional.conv2d(y, row, groups=len(row), **conv_settings(1, settings))
    y = functional.conv2d(y, out, bias, groups=groups)
    rebuilt = torch.cat([from_cp(cp(part, rank=5)) for part in weight.chunk(groups)])
    wanted = functional.conv2d(x, rebuilt, bias, groups=groups, **settings)
    torch.testing.assert_close(y, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 4])
@every_setting
def test_three_convolutions_are_the_one_with_the_rebuilt_kernel(groups, settings):
    weight, x, bias = noise(12, 16 // groups, 3, 5), noise(2, 16, 11, 12, seed=1), noise(12)
    into, filters, out = depthwise_kernels(weight, rank=5, groups=groups)
    assert into.shape == (groups * 5, 16 // groups, 1, 1)
    assert (filters.shape, out.shape) == ((groups * 5, 1, 3, 5), (12, 5, 1, 1))
    y = functional.conv2d(x, into, groups=groups)
    y = functional.conv2d(y, filters, groups=len(filters), **settings)
    y = functional.conv2d(y, out, bias, groups=groups)
    rebuilt = torch.cat([from_cp(cp(part.flatten(2), rank=5)) for part in weight.chunk(groups)])
    wanted = functional.conv2d(x, rebuilt.unflatten(2, (3, 5)), bias, groups=groups, **settings)
    torch.testing.assert_close(y, wanted, rtol=0, atol=1e-5)


def test_the_given_weight_is_left_alone_and_needs_no_gradient():
    weight = torch.nn.Parameter(noise(6, 5, 3, 3, dtype=torch.float32))
    before = weight.detach().clone()
    kernels = (*cp_kernels(weight, rank=3), *depthwise_kernels(weight, rank=3))
    assert torch.equal(weight, before)
    assert not any(part.requires_grad for part in kernels)
    assert {part.dtype for part in kernels} == {torch.float32}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda w: cp(w, rank=0), "rank must be a whole number from 1 up, got 0; try 3"),
        (lambda w: cp(w, rank=2.5), "rank must be a whole number from 1 up, got 2.5; try 3"),
        (lambda w: cp(w, rank=True), "rank must be a whole number from 1 up, got True; try 3"),
        (lambda w: cp(w, rank=2, sweeps=0), "sweeps must be a whole number from 1 up, got 0; try 50"),
        (lambda w: cp(w, rank=2, ridge=-0.1), "ridge must be a number from 0 up, got -0.1; try 0.01"),
        (lambda w: cp(w, rank=2, ridge=float("nan")), "ridge must be a number from 0 up, got nan; try 0.01"),
        (
            lambda w: cp(w.flatten(), rank=2),
            "tensor must have two dimensions or more, got (216,); try a layer's weight",
        ),
        (lambda w: cp(w / 0, rank=2), "w must be finite, got NaN or infinity"),
        (
            lambda w: cp_kernels(w.flatten(2), rank=2),
            "weight must be a convolution's (out, in, height, width), got (6, 4, 9); "
            "for a Linear layer try truncated_svd",
        ),
        (
            lambda w: depthwise_kernels(w, rank=2, groups=4),
            "groups must divide the outputs, got 4 for 6; try the convolution's own .groups",
        ),
    ],
)
def test_errors_say_what_came_and_what_to_try(call, says):
    with pytest.raises(CompressionError, match=re.escape(says)):
        call(noise(6, 4, 3, 3))
