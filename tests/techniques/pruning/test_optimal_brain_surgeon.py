"""Delete and make up: least squares on the inputs is the oracle; nothing is worse than not making up."""

import copy
import itertools
import re

import pytest
import torch
from torch import nn

from compresslab.analysis.layer_inputs import gram_matrices, output_error
from compresslab.errors import CompressionError
from compresslab.techniques.pruning.criteria import magnitude, wanda
from compresslab.techniques.pruning.granularity import fine_grained_mask, prune_by_magnitude
from compresslab.techniques.pruning.masks import masks_of
from compresslab.techniques.pruning.optimal_brain_surgeon import (
    compensate,
    compensated,
    delete_weight,
    prune_with_sparse_gpt,
    sparse_gpt,
    surgeon_scores,
)

SHARES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99)
every_share = pytest.mark.parametrize("sparsity", SHARES)


def layer(out, n, seed=0, rank=None, images=200):
    """Weights (out, n), correlated inputs (images, n) and their second gram, in float64."""
    rng = torch.Generator().manual_seed(seed)
    x = (torch.randn(images, rank or n, generator=rng) @ torch.randn(rank or n, n, generator=rng)).double()
    w = torch.randn(out, n, generator=rng).double()
    return w, x, x.T @ x / images


def least_squares(w, x, keep):
    """The weights of one output that come nearest to x @ w with only the kept ones: by torch's own solver."""
    v = torch.zeros_like(w)
    v[keep] = torch.linalg.lstsq(x[:, keep], x @ w[:, None]).solution[:, 0]
    return v


def outputs_miss(w, v, x):
    return (x @ (v - w).T).square().mean(dim=0)


@pytest.mark.parametrize("seed", range(3))
def test_one_weight_deleted_leaves_the_least_squares_solution_and_the_error_that_was_foretold(seed):
    w, x, g = layer(2, 6, seed)
    scores = surgeon_scores(w, g, damping=0.0)
    for i, j in itertools.product(range(2), range(6)):
        left = delete_weight(w[i], g, index=j, damping=0.0)
        best = least_squares(w[i], x, torch.arange(6) != j)
        assert left[j] == 0
        torch.testing.assert_close(left, best)
        torch.testing.assert_close(scores[i, j], outputs_miss(w[i : i + 1], best[None], x)[0])


def test_the_lowest_score_is_the_best_weight_to_delete_which_magnitude_may_miss():
    g = torch.tensor([[1.0, 0.99, 0.0], [0.99, 1.0, 0.0], [0.0, 0.0, 1.0]]).double()
    w = torch.tensor([[2.0, 1.0, 0.5]]).double()  # the largest weight has a twin that can do its work
    errors = [output_error(w, delete_weight(w[0], g, index=j, damping=0.0)[None], g) for j in range(3)]
    assert torch.stack(errors).argmin() == surgeon_scores(w, g, damping=0.0).argmin() == 1
    assert errors[0] < errors[2]
    assert magnitude(w).argmin() == 2


def test_for_every_mask_of_a_tiny_layer_compensate_is_the_least_squares_solution():
    w, x, g = layer(1, 5)
    for kept in itertools.product((True, False), repeat=5):
        keep = torch.tensor(kept)
        left = compensate(w, keep[None], g, damping=0.0)
        torch.testing.assert_close(left[0], least_squares(w[0], x, keep))
        assert not left[0, ~keep].any()


def test_deleting_twice_is_making_up_for_both_if_the_first_stays_away():
    w, _, g = layer(1, 5)
    once = delete_weight(w[0], g, index=3, damping=0.0)
    others = [0, 1, 2, 4]
    twice = delete_weight(once[others], g[others][:, others], index=1, damping=0.0)
    both = torch.tensor([[True, False, True, False, True]])
    torch.testing.assert_close(twice, compensate(w, both, g, damping=0.0)[0, others])


@every_share
@pytest.mark.parametrize(("n", "rank"), [(12, None), (24, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_output_is_worse_than_if_nothing_was_made_up(sparsity, n, rank, dtype):
    w, x, g = layer(8, n, rank=rank)
    w = w.to(dtype)
    for left in (
        compensate(w, fine_grained_mask(magnitude(w), sparsity=sparsity), g),
        sparse_gpt(w, g, sparsity=sparsity, block=8),
        sparse_gpt(w, g, sparsity=sparsity),
    ):
        deleted = w * (left != 0)
        ours, theirs = (outputs_miss(w.double(), v.double(), x) for v in (left, deleted))
        assert (ours <= theirs * (1 + 1e-6) + 1e-9).all()
        assert left.dtype == dtype
    if sparsity in (0.3, 0.5) and rank:
        assert ours.sum() < 0.5 * theirs.sum()  # inputs that resemble each other: much is made up


@pytest.mark.parametrize("sparsity", SHARES[:-1])  # with two weights left, one pass may choose worse ones
def test_the_surgeon_keeps_more_of_the_outputs_than_magnitude_and_exactly_so_many_weights(sparsity):
    w, _, g = layer(8, 24, rank=8)
    mask = fine_grained_mask(magnitude(w), sparsity=sparsity)
    plain = output_error(w, w * mask, g).sum()
    one_pass, exact = sparse_gpt(w, g, sparsity=sparsity), compensate(w, mask, g)
    assert output_error(w, one_pass, g).sum() <= plain
    assert output_error(w, exact, g).sum() <= plain
    assert (one_pass == 0).sum() == (exact == 0).sum() == round(sparsity * w.numel())


@every_share
@pytest.mark.parametrize("damping", [0.0, 0.01])
def test_with_inputs_that_know_nothing_of_each_other_one_pass_is_magnitude_times_input_norm(
    sparsity, damping
):
    w, _, _ = layer(6, 20)
    squares = torch.rand(20, generator=torch.Generator().manual_seed(1)).double() + 0.1
    norms = (squares + damping * squares.mean()).sqrt()
    left = sparse_gpt(w, squares.diag(), sparsity=sparsity, damping=damping)
    torch.testing.assert_close(left, w * fine_grained_mask(wanda(w, norms), sparsity=sparsity))


def test_one_pass_is_the_elimination_of_the_paper_column_by_column():
    """For its own mask: before each column, the inverse of what is left of G, computed anew."""
    w, x, g = layer(4, 7)
    for block in (2, 3, 7):
        ours = sparse_gpt(w, g, sparsity=0.4, block=block, damping=0.0)
        left = w.clone()
        for j in range(7):
            inverse = torch.linalg.inv(g[j:, j:])
            gone = torch.where(ours[:, j] == 0, left[:, j], 0)
            left[:, j:] -= torch.outer(gone / inverse[0, 0], inverse[0])
        left[ours == 0] = 0
        worse = outputs_miss(w, left, x) > outputs_miss(w, w * (ours != 0), x)
        torch.testing.assert_close(ours, torch.where(worse[:, None], w * (ours != 0), left))


def test_a_block_of_columns_chooses_by_what_the_weights_have_become():
    """The first output's second weight takes over from the first, and is then larger than the other's."""
    g = torch.tensor([[1.0, 0.99], [0.99, 1.0]]).double()
    w = torch.tensor([[0.1, 1.0], [2.0, 1.05]]).double()
    column_by_column = sparse_gpt(w, g, sparsity=0.5, block=1, damping=0.0)
    assert (column_by_column != 0).tolist() == [[False, True], [True, False]]


def test_inputs_that_are_always_zero_or_twins_need_damping_and_the_refusal_says_so():
    g = torch.zeros(3, 3).double()
    g[:2, :2] = 1
    w = torch.tensor([[1.0, 2.0, 3.0]]).double()
    text = (
        "gram must have an inverse where damping is 0, got one that has none: an input is always 0, or a "
        "mix of others; try damping=0.01"
    )
    with pytest.raises(CompressionError, match=f"^{re.escape(text)}$"):
        surgeon_scores(w, g, damping=0.0)
    assert surgeon_scores(w, g).argmin() == 0
    assert torch.allclose(delete_weight(w[0], g, index=0), torch.tensor([0.0, 3.0, 3.0]).double(), atol=0.02)
    assert sparse_gpt(w, torch.zeros(3, 3), sparsity=0.3).isfinite().all()


def test_moments_and_masks_that_do_not_fit_are_refused():
    w = torch.ones(2, 3)
    text = (
        r"gram must have shape \(3, 3\) for weights \(2, 3\), got \(2, 2\); "
        r"try gram_matrices\(model, batches\)\[name\], w.flatten\(1\)"
    )
    with pytest.raises(CompressionError, match=f"^{text}$"):
        surgeon_scores(w, torch.eye(2))
    for mask in (torch.ones(3, dtype=torch.bool), torch.ones(2, 3)):
        text = re.escape(
            f"mask must be bool in the shape (2, 3) of the weights, got {tuple(mask.shape)} {mask.dtype};"
        )
        with pytest.raises(CompressionError, match=f"^{text} try fine_grained_mask"):
            compensate(w, mask, torch.eye(3))


# whole networks


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(6, 6, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(54, 4),
        )


def batches():
    generator = torch.Generator().manual_seed(1)
    yield torch.randn(120, 1, 5, 5, generator=generator).cumsum(dim=3), torch.zeros(120).long()


def miss(pruned):
    x = next(batches())[0]
    with torch.no_grad():
        return (pruned(x) - network()(x)).square().mean()


@pytest.mark.parametrize("sparsity", [0.3, 0.6, 0.8])
def test_whole_networks_answer_more_like_the_original_than_by_magnitude(sparsity):
    plain = prune_by_magnitude(network(), sparsity=sparsity)
    exact = compensated(network(), masks_of(plain), batches())
    one_pass = prune_with_sparse_gpt(network(), batches(), sparsity=sparsity)
    assert miss(exact) < miss(plain)
    assert miss(one_pass) < miss(plain)
    for name, mask in masks_of(plain).items():
        assert not exact.get_submodule(name).weight[~mask].any()


def test_layers_without_a_mask_stay_and_so_do_outputs_that_lose_nothing():
    model = network()
    mask = torch.ones(6, 6, 3, 3, dtype=torch.bool)
    mask[2, :, 0] = False
    result = compensated(model, {"2": mask}, batches())
    others = torch.arange(6) != 2
    assert torch.equal(result[2].weight[others], model[2].weight[others])
    assert torch.equal(result[0].weight, model[0].weight)
    assert torch.equal(result[5].weight, model[5].weight)
    gram = gram_matrices(model, batches())["2"]
    by_hand = compensate(model[2].weight.flatten(1), mask.flatten(1), gram)
    assert torch.equal(result[2].weight, by_hand.reshape(6, 6, 3, 3))


def test_the_given_model_is_left_alone_and_nothing_is_shared_with_it():
    model = network()
    before = copy.deepcopy(model.state_dict())
    masks = masks_of(prune_by_magnitude(model, sparsity=0.5))
    for result in (
        compensated(model, masks, batches()),
        prune_with_sparse_gpt(model, batches(), sparsity=0.5),
    ):
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        ours = {p.data_ptr() for p in model.parameters()}
        assert not ours & {p.data_ptr() for p in result.parameters()}


def test_bad_settings_of_whole_networks_are_refused():
    with pytest.raises(
        CompressionError, match=r"^sparsity must be a fraction in \[0, 1\), got 50; did you mean 0.5\?$"
    ):
        prune_with_sparse_gpt(network(), None, sparsity=50)  # before any image is read
    with pytest.raises(CompressionError, match="nowhere"):  # as masked says it
        compensated(network(), {"nowhere": torch.ones(1, dtype=torch.bool)}, batches())
    model = network()
    model.register_module("spare", nn.Identity())
    model.spare.never = nn.Linear(1, 1)
    text = r"masks must name layers that run \(0, 2, 5\), got 'spare.never'; leave it out"
    with pytest.raises(CompressionError, match=f"^{text}$"):
        compensated(model, {"spare.never": torch.ones(1, 1, dtype=torch.bool)}, batches())
