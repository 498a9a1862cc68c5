"""Calibration: the quantization range of a tensor from samples of its values.

The range determines the step. If it is too wide, all values are rounded coarsely because of a few outliers;
if it is too narrow, the outliers are clipped. For b bits over the range from l to h

    mean squared error ≈ step² / 12  +  mean of (clipped part)²,        step = (h - l) / (2^b - 1)

and the five rules below make this trade-off in five ways:

- ``min_max``: clip nothing. The rule for weights, and for 8 bits without outliers.
- ``moving_average``: average the minima and maxima of the batches, so that no single batch decides.
- ``percentile``: clip a fixed share of the values.
- ``least_squares``: try many ranges and take the one with the smallest quantization error.
- ``entropy``: try many ranges and take the one whose histogram loses the least information.

What it saves: accuracy compared with a badly chosen range. What it costs: one run on a few hundred samples
before deployment, without labels. What is left out: the loss. Each rule considers one tensor at a time and
does not know which values matter to the network. Calibrate on training or validation data, never on test.

Source: Jacob et al. 2018, arXiv:1712.05877 (min and max, moving averages); Migacz 2017, "8-bit inference with
TensorRT", a talk at NVIDIA's GTC (entropy); comparison of the rules: Wu et al. 2020, "Integer quantization
for deep learning inference: principles and empirical evaluation", arXiv:2004.09602.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from compresslab.errors import BadSetting, check_fraction, check_whole
from compresslab.techniques.quantization.affine import (
    fake_quantize,
    integer_range,
    scale_and_zero_point,
)

__all__ = ["entropy", "least_squares", "min_max", "moving_average", "percentile"]

Range = tuple[Tensor, Tensor]  # low and high, each of shape ()


def min_max(samples: Tensor) -> Range:
    """Return the smallest and the largest sample.

    Args:
        samples: observed values of the tensor, any shape; the same for every rule below. Not changed.

    Returns:
        low and high, each of shape () and of the samples' dtype.

    Raises:
        BadSetting: there are no samples, or one is not finite.

    >>> min_max(torch.tensor([[0.5, -1.0], [2.0, 0.0]]))
    (tensor(-1.), tensor(2.))
    """
    samples = _checked(samples)
    return samples.min(), samples.max()


def moving_average(batches: Iterable[Tensor], *, momentum: float = 0.9) -> Range:
    """Return the moving averages of the batches' smallest and largest values.

        low ← momentum · low + (1 - momentum) · min(batch),        starting from the first batch's minimum

    Args:
        batches: one tensor of any shape per batch.
        momentum: weight of the past, 0 ≤ momentum < 1; 0 uses the last batch only.

    Raises:
        BadSetting: momentum is out of range, there are no batches, or a value is not finite.
    """
    check_fraction("momentum", momentum, hint="try 0.9")
    ranges = [torch.stack(min_max(batch)) for batch in batches]
    if not ranges:
        raise BadSetting("batches must have at least one tensor, got none; run the network on a few images")
    average = ranges[0]
    for seen in ranges[1:]:
        average = momentum * average + (1 - momentum) * seen
    return average[0], average[1]


def percentile(samples: Tensor, *, share: float = 0.9999) -> Range:
    """Return the range of the middle ``share`` of the samples: as many are clipped below as above.

    In sorted order, exactly round(n · (1 - share) / 2) of n samples precede low, and as many follow high.

    Args:
        samples: any shape.
        share: of the samples to keep, 0 < share ≤ 1.

    Raises:
        BadSetting: share is out of range, there are no samples, or one is not finite.

    >>> percentile(torch.arange(100.0), share=0.9)
    (tensor(5.), tensor(94.))
    """
    check_fraction("share", share, within="(0, 1]", hint="try 0.9999")
    in_order = _checked(samples).sort().values
    cut = min(round(len(in_order) * (1 - share) / 2), (len(in_order) - 1) // 2)
    return in_order[cut], in_order[-1 - cut]


def least_squares(samples: Tensor, *, bits: int, symmetric: bool, candidates: int = 100) -> Range:
    """Return the range with the least mean squared error among ``candidates`` scaled versions of min … max.

    Both ends are scaled by the same factor, 1/candidates, 2/candidates, … 1. Each candidate quantizes all
    samples once: give about ten thousand, not all activations of a data set.

    Args:
        samples: any shape.
        bits: 2 to 8.
        symmetric: the kind of grid: see ``scale_and_zero_point``.
        candidates: number of ranges to try.

    Raises:
        BadSetting: bits or candidates are out of range, there are no samples, or one is not finite.
    """
    integer_range(bits, signed=symmetric)
    candidates = check_whole("candidates", candidates, allowed="of at least 1", hint="try 100")
    samples = _checked(samples)
    low, high = min_max(samples)

    def error(factor: float) -> float:
        scale, zero = scale_and_zero_point(low * factor, high * factor, bits=bits, symmetric=symmetric)
        near = fake_quantize(samples, scale, zero, bits=bits, signed=symmetric)
        return float((near - samples).square().mean())

    # of two equally good ranges the wider one, in case larger values occur later
    factor = min((k / candidates for k in range(candidates, 0, -1)), key=error)
    return low * factor, high * factor


def entropy(samples: Tensor, *, bits: int, symmetric: bool, bins: int = 2048) -> Range:
    """Return the range whose quantized histogram has the least Kullback–Leibler divergence from the original.

        KL(P ‖ Q) = Σ P log(P / Q),    P: the samples' magnitudes, clipped at t;    Q: P in few levels

    The magnitudes |x| are counted in ``bins`` bins, and the upper end t of every bin is tried. P has the bins
    up to t, and its last bin also counts all values beyond t, as clamping does. Q has the same bins *without*
    the values beyond t, merged into as many levels as the grid has on one side of zero; each level is spread
    evenly over those of its bins that are not empty. Zeros (half of a ReLU's outputs) are not counted,
    because every grid represents them exactly.

    Args:
        samples: any shape.
        bits: 2 to 8: 2^(bits-1) levels, or 2^bits if the grid is asymmetric and all samples have one sign.
        symmetric: the kind of grid.
        bins: of the histogram, more than the levels.

    Returns:
        min and max of the samples, clipped at -t and t; (-t, t) for a symmetric grid.

    Raises:
        BadSetting: bits or bins are out of range, there are no samples, or one is not finite.
    """
    low, high = min_max(samples)
    levels = integer_range(bits, signed=symmetric or bool(low * high < 0))[1] + 1
    bins = check_whole("bins", bins, least=levels + 1, allowed=f"above {levels} levels", hint="try 2048")
    widest = float(torch.maximum(-low, high))
    if widest == 0:
        return low, high
    magnitudes = samples[samples != 0].detach().abs().float()
    counts = torch.histc(magnitudes, bins, 0, widest).double()
    kept = min(range(bins, levels - 1, -1), key=lambda upto: _divergence(counts, upto, levels))
    end = torch.as_tensor(widest * kept / bins, dtype=low.dtype)
    return (-end, end) if symmetric else (low.clamp(min=-end), high.clamp(max=end))


def _divergence(counts: Tensor, upto: int, levels: int) -> float:
    """KL(P ‖ Q) of the first ``upto`` bins: see ``entropy``; infinite if Q is 0 where P is not."""
    inside = counts[:upto]
    level = torch.arange(upto) * levels // upto  # the level of each bin
    total = torch.zeros(levels, dtype=counts.dtype).index_add_(0, level, inside)
    filled = torch.zeros(levels, dtype=counts.dtype).index_add_(0, level, (inside > 0).double())
    spread = torch.where(inside > 0, (total / filled)[level], 0.0)
    clamped = inside.clone()
    clamped[-1] += counts[upto:].sum()
    p, q = clamped / clamped.sum(), spread / spread.sum()
    return float(torch.where(p > 0, p * (p / q).log(), 0.0).sum().nan_to_num(nan=torch.inf))


def _checked(samples: Tensor) -> Tensor:
    """Return the samples flattened, after checking them."""
    samples = samples.detach().flatten()
    if not len(samples) or not samples.isfinite().all():
        came = "one that is infinite or NaN" if len(samples) else "none"
        raise BadSetting(
            f"samples must be at least one finite number, got {came}; run the trained network on a few images"
        )
    return samples
