"""Judge a run, and say what is wrong: the law that is broken, or the named mistake that it equals.

The same ``examine`` serves the notebook and the grader. It sees records, never the student's code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from compresslab.checks.call import ALLOWED, Attempt, Run, run
from compresslab.checks.exercise import Case, Exercise, Mistake, draw_cases
from compresslab.checks.withheld_calls import REVEALED, WithheldCalls, withheld
from compresslab.errors import Unwritten, WrongAnswer

__all__ = ["NOT_WRITTEN", "check_answer", "equal_runs", "examine", "run_mistakes"]

NOT_WRITTEN = "not written yet: replace the line that raises NotImplementedError"


def check_answer(
    exercise: Exercise, answer: Callable[..., Any], *, seed: int = 0, answers: Sequence[str] = ()
) -> Run:
    """Run an answer and return its run if it is right.

    Args:
        exercise: what is asked.
        answer: the student's function.
        seed: of the inputs.
        answers: the modules that the lab withholds from the grader's worker; calling them is no answer.

    Raises:
        WrongAnswer: the answer is not right; with the reason, the case it fails on, the mistake it equals.
        Unwritten: it is the hole as the course ships it, or calls the published answer.
    """
    if not callable(answer):
        raise WrongAnswer(f"{exercise.name} is a function; yours is a {type(answer).__name__}")
    cases = draw_cases(exercise, seed)
    published = [code for right in exercise.right if (code := getattr(right, "__code__", None))]
    calls = WithheldCalls(answers, published) if answers else None
    done = run(exercise.probe, cases, answer, seconds=exercise.seconds, calls=calls)
    if done.called == REVEALED:
        raise Unwritten(
            "it calls the revealed answer, which works, for 0 points; write your own to earn them"
        )
    if done.called:
        raise WrongAnswer(withheld(done.called))
    examine(exercise, cases, done)
    return done


def examine(
    exercise: Exercise, cases: Sequence[Case], done: Run, *, mistakes: Mapping[str, Run] | None = None
) -> None:
    """Raise ``WrongAnswer`` unless the run is that of a right answer.

    Args:
        exercise: whose judge and mistakes are used.
        cases: the inputs that the run was made on.
        done: the run of the student's function.
        mistakes: the runs of the named mistakes on these cases, if they exist already.
    """
    wrong = _first_wrong(exercise, cases, done)
    if wrong is None:
        return
    if mistakes is None:
        mistakes = run_mistakes(exercise, cases)
    found = [named for named in exercise.mistakes if equal_runs(done, mistakes[named.title])]
    if not found:
        raise wrong
    raise _diagnosed(found[0], wrong)


def run_mistakes(exercise: Exercise, cases: Sequence[Case]) -> dict[str, Run]:
    """Run each named mistake on these cases; return the runs by title."""
    return {
        named.title: run(exercise.probe, cases, named.answer, seconds=exercise.seconds)
        for named in exercise.mistakes
    }


def _first_wrong(exercise: Exercise, cases: Sequence[Case], done: Run) -> WrongAnswer | None:
    """The first case that is wrong, else what is wrong with the run as a whole."""
    for case, attempt in zip(cases, done.attempts, strict=False):
        wrong = _wrong_attempt(exercise, case, attempt)
        if wrong:
            return wrong
    if done.stopped:
        where = f" (case: {cases[len(done.attempts)][0]})" if len(done.attempts) < len(cases) else ""
        return WrongAnswer(f"{done.stopped}; look for a loop that never ends{where}")
    if done.characters > ALLOWED:
        return WrongAnswer(f"your function printed {done.characters:,} characters; take the print() out")
    if len(done.attempts) < len(cases):
        return WrongAnswer(f"only {len(done.attempts)} of {len(cases)} cases left a record")
    return None


def _wrong_attempt(exercise: Exercise, case: Case, attempt: Attempt) -> WrongAnswer | None:
    """What is wrong in one case, in this order: unwritten, raised, input changed, judged."""
    title, inputs = case
    if attempt.raised == "NotImplementedError":
        return Unwritten(NOT_WRITTEN)
    if attempt.raised:
        return WrongAnswer(f"your function raises {attempt.words} (case: {title})", case=title)
    if attempt.changed:
        return WrongAnswer(
            f"your function changes its input ({attempt.changed}); leave it as it came (case: {title})",
            case=title,
        )
    try:
        exercise.judge(inputs, attempt.record)
    except WrongAnswer as wrong:
        return WrongAnswer(f"{wrong.reason} (case: {title})", wrong.hint, **{"case": title, **wrong.details})
    return None


def equal_runs(one: Run, other: Run) -> bool:
    """Whether two runs are equal on every case; a run that was stopped equals no other."""
    if one.stopped or other.stopped or len(one.attempts) != len(other.attempts):
        return False
    return all(mine.same(theirs) for mine, theirs in zip(one.attempts, other.attempts, strict=True))


class _Details(dict):
    def __missing__(self, name: str) -> str:
        return "…"


def _diagnosed(named: Mistake, wrong: WrongAnswer) -> WrongAnswer:
    words = named.says.format_map(_Details(wrong.details))
    details = {**wrong.details, "mistake": named.title}
    return WrongAnswer(f"{words} (case: {wrong.details.get('case', '…')})", "", **details)
