"""Several runs of the same thing: their mean, and how far the mean of other runs may lie from it.

A training run has chance in it, so one accuracy says little. A few runs with other seeds give a mean and an
interval by Student's t; with three runs it is honest and wide. Differences are taken seed by seed, since runs
of the same seed see the images in the same order. What is left out: that the test images, too, are a sample.

Source: "Student" (W. S. Gosset) 1908, "The probable error of a mean".
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from compresslab.clock import Interval
from compresslab.errors import CompressionError

__all__ = ["gain_over_seeds", "interval_of_one_more", "mean_over_seeds"]

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
        raise CompressionError(
            f"a gain compares runs of the same seeds, got {len(values)} and {len(baseline)} runs; "
            "give one of each for every seed"
        )
    return mean_over_seeds([ours - theirs for ours, theirs in zip(values, baseline, strict=True)])


def _interval(values: Sequence[float], width: float) -> Interval:
    if not 2 <= len(values) <= len(_STUDENT) + 1:
        raise CompressionError(
            f"an interval over seeds takes 2 to {len(_STUDENT) + 1} runs, got {len(values)}; "
            "3 are a good start"
        )
    mean = statistics.fmean(values)
    reach = _STUDENT[len(values) - 2] * statistics.stdev(values) * width
    return Interval(mean, mean - reach, mean + reach)
