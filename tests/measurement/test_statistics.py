"""Several runs: their mean and its interval; scipy's Student distribution is the oracle."""

import math
import random
import statistics

import pytest

from compresslab.errors import CompressionError
from compresslab.measurement.statistics import (
    _STUDENT,
    gain_over_seeds,
    interval_of_one_more,
    mean_over_seeds,
)

both = pytest.mark.parametrize("interval", [mean_over_seeds, interval_of_one_more])
RUNS = [0.861, 0.874, 0.866, 0.859, 0.871, 0.88, 0.869, 0.865, 0.872, 0.858]


@pytest.fixture
def student_t():
    stats = pytest.importorskip(
        "scipy.stats", reason="the oracle scipy comes with scikit-learn (extra: test)"
    )
    return stats.t


def test_the_table_has_the_quantiles_of_students_distribution(student_t):
    for freedom, quantile in enumerate(_STUDENT, start=1):
        assert quantile == pytest.approx(student_t.ppf(0.975, freedom), abs=5e-5)


@pytest.mark.parametrize("runs", range(2, 11))
def test_the_intervals_are_those_of_scipy(student_t, runs):
    some = RUNS[:runs]
    mean, deviation = statistics.fmean(some), statistics.stdev(some)
    for interval, spread in ((mean_over_seeds, 1 / runs), (interval_of_one_more, 1 + 1 / runs)):
        low, high = student_t.interval(0.95, runs - 1, loc=mean, scale=deviation * math.sqrt(spread))
        found = interval(some)
        assert found.value == pytest.approx(mean)
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-6)


def test_nineteen_of_twenty_intervals_hold_what_they_promise():
    rng = random.Random(0)
    means, ones = 0, 0
    for _ in range(1500):
        runs = [rng.gauss(0.87, 0.01) for _ in range(3)]
        mean, one = mean_over_seeds(runs), interval_of_one_more(runs)
        means += mean.low <= 0.87 <= mean.high
        ones += one.low <= rng.gauss(0.87, 0.01) <= one.high
    assert means / 1500 == pytest.approx(0.95, abs=0.02)
    assert ones / 1500 == pytest.approx(0.95, abs=0.02)


def test_a_gain_is_taken_seed_by_seed():
    baseline = [0.80, 0.90, 0.70]  # far apart, and each beaten by nearly the same
    gain = gain_over_seeds([0.82, 0.92, 0.721], baseline)
    assert gain.value == pytest.approx(0.061 / 3)
    assert gain.high - gain.low < 0.01
    other = gain_over_seeds([0.92, 0.721, 0.82], baseline)  # the same runs of other seeds
    assert other.high - other.low > 0.1


@both
def test_runs_that_agree_have_an_interval_of_no_width(interval):
    assert interval([0.5, 0.5]) == interval([0.5, 0.5, 0.5])
    assert interval([0.5, 0.5]).low == interval([0.5, 0.5]).high == 0.5


@both
@pytest.mark.parametrize("runs", [0, 1, 11])
def test_too_few_or_too_many_runs_are_refused(interval, runs):
    text = f"^values must be 2 to 10 runs, one per seed, got {runs}; 3 are a good start$"
    with pytest.raises(CompressionError, match=text):
        interval([0.5] * runs)


def test_a_gain_of_other_seeds_is_refused():
    text = (
        "^values and baseline must be runs of the same seeds, got 2 and 3 runs; give one of "
        "each for every seed$"
    )
    with pytest.raises(CompressionError, match=text):
        gain_over_seeds([0.5, 0.6], [0.5, 0.6, 0.7])
