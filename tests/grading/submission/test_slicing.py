"""The slice of a notebook says of an answer what the notebook's own check says, whatever stands around it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from IPython.core.interactiveshell import InteractiveShell
from notebooks import natural_notebooks
from submissions import code, tiny

from compresslab.checks.exercise import draw_cases
from compresslab.errors import WrongAnswer
from compresslab.grading.grade import _job, _Outcome, _score
from compresslab.grading.sandbox import worker
from compresslab.grading.scores import Verdict
from compresslab.grading.submission import answers, slicing
from compresslab.grading.submission.answers import read_submission
from compresslab.notebook.menus import NoPoints, menus_of

FIRST, SECOND = tiny("first", "second", seconds=5).exercises


def by_float(x):  # not the first exercise's published answer
    return float(x.sum())


OTHER = dataclasses.replace(SECOND, right=(by_float, *SECOND.right[1:]))
LAB = dataclasses.replace(tiny("first"), exercises=(FIRST, OTHER))
EXAMPLES = int(os.environ.get("SLICE_EXAMPLES", "300"))  # by name: SLICE_EXAMPLES=5000
AS_THEY_COME = {"suppress_health_check": [*HealthCheck], "derandomize": True, "database": None}
RIGHT, NOT_RIGHT, NO_CHECK = "right", "not right", "no check ran"
UNBOUND = "a name is bound below alone"  # the cells were run in another order: the grader is more lenient


@contextlib.contextmanager
def modules_kept() -> Iterator[None]:
    """A shell and a worker both stand for ``__main__``; afterwards it is the test's again."""
    names = ("__main__", "compresslab.notebook", "compresslab.classroom", "submission")
    before = {name: sys.modules.get(name) for name in names}
    yield
    for name, module in before.items():
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module


def in_the_notebook(cells: list[str]) -> str:
    """Run all cells in IPython's shell; say what the last check of ``first`` said."""
    said = NO_CHECK
    menus = menus_of(LAB)

    class Check:
        def __getattr__(self, name):
            def check(answer):
                nonlocal said
                if name == "first":
                    said = NOT_RIGHT
                try:
                    result = getattr(menus.check, name)(answer)
                except WrongAnswer as wrong:
                    said = UNBOUND if "NameError" in wrong.reason else said
                    raise
                if name == "first" and not isinstance(result, NoPoints):
                    said = RIGHT
                return result

            return check

    with modules_kept(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        shell = InteractiveShell.instance()
        shell.user_ns.clear()
        shell.init_user_ns()
        shell.user_ns.update(check=Check(), hint=menus.hint, reveal=menus.reveal, yours=menus.yours)
        shell.user_ns.update(worker.library_names())
        for text in cells:
            said = "" if "check.first(" in text else said  # its arguments may not exist
            shell.run_cell(text, store_history=False)
            said = said or UNBOUND
    return said


def in_the_grader(cells: list[str]) -> str:
    """Read the notebook, run the slice in this very process, judge it."""
    content = json.dumps(code(*cells)).encode()
    answer = read_submission(content, LAB, path="made.ipynb").answers[0]
    exercise = LAB.exercises[0]
    if answer.problem:
        return NOT_RIGHT
    cases = draw_cases(exercise, 3)
    job = _job(LAB, exercise, answer, cases)
    with modules_kept(), contextlib.redirect_stdout(io.StringIO()):
        try:
            outcome = _Outcome(worker._run(exercise.name, job, cases))
        except worker._NoRun as reason:
            outcome = _Outcome(words=str(reason))
    return RIGHT if _score(exercise, answer, cases, outcome).verdict == Verdict.RIGHT else NOT_RIGHT


def compare(cells: list[str], seen: Counter[str]) -> None:
    said = in_the_notebook(cells)
    seen[said] += 1
    if said != UNBOUND:
        assert in_the_grader(cells) == said, "\n----\n".join(cells)


def test_the_grader_and_the_notebook_agree():
    seen: Counter[str] = Counter()

    @settings(max_examples=EXAMPLES, **AS_THEY_COME)
    @given(made=natural_notebooks())
    def agree(made):
        cells, features = made
        compare(cells, seen)
        seen.update(features.keys())
        seen["at least three features"] += len(features) >= 3

    agree()
    print(f"notebooks on which the shell and the slice agree, with their features: {dict(seen)}")
    assert seen[RIGHT] > 60
    assert seen[NOT_RIGHT] > 60
    assert seen["at least three features"] > 150


# Every rule is needed: without it, some notebook gets another verdict than in the shell.


def _without_reads(kind: str):
    """A ``_needs`` that forgets what is read now, or later."""

    def needs(self, statement, place, called):
        for demand in NEEDS(self, statement, place, called):
            effects = statement.now if kind == "now" else statement.later
            if demand.name not in effects.reads:
                yield demand

    return needs


def _only_the_last(self, name, place):
    return list(TOUCHING(self, name, place))[:1]


def _without_stops(self, name, place):
    """Follows a name to the notebook's end instead of the check's place."""
    return TOUCHING(self, name, len(self.statements))


def _bound_alone(self, statement):
    return set(statement.now.binds)


def _stored_alone(self, statement):
    return set(statement.now.stored_into)


NEEDS, TOUCHING = slicing.Program._needs, slicing.Program._touching
RULES = {
    "what is read while a statement runs": ("_needs", _without_reads("now")),
    "what is read when a function is called": ("_needs", _without_reads("later")),
    "what binds a name only perhaps": ("_touching", _only_the_last),
    "nothing below the check": ("_touching", _without_stops),
    "what binds and changes through calls": ("_bound_by", _bound_alone),
    "what changes by a call": ("_changed_by", _stored_alone),
    "what changes by an assignment into it": ("_changed_by", lambda self, statement: set()),
    "a call for its effect": ("_is_for_effect", lambda self, call: False),
}


@pytest.mark.parametrize("rule", [*RULES, "other names of an object", "star imports", "what is checked"])
def test_every_rule_is_needed(rule, monkeypatch):
    if rule == "other names of an object":
        monkeypatch.setattr(slicing, "_partners", lambda *_: {})
    elif rule == "star imports":
        monkeypatch.setattr(slicing, "_star_offers", lambda *_: False)
    elif rule == "what is checked":
        monkeypatch.setattr(answers._Numbered, "checks", lambda self, name: [])
    else:
        monkeypatch.setattr(slicing.Program, *RULES[rule])

    @settings(max_examples=1_000, phases=[Phase.generate], **AS_THEY_COME)
    @given(made=natural_notebooks())
    def agree(made):
        compare(made[0], Counter())

    with pytest.raises(AssertionError):
        agree()
