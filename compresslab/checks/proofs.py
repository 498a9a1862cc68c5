"""Prove an exercise: right answers pass, every mistake is caught by name, no line of the judge is unused.

Used by the tests on many seeds, and by ``compresslab verify`` on a few, for the kill table.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from compresslab.checks.call import Run, run
from compresslab.checks.exercise import Case, Exercise, draw_cases
from compresslab.checks.judge import equal_runs, examine, run_mistakes
from compresslab.errors import WrongAnswer

__all__ = [
    "GARBAGE",
    "Kill",
    "garbage_runs",
    "idle_statements",
    "kills",
    "problems_with_garbage",
    "problems_with_parts",
    "problems_with_right_answers",
]


@dataclass(frozen=True)
class Kill:
    """A row of the kill table: mistakes planted, killed on every seed, killed with their own message."""

    lab: str
    name: str
    points: int
    rights: int
    mistakes: int
    killed: int
    own_message: int
    problems: tuple[str, ...]


def problems_with_parts(exercise: Exercise) -> list[str]:
    """Return a sentence for each part that an exercise lacks, and for cases that do not follow the seed."""
    parts = {"right answers": (exercise.right, 2), "mistakes": (exercise.mistakes, 4)}
    found = [
        f"{exercise.name}: {len(given)} of at least {wanted} {what}"
        for what, (given, wanted) in parts.items()
        if len(given) < wanted
    ]
    if len(exercise.hints) != 3:
        found.append(f"{exercise.name}: {len(exercise.hints)} of 3 hints")
    drawn = [draw_cases(exercise, seed) for seed in range(5)]
    if not all(drawn):
        found.append(f"{exercise.name}: cases draws no input")
    elif not exercise.choices and len({title for title, _ in drawn[0]}) < 2:
        found.append(f"{exercise.name}: {len(drawn[0])} of at least 2 named cases")
    if not exercise.choices and len(set(map(repr, drawn))) == 1:
        found.append(f"{exercise.name}: cases are the same for every seed, so they can be learned by heart")
    return found


def problems_with_right_answers(exercise: Exercise, seeds: Sequence[int]) -> list[str]:
    """Proof 2: a sentence for each right answer and seed that is rejected."""
    found = []
    for seed in seeds:
        cases = draw_cases(exercise, seed)
        for place, answer in enumerate(exercise.right):
            wrong = _outcome(
                exercise, cases, run(exercise.probe, cases, answer, seconds=exercise.seconds), {}
            )
            if wrong is not None:
                found.append(
                    f"{exercise.name}: right answer {place} is rejected on seed {seed}: {wrong.reason}"
                )
    return found


def kills(exercise: Exercise, seeds: Sequence[int]) -> Kill:
    """Proof 3: every mistake fails on every seed, with its own message and with no other."""
    problems = [f"{exercise.name}: {title}" for title in _shared(m.says for m in exercise.mistakes)]
    alive: set[str] = set()
    misnamed: set[str] = set()
    for seed in seeds:
        cases = draw_cases(exercise, seed)
        runs = run_mistakes(exercise, cases)
        for title, done in runs.items():
            wrong = _outcome(exercise, cases, done, runs)
            twins = [other for other in runs if other != title and equal_runs(done, runs[other])]
            if wrong is None:
                alive.add(title)
                problems.append(f"{exercise.name}: {title!r} passes on seed {seed}")
            elif wrong.details.get("mistake") != title or twins:
                misnamed.add(title)
                problems.append(
                    f"{exercise.name}: {title!r} is told {wrong.reason!r} on seed {seed}; twins: {twins}"
                )
            elif _has_gap(exercise, title, wrong):
                misnamed.add(title)
                problems.append(f"{exercise.name}: what {title!r} is told has a gap: {wrong.reason!r}")
    count = len(exercise.mistakes)
    return Kill(
        exercise.lab,
        exercise.name,
        exercise.points,
        len(exercise.right),
        count,
        killed=count - len(alive),
        own_message=count - len(alive | misnamed),
        problems=tuple(problems),
    )


def _has_gap(exercise: Exercise, title: str, wrong: WrongAnswer) -> bool:
    """Whether the mistake's message needs a detail that the judge did not give."""
    says = next(named.says for named in exercise.mistakes if named.title == title)
    return "…" in wrong.reason and "…" not in says


def _shared(messages: Any) -> Iterator[str]:
    seen: set[str] = set()
    for message in messages:
        if message in seen:
            yield f"two mistakes share the message {message!r}"
        seen.add(message)


def _outcome(
    exercise: Exercise, cases: Sequence[Case], done: Run, mistakes: dict[str, Run]
) -> WrongAnswer | None:
    try:
        examine(exercise, cases, done, mistakes=mistakes or {m.title: Run(()) for m in exercise.mistakes})
    except WrongAnswer as wrong:
        return wrong
    return None


# Proof 5: garbage. Each is made from a right answer; its sentence must match the pattern beside it.


def _spoiled(value: Any) -> Any:
    """The same value with NaN for every number."""
    if isinstance(value, torch.Tensor):
        return torch.full(value.shape, float("nan"))
    if isinstance(value, tuple | list):
        return type(value)(_spoiled(entry) for entry in value)
    return float("nan")


def _reshaped(value: Any) -> Any:
    """The same value in another shape."""
    if isinstance(value, torch.Tensor):
        return value.unsqueeze(0)
    if isinstance(value, tuple | list):
        return (*value, value[0])
    if isinstance(value, str | torch.nn.Module):
        return [value]
    return torch.full((2, 1), float(value))


def _disturb(value: Any) -> None:
    """Changes a value in place, where it can be changed."""
    if isinstance(value, torch.Tensor):
        value.logical_not_() if value.dtype == torch.bool else value.add_(1)
    elif isinstance(value, nn.Module):
        value.train(not value.training)
    elif isinstance(value, list | dict):
        value.clear()


def _raises(right: Callable[..., Any], *_: Any, **__: Any) -> Any:
    raise ValueError("boom")


def _never_returns(right: Callable[..., Any], *_: Any, **__: Any) -> Any:
    while True:
        pass


def _prints(right: Callable[..., Any], *positional: Any, **named: Any) -> Any:
    print("x" * 20_000_000)
    return right(*positional, **named)


def _changes(right: Callable[..., Any], *positional: Any, **named: Any) -> Any:
    result = right(*positional, **named)
    for value in (*positional, *named.values()):
        _disturb(value)
    return result


GARBAGE: dict[str, tuple[Callable[..., Any], str]] = {
    "None": (lambda right, *a, **k: None, r"None"),
    "a wrong type": (lambda right, *a, **k: object(), r"object"),
    "a list": (lambda right, *a, **k: [1, 2], r"list|entries"),
    "NaN": (lambda right, *a, **k: _spoiled(right(*a, **k)), r"NaN|float"),
    "a wrong shape": (lambda right, *a, **k: _reshaped(right(*a, **k)), r"shape|list|entries|Tensor"),
    "raises": (_raises, r"raises ValueError: boom"),
    "never returns": (_never_returns, r"did not return"),
    "prints 20 MB": (_prints, r"printed [\d,]+ characters"),
    "changes its input": (_changes, r"changes its input"),
    "not written": (lambda right, *a, **k: (_ for _ in ()).throw(NotImplementedError), r"not written yet"),
}


def garbage_runs(exercise: Exercise, seed: int = 0) -> dict[str, Run]:
    """The run of each kind of garbage. Where no input can be changed in place, that kind is left out."""
    cases = draw_cases(exercise, seed)
    runs = {}
    for title, (answer, _) in GARBAGE.items():
        seconds = 0.2 if title == "never returns" else exercise.seconds
        spoiled = functools.partial(answer, exercise.right[0])
        runs[title] = run(exercise.probe, cases, spoiled, seconds=seconds)
    if not any(attempt.changed for attempt in runs["changes its input"].attempts):
        del runs["changes its input"]
    return runs


def problems_with_garbage(exercise: Exercise) -> list[str]:
    """Proof 5 (and 1): each kind of garbage is refused with its own sentence, and never crashes the check."""
    cases = draw_cases(exercise, 0)
    found = []
    for title, done in garbage_runs(exercise).items():
        try:
            wrong = _outcome(exercise, cases, done, {})
        except Exception as error:  # the judge used a value without a reader of expect.py
            found.append(f"{exercise.name}: garbage ({title}) crashes the judge: {error!r}")
            continue
        if wrong is None or not re.search(GARBAGE[title][1], wrong.reason):
            found.append(
                f"{exercise.name}: garbage ({title}) is told {wrong.reason if wrong else 'that it passes'!r}"
            )
    return found


# Proof 4: no statement of the judge is unused.


def idle_statements(exercise: Exercise, seeds: Sequence[int]) -> list[str]:
    """Proof 4: the judge's statements that can be deleted without any proof failing."""
    evidence = []
    for seed in seeds:
        cases = draw_cases(exercise, seed)
        rights = [run(exercise.probe, cases, answer, seconds=exercise.seconds) for answer in exercise.right]
        evidence.append((cases, rights, run_mistakes(exercise, cases), garbage_runs(exercise, seed)))
    idle = []
    for words, judge in _with_one_statement_deleted(exercise.judge):
        mutant = dataclasses.replace(exercise, judge=judge)
        if not any(_notices(mutant, *seen) for seen in evidence):
            idle.append(f"{exercise.name}: the judge can do without: {words}")
    return idle


def _notices(
    mutant: Exercise,
    cases: Sequence[Case],
    rights: Sequence[Run],
    mistakes: dict[str, Run],
    garbage: dict[str, Run],
) -> bool:
    """Whether a proof fails for an exercise with this judge."""
    try:
        if any(_outcome(mutant, cases, done, mistakes) is not None for done in rights):
            return True
        for title, done in mistakes.items():
            wrong = _outcome(mutant, cases, done, mistakes)
            if wrong is None or wrong.details.get("mistake") != title or _has_gap(mutant, title, wrong):
                return True
        for title, done in garbage.items():
            wrong = _outcome(mutant, cases, done, mistakes)
            if wrong is None or not re.search(GARBAGE[title][1], wrong.reason):
                return True
    except Exception:  # the mutilated judge crashed: that is noticed
        return True
    return False


def _with_one_statement_deleted(judge: Callable[..., None]) -> Iterator[tuple[str, Callable[..., None]]]:
    """Each statement of the function, and the function without it."""
    settings = judge.keywords if isinstance(judge, functools.partial) else {}
    function = judge.func if isinstance(judge, functools.partial) else judge
    source = textwrap.dedent(inspect.getsource(function))
    for place in range(len(_statements(ast.parse(source)))):
        tree = ast.parse(source)
        block, index = _statements(tree)[place]
        words = ast.unparse(block[index])
        block[index] = ast.copy_location(ast.Pass(), block[index])
        space = dict(function.__globals__)
        exec(compile(ast.fix_missing_locations(tree), "<a judge less one statement>", "exec"), space)
        mutant = space[function.__name__]
        yield words, functools.partial(mutant, **settings) if settings else mutant


def _statements(tree: ast.Module) -> list[tuple[list[ast.stmt], int]]:
    """Where each statement of the function stands: (the block, the place in it); a docstring is none."""
    function = tree.body[0]
    return [
        (block, index)
        for node in ast.walk(function)
        for block in (getattr(node, name, None) for name in ("body", "orelse", "finalbody"))
        if isinstance(block, list)
        for index, statement in enumerate(block)
        if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
    ]
