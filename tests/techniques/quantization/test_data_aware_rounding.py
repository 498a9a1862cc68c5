"""Rounding by the data: brute force on tiny layers is the oracle; the law: never worse than nearest."""

import functools
import itertools

import pytest
import torch
from torch import nn

from compresslab.analysis.layer_inputs import output_error
from compresslab.errors import CompressionError
from compresslab.models.residual import student
from compresslab.techniques.quantization.affine import channel_range, fake_quantize, scale_and_zero_point
from compresslab.techniques.quantization.data_aware_rounding import (
    adaround,
    bias_correction,
    correct_biases,
    gptq,
    quantize_with_data,
)
from compresslab.techniques.quantization.weight_only import quantize_weights

quick = functools.partial(adaround, steps=200)
every_rounding = pytest.mark.parametrize("rounding", [gptq, quick], ids=["gptq", "adaround"])


def layer(out, n, seed=0, rank=None):
    """Weights, the Gram matrix of correlated inputs, and the scales of 3 bits."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(400, rank or n, generator=rng) @ torch.randn(rank or n, n, generator=rng)
    w = torch.randn(out, n, generator=rng)
    scale, _ = scale_and_zero_point(*channel_range(w), bits=3, symmetric=True)
    return w, (x.T @ x / 400).double(), scale, x


def errors(w, changed, gram):
    """Of each output: (out,)."""
    return output_error(w[:, None], changed[:, None], gram)


@every_rounding
@pytest.mark.parametrize("seed", range(5))
def test_the_result_is_on_the_grid_and_no_channel_is_worse_than_nearest(rounding, seed):
    w, gram, scale, _ = layer(8, 24, seed, rank=6)
    rounded = rounding(w, gram, scale, bits=3)
    q = rounded / scale
    assert torch.allclose(q, q.round(), atol=1e-4)
    assert q.abs().max() <= 3 + 1e-4
    nearest = errors(w, fake_quantize(w, scale, 0, bits=3, signed=True), gram)
    ours = errors(w, rounded, gram)
    assert (ours <= nearest).all()
    assert ours.sum() < 0.6 * nearest.sum()  # correlated inputs: there is much to win


@every_rounding
def test_on_tiny_layers_it_is_near_the_best_of_all_roundings(rounding):
    """The sum over layers, against every choice of floor and ceiling: GPTQ may even leave those behind."""
    ours, best, nearest = 0.0, 0.0, 0.0
    for seed in range(6):
        w, gram, scale, _ = layer(1, 8, seed, rank=4)
        below = (w / scale).floor()
        every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=8)))
        choices = (below + every).clamp(-3, 3) * scale
        best += float(errors(w.expand_as(choices), choices, gram).min())
        nearest += float(output_error(w, fake_quantize(w, scale, 0, bits=3, signed=True), gram))
        ours += float(output_error(w, rounding(w, gram, scale, bits=3), gram))
    assert ours - best < 0.35 * (nearest - best)


@every_rounding
def test_with_inputs_that_know_nothing_of_each_other_the_nearest_is_the_best(rounding):
    w, _, scale, _ = layer(4, 10)
    rounded = rounding(w, torch.eye(10).double(), scale, bits=3)
    assert torch.allclose(rounded, fake_quantize(w, scale, 0, bits=3, signed=True), atol=1e-5)


@every_rounding
def test_what_lies_beyond_the_range_becomes_its_end_and_a_caller_without_gradients_gets_the_same(rounding):
    w, gram, scale, _ = layer(4, 10)
    rounded = rounding(w, gram, scale / 2, bits=3)
    assert (rounded / scale * 2).abs().max() <= 3 + 1e-4
    with torch.no_grad():
        assert torch.equal(rounding(w, gram, scale / 2, bits=3), rounded)


@every_rounding
def test_inputs_that_are_always_zero_break_nothing(rounding):
    w, gram, scale, _ = layer(3, 6)
    gram[2], gram[:, 2] = 0, 0
    assert rounding(w, gram, scale, bits=3).isfinite().all()
    assert rounding(w, torch.zeros_like(gram), scale, bits=3).isfinite().all()


def test_bias_correction_gives_each_output_its_mean_again():
    w, _, scale, x = layer(5, 12)
    x = x + 2
    rounded = fake_quantize(w, scale, 0, bits=3, signed=True)
    shift = bias_correction(w, rounded, x.mean(dim=0))
    assert torch.allclose((x @ rounded.T + shift).mean(dim=0), (x @ w.T).mean(dim=0), atol=1e-4)


def test_corrected_layers_have_the_mean_outputs_of_the_float_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 2, 3))
    x = torch.randn(20, 1, 8, 8) + 1
    quantized = quantize_weights(model, bits=2)
    corrected = correct_biases(quantized, model, x)
    with torch.no_grad():
        wanted, before, after = (m[0](x).mean(dim=(0, 2, 3)) for m in (model, quantized, corrected))
        assert torch.allclose(after, wanted, atol=1e-5)
        assert not torch.allclose(before, wanted, atol=1e-2)
        hidden = model[:2](x)
        assert torch.allclose(
            corrected[2](hidden).mean((0, 2, 3)), model[2](hidden).mean((0, 2, 3)), atol=1e-5
        )
    assert quantized[0].bias is None


def test_a_models_logits_move_less_than_with_nearest_rounding():
    torch.manual_seed(0)
    model, x = student().eval(), torch.randn(60, 1, 28, 28)
    with torch.no_grad():
        z = model(x)
        rounded, nearest = quantize_with_data(model, x, bits=3), quantize_weights(model, bits=3)
        assert (rounded(x) - z).square().mean() < 0.7 * (nearest(x) - z).square().mean()
    for name in ("stem.0", "head"):
        assert torch.equal(rounded.get_submodule(name).grid.scale, nearest.get_submodule(name).grid.scale)


def test_no_images_and_a_convolution_in_groups_are_refused():
    with pytest.raises(CompressionError, match=r"at least one image, got none; try train\.first"):
        quantize_with_data(student(), torch.zeros(0, 1, 28, 28), bits=4)
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2))
    with pytest.raises(
        CompressionError, match="must have convolutions of one group here, got 2 groups in '0'"
    ):
        quantize_with_data(model, torch.zeros(1, 4, 5, 5), bits=4)
