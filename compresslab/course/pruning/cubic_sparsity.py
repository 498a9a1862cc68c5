"""How sparse at which step: fast at first, while much can go, and slower the less is left.

Source: Zhu and Gupta 2017, "To prune, or not to prune", arXiv:1710.01878.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """Schedules that begin late enough and climb high enough to tell all mistakes apart."""

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=rng))

    def share(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=rng, dtype=torch.float64))

    def drawn(**fixed: Any) -> dict[str, Any]:
        """Some step in the middle half, unless told otherwise."""
        begin, steps = whole(4, 9), whole(12, 30)
        case = {"begin": begin, "steps": steps, "initial": share(0.1, 0.3), "final": share(0.6, 0.95)}
        case |= {name: value for name, value in fixed.items() if name != "after"}
        after = fixed.get("after", lambda steps: whole(steps // 4 + 1, 3 * steps // 4))
        return {"step": case["begin"] + after(case["steps"])} | case

    yield "in the middle", drawn()
    yield "before it begins", drawn(after=lambda steps: -whole(1, 3))
    yield "at the first step", drawn(after=lambda steps: 0)
    yield "soon after it began", drawn(after=lambda steps: 2)
    yield "at the last step", drawn(after=lambda steps: steps)
    yield "long after the end", drawn(after=lambda steps: 2 * steps)
    yield "a schedule that begins at step 0", drawn(begin=0)
    yield "from a dense network", drawn(initial=0.0)
    yield "a schedule of two steps", drawn(steps=2, after=lambda steps: 1)
    yield "the same sparsity all the time", drawn(initial=0.5, final=0.5)


def probe(case: dict[str, Any], cubic_sparsity: Callable[..., Any]) -> dict[str, Any]:
    settings = {name: case[name] for name in ("begin", "steps", "initial", "final")}
    return {"sparsity": cubic_sparsity(case["step"], **settings)}


def judge(case: dict[str, Any], record: Record) -> None:
    """A cubic Bézier curve that starts at initial and has its three other points at final: de Casteljau."""
    yours = expect.number(record["sparsity"], what="the sparsity")
    passed = min(max((case["step"] - case["begin"]) / case["steps"], 0.0), 1.0)
    points = [case["initial"], case["final"], case["final"], case["final"]]
    for _ in range(3):
        points = [a + passed * (b - a) for a, b in itertools.pairwise(points)]
    expect.close(yours, points[0], tolerance=1e-6, what=f"the sparsity at step {case['step']}")


def by_formula(step: int, *, begin: int, steps: int, initial: float, final: float) -> float:
    done = min(max((step - begin) / steps, 0.0), 1.0)
    return final + (initial - final) * (1 - done) ** 3


def by_branches(step: int, *, begin: int, steps: int, initial: float, final: float) -> float:
    if step <= begin:
        return initial
    if step >= begin + steps:
        return final
    left = begin + steps - step
    return final - (final - initial) * left * left * left / steps**3


def by_tensor(step: int, *, begin: int, steps: int, initial: float, final: float) -> float:
    left = torch.tensor(1 - (step - begin) / steps, dtype=torch.float64).clamp(0, 1)
    return torch.lerp(torch.full_like(left, final), torch.full_like(left, initial), left.pow(3)).item()


def by_parts(
    step,
    *,
    begin,
    steps,
    initial,
    final,
    low=0.0,
    high=1.0,
    shape=lambda done: (1 - done) ** 3,
    share=lambda step, begin, steps: (step - begin) / steps,
):
    """Right as it stands; many a mistake is one of its parts replaced."""
    done = min(max(share(step, begin, steps), low), high)
    return final + (initial - final) * shape(done)


linear = mistake(
    "climbs in a straight line",
    says="the sparsity is {wanted} here, yours {yours}, on the straight line: the share that is left, "
    "1 - p, is raised to the third power",
)(partial(by_parts, shape=lambda done: 1 - done))

quadratic = mistake(
    "squares",
    says="the sparsity is {wanted} here, yours {yours}: that is the second power of 1 - p; the paper "
    "takes the third",
)(partial(by_parts, shape=lambda done: (1 - done) ** 2))

exponent_inside = mistake(
    "raises p, not 1 - p",
    says="the sparsity is {wanted} here, yours {yours}: with 1 - p³ it climbs slowly at first and fast "
    "at the end, when every weight counts; cube what is left, (1 - p)³",
)(partial(by_parts, shape=lambda done: 1 - done**3))

ignores_begin = mistake(
    "counts from step 0",
    says="the sparsity is {wanted} here, yours {yours}: you divided step by steps; what has passed of "
    "the schedule is step - begin",
)(partial(by_parts, share=lambda step, begin, steps: step / steps))

steps_is_the_end = mistake(
    "takes steps for the last step",
    says="the sparsity is {wanted} here, yours {yours}: you divided by steps - begin; steps is how long "
    "the schedule lasts, and it ends at begin + steps",
)(partial(by_parts, share=lambda step, begin, steps: (step - begin) / (steps - begin)))

one_too_far = mistake(
    "is one step ahead",
    says="the sparsity is {wanted} here, yours {yours}, that of the next step: at step begin nothing "
    "has passed yet, so no + 1",
)(partial(by_parts, share=lambda step, begin, steps: (step - begin + 1) / steps))

one_too_short = mistake(
    "ends one step early",
    says="the sparsity is {wanted} here, yours {yours}: you divided by steps - 1; initial holds at "
    "begin and final at begin + steps, a distance of steps",
)(partial(by_parts, share=lambda step, begin, steps: (step - begin) / (steps - 1)))

swapped = mistake(
    "swaps initial and final",
    says="the sparsity is {wanted} here, yours {yours}: your network grows back, it should become "
    "sparser; (1 - p)³ is 1 at the beginning, so it belongs to initial",
)(lambda step, *, initial, final, **when: by_formula(step, initial=final, final=initial, **when))

never_clamped = mistake(
    "clamps nothing",
    says="the sparsity is {wanted} here, yours {yours}: before begin p is negative, and after the end "
    "above 1; the formula holds between, so clamp p to 0 … 1",
)(partial(by_parts, low=float("-inf"), high=float("inf")))

before_unclamped = mistake(
    "does not clamp before the beginning",
    says="the sparsity is {wanted} here, yours {yours}: before begin p is negative and 1 - p above 1; "
    "the schedule has not begun, so p is 0",
)(partial(by_parts, low=float("-inf")))

after_unclamped = mistake(
    "does not clamp after the end",
    says="the sparsity is {wanted} here, yours {yours}: after begin + steps 1 - p is negative, and so "
    "is its cube; the schedule is over, so p stays 1",
)(partial(by_parts, high=float("inf")))


@mistake(
    "is dense before the beginning",
    says="the sparsity is {wanted} here, yours {yours}: until begin the network has its initial "
    "sparsity, which need not be 0",
)
def dense_before(step, *, begin, **settings):
    return 0.0 if step < begin else by_formula(step, begin=begin, **settings)


@mistake(
    "cubes the whole difference",
    says="the sparsity is {wanted} here, yours {yours}: ((initial - final) · (1 - p))³ shrinks the "
    "difference as well; the cube belongs to (1 - p) alone",
)
def cubes_all(step, *, begin, steps, initial, final):
    done = min(max((step - begin) / steps, 0.0), 1.0)
    return final + ((initial - final) * (1 - done)) ** 3


@mistake(
    "returns the share that stays",
    says="the sparsity is {wanted} here, yours {yours}, which is 1 less the sparsity: sparsity is the "
    "share of zeros",
)
def density(step, **settings):
    return 1 - by_formula(step, **settings)


EXERCISE = Exercise(
    name="cubic_sparsity",
    points=2,
    minutes=8,
    difficulty=2,
    bonus=True,
    statement="cubic_sparsity(step, …) climbs from initial to final, steeply at first and gently at the end.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_formula, by_branches, by_tensor),
    mistakes=(
        linear,
        quadratic,
        exponent_inside,
        ignores_begin,
        steps_is_the_end,
        one_too_far,
        one_too_short,
        swapped,
        never_clamped,
        before_unclamped,
        after_unclamped,
        dense_before,
        cubes_all,
        density,
    ),
    hints=(
        Hint(
            "right in the middle, wrong before or after",
            "Try a step before begin and one long after the end by hand. What does the formula make of a p "
            "that is negative, or above 1?",
        ),
        Hint(
            "the two ends are right and the middle is not",
            "p = (step - begin) / steps, kept between 0 and 1. The sparsity is final + (initial - final) · "
            "(1 - p)³: initial at p = 0, final at p = 1, and 7/8 of the way at p = 1/2.",
        ),
        Hint(
            "I do not know how to clamp a number",
            "p = min(max((step - begin) / ______, 0.0), 1.0)",
        ),
    ),
)
