"""Confidence intervals: over seeds by Student's t, over images and timing rounds by the bootstrap.

The result of a training run depends on chance, so one accuracy says little. A few runs with different seeds
give a mean and a confidence interval by Student's t, which is wide for three runs. Differences are taken seed
by seed, because runs with the same seed see the images in the same order. What an interval over seeds leaves
out: the test images, too, are a sample.

Source: "Student" (W. S. Gosset) 1908, "The probable error of a mean".
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compresslab.errors import BadSetting, check_seed

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

# the 97.5 % quantile of Student's t for 1, 2, … degrees of freedom (runs - 1); a test compares with scipy
_STUDENT = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)


def mean_over_seeds(values: Sequence[float]) -> Interval:
    """Return the mean of 2 to 10 runs with the 95 % confidence interval of the mean.

    >>> print(mean_over_seeds([0.86, 0.87, 0.88]))
    0.87 [0.85, 0.89]

    Raises:
        BadSetting: fewer than two runs, or more than ten.
    """
    return _interval(values, math.sqrt(1 / max(len(values), 1)))


def interval_of_one_more(values: Sequence[float]) -> Interval:
    """Return the mean of 2 to 10 runs with the 95 % prediction interval of one more run.

    Raises:
        BadSetting: fewer than two runs, or more than ten.
    """
    return _interval(values, math.sqrt(1 + 1 / max(len(values), 1)))


def gain_over_seeds(values: Sequence[float], baseline: Sequence[float]) -> Interval:
    """Return the mean gain over the baseline's runs with the same seeds, and its 95 % confidence interval.

    Raises:
        BadSetting: the numbers of runs differ, or are not 2 to 10.
    """
    if len(values) != len(baseline):
        raise BadSetting(
            f"values and baseline must be runs of the same seeds, got {len(values)} and "
            f"{len(baseline)} runs; give one of each for every seed"
        )
    return mean_over_seeds([ours - theirs for ours, theirs in zip(values, baseline, strict=True)])


def _interval(values: Sequence[float], width: float) -> Interval:
    if not 2 <= len(values) <= len(_STUDENT) + 1:
        raise BadSetting(
            f"values must be 2 to {len(_STUDENT) + 1} runs, one per seed, got {len(values)}; 3 are a "
            "good start"
        )
    mean = statistics.fmean(values)
    reach = _STUDENT[len(values) - 2] * statistics.stdev(values) * width
    return Interval(mean, mean - reach, mean + reach)


LEVEL, DRAWS = 0.95, 1000  # share of resampled values inside the interval; number of resamples


@dataclass(frozen=True)
class Interval:
    """A measured value and its 95 % confidence interval: low ≤ value ≤ high.

    >>> print(Interval(1.50, 1.42, 1.61), "-", Interval(1.02, 0.97, 1.06).verdict)
    1.50 [1.42, 1.61] - no measurable difference
    """

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise BadSetting(
                f"low ≤ value ≤ high must hold, got {self.low}, {self.value}, {self.high}; the order of "
                "the arguments is value, low, high"
            )

    @property
    def verdict(self) -> str:
        """The verdict on a speed-up: faster or slower only if the interval does not cover 1."""
        if self.low > 1:
            return "faster"
        return "slower" if self.high < 1 else "no measurable difference"

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def bootstrap(samples: Tensor, statistic: Callable[[Tensor], Tensor], *, seed: int = 0) -> Interval:
    """Return the statistic of samples (n,) with its 95 % percentile bootstrap interval."""
    generator = torch.Generator().manual_seed(check_seed(seed))
    n, value = len(samples), float(statistic(samples))
    drawn = torch.stack(
        [statistic(samples[torch.randint(n, (n,), generator=generator)]) for _ in range(DRAWS)]
    )
    low, high = (float(torch.quantile(drawn, share)) for share in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(value, min(low, value), max(high, value))  # so that the value always lies inside


def median(samples: Tensor) -> Tensor:
    """Return the middle value, or the mean of the two middle ones (``torch.median`` returns the lower)."""
    return torch.quantile(samples, 0.5)
