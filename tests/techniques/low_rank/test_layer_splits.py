"""Thin layers are the convolution with the rebuilt kernel, whatever its stride, padding or groups."""

import re

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from compresslab.analysis.layer_inputs import gram_matrices
from compresslab.errors import CompressionError
from compresslab.techniques.low_rank.cp import from_cp
from compresslab.techniques.low_rank.layer_splits import (
    CHANNELS,
    CP,
    DEPTHWISE,
    SPACE,
    SPLITS,
    TUCKER,
    count_weights,
    thin_layers,
    whitened,
)
from compresslab.techniques.low_rank.svd import from_channels, from_space
from compresslab.techniques.low_rank.tucker import from_tucker
from compresslab.techniques.pruning.sparse_layers import SparseLinear

CONVOLUTIONS = {
    "plain": {"kernel_size": 3},
    "strided, wide": {"kernel_size": (3, 5), "stride": (2, 1), "padding": (1, 2)},
    "dilated, same": {"kernel_size": (3, 5), "dilation": (2, 1), "padding": "same"},
    "valid": {"kernel_size": (5, 3), "stride": (1, 3), "padding": "valid", "bias": False},
    "reflecting": {"kernel_size": 3, "stride": (1, 2), "padding": (2, 1), "padding_mode": "reflect"},
    "even, same": {"kernel_size": (4, 3), "padding": "same", "padding_mode": "replicate"},
    "in two groups": {
        "kernel_size": (3, 5),
        "groups": 2,
        "stride": (1, 2),
        "padding": (2, 1),
        "dilation": (1, 2),
    },
    "in four groups": {
        "kernel_size": 3,
        "groups": 4,
        "padding": "same",
        "padding_mode": "reflect",
        "bias": False,
    },
}
every_convolution = pytest.mark.parametrize("settings", CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
every_split = pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())


def convolution(in_channels=8, out_channels=12, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Conv2d(in_channels, out_channels, **settings)


def linear(n=7, m=5, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(n, m, **settings)


def inputs(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def thin_rank(split):
    return (2, 1) if split is TUCKER else 2


def rebuilt(split, thin, groups):
    """The one kernel that the thin layers' weights stand for."""
    weights = [piece.weight.detach() for piece in thin]
    if split is CHANNELS:
        return from_channels(*weights, groups=groups)
    if split is SPACE:
        return from_space(*weights, groups=groups)
    parts = []
    for first, *middle, last in zip(*(w.chunk(groups) for w in weights), strict=True):
        into, out = first.flatten(1).T, last.flatten(1)
        if split is TUCKER:
            parts.append(from_tucker(*middle, out, into))
        else:
            kernel = from_cp([out, into, *(filters.flatten(1).T for filters in middle)])
            size = middle[0].shape[2], middle[-1].shape[3]
            parts.append(kernel.reshape(*kernel.shape[:2], *size))
    return torch.cat(parts)


@every_convolution
@every_split
def test_thin_layers_are_the_convolution_with_the_rebuilt_kernel(split, settings):
    layer, x = convolution(**settings), inputs(2, 8, 11, 13)
    thin, before = thin_layers(split, "", layer, thin_rank(split)), layer(x)
    kernel = rebuilt(split, thin, layer.groups)
    assert kernel.shape == layer.weight.shape
    layer.weight.data = kernel
    assert thin(x).shape == layer(x).shape
    torch.testing.assert_close(thin(x), layer(x), rtol=0, atol=1e-5)
    assert not torch.allclose(thin(x), before, atol=1e-2)  # it is thin


@every_convolution
@pytest.mark.parametrize("split", [CHANNELS, SPACE, TUCKER], ids=repr)
def test_at_full_rank_the_outputs_are_the_layers_own(split, settings):
    layer, x = convolution(**settings), inputs(2, 8, 11, 13)
    thin = thin_layers(split, "", layer, split.full_rank(layer))
    torch.testing.assert_close(thin(x), layer(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("split", [CP, DEPTHWISE], ids=repr)
def test_cp_comes_nearer_with_its_rank(split):
    layer, x = convolution(4, 4, kernel_size=3), inputs(2, 4, 9, 9)
    far, near = ((thin_layers(split, "", layer, rank)(x) - layer(x)).norm() for rank in (2, 24))
    assert near < far / 3


@every_convolution
@every_split
def test_what_is_counted_beforehand_is_what_the_filled_layers_have(split, settings):
    layer, rank = convolution(**settings), thin_rank(split)
    empty, thin = (thin_layers(split, "", layer, rank, filled=filled) for filled in (False, True))
    assert all(p.is_meta for p in empty.parameters())
    shapes = [(name, p.shape) for name, p in thin.named_parameters()]
    assert [(name, p.shape) for name, p in empty.named_parameters()] == shapes
    fresh = [nn.Conv2d(p.in_channels, p.out_channels, p.kernel_size, groups=p.groups) for p in thin]
    assert [p.weight.shape for p in fresh] == [p.weight.shape for p in thin]


@pytest.mark.parametrize("groups", [1, 2])
def test_the_weights_at_a_rank_are_those_of_the_table(groups):
    layer, (i, o, h, w) = convolution(kernel_size=(3, 5), groups=groups), (8, 12, 3, 5)
    counted = {
        s: count_weights(thin_layers(s, "", layer, thin_rank(s), filled=False)) for s in SPLITS.values()
    }
    assert counted[CHANNELS] == 2 * (i * h * w + o)
    assert counted[SPACE] == 2 * (i * h + o * w)
    assert counted[TUCKER] == 1 * i + groups * 2 * 1 * h * w + 2 * o
    assert counted[CP] == 2 * (i + groups * (h + w) + o)
    assert counted[DEPTHWISE] == 2 * (i + groups * h * w + o)


@every_split
def test_the_bias_goes_to_the_last_layer_alone(split):
    layer = convolution(kernel_size=3)
    *first, last = thin_layers(split, "", layer, thin_rank(split))
    assert all(piece.bias is None for piece in first)
    assert torch.equal(last.bias, layer.bias)
    assert last.bias.data_ptr() != layer.bias.data_ptr()
    assert thin_layers(split, "", convolution(kernel_size=3, bias=False), thin_rank(split))[-1].bias is None


@every_split
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_becomes_two_that_miss_what_eckart_and_young_say(split, bias):
    layer, tokens = linear(bias=bias), inputs(2, 3, 7)
    values = torch.linalg.svdvals(layer.weight)
    for rank in range(1, 6):
        thin = thin_layers(split, "", layer, rank)
        first, second = thin
        assert (first.out_features, second.in_features, first.bias is None) == (rank, rank, True)
        missed = (layer.weight - second.weight @ first.weight).norm()
        torch.testing.assert_close(missed, values[rank:].norm(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(thin(tokens), layer(tokens), rtol=0, atol=1e-5)


@every_split
@pytest.mark.parametrize("make", [lambda: convolution(kernel_size=3), linear], ids=["convolution", "linear"])
def test_thin_layers_take_over_mode_type_and_what_is_trained_and_share_nothing(split, make):
    layer = make().double().eval()
    layer.weight.requires_grad_(False)
    before = {name: p.clone() for name, p in layer.named_parameters()}
    thin = thin_layers(split, "", layer, thin_rank(split) if isinstance(layer, nn.Conv2d) else 2)
    assert not any(module.training for module in thin.modules())
    assert {p.dtype for p in thin.parameters()} == {torch.float64}
    assert [name for name, p in thin.named_parameters() if p.requires_grad] == [f"{len(thin) - 1}.bias"]
    for p in thin.parameters():
        p.data.fill_(7)
    assert all(torch.equal(p, before[name]) for name, p in layer.named_parameters())


@pytest.mark.parametrize("multiple", [1, 3, 8])
@every_split
def test_ranks_rise_to_the_full_one_in_multiples_and_so_do_the_weights(split, multiple):
    for layer in (convolution(kernel_size=3, groups=2), convolution(10, 12, kernel_size=3), linear(20, 10)):
        ranks, full = split.ranks(layer, multiple=multiple), split.full_rank(layer)
        weights = [count_weights(thin_layers(split, "", layer, r, filled=False)) for r in ranks]
        assert weights == sorted(set(weights))
        assert ranks[-1] == full
        *_, most = pairs = [r if isinstance(r, tuple) else (r,) for r in ranks]
        assert all(r % multiple == 0 or r == m for pair in pairs for r, m in zip(pair, most, strict=True))
        assert pairs[0] == tuple(min(multiple, m) for m in most)
        if isinstance(full, int):
            assert ranks == sorted({*range(multiple, full, multiple), full})


def test_both_ranks_of_tucker_are_the_same_share_of_their_channels():
    for r_out, r_in in TUCKER.ranks(convolution(8, 24, kernel_size=3)):
        assert (r_out - 1) // 3 == r_in - 1


DEPTHWISE_SAYS = "depthwise: its groups have one channel each"
NO_SPACE = "a 1 × 1 kernel has no height or width to split off"
ONE_LINE = "a kernel of one row or column is one already"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kernel_size": 3, "groups": 8, "out_channels": 16}, [DEPTHWISE_SAYS] * 5),
        ({"kernel_size": 1, "groups": 8, "out_channels": 8}, [DEPTHWISE_SAYS] * 5),
        ({"kernel_size": 1}, ["", ONE_LINE, NO_SPACE, ONE_LINE, NO_SPACE]),
        ({"kernel_size": (1, 3)}, ["", ONE_LINE, "", ONE_LINE, ""]),
        ({"kernel_size": (3, 1)}, ["", ONE_LINE, "", ONE_LINE, ""]),
        ({"kernel_size": 3, "in_channels": 1}, [""] * 5),  # one channel, but no groups
    ],
)
def test_what_a_split_cannot_make_thin_it_says(settings, says):
    assert [split.why_not(convolution(**settings)) for split in SPLITS.values()] == says


@every_split
def test_a_subclass_computes_otherwise_and_an_ordinary_linear_layer_is_welcome(split):
    assert split.why_not(linear()) == ""
    assert split.why_not(SparseLinear(linear())) == "a SparseLinear computes otherwise"
    assert split.why_not(weight_norm(linear())) == "a ParametrizedLinear computes otherwise"


def network():
    return nn.Sequential(
        convolution(2, 6, kernel_size=(3, 2), stride=2, padding=1), nn.ReLU(), nn.Flatten(), linear(54, 5)
    )


def batches():
    mix = inputs(50, 50) * 0.7 ** torch.arange(50)  # pixels that go together, strong and weak
    return [((inputs(30, 50) @ mix).reshape(30, 2, 5, 5), None)]


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("name", ["0", "3"])
def test_whitened_outputs_are_nearer_on_the_images_that_it_saw(name, rank):
    model = network()
    grams, seen = gram_matrices(model, batches()), []
    layer = model.get_submodule(name)
    layer.register_forward_hook(lambda _, given, y: seen.append(given[0].detach()))
    model(batches()[0][0])
    wanted = layer(seen[0])
    white, plain = (
        (thin_layers(split, name, layer, rank)(seen[0]) - wanted).norm()
        for split in (whitened(grams), CHANNELS)
    )
    assert white < 0.9 * plain


def test_whitened_looks_like_channels_and_is_the_same_where_inputs_are_round():
    layer, x, white = convolution(kernel_size=3, padding=1), inputs(2, 8, 6, 6), whitened({"": torch.eye(72)})
    thin, plain = (thin_layers(split, "", layer, 3) for split in (white, CHANNELS))
    torch.testing.assert_close(thin(x), plain(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 6, 2.0, True, (2, 2), None])
def test_a_rank_out_of_range_is_refused(rank):
    says = (
        f"rank must be a whole number from 1 to 5 for channel split of this Linear, got {rank}; "
        "ranks_for_weights(model, share=0.5) finds ranks that save"
    )
    with pytest.raises(CompressionError, match=f"^{re.escape(says)}$"):
        thin_layers(CHANNELS, "", linear(), rank)


@pytest.mark.parametrize("rank", [(0, 1), (1, 9), (13, 1), (1,), (1, 1, 1), 2, (1, 2.0)])
def test_tucker_asks_for_two_ranks_in_range(rank):
    says = (
        f"rank must be a pair (r_out, r_in) of whole numbers from 1 to (12, 8) for Tucker of this Conv2d, "
        f"got {rank}; ranks_for_weights(model, share=0.5) finds ranks that save"
    )
    with pytest.raises(CompressionError, match=f"^{re.escape(says)}$"):
        thin_layers(TUCKER, "", convolution(kernel_size=3), rank)


@pytest.mark.parametrize(
    ("refused", "says"),
    [
        (
            lambda: thin_layers(whitened({"a": torch.eye(7), "b": torch.eye(7)}), "c", linear(), 2),
            "ranks must name layers with a Gram matrix (a, b), got 'c'; leave it out",
        ),
        (
            lambda: thin_layers(whitened({}), "c", convolution(kernel_size=3), 2),
            "ranks must name layers with a Gram matrix (none), got 'c'; leave it out",
        ),
        (
            lambda: CHANNELS.ranks(linear(), multiple=0),
            "multiple must be a whole number from 1 up, got 0; 8 suits a processor",
        ),
    ],
)
def test_errors_say_what_came_and_what_to_try(refused, says):
    with pytest.raises(CompressionError, match=f"^{re.escape(says)}$"):
        refused()
