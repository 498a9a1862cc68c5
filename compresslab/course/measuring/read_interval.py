"""From paired ratios to a verdict: the bootstrap interval of the median, and whether it keeps clear of 1.

Source of the interval: Efron 1979, "Bootstrap methods: another look at the jackknife" (percentile bootstrap).
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

VERDICTS = ("faster", "slower", "no measurable difference")
Reading = tuple[float, float, str]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """With 41 resamples the two quantiles are the second and the second last of the sorted medians."""

    def rising(count: int, low: float, high: float) -> Tensor:
        steps = torch.rand(count - 1, generator=rng) + 0.5  # so that no two ratios are nearly equal
        return low + (high - low) * torch.cat([torch.zeros(1), steps.cumsum(0) / steps.sum()])

    def drawn(rows: int, *, first: int, count: int, width: int) -> Tensor:
        return torch.randint(first, first + count, (rows, width), generator=rng)

    def mixed(ratios: Tensor, resamples: Tensor) -> dict[str, Tensor]:
        """The same draws, with ratios and rows in an order of their own."""
        order, rows = (torch.randperm(count, generator=rng) for count in (len(ratios), len(resamples)))
        return {"ratios": ratios[order], "resamples": order.argsort()[resamples][rows]}

    def tailed(*nine: Tensor) -> dict[str, Tensor]:
        """The three lowest medians are the three lowest ratios, and the highest likewise."""
        ends = torch.tensor([0, 1, 2, 6, 7, 8]).repeat_interleave(9).view(6, 9)
        return mixed(torch.cat(nine), torch.cat([ends, drawn(35, first=3, count=3, width=9)]))

    yield "clearly faster", tailed(rising(9, 1.2, 1.9))
    yield "clearly slower", tailed(rising(9, 0.5, 0.9))
    yield "mostly above 1, but not clear of it", tailed(rising(3, 0.8, 0.95), rising(6, 1.05, 1.6))
    yield "the low end is exactly 1", tailed(torch.ones(3), rising(6, 1.1, 1.5))
    yield "the high end is exactly 1", tailed(rising(6, 0.6, 0.9), torch.ones(3))
    wild = torch.cat([rising(6, 1.1, 1.3), torch.tensor([40.0])])
    once = torch.full((41, 1), 6)
    yield (
        "one wild ratio in every row",
        mixed(wild, torch.cat([drawn(41, first=0, count=6, width=6), once], dim=1)),
    )
    orders = torch.stack([torch.randperm(6, generator=rng) for _ in range(41)])
    yield "an even number of ratios", mixed(rising(6, 0.9, 1.4), orders)
    yield "a function against itself", mixed(torch.ones(5), drawn(41, first=0, count=5, width=5))
    yield "float64", mixed(rising(7, 0.7, 1.5).double(), drawn(81, first=0, count=7, width=7))


def probe(case: dict[str, Any], read_interval: Callable[..., Any]) -> dict[str, Any]:
    return {"reading": read_interval(case["ratios"], case["resamples"])}


def judge(case: dict[str, Any], record: Record) -> None:
    first, second, third = expect.parts(record["reading"], count=3)
    low, high = expect.number(first, what="low"), expect.number(second, what="high")
    verdict = expect.choice(third, among=VERDICTS, what="the verdict")
    ends = {"low": f"{low:.4g}", "high": f"{high:.4g}"}
    expect.true(low <= high, f"low is the smaller end; yours are low = {low:.4g}, high = {high:.4g}", **ends)
    chosen = case["ratios"].double().numpy()[case["resamples"].numpy()]
    bounds = np.quantile(np.median(chosen, axis=1), [0.025, 0.975])
    expect.close(torch.tensor([low, high]), torch.from_numpy(bounds), what="(low, high)")
    sides = set(np.sign(bounds - 1).tolist())
    wanted = "faster" if sides == {1} else "slower" if sides == {-1} else "no measurable difference"
    expect.true(
        verdict == wanted,
        f"the interval from {low:.4g} to {high:.4g} reads {wanted!r}; yours says {verdict!r}",
        yours=verdict,
        wanted=wanted,
        **ends,
    )


def by_quantiles(ratios: Tensor, resamples: Tensor) -> Reading:
    medians = ratios[resamples].quantile(0.5, dim=1)  # (B, n) -> (B,)
    low, high = medians.quantile(0.025).item(), medians.quantile(0.975).item()
    if low > 1:
        return low, high, "faster"
    if high < 1:
        return low, high, "slower"
    return low, high, "no measurable difference"


def by_sorting(ratios: Tensor, resamples: Tensor) -> Reading:
    values = ratios.tolist()
    medians = sorted(statistics.median([values[i] for i in row]) for row in resamples.tolist())

    def quantile(share: float) -> float:
        place = share * (len(medians) - 1)
        below = min(int(place), len(medians) - 2)
        return medians[below] + (place - below) * (medians[below + 1] - medians[below])

    low, high = quantile(0.025), quantile(0.975)
    return low, high, VERDICTS[0] if low > 1 else VERDICTS[1] if high < 1 else VERDICTS[2]


def _medians(ratios: Tensor, resamples: Tensor) -> Tensor:
    return ratios[resamples].quantile(0.5, dim=1)


def _between(values: Tensor, low: float = 0.025, high: float = 0.975) -> Reading:
    """The two quantiles of these values, and the verdict that belongs to them."""
    return _read(values.quantile(low).item(), values.quantile(high).item())


def _read(low: float, high: float) -> Reading:
    return low, high, VERDICTS[0 if low > 1 else 1 if high < 1 else 2]


@mistake(
    "takes means for medians",
    says="an end of yours is {yours} and should be {wanted}: you take the mean of each row, "
    "where one wild ratio moves everything; take the median",
)
def means(ratios: Tensor, resamples: Tensor) -> Reading:
    return _between(ratios[resamples].mean(dim=1))


@mistake(
    "takes the quantiles of the ratios themselves",
    says="an end of yours is {yours} and should be {wanted}: yours says how far single pairs scatter, "
    "not how sure we are of their median; use the medians of the resamples",
)
def of_the_ratios(ratios: Tensor, resamples: Tensor) -> Reading:
    return _between(ratios)


@mistake(
    "takes the 5 % and 95 % quantiles",
    says="an end of yours is {yours} and should be {wanted}: 5 % and 95 % leave 90 % between them; "
    "for 95 % cut 2.5 % off each end",
)
def ninety(ratios: Tensor, resamples: Tensor) -> Reading:
    return _between(_medians(ratios, resamples), 0.05, 0.95)


@mistake(
    "takes the smallest and the largest median",
    says="an end of yours is {yours} and should be {wanted}: the extremes grow with every further resample; "
    "the 2.5 % and 97.5 % quantiles settle down",
)
def extremes(ratios: Tensor, resamples: Tensor) -> Reading:
    return _between(_medians(ratios, resamples), 0, 1)


@mistake(
    "takes mean ± 1.96 standard deviations of the ratios",
    says="an end of yours is {yours} and should be {wanted}: mean ± 1.96 standard deviations supposes a "
    "bell curve of single pairs; let the resamples say how sure the median is",
)
def bell_curve(ratios: Tensor, resamples: Tensor) -> Reading:
    centre, width = ratios.mean().item(), 1.96 * ratios.std().item()
    return _read(centre - width, centre + width)


@mistake(
    "takes medians down the columns",
    says="an end of yours is {yours} and should be {wanted}: a row of resamples is one experiment, "
    "so the median goes along dim=1 and leaves (B,) values",
)
def columns(ratios: Tensor, resamples: Tensor) -> Reading:
    return _between(ratios[resamples].quantile(0.5, dim=0))


@mistake(
    "takes the lower of the two middle values",
    says="an end of yours is {yours} and should be {wanted}: of an even number of ratios torch.median takes "
    "the lower of the two middle ones, and the median is their mean: np.median, or quantile(0.5)",
)
def lower_median(ratios: Tensor, resamples: Tensor) -> Reading:
    return _between(ratios[resamples].median(dim=1).values)


@mistake(
    "swaps low and high",
    says="your low is {low} and your high is {high}: the 2.5 % quantile is the low end, it comes first",
)
def swapped(ratios: Tensor, resamples: Tensor) -> Reading:
    low, high, verdict = by_quantiles(ratios, resamples)
    return high, low, verdict


@mistake(
    "reads the verdict from the median alone",
    says="you say {yours!r} because the median is not 1, but the interval from {low} to {high} has 1 in it: "
    "a run of the same function against itself may look like that",
)
def from_the_median(ratios: Tensor, resamples: Tensor) -> Reading:
    low, high, _ = by_quantiles(ratios, resamples)
    return low, high, _read(*[ratios.quantile(0.5).item()] * 2)[2]


@mistake(
    "turns the verdict round",
    says="you say {yours!r}, and the ratios lie between {low} and {high}: "
    "they are baseline time / candidate time, so above 1 the candidate is faster",
)
def reversed_verdict(ratios: Tensor, resamples: Tensor) -> Reading:
    low, high, verdict = by_quantiles(ratios, resamples)
    return low, high, {"faster": "slower", "slower": "faster"}.get(verdict, verdict)


@mistake(
    "calls it a difference where the interval touches 1",
    says="you say {yours!r}, but the interval from {low} to {high} still touches 1: "
    "to be sure, low must be above 1 (>), or high below 1 (<)",
)
def touching(ratios: Tensor, resamples: Tensor) -> Reading:
    low, high, _ = by_quantiles(ratios, resamples)
    return low, high, VERDICTS[0 if low >= 1 else 1 if high <= 1 else 2]


EXERCISE = Exercise(
    name="read_interval",
    points=2,
    minutes=10,
    difficulty=2,
    statement="read_interval(ratios, resamples) says how sure a speed-up is: (low, high, verdict).",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_quantiles, by_sorting),
    mistakes=(
        means,
        of_the_ratios,
        ninety,
        extremes,
        bell_curve,
        columns,
        lower_median,
        swapped,
        from_the_median,
        reversed_verdict,
        touching,
    ),
    hints=(
        Hint(
            "I do not see what the resamples are for",
            "Each row is an experiment that might have happened: n pairs, drawn from yours with replacement. "
            "How much does the median change from one such experiment to the next?",
        ),
        Hint(
            "my interval is too wide, too narrow, or beside the point",
            "ratios[resamples] is (B, n); medians = the median of each row (B,), the mean of the middle two "
            "for even n; low, high = their 0.025 and 0.975 quantiles.",
        ),
        Hint(
            "the interval is right and the verdict is not",
            "'faster' if low ___ 1, 'slower' if high ___ 1, else 'no measurable difference'; "
            "an end at exactly 1 proves nothing.",
        ),
    ),
)
