"""Several runs of the same thing: their mean, and how far the mean of other runs may lie from it.

A training run has chance in it, so one accuracy says little. A few runs with other seeds give a mean and an
interval by Student's t; with three runs it is honest and wide. Differences are taken seed by seed, since runs
of the same seed see the images in the same order. What is left out: that the test images, too, are a sample.

Source: "Student" (W. S. Gosset) 1908, "The probable error of a mean".
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compresslab.errors import BadSetting

__all__ = [
    "DRAWS",
    "LEVEL",
    "Interval",
    "bootstrap",
    "gain_over_seeds",
    "interval_of_one_more",
    "mean_over_seeds",
    "median",
]

# the value that |t| stays below in 95 % of all cases, by degrees of freedom (runs - 1); a test asks scipy
_STUDENT = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)


def mean_over_seeds(values: Sequence[float]) -> Interval:
    """The mean of 2 to 10 runs, and the 95 % interval of the mean.

    >>> print(mean_over_seeds([0.86, 0.87, 0.88]))
    0.87 [0.85, 0.89]

    Raises:
        CompressionError: fewer than two runs, or more than ten.
    """
    return _interval(values, math.sqrt(1 / max(len(values), 1)))


def interval_of_one_more(values: Sequence[float]) -> Interval:
    """The mean of 2 to 10 runs, and the interval that one more run falls into in 95 % of all cases.

    Raises:
        CompressionError: fewer than two runs, or more than ten.
    """
    return _interval(values, math.sqrt(1 + 1 / max(len(values), 1)))


def gain_over_seeds(values: Sequence[float], baseline: Sequence[float]) -> Interval:
    """How much more the runs reach than the baseline's runs of the same seeds: the mean, with its interval.

    Raises:
        CompressionError: not as many runs of the one as of the other, or not 2 to 10.
    """
    if len(values) != len(baseline):
        raise BadSetting(
            f"a gain compares runs of the same seeds, got {len(values)} and {len(baseline)} runs; "
            "give one of each for every seed"
        )
    return mean_over_seeds([ours - theirs for ours, theirs in zip(values, baseline, strict=True)])


def _interval(values: Sequence[float], width: float) -> Interval:
    if not 2 <= len(values) <= len(_STUDENT) + 1:
        raise BadSetting(
            f"an interval over seeds takes 2 to {len(_STUDENT) + 1} runs, got {len(values)}; "
            "3 are a good start"
        )
    mean = statistics.fmean(values)
    reach = _STUDENT[len(values) - 2] * statistics.stdev(values) * width
    return Interval(mean, mean - reach, mean + reach)


LEVEL, DRAWS = 0.95, 1000  # share of the resampled values inside the interval, and how many are drawn


@dataclass(frozen=True)
class Interval:
    """A measured value and the interval that 95 % of its bootstrap values lie in: low ≤ value ≤ high.

    >>> print(Interval(1.50, 1.42, 1.61), "-", Interval(1.02, 0.97, 1.06).verdict)
    1.50 [1.42, 1.61] - no measurable difference
    """

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise BadSetting(
                f"an interval has low ≤ value ≤ high, got {self.low}, {self.value}, {self.high}; "
                "the order of the arguments is value, low, high"
            )

    @property
    def verdict(self) -> str:
        """The interval of a speed-up in words: a difference is one only where it keeps clear of 1."""
        if self.low > 1:
            return "faster"
        return "slower" if self.high < 1 else "no measurable difference"

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def bootstrap(samples: Tensor, statistic: Callable[[Tensor], Tensor], *, seed: int = 0) -> Interval:
    """The statistic of samples (n,), with the interval that its values on resampled samples lie in."""
    generator = torch.Generator().manual_seed(seed)
    n, value = len(samples), float(statistic(samples))
    drawn = torch.stack(
        [statistic(samples[torch.randint(n, (n,), generator=generator)]) for _ in range(DRAWS)]
    )
    low, high = (float(torch.quantile(drawn, share)) for share in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(value, min(low, value), max(high, value))  # so that value is inside, in every odd case


def median(samples: Tensor) -> Tensor:
    """The middle value, or the mean of the two middle ones (``torch.median`` takes the lower)."""
    return torch.quantile(samples, 0.5)
