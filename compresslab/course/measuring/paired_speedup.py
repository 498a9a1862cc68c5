"""A fair speed-up: warm up, take turns, and the median of the pairs' ratios.

Nothing real is timed here. The functions are fakes on a machine whose clock moves only while one of them
runs, so the right ratio is known exactly, be the machine slowing down, pausing, or slow to wake up.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]

Function = Callable[[], object]
Clock = Callable[[], float]


def cases(rng: torch.Generator) -> Iterator[Case]:
    def between(low: float, high: float, *count: int) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=rng, dtype=torch.float64)

    def shuffled(*values: float) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)[torch.randperm(len(values), generator=rng)]

    def timed(baseline: Tensor, candidate: Tensor, warmup: int) -> dict[str, Any]:
        start = float(between(10, 99))
        return {"baseline": baseline, "candidate": candidate, "warmup": warmup, "start": start}

    a, speedup = between(0.02, 0.04), between(1.5, 3)  # seconds a call; the candidate needs a / speedup
    b = a / speedup
    steady = torch.ones(7, dtype=torch.float64)
    yield "a steady machine", timed(a * steady, b * steady, 2)
    slower = 1.15 ** torch.arange(7, dtype=torch.float64)
    yield "a machine that slows down", timed(a * slower, b * slower, 1)
    scatter = torch.cat([shuffled(20, 30), shuffled(0.8, 0.9, 1, 1.1, 1.2)])
    yield "slow first calls", timed(a * scatter, b * steady, 2)
    paused = torch.cat([steady[:2], shuffled(1, 1, 1, 1, 200)])
    yield "a pause hits one run", timed(a * paused, b * steady, 2)
    turns = torch.randperm(3, generator=rng)
    ones, others = torch.tensor([[1.0, 2, 4], [4, 1, 3]], dtype=torch.float64)[:, turns]
    yield "pairs that scatter, no warm-up", timed(a * ones, b * others, 0)
    yield "an even number of pairs", timed(a * shuffled(0.6, 0.8, 1.1, 1.5), b * steady[:4], 0)
    noise = between(0.01, 0.05, 6)
    yield "a function against itself", timed(noise, noise, 1)
    length = int(torch.randint(5, 12, (), generator=rng))
    yield "a random machine", timed(between(0.01, 0.09, length), between(0.01, 0.09, length), 2)


def probe(case: dict[str, Any], paired_speedup: Callable[..., Any]) -> dict[str, Any]:
    warmup, pairs = case["warmup"], len(case["baseline"]) - case["warmup"]
    now = [case["start"]]
    log: list[str] = []  # A and B: a call of baseline or candidate; |: a look at the clock

    def fake(letter: str, seconds: list[float]) -> Callable[[], None]:
        def function() -> None:
            moment = (log.count("A") + log.count("B")) // 2  # the machine changes after every second call
            now[0] += seconds[min(moment, len(seconds) - 1)]
            log.append(letter)

        return function

    def clock() -> float:
        log.append("|")
        return now[0]

    baseline, candidate = fake("A", case["baseline"].tolist()), fake("B", case["candidate"].tolist())
    speedup = paired_speedup(baseline, candidate, clock, pairs=pairs, warmup=warmup)
    calls = [place for place, entry in enumerate(log) if entry != "|"]
    order = [log[place] for place in calls[2 * warmup :]]
    return {
        "speedup": speedup,
        "calls": torch.tensor([log.count("A"), log.count("B")]),
        "timed": sum(log[p - 1 : p] == log[p + 1 : p + 2] == ["|"] for p in calls[-2 * pairs :]),
        "together": sum(set(order[i : i + 2]) == {"A", "B"} for i in range(0, len(order), 2)),
    }


def judge(case: dict[str, Any], record: Record) -> None:
    warmup, pairs = case["warmup"], len(case["baseline"]) - case["warmup"]
    speedup = expect.number(record["speedup"], what="the speed-up")
    calls = expect.tensor(record["calls"], shape=(2,)).tolist()
    expect.true(
        calls == [warmup + pairs] * 2,
        f"each function runs warmup + pairs = {warmup} + {pairs} times; "
        f"yours runs baseline {calls[0]} and candidate {calls[1]} times",
        calls=f"{calls[0]} and {calls[1]}",
    )
    timed = expect.whole_number(record["timed"])
    expect.true(
        timed == 2 * pairs,
        f"each of the {2 * pairs} measured calls has a clock() just before and just after it; "
        f"yours has {timed} such calls",
        timed=timed,
    )
    together = expect.whole_number(record["together"])
    expect.true(
        together == pairs,
        f"after the warm-up the two take turns, one of each in every pair; "
        f"yours do in {together} of {pairs} pairs",
        together=f"{together} of {pairs}",
    )
    # the machine's own table, not the clock: what each call really cost
    wanted = np.median(case["baseline"].numpy()[warmup:] / case["candidate"].numpy()[warmup:])
    expect.close(speedup, float(wanted), tolerance=1e-6, what="the speed-up")


def by_turns(baseline: Function, candidate: Function, clock: Clock, *, pairs: int, warmup: int) -> float:
    for _ in range(warmup):
        baseline()
        candidate()
    ratios = []
    for _ in range(pairs):
        start = clock()
        baseline()
        middle = clock()
        candidate()
        ratios.append((middle - start) / (clock() - middle))
    return float(np.median(ratios))


def by_alternating(one: Function, other: Function, clock: Clock, *, pairs: int, warmup: int) -> float:
    def seconds(function: Function) -> float:
        start = clock()
        function()
        return clock() - start

    for function in [one] * warmup + [other] * warmup:
        function()
    times = torch.zeros(pairs, 2, dtype=torch.float64)  # seconds of baseline and candidate
    for pair in range(pairs):
        for column in (0, 1) if pair % 2 == 0 else (1, 0):
            times[pair, column] = seconds((one, other)[column])
    return (times[:, 0] / times[:, 1]).quantile(0.5).item()


def by_dropping_the_first(*given: Any, pairs: int, warmup: int) -> float:
    first, second = _times(*given, pairs=warmup + pairs)
    return statistics.median([a / b for a, b in zip(first, second, strict=True)][warmup:])


def _seconds(function: Function, clock: Clock) -> float:
    start = clock()
    function()
    return clock() - start


def _times(
    baseline: Function, candidate: Function, clock: Clock, *, pairs: int, warmup: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of baseline and of candidate, measured in turns after a warm-up."""
    for _ in range(warmup):
        baseline()
        candidate()
    times = [(_seconds(baseline, clock), _seconds(candidate, clock)) for _ in range(pairs)]
    first, second = np.array(times).T
    return first, second


def _reading(statistic: Callable[[np.ndarray, np.ndarray], Any]) -> Callable[..., float]:
    """Times well, and then boils the seconds of baseline and candidate down to a statistic of its own."""

    def answer(*given: Any, pairs: int, warmup: int) -> float:
        return float(statistic(*_times(*given, pairs=pairs, warmup=warmup)))

    return answer


@mistake(
    "divides the wrong way round",
    says="you say {yours}, and the baseline takes {wanted} times as long as the candidate: "
    "a speed-up is baseline time / candidate time, above 1 where the candidate is faster",
)
def inverted(*given: Any, pairs: int, warmup: int) -> float:
    return 1 / by_turns(*given, pairs=pairs, warmup=warmup)


@mistake(
    "forgets the warm-up",
    says="you run baseline and candidate {calls} times, the measured ones alone: "
    "the first calls fill caches and wake the processor, so run both warmup times before you measure",
)
def cold(*given: Any, pairs: int, warmup: int) -> float:
    return by_turns(*given, pairs=pairs, warmup=0)


@mistake(
    "measures the warm-up too",
    says="you say {yours}, with the warm-up among the measured pairs, and it is {wanted}: "
    "those calls are there to be thrown away",
)
def warm_up_measured(*given: Any, pairs: int, warmup: int) -> float:
    return by_turns(*given, pairs=warmup + pairs, warmup=0)


@mistake(
    "times one pair only",
    says="you run baseline and candidate {calls} times, so a single pair is measured: "
    "one pair may meet a pause, repeat it pairs times",
)
def once(*given: Any, pairs: int, warmup: int) -> float:
    return by_turns(*given, pairs=1, warmup=warmup)


@mistake(
    "runs all of A, then all of B",
    says="your calls take turns in {together} pairs: when all of one function come first, "
    "a machine that slows down meanwhile punishes the other",
)
def one_after_the_other(
    baseline: Function, candidate: Function, clock: Clock, *, pairs: int, warmup: int
) -> float:
    for function in [baseline, candidate] * warmup:
        function()
    first = [_seconds(baseline, clock) for _ in range(pairs)]
    second = [_seconds(candidate, clock) for _ in range(pairs)]
    return float(np.median(np.divide(first, second)))


@mistake(
    "times the whole loop",
    says="{timed} of your measured calls have a clock() just before and just after: "
    "the time of a whole loop has every pause in it, and no pair left to compare",
)
def whole_loop(baseline: Function, candidate: Function, clock: Clock, *, pairs: int, warmup: int) -> float:
    for function in [baseline, candidate] * warmup:
        function()
    first = _seconds(lambda: [baseline() for _ in range(pairs)], clock)
    return first / _seconds(lambda: [candidate() for _ in range(pairs)], clock)


mean = mistake(
    "takes the mean of the ratios",
    says="you say {yours}, the mean of the ratios, and their median is {wanted}: "
    "one pause drags the mean anywhere, the median stays",
)(_reading(lambda first, second: (first / second).mean()))

ratio_of_medians = mistake(
    "divides the two medians",
    says="you say {yours}, the ratio of the medians: divide inside each pair first, while the machine was "
    "in one state, then take the median ({wanted})",
)(_reading(lambda first, second: np.median(first) / np.median(second)))

ratio_of_sums = mistake(
    "divides the two sums",
    says="you say {yours}, total time over total time: "
    "there one slow call outweighs all the others; the median of the ratios is {wanted}",
)(_reading(lambda first, second: first.sum() / second.sum()))

best_of = mistake(
    "compares the two best runs",
    says="you say {yours}, best time over best time: two lucky moments, perhaps far apart; "
    "compare inside each pair and take the median ({wanted})",
)(_reading(lambda first, second: first.min() / second.min()))

lower_median = mistake(
    "takes the lower of the two middle ratios",
    says="you say {yours}, the lower of the two middle ratios (torch.median takes it); "
    "for an even number the median is their mean, {wanted}: np.median or torch.quantile(ratios, 0.5)",
)(_reading(lambda first, second: torch.from_numpy(first / second).median()))


EXERCISE = Exercise(
    name="paired_speedup",
    points=3,
    minutes=15,
    difficulty=3,
    statement="paired_speedup(baseline, candidate, clock) is how many times faster the candidate is, fairly.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_turns, by_alternating, by_dropping_the_first),
    mistakes=(
        inverted,
        cold,
        warm_up_measured,
        once,
        one_after_the_other,
        whole_loop,
        mean,
        ratio_of_medians,
        ratio_of_sums,
        best_of,
        lower_median,
    ),
    hints=(
        Hint(
            "I do not see what could be unfair",
            "Imagine a laptop that grows hot and slow while you measure, and takes a nap in the middle. "
            "In which order must the calls come so that both functions suffer alike?",
        ),
        Hint(
            "it passes on a steady machine and fails on the others",
            "warmup × (baseline, candidate), unmeasured; then for i < pairs: aᵢ = seconds of baseline(), "
            "bᵢ = seconds of candidate(), side by side; the answer is median(a₀/b₀, a₁/b₁, …).",
        ),
        Hint(
            "I am unsure how to use the clock",
            "start = clock(); baseline(); middle = clock(); candidate(); "
            "ratios.append((middle - start) / (clock() - ______))",
        ),
    ),
    seconds=5.0,
)
