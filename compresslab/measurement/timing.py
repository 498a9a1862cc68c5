"""Timing: latency, and paired speed-ups with confidence intervals.

A single timing is unreliable: processors change their frequency, other programs run, and the first runs fill
caches. So both networks run alternately, A B B A, on a fixed number of threads and after a warm-up. Each
round gives one ratio (A + A) / (B + B), in which linear drift cancels. The median of the rounds is the
speed-up, and resampling the rounds gives its interval. A network timed against itself (A/A) shows the noise
floor of the machine.

What it costs: seconds instead of one run. What is left out: energy, and latency under load. Nothing is graded
or asserted on a time.

Source of the interval: Efron 1979, "Bootstrap methods: another look at the jackknife" (percentile bootstrap).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from compresslab.errors import BadSetting, check_whole
from compresslab.measurement.statistics import Interval, bootstrap, median
from compresslab.models.surgery import evaluating

__all__ = ["latency", "noise_floor", "one_at_a_time", "pinned", "speedup"]

Runnable = Callable[[Tensor], object]  # an nn.Module, or any other callable on the inputs
Clock = Callable[[], float]  # returns seconds since a fixed moment
WARM_UP = 3  # runs before the first timed one


def speedup(
    baseline: Runnable,
    candidate: Runnable,
    inputs: Tensor,
    *,
    rounds: int = 25,
    threads: int = 1,
    seed: int = 0,
    clock: Clock = time.perf_counter,
) -> Interval:
    """Return the baseline's time / the candidate's time on these inputs; above 1, the candidate is faster.

    Both run in evaluation mode without gradients, in the order A B B A per round; their modes are restored
    afterwards. The result holds for this batch size, thread count and machine only.

    Args:
        baseline: A, called with ``inputs``.
        candidate: B, called with ``inputs``.
        inputs: the batch for both, such as (1, 1, 28, 28).
        rounds: number of ratios, at least 5.
        threads: processor threads that torch uses meanwhile.
        seed: of the bootstrap.
        clock: returns seconds since a fixed moment.

    Raises:
        BadSetting: too few rounds or threads, or a clock that does not advance.
    """
    rounds = check_whole("rounds", rounds, least=5, hint="25 gives a useful interval")
    with pinned(threads), evaluating(baseline, candidate):
        _warm_up(baseline, inputs)
        _warm_up(candidate, inputs)
        ratios = [_round(baseline, candidate, inputs, clock) for _ in range(rounds)]
    return bootstrap(torch.tensor(ratios, dtype=torch.float64), median, seed=seed)


def noise_floor(model: Runnable, inputs: Tensor, **settings) -> Interval:
    """Return the speed-up of a model over itself: 1 up to this machine's noise. Settings as ``speedup``."""
    return speedup(model, model, inputs, **settings)


def latency(
    model: Runnable,
    inputs: Tensor,
    *,
    rounds: int = 25,
    threads: int = 1,
    seed: int = 0,
    clock: Clock = time.perf_counter,
) -> Interval:
    """Return the median milliseconds of a run on these inputs. To compare two models use ``speedup``."""
    rounds = check_whole("rounds", rounds, least=5, hint="25 gives a useful interval")
    with pinned(threads), evaluating(model):
        _warm_up(model, inputs)
        times = [1000 * _seconds(model, inputs, clock) for _ in range(rounds)]
    return bootstrap(torch.tensor(times, dtype=torch.float64), median, seed=seed)


@contextlib.contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Set torch's number of threads inside the block, and restore it afterwards."""
    before, threads = torch.get_num_threads(), check_whole("threads", threads, hint="1 is the steadiest")
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_at_a_time(inputs: Tensor) -> Tensor:
    """Return the first sample as a batch of one, copied.

    Raises:
        BadSetting: the batch is empty.
    """
    if inputs.dim() < 1 or len(inputs) == 0:
        raise BadSetting(
            f"inputs must be a batch with at least one sample, got the shape {tuple(inputs.shape)}; "
            "for one image that is (1, 1, 28, 28)"
        )
    with torch.inference_mode(False):
        return inputs[:1].detach().clone()


def _round(baseline: Runnable, candidate: Runnable, inputs: Tensor, clock: Clock) -> float:
    order = (baseline, candidate, candidate, baseline)
    first, second, third, fourth = (_seconds(run, inputs, clock) for run in order)
    return (first + fourth) / (second + third)


def _seconds(run: Runnable, inputs: Tensor, clock: Clock) -> float:
    start = clock()
    run(inputs)
    elapsed = clock() - start
    if not 0 < elapsed < math.inf:
        raise BadSetting(
            f"clock must go forward, got {elapsed} seconds for one run; use time.perf_counter, and "
            "inputs that take longer"
        )
    return elapsed


def _warm_up(run: Runnable, inputs: Tensor) -> None:
    for _ in range(WARM_UP):
        run(inputs)
