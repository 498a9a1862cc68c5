"""Shared weights: scikit-learn's k-means and an exact dynamic programme are the oracles."""

import itertools

import pytest
import torch
from sklearn.cluster import KMeans
from torch import nn

from compresslab.data.images import Images
from compresslab.errors import CompressionError
from compresslab.models.residual import student
from compresslab.storage import load_model, read, save_model
from compresslab.techniques.quantization.codebook import (
    Codebook,
    centroid_gradient,
    follow_centroids,
    kmeans,
    linear_start,
    nearest,
    share_weights,
)
from compresslab.training.loop import fit


def drawn(count, seed=0):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def inertia(values, centres):
    return float((values[:, None] - centres).square().min(dim=1).values.double().sum())


def least_inertia(values, size):
    """The optimum, by dynamic programming: clusters on a line are stretches of the sorted values."""
    x = values.double().sort().values
    n = len(x)
    cost = [
        [float((x[i:j] - x[i:j].mean()).square().sum()) if i < j else 0.0 for j in range(n + 1)]
        for i in range(n)
    ]
    best = [0.0, *[float("inf")] * n]
    for _ in range(size):
        best = [0.0, *[min(best[i] + cost[i][j] for i in range(j)) for j in range(1, n + 1)]]
    return best[n]


@pytest.mark.parametrize("size", [2, 4, 16, 32])
@pytest.mark.parametrize("seed", range(3))
def test_the_centres_are_those_of_scikit_learn_from_the_same_start(size, seed):
    values = drawn(2000, seed)
    start = linear_start(values, size=size)
    theirs = KMeans(size, init=start[:, None].numpy(), n_init=1, max_iter=1000, tol=0).fit(
        values[:, None].numpy()
    )
    ours = kmeans(values, start, steps=1000)
    assert torch.allclose(ours, torch.tensor(theirs.cluster_centers_).flatten().sort().values, atol=1e-4)
    assert inertia(values, ours) == pytest.approx(theirs.inertia_, rel=1e-4)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_it_is_never_better_than_the_optimum_and_for_few_centres_close_to_it(size):
    values = drawn(60, size)
    found, least = (
        inertia(values, kmeans(values, linear_start(values, size=size))),
        least_inertia(values, size),
    )
    assert least * (1 - 1e-6) <= found <= 1.5 * least


def test_each_round_makes_the_error_smaller_or_ends():
    values = drawn(500)
    start = linear_start(values, size=8)
    errors = [inertia(values, kmeans(values, start, steps=steps)) for steps in range(12)]
    assert all(later <= earlier for earlier, later in itertools.pairwise(errors))
    assert torch.equal(kmeans(values, start, steps=0), start)


def test_an_empty_cluster_moves_to_the_value_that_is_farthest_from_its_centre():
    values = torch.tensor([0.0, 0.1, 0.2, 10.0, 11.0])
    start = torch.tensor([0.0, 5.0, 10.5])  # nothing is near 5
    assert kmeans(values, start).tolist() == pytest.approx([0.1, 10.0, 11.0])


def test_more_centres_than_different_values_leave_no_error():
    values = torch.tensor([1.0, 1.0, -2.0])
    centres = kmeans(values, linear_start(values, size=8))
    assert centres.shape == (8,)
    assert torch.equal(centres[nearest(values, centres)], values)
    constant = torch.full((5,), 0.3)
    assert torch.equal(kmeans(constant, linear_start(constant, size=4)), torch.full((4,), 0.3))


def test_the_nearest_centre_is_found_in_any_order_of_the_centres():
    values, codebook = drawn(200).reshape(2, 100), drawn(7, 1)
    brute = (values[..., None] - codebook).abs().argmin(dim=-1)
    assert torch.equal(nearest(values, codebook), brute)


def test_the_gradient_of_a_centre_is_the_sum_over_its_members():
    codebook = torch.tensor([0.0, 1.0, 5.0], requires_grad=True)
    indices, upstream = torch.randint(0, 2, (4, 6)), drawn(24).reshape(4, 6)
    codebook[indices].backward(upstream)  # torch's own gradient of looking up
    ours = centroid_gradient(upstream, indices, size=3)
    assert torch.allclose(ours, codebook.grad, atol=1e-6)
    assert ours[2] == 0


def test_a_codebook_learns_by_that_gradient_made_smaller_by_the_root_of_the_cluster_size():
    grid, w = Codebook(torch.tensor([-1.0, 0.0, 1.0, 2.0]), bits=2), drawn(64)
    upstream = drawn(64, 1)
    grid(w).backward(upstream)
    plain = centroid_gradient(upstream, nearest(w, grid.codebook), size=4)
    assert torch.allclose(grid.codebook.grad, plain / 4, atol=1e-6)  # 64 weights, 4 centres: √16


@pytest.mark.parametrize("bits", [1, 2, 4, 5])
def test_the_file_holds_packed_indices_and_the_codebook_that_gives_the_weights(bits, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 10))
    shared = share_weights(model, bits=bits)
    assert len(shared[0].weight.unique()) <= 2**bits
    save_model(shared, tmp_path / "one")
    parts, _ = read(tmp_path / "one")
    assert {name: (tensor.dtype, len(tensor)) for name, tensor in parts.items()} == {
        "0/indices": (torch.uint8, 400 * bits // 8),
        "0/codebook": (torch.float32, 2**bits),
        "0/bias": (torch.float32, 10),
    }
    back = load_model(tmp_path / "one", into=share_weights(nn.Sequential(nn.Linear(40, 10)), bits=bits))
    assert torch.equal(back[0].weight, shared[0].weight)


def test_training_moves_the_centres_and_no_weight_changes_its_cluster():
    torch.manual_seed(0)
    images = Images(torch.randint(0, 256, (128, 1, 28, 28), dtype=torch.uint8), torch.arange(128) % 4)
    images.pixels[:, :, :8] = (images.labels * 80).to(torch.uint8)[:, None, None, None]
    shared = share_weights(student(), bits=2)
    settings = {"epochs": 20, "learning_rate": 0.1, "augmented": False}
    trained = fit(shared, images, images, after_step=follow_centroids, **settings)
    assert trained.history[-1].loss < 0.9 * trained.history[0].loss
    for name in ("stem.0", "blocks.0.conv1", "blocks.1.conv2", "head"):
        before, after = (m.get_submodule(name) for m in (shared, trained.model))
        assert not torch.equal(before.grid.codebook, after.grid.codebook)
        was, now = (nearest(layer.weight, layer.grid.codebook) for layer in (before, after))
        assert torch.equal(was, now)
        assert torch.equal(after.weight, after.grid.codebook[now])  # the weights went along


def test_without_following_a_weight_stays_behind():
    shared = share_weights(nn.Linear(20, 5), bits=2)
    with torch.no_grad():
        shared.grid.codebook.add_(0.01)
    assert not torch.equal(shared.weight, shared.grid(shared.weight))
    follow_centroids(shared)
    assert torch.equal(shared.weight, shared.grid(shared.weight))


def test_a_weight_finds_its_centre_again_after_loading_even_where_two_centres_pass_each_other(tmp_path):
    torch.manual_seed(0)
    save_model(share_weights(nn.Linear(20, 5), bits=2), tmp_path / "one")
    back = load_model(tmp_path / "one", into=share_weights(nn.Linear(20, 5), bits=2))
    indices = nearest(back.weight, back.grid.codebook)
    moved = back.grid.codebook.detach().flip(0)
    with torch.no_grad():
        back.grid.codebook.copy_(moved)
    follow_centroids(back)
    assert torch.equal(back.weight, moved[indices])


def test_the_first_centres_lie_at_equal_steps_from_the_smallest_to_the_largest():
    assert linear_start(torch.tensor([3.0, -1.0, 0.0]), size=5).tolist() == [-1, 0, 1, 2, 3]


def test_layers_to_skip_keep_their_weights():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    assert type(share_weights(model, bits=2, skip=["1"])[1]) is nn.Linear


def test_bits_out_of_range_and_values_that_are_no_numbers_are_refused():
    for bits in (0, 9, 2.0):
        with pytest.raises(
            CompressionError, match=rf"from 1 to 8, got {bits}; try 4: sixteen values a layer"
        ):
            share_weights(nn.Linear(2, 2), bits=bits)
    with pytest.raises(CompressionError, match="at least one, got NaN or infinity; look for a training"):
        kmeans(torch.tensor([1.0, float("nan")]), torch.zeros(2))
    with pytest.raises(CompressionError, match="at least one, got none"):
        kmeans(torch.zeros(0), torch.zeros(2))
