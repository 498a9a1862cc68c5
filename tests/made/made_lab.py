"""A lab made up for the tests of authoring: one exercise, a few cells, a folder of its own."""

from __future__ import annotations

from pathlib import Path

import torch

from compresslab.checks import expect
from compresslab.checks.exercise import Exercise, Hint, Lab, mistake

__all__ = ["EXERCISE", "LAB", "SOURCE", "write_made_lab"]


def cases(rng):
    yield "negative", {"x": -float(torch.rand((), generator=rng)) - 1}
    yield "large", {"x": 10 + float(torch.rand((), generator=rng))}


def probe(case, double):
    return {"twice": double(case["x"])}


def judge(case, record):
    twice = expect.number(record["twice"])
    expect.close(twice, case["x"] + case["x"])


def by_product(x):
    return 2 * x


def by_sum(x):
    return x + x


@mistake("squares", says="you square: {yours} is x times x")
def squares(x):
    return x**2


@mistake("halves", says="you halve")
def halves(x):
    return x / 2


@mistake("forgets the sign", says="your answer has lost its sign")
def positive(x):
    return abs(2 * x)


@mistake("adds two", says="you add 2; double is 2 times x")
def adds(x):
    return x + 2


EXERCISE = Exercise(
    name="double",
    points=2,
    minutes=5,
    difficulty=2,
    statement="double(x) is twice x.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_product, by_sum),
    mistakes=(squares, halves, positive, adds),
    hints=tuple(Hint(f"symptom {step}", f"help {step}") for step in (1, 2, 3)),
)

LAB = Lab(
    name="90_made",
    title="Made",
    about="a lab made up for tests",
    objectives=("see a lab being built", "count"),
    prerequisites=("Python",),
    exercises=(EXERCISE,),
    answers=(),
)

SOURCE = '''\
# %% [markdown]
# # A made lab
#
# {{ lab }}

# %%
from types import SimpleNamespace

from compresslab.notebook.metrics import metric

# %%
check = SimpleNamespace(double=lambda double: print(double(4)))

# %% tags=["nbval-check-output"]
print(3 * 2)
metric("made.exact", 6)

# %% exercise="double"
def double(x: float) -> float:
    """Twice x. About 1 line."""
    ### BEGIN SOLUTION
    the_double_of_x = 2 * x
    return the_double_of_x
    ### END SOLUTION

# %%
metric("made.share", 0.942, low=0.9, high=0.96)
metric("made.count", double(291133))

# %% [markdown]
# We keep {{ made.share | percent }} of {{ made.count | count }} numbers.
#
# {{ check }}
'''


def write_made_lab(root: Path, source: str = SOURCE) -> Path:
    """Writes the lab's source below ``root`` and returns its path."""
    path = root / "solutions" / LAB.name / f"{LAB.name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")
    return path
