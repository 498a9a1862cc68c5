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
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compresslab.errors import CompressionError

__all__ = [
    "Interval",
    "bootstrap",
    "evaluating",
    "latency",
    "median",
    "noise_floor",
    "one_at_a_time",
    "pinned",
    "speedup",
]

Runnable = Callable[[Tensor], object]  # an nn.Module, or anything else that is called with the inputs
Clock = Callable[[], float]  # seconds since some fixed moment
WARM_UP = 3  # runs before the clock starts
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
            raise CompressionError(
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


@contextlib.contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Torch computes with this many threads inside the block, and with as many as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def evaluating(*models: object) -> Iterator[None]:
    """Models in evaluation mode and gradients off, inside the block; then each module's own mode returns."""
    modules = [module for model in models if isinstance(model, nn.Module) for module in model.modules()]
    before = [(module, module.training) for module in modules]
    try:
        for module in modules:
            module.training = False
        # not inference mode: there, composite operators reach a watching dispatch mode in one piece
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        for module, training in before:
            module.training = training


def one_at_a_time(inputs: Tensor) -> Tensor:
    """The first input alone, as a batch of one in memory of its own.

    Raises:
        CompressionError: there is no first input.
    """
    if inputs.dim() < 1 or len(inputs) == 0:
        raise CompressionError(
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
        raise CompressionError(
            f"the clock counted {elapsed} seconds for one run, it must go forward; "
            "use time.perf_counter, and inputs that take longer"
        )
    return elapsed


def _warm_up(run: Runnable, inputs: Tensor) -> None:
    for _ in range(WARM_UP):
        run(inputs)


def _check(rounds: int, threads: int) -> None:
    if rounds < 5:
        raise CompressionError(
            f"rounds is a whole number from 5 up, got {rounds}; 25 gives a useful interval"
        )
    if threads < 1:
        raise CompressionError(f"threads is a whole number from 1 up, got {threads}; 1 is the steadiest")
