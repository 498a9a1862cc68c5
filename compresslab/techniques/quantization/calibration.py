"""Calibration: from values that a tensor was seen to take, the range that its grid should span.

The range decides the step. Too wide, and every value is rounded coarsely for the sake of a few outliers; too
narrow, and the outliers are cut off. For b bits over the range from l to h

    mean squared error ≈ step² / 12  +  mean of what is cut off²,        step = (h - l) / (2^b - 1)

and the five rules below make this trade in five ways:

- ``min_max``: cut nothing. The rule for weights, and for 8 bits without outliers.
- ``moving_average``: min and max of each batch, averaged over the batches: one odd batch does not decide.
- ``percentile``: cut a fixed share of the values.
- ``least_squares``: try many ranges and take the one whose quantized values are nearest to the values.
- ``entropy``: try many ranges and take the one whose histogram loses least information.

What it costs: a few hundred samples are run once, before deployment; no labels. What is left out: the loss.
All five look at one tensor at a time, and none knows which values matter to the network. Calibrate on
training or validation data, never on test.

Source: Jacob et al. 2018, arXiv:1712.05877 (min and max, moving averages); Migacz 2017, "8-bit inference with
TensorRT", a talk at NVIDIA's GTC (entropy); the rules side by side: Wu et al. 2020, "Integer quantization for
deep learning inference: principles and empirical evaluation", arXiv:2004.09602.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from compresslab.errors import BadSetting
from compresslab.techniques.quantization.affine import (
    fake_quantize,
    integer_range,
    scale_and_zero_point,
)

__all__ = ["entropy", "least_squares", "min_max", "moving_average", "percentile"]

Range = tuple[Tensor, Tensor]  # low and high, each of shape ()


def min_max(samples: Tensor) -> Range:
    """The smallest and the largest sample.

    Args:
        samples: values that the tensor took, any shape; as for every rule below. Not changed.

    Returns:
        low and high, each of shape () and of the samples' dtype.

    Raises:
        CompressionError: no samples, or one that isn't a finite number.

    >>> min_max(torch.tensor([[0.5, -1.0], [2.0, 0.0]]))
    (tensor(-1.), tensor(2.))
    """
    samples = _checked(samples)
    return samples.min(), samples.max()


def moving_average(batches: Iterable[Tensor], *, momentum: float = 0.9) -> Range:
    """The moving average, over batches in their order, of each batch's smallest and largest value.

        low ← momentum · low + (1 - momentum) · min(batch),        beginning with the first batch's own

    Args:
        batches: one tensor of any shape a batch.
        momentum: how much of the past stays at each batch, 0 ≤ momentum < 1; 0 keeps the last batch alone.

    Raises:
        CompressionError: momentum out of range, no batches, or a value that isn't a finite number.
    """
    if not 0 <= momentum < 1:
        raise BadSetting(f"momentum is a fraction in [0, 1), got {momentum}; try 0.9")
    ranges = [torch.stack(min_max(batch)) for batch in batches]
    if not ranges:
        raise BadSetting("batches has at least one tensor, got none; run the network on a few images")
    average = ranges[0]
    for seen in ranges[1:]:
        average = momentum * average + (1 - momentum) * seen
    return average[0], average[1]


def percentile(samples: Tensor, *, share: float = 0.9999) -> Range:
    """The range that the middle ``share`` of the samples lies in: as many are cut off below as above.

    Exactly round(n · (1 - share) / 2) of n samples lie in order before low, and as many after high.

    Args:
        samples: any shape.
        share: of the samples to keep, 0 < share ≤ 1.

    Raises:
        CompressionError: share out of range, no samples, or one that isn't a finite number.

    >>> percentile(torch.arange(100.0), share=0.9)
    (tensor(5.), tensor(94.))
    """
    if not 0 < share <= 1:
        hint = f"did you mean {share / 100:g}?" if 1 < share <= 100 else "try 0.9999"
        raise BadSetting(f"share is a fraction in (0, 1], got {share}; {hint}")
    in_order = _checked(samples).sort().values
    cut = min(round(len(in_order) * (1 - share) / 2), (len(in_order) - 1) // 2)
    return in_order[cut], in_order[-1 - cut]


def least_squares(samples: Tensor, *, bits: int, symmetric: bool, candidates: int = 100) -> Range:
    """The range, among ``candidates`` shrunk versions of min … max, with the least mean squared error.

    Both ends are shrunk by the same factor, 1/candidates, 2/candidates, … 1. Each candidate quantizes all
    samples once: give some ten thousand, not all activations of a data set.

    Args:
        samples: any shape.
        bits: 2 to 8.
        symmetric: the grid that will be used: see ``scale_and_zero_point``.
        candidates: how many ranges to try.

    Raises:
        CompressionError: bits or candidates out of range, no samples, or one that isn't a finite number.
    """
    integer_range(bits, signed=symmetric)
    if not isinstance(candidates, int) or candidates < 1:
        raise BadSetting(f"candidates is a whole number of at least 1, got {candidates}; try 100")
    samples = _checked(samples)
    low, high = min_max(samples)

    def error(factor: float) -> float:
        scale, zero = scale_and_zero_point(low * factor, high * factor, bits=bits, symmetric=symmetric)
        near = fake_quantize(samples, scale, zero, bits=bits, signed=symmetric)
        return float((near - samples).square().mean())

    # of two equally good ranges the wider one: it leaves room for values that were not seen
    factor = min((k / candidates for k in range(candidates, 0, -1)), key=error)
    return low * factor, high * factor


def entropy(samples: Tensor, *, bits: int, symmetric: bool, bins: int = 2048) -> Range:
    """The range whose histogram, once quantized, has the least Kullback–Leibler divergence from the original.

        KL(P ‖ Q) = Σ P log(P / Q),    P: the samples' magnitudes, cut off at t;    Q: P in few levels

    The magnitudes |x| are counted in ``bins`` bins, and every bin's upper end t is tried. P has the bins up
    to t, and what lies beyond counts in its last bin (that is what clamping does). Q has the same bins
    *without* what lies beyond, merged into as many levels as the grid has on one side of zero; each level is
    spread evenly over its bins that were not empty. Zeros (half of what a ReLU returns) are not counted: they
    are on every grid, so they have no say in where it ends.

    Args:
        samples: any shape.
        bits: 2 to 8: 2^(bits-1) levels, or 2^bits where the grid is asymmetric and all samples have one sign.
        symmetric: the grid that will be used.
        bins: of the histogram, more than there are levels.

    Returns:
        min and max of the samples, cut at -t and t; (-t, t) for a symmetric grid.

    Raises:
        CompressionError: bits or bins out of range, no samples, or one that isn't a finite number.
    """
    low, high = min_max(samples)
    integer_range(bits, signed=symmetric)
    levels = 2 ** (bits - 1) if symmetric or low * high < 0 else 2**bits
    if not isinstance(bins, int) or bins <= levels:
        raise BadSetting(f"bins is a whole number above {levels} levels, got {bins}; try 2048")
    widest = float(torch.maximum(-low, high))
    if widest == 0:
        return low, high
    magnitudes = samples[samples != 0].detach().abs().float()
    counts = torch.histc(magnitudes, bins, 0, widest).double()
    kept = min(range(bins, levels - 1, -1), key=lambda upto: _divergence(counts, upto, levels))
    end = torch.as_tensor(widest * kept / bins, dtype=low.dtype)
    return (-end, end) if symmetric else (low.clamp(min=-end), high.clamp(max=end))


def _divergence(counts: Tensor, upto: int, levels: int) -> float:
    """KL(P ‖ Q) of the first ``upto`` bins: see ``entropy``; infinite where Q has nothing and P has."""
    inside = counts[:upto]
    level = torch.arange(upto) * levels // upto  # which level each bin belongs to
    total = torch.zeros(levels, dtype=counts.dtype).index_add_(0, level, inside)
    filled = torch.zeros(levels, dtype=counts.dtype).index_add_(0, level, (inside > 0).double())
    spread = torch.where(inside > 0, (total / filled)[level], 0.0)
    clamped = inside.clone()
    clamped[-1] += counts[upto:].sum()
    p, q = clamped / clamped.sum(), spread / spread.sum()
    return float(torch.where(p > 0, p * (p / q).log(), 0.0).sum().nan_to_num(nan=torch.inf))


def _checked(samples: Tensor) -> Tensor:
    """The samples in one row."""
    samples = samples.detach().flatten()
    if not len(samples) or not samples.isfinite().all():
        came = "one that is infinite or NaN" if len(samples) else "none"
        raise BadSetting(
            f"samples are at least one finite number, got {came}; run the trained network on a few images"
        )
    return samples
