"""Calibration rules, held against numpy, ONNX Runtime's collector, plain loops, and brute force."""

import math
import re

import numpy as np
import pytest
import torch
from onnxruntime.quantization.calibrate import HistogramCollector

from compresslab.errors import CompressionError
from compresslab.techniques.quantization.calibration import (
    entropy,
    least_squares,
    min_max,
    moving_average,
    percentile,
)


def normal(count=20_000, seed=0):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def with_outlier(samples):
    return torch.cat([samples, torch.tensor([40.0])])


RULES = {
    "min_max": min_max,
    "moving_average": lambda x: moving_average([x]),
    "percentile": percentile,
    "least_squares": lambda x: least_squares(x, bits=4, symmetric=False),
    "entropy": lambda x: entropy(x, bits=4, symmetric=False),
}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


@every_rule
@pytest.mark.parametrize("samples", [normal(), normal().relu(), -normal().relu(), normal() + 9], ids=range(4))
def test_the_range_is_two_numbers_inside_the_samples_own(rule, samples):
    before = samples.clone()
    low, high = rule(samples.reshape(2, -1))
    assert low.shape == high.shape == ()
    assert min(samples.min(), 0) <= low <= high <= samples.max()
    assert torch.equal(samples, before)


@every_rule
def test_one_value_or_nothing_but_zeros_has_a_range_too(rule):
    assert rule(torch.zeros(10)) == (0, 0)
    low, high = rule(torch.tensor([3.0]))
    assert 0 <= low <= high <= 3


def test_min_max_cuts_nothing():
    x = with_outlier(normal())
    assert min_max(x) == (x.min(), 40)


def test_a_moving_average_is_the_sum_with_falling_weights():
    batches = [normal(50, seed) for seed in range(4)]
    low, high = moving_average(iter(batches), momentum=0.8)
    weights = [0.8**3, 0.2 * 0.8**2, 0.2 * 0.8, 0.2]  # the first batch begins the average, so it has no 0.2
    both = list(zip(weights, batches, strict=True))
    assert float(low) == pytest.approx(sum(weight * float(batch.min()) for weight, batch in both))
    assert float(high) == pytest.approx(sum(weight * float(batch.max()) for weight, batch in both))


@pytest.mark.parametrize(("share", "cut"), [(1.0, 0), (0.99, 5), (0.9, 50), (0.001, 499)])
def test_a_percentile_leaves_out_as_many_samples_below_as_above(share, cut):
    x = normal(1000)
    low, high = percentile(x, share=share)
    assert int((x < low).sum()) == int((x > high).sum()) == cut


def test_onnx_runtime_finds_the_same_percentiles():
    x = normal()
    counts, edges = np.histogram(x.numpy(), bins=20_000)
    collector = HistogramCollector("percentile", False, 20_000, 128, 99.0, "same")
    collector.histogram_dict = {"x": (counts, edges, float(x.min()), float(x.max()))}
    low, high = (float(end) for end in collector.compute_percentile()["x"][:2])
    ours_low, ours_high = percentile(x, share=0.99)
    # it returns the edge of a bin, so at most a sample lies between its end and ours
    assert abs(int((x < low).sum()) - int((x < ours_low).sum())) <= 1
    assert abs(int((x > high).sum()) - int((x > ours_high).sum())) <= 1


def squared_error(x, low, high, bits, symmetric):
    """Of numpy's own quantization, in float64, to the grid over low … high with an exact zero."""
    x, low, high = x.double().numpy(), min(float(low), 0), max(float(high), 0)
    top = 2 ** (bits - 1) - 1 if symmetric else 2**bits - 1
    step = max(-low, high) / top if symmetric else (high - low) / top
    zero = 0 if symmetric else np.round(-low / step)
    q = np.clip(np.round(x / step) + zero, -top if symmetric else 0, top)
    return np.mean(((q - zero) * step - x) ** 2)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("samples", [normal(3000), normal(3000).relu(), with_outlier(normal(3000))])
def test_no_shrunk_range_has_a_smaller_squared_error(bits, symmetric, samples):
    low, high = min_max(samples)

    def least(factors):
        return min(squared_error(samples, low * f, high * f, bits, symmetric) for f in factors)

    ours = squared_error(samples, *least_squares(samples, bits=bits, symmetric=symmetric), bits, symmetric)
    assert ours <= least(k / 100 for k in range(1, 101)) * (1 + 1e-4)


def divergence(counts, upto, levels):
    """KL(P ‖ Q) in plain loops, as the slides tell it."""
    p, q = counts[:upto], [0.0] * upto
    for level in range(levels):
        bins = [b for b in range(upto) if b * levels // upto == level]
        filled = [b for b in bins if p[b] > 0]
        for b in filled:
            q[b] = sum(p[b] for b in bins) / len(filled)
    p = [*p[:-1], p[-1] + sum(counts[upto:])]
    both = [(a / sum(p), b / max(sum(q), 1)) for a, b in zip(p, q, strict=True) if a > 0]
    return math.inf if min(b for _, b in both) == 0 else sum(a * math.log(a / b) for a, b in both)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("samples", [normal(), normal().relu(), with_outlier(normal()), normal() ** 3])
def test_no_cut_loses_less_information(bits, samples):
    _, high = entropy(samples, bits=bits, symmetric=True, bins=64)
    magnitudes = samples[samples != 0].abs().numpy()
    counts, edges = np.histogram(magnitudes, bins=64, range=(0, float(magnitudes.max())))
    levels = 2 ** (bits - 1)
    losses = {upto: divergence(counts.tolist(), upto, levels) for upto in range(levels, 65)}
    chosen = min(losses, key=lambda upto: abs(edges[upto] - float(high)))
    assert losses[chosen] == pytest.approx(min(losses.values()), abs=1e-9)


def test_onnx_runtime_cuts_off_the_same_outlier():
    x = with_outlier(normal(100_000))
    counts, edges = np.histogram(x.numpy(), bins=4097, range=(-40, 40))
    collector = HistogramCollector("entropy", True, 4097, 16, 99.9, "same")
    _, theirs = collector.get_entropy_threshold((counts, edges, -40.0, 40.0, 40.0), 16)
    low, high = entropy(x, bits=4, symmetric=True)
    assert -low == high
    # no nearer: its levels straddle zero, and the bins left over when they are merged go to the last level
    assert 0.75 < float(high) / float(theirs) < 1.33


def test_zeros_do_not_move_the_end():
    x = normal().abs()
    half_zero = torch.cat([x, torch.zeros(len(x))])
    assert entropy(half_zero, bits=8, symmetric=False)[1] == entropy(x, bits=8, symmetric=False)[1]


def test_one_outlier_decides_min_max_and_nothing_else():
    x = with_outlier(normal())
    assert min_max(x)[1] == 40
    assert percentile(x, share=0.999)[1] < 5
    assert least_squares(x, bits=4, symmetric=True)[1] < 5
    assert entropy(x, bits=4, symmetric=True)[1] < 5


x = normal(10)
BITS = "bits must be a whole number from 2 to 8, got {}; try 8, or 4: two in a byte"
WRONG = {
    "share must be a fraction in (0, 1], got 99; did you mean 0.99?": lambda: percentile(x, share=99),
    "share must be a fraction in (0, 1], got 0; try 0.9999": lambda: percentile(x, share=0),
    "momentum must be a fraction in [0, 1), got 1; try 0.9": lambda: moving_average([x], momentum=1),
    "batches must have at least one tensor, got none; run the network on a few images": lambda: (
        moving_average([])
    ),
    "candidates must be a whole number of at least 1, got 0; try 100": lambda: least_squares(
        x, bits=8, symmetric=True, candidates=0
    ),
    BITS.format(32): lambda: least_squares(x, bits=32, symmetric=True),
    BITS.format(1): lambda: entropy(x, bits=1, symmetric=True),
    "bins must be a whole number above 128 levels, got 128; try 2048": lambda: entropy(
        x, bits=8, symmetric=True, bins=128
    ),
}


@pytest.mark.parametrize("says", WRONG)
def test_a_bad_setting_is_refused_with_its_text(says):
    with pytest.raises(CompressionError, match=f"^{re.escape(says)}$"):
        WRONG[says]()


@every_rule
@pytest.mark.parametrize(
    ("samples", "came"), [([], "none"), ([1.0, math.nan], "one that is infinite or NaN"), ([math.inf], "one")]
)
def test_samples_that_are_no_numbers_are_refused(rule, samples, came):
    with pytest.raises(
        CompressionError, match=f"^samples must be at least one finite number, got {came}.*; run"
    ):
        rule(torch.tensor(samples))
