"""Tucker-2: tensorly is the oracle, and the convolution with the rebuilt kernel."""

import itertools
import re
import warnings

import pytest
import torch
from torch.nn import functional

from compresslab.errors import CompressionError
from compresslab.techniques.low_rank.tucker import fold, from_tucker, tucker2, tucker_kernels, unfold


@pytest.fixture
def tensorly():
    """The oracle, on torch; what it warns of is its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle = pytest.importorskip("tensorly", reason="tensorly, an oracle, is not installed")
        pytest.importorskip("tensorly.decomposition")
        with oracle.backend_context("pytorch"):
            yield oracle


def kernel(*shape, seed=0, dtype=torch.float64):
    """A kernel whose channels are mixes of each other, strong and weak, as after training."""
    rng = torch.Generator().manual_seed(seed)
    weight = torch.randn(*shape, generator=rng, dtype=dtype)
    for mode in (0, 1):
        mix = torch.randn(shape[mode], shape[mode], generator=rng, dtype=dtype)
        weight = torch.tensordot(mix * 0.7 ** torch.arange(shape[mode]), weight, ([1], [mode])).movedim(
            0, mode
        )
    return weight


def missed(weight, parts):
    return float((weight - from_tucker(*parts)).norm() / weight.norm())


@pytest.mark.parametrize("mode", range(4))
def test_folding_undoes_unfolding_and_tensorly_unfolds_alike(mode, tensorly):
    tensor = kernel(5, 4, 3, 2)
    matrix = unfold(tensor, mode)
    assert torch.equal(matrix, tensorly.unfold(tensor, mode))
    assert torch.equal(fold(matrix, mode, (5, 4, 3, 2)), tensor)


@pytest.mark.parametrize("sweeps", [1, 2, 5])
@pytest.mark.parametrize(("shape", "ranks"), [((12, 10, 3, 3), (5, 4)), ((16, 4, 3, 1), (3, 4))])
def test_the_error_is_tensorlys(tensorly, shape, ranks, sweeps):
    for seed in range(3):
        weight = kernel(*shape, seed=seed)
        (core, factors), _ = tensorly.decomposition.partial_tucker(
            weight, rank=list(ranks), modes=[0, 1], n_iter_max=sweeps, tol=0, init="svd"
        )
        theirs, ours = (
            missed(weight, (core, *factors)),
            missed(weight, tucker2(weight, ranks=ranks, sweeps=sweeps)),
        )
        assert ours == pytest.approx(theirs, rel=1e-8)
        assert theirs > 0.01


@pytest.mark.parametrize("seed", range(3))
def test_no_sweep_raises_the_error_and_the_first_ones_lower_it(seed):
    weight = kernel(9, 8, 3, 3, seed=seed)
    errors = [missed(weight, tucker2(weight, ranks=(3, 2), sweeps=sweeps)) for sweeps in range(8)]
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(errors))
    assert errors[2] < errors[1] - 1e-9 < errors[0] - 2e-9


def test_a_sweep_leaves_the_best_inputs_for_its_outputs():
    weight = kernel(7, 6, 3, 3)
    _, u_out, _ = tucker2(weight, ranks=(3, 2), sweeps=1)
    inputs = unfold(torch.einsum("oihw,op->pihw", weight, u_out), 1)
    left = torch.linalg.svdvals(inputs)[:2].square().sum()  # what the best two directions keep
    core, _, _ = tucker2(weight, ranks=(3, 2), sweeps=1)
    torch.testing.assert_close(core.square().sum(), left)


def test_without_a_sweep_the_columns_are_the_singular_vectors_of_the_unfoldings():
    weight = kernel(7, 6, 3, 3)
    _, u_out, u_in = tucker2(weight, ranks=(3, 2), sweeps=0)
    for mode, columns in enumerate((u_out, u_in)):
        vectors = torch.linalg.svd(unfold(weight, mode)).U[:, : columns.shape[1]]
        torch.testing.assert_close(
            (vectors.T @ columns).abs(), torch.eye(columns.shape[1], dtype=torch.float64)
        )


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_columns_are_orthonormal_and_the_core_is_what_they_leave_of_the_kernel(dtype, near):
    weight = kernel(8, 6, 3, 3, dtype=dtype)
    core, u_out, u_in = tucker2(weight, ranks=(4, 3))
    assert (core.shape, u_out.shape, u_in.shape) == ((4, 3, 3, 3), (8, 4), (6, 3))
    for columns in (u_out, u_in):
        eye = torch.eye(columns.shape[1], dtype=dtype)
        torch.testing.assert_close(columns.T @ columns, eye, atol=near, rtol=0)
    projected = torch.einsum("oihw,op,iq->pqhw", weight, u_out, u_in)
    torch.testing.assert_close(core, projected, atol=near * float(weight.norm()), rtol=0)


def test_full_ranks_give_the_kernel_back():
    weight = kernel(8, 6, 3, 3)
    torch.testing.assert_close(from_tucker(*tucker2(weight, ranks=(8, 6))), weight)


def test_a_kernel_of_few_directions_is_recovered():
    rng = torch.Generator().manual_seed(0)
    core, u_out, u_in = (torch.randn(*shape, generator=rng) for shape in ((3, 2, 3, 3), (9, 3), (7, 2)))
    weight = from_tucker(core, u_out, u_in)
    assert missed(weight, tucker2(weight, ranks=(3, 2), sweeps=0)) < 1e-6
    assert missed(weight, tucker2(weight, ranks=(2, 2))) > 1e-2  # and not of fewer


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("settings", [{}, {"stride": 2, "padding": (2, 1)}, {"dilation": 2, "padding": 2}])
def test_three_convolutions_are_the_one_with_the_rebuilt_kernel(groups, settings):
    weight, ranks = kernel(12, 16 // groups, 3, 3), (2, 3)
    x, bias = kernel(2, 16, 9, 8, seed=1), kernel(12, 1).flatten()
    first, core, last = tucker_kernels(weight, ranks=ranks, groups=groups)
    assert first.shape == (groups * 3, 16 // groups, 1, 1)
    assert (core.shape, last.shape) == ((groups * 2, 3, 3, 3), (12, 2, 1, 1))
    y = functional.conv2d(functional.conv2d(x, first, groups=groups), core, groups=groups, **settings)
    y = functional.conv2d(y, last, bias, groups=groups)
    rebuilt = torch.cat([from_tucker(*tucker2(part, ranks=ranks)) for part in weight.chunk(groups)])
    wanted = functional.conv2d(x, rebuilt, bias, groups=groups, **settings)
    torch.testing.assert_close(y, wanted, rtol=0, atol=1e-5)


def test_the_given_weight_is_left_alone_and_needs_no_gradient():
    weight = torch.nn.Parameter(kernel(6, 5, 3, 3, dtype=torch.float32))
    before = weight.detach().clone()
    kernels = tucker_kernels(weight, ranks=(3, 2))
    assert torch.equal(weight, before)
    assert not any(part.requires_grad for part in kernels)
    assert {part.dtype for part in kernels} == {torch.float32}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda w: tucker2(w, ranks=(7, 2)),
            "r_out must be a whole number from 1 to 6, got 7; try 3, half of the channels",
        ),
        (
            lambda w: tucker2(w, ranks=(2, 0)),
            "r_in must be a whole number from 1 to 4, got 0; try 2, half of the channels",
        ),
        (
            lambda w: tucker2(w, ranks=(2, 1.5)),
            "r_in must be a whole number from 1 to 4, got 1.5; try 2, half",
        ),
        (lambda w: tucker2(w, ranks=2), "ranks must be a pair (r_out, r_in), got 2; try (3, 2)"),
        (
            lambda w: tucker2(w, ranks=(2, 2), sweeps=-1),
            "sweeps must be a whole number from 0 up, got -1; try 2",
        ),
        (
            lambda w: tucker2(w.flatten(2), ranks=(2, 2)),
            "weight must be a convolution's (out, in, height, width), got (6, 4, 9); "
            "for a Linear layer try truncated_svd",
        ),
        (lambda w: tucker2(w / 0, ranks=(2, 2)), "w must be finite, got NaN or infinity"),
        (
            lambda w: tucker_kernels(w, ranks=(1, 1), groups=4),
            "groups must divide the outputs, got 4 for 6; try the convolution's own .groups",
        ),
        (
            lambda w: unfold(w, 4),
            "mode must be from 0 to 3 for a tensor of 4 dimensions, got 4; the first mode is 0",
        ),
        (
            lambda w: fold(w.flatten(1), 1, (6, 4, 3, 3)),
            "matrix must be (4, 54), a tensor (6, 4, 3, 3) unfolded along mode 1, got (6, 36); "
            "try the mode and shape that it was unfolded with",
        ),
    ],
)
def test_errors_say_what_came_and_what_to_try(call, says):
    with pytest.raises(CompressionError, match=re.escape(says)):
        call(kernel(6, 4, 3, 3))
