"""The honest clock: how many times faster, and how sure of that we are.

A single timing says little: processors change their frequency, other programs come and go, the first runs
fill caches. So both networks run in turns, A B B A, on pinned threads and after a warm-up; each round gives
one ratio (A + A) / (B + B), in which a drift that grows steadily cancels; the median of the rounds is the
speed-up, and resampling the rounds gives its interval. A network against itself (A/A) shows the noise floor
of the machine.

What it costs: seconds instead of one run. What is left out: energy (not measured by this kit), and latency
under load. Nothing is graded or asserted on a time.

Source of the interval: Efron 1979, "Bootstrap methods: another look at the jackknife" (percentile bootstrap).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from compresslab.errors import BadSetting
from compresslab.measurement.statistics import Interval, bootstrap, median
from compresslab.models.surgery import evaluating

__all__ = ["latency", "noise_floor", "one_at_a_time", "pinned", "speedup"]

Runnable = Callable[[Tensor], object]  # an nn.Module, or anything else that is called with the inputs
Clock = Callable[[], float]  # seconds since some fixed moment
WARM_UP = 3  # runs before the clock starts


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
    """How many times faster than the baseline the candidate is on these inputs; above 1 is faster.

    Both run in evaluation mode without gradients, four times a round in the order A B B A, and come back in
    the mode they came in. It says nothing of other batch sizes, thread counts or machines.

    Args:
        baseline: A, called with ``inputs``.
        candidate: B, called with ``inputs``.
        inputs: what both are called with, e.g. (1, 1, 28, 28).
        rounds: ratios to take, at least 5.
        threads: processor threads that torch may use meanwhile.
        seed: of the resampling.
        clock: seconds since some fixed moment.

    Raises:
        CompressionError: too few rounds or threads, or a clock that stands still.
    """
    _check(rounds, threads)
    with pinned(threads), evaluating(baseline, candidate):
        _warm_up(baseline, inputs)
        _warm_up(candidate, inputs)
        ratios = [_round(baseline, candidate, inputs, clock) for _ in range(rounds)]
    return bootstrap(torch.tensor(ratios, dtype=torch.float64), median, seed=seed)


def noise_floor(model: Runnable, inputs: Tensor, **settings) -> Interval:
    """The speed-up of a model over itself: 1, but for this machine's noise. Settings are ``speedup``'s."""
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
    """Milliseconds of one run on these inputs, the median of the rounds (to compare, ``speedup``)."""
    _check(rounds, threads)
    with pinned(threads), evaluating(model):
        _warm_up(model, inputs)
        times = [1000 * _seconds(model, inputs, clock) for _ in range(rounds)]
    return bootstrap(torch.tensor(times, dtype=torch.float64), median, seed=seed)


@contextlib.contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Torch computes with this many threads inside the block, and with as many as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_at_a_time(inputs: Tensor) -> Tensor:
    """The first input alone, as a batch of one in memory of its own.

    Raises:
        CompressionError: there is no first input.
    """
    if inputs.dim() < 1 or len(inputs) == 0:
        raise BadSetting(
            f"inputs is a batch with at least one sample, got the shape {tuple(inputs.shape)}; "
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
            f"the clock counted {elapsed} seconds for one run, it must go forward; "
            "use time.perf_counter, and inputs that take longer"
        )
    return elapsed


def _warm_up(run: Runnable, inputs: Tensor) -> None:
    for _ in range(WARM_UP):
        run(inputs)


def _check(rounds: int, threads: int) -> None:
    if rounds < 5:
        raise BadSetting(f"rounds is a whole number from 5 up, got {rounds}; 25 gives a useful interval")
    if threads < 1:
        raise BadSetting(f"threads is a whole number from 1 up, got {threads}; 1 is the steadiest")
