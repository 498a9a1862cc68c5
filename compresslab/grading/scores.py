"""The score of a submission: a plain value, as a ``results.json`` in Gradescope's format, and as a table."""

from __future__ import annotations

import enum
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from compresslab.errors import DamagedFile
from compresslab.storage.atomic import write_bytes

__all__ = [
    "EXIT_CODES",
    "ExerciseScore",
    "Score",
    "Status",
    "Verdict",
    "plain",
    "read_results",
    "results_of",
    "score_of",
    "score_table",
    "write_results",
    "write_whole",
]

LONGEST_OUTPUT = 2_000  # characters
RESULTS = "results.json"


class Verdict(enum.StrEnum):
    """What the grader found of one exercise; the values stand in ``results.json``."""

    RIGHT = "right"
    WRONG = "wrong"
    UNWRITTEN = "unwritten"
    LATE = "late"  # out of time
    FAULT = "fault"  # not judged: the grader's own error


class Status(enum.StrEnum):
    """What became of a whole submission, from best to worst; the values stand in ``results.json``."""

    GRADED = "graded"
    NEEDS_REVIEW = "needs-review"  # a person has to look at it
    FAILED = "failed"  # the grader's own error


EXIT_CODES = {Status.GRADED: 0, Status.FAILED: 1, Status.NEEDS_REVIEW: 3}


@dataclass(frozen=True)
class ExerciseScore:
    """One exercise.

    ``output`` is the text for the student; ``mistake`` the title of the named mistake that the answer equals.
    """

    name: str
    verdict: Verdict
    max_score: float
    output: str
    mistake: str = ""
    bonus: bool = False

    @property
    def status(self) -> str:
        return "passed" if self.verdict == Verdict.RIGHT else "failed"

    @property
    def score(self) -> float:
        return self.max_score if self.verdict == Verdict.RIGHT else 0.0


@dataclass(frozen=True)
class Score:
    """One submission; only a score with the status graded is final.

    ``isolated`` says whether the student's code ran in a sandbox; ``graded_from`` is a digest of bundle and
    submission, by which an interrupted class knows what it has graded already.
    """

    lab: str
    status: Status
    tests: tuple[ExerciseScore, ...]
    message: str
    execution_time: float
    notes: tuple[str, ...] = ()
    isolated: bool = False
    graded_from: str = ""

    @property
    def score(self) -> float:
        return float(sum(test.score for test in self.tests))

    @property
    def max_score(self) -> float:
        """The points of the core exercises; with bonus ones a score can be higher."""
        return float(sum(test.max_score for test in self.tests if not test.bonus))

    @property
    def points(self) -> str:
        """As text, ``19 of 19 + 9 bonus``; a score that is not final is ``–`` and not zero."""
        if self.status != Status.GRADED:
            return "–"
        bonus = sum(test.score for test in self.tests if test.bonus)
        return f"{self.score - bonus:g} of {self.max_score:g}" + (f" + {bonus:g} bonus" if bonus else "")


# On disk: results.json, as Gradescope reads it.


def write_results(score: Score, folder: str | Path) -> Path:
    """Write ``results.json`` atomically; return its path.

    Raises:
        CompressionError: the folder can't be made or written to.
    """
    place = Path(folder) / RESULTS
    write_whole(place, json.dumps(results_of(score), indent=2) + "\n")
    return place


def write_whole(place: Path, text: str) -> None:
    """Write a text file atomically; what UTF-8 cannot hold of a student's text becomes ``?``.

    Raises:
        NotAvailable: the file cannot be written.
    """
    content = text.encode("utf-8", errors="replace")
    write_bytes(place, content, advice="expected a folder that can be; give another --out")


def results_of(score: Score) -> dict[str, Any]:
    """Return the score as the JSON values of a ``results.json``; every text is plain."""
    return {
        "score": score.score,
        "output": plain(score.message),
        "output_format": "text",
        "execution_time": round(score.execution_time, 3),
        "tests": [
            {
                "name": test.name,
                "score": test.score,
                "max_score": test.max_score,
                "status": test.status,
                "output": plain(test.output),
                "output_format": "text",
                "extra_data": {"verdict": test.verdict, "mistake": test.mistake, "bonus": test.bonus},
            }
            for test in score.tests
        ],
        "extra_data": {
            "status": score.status,
            "lab": score.lab,
            "max_score": score.max_score,
            "notes": [plain(note) for note in score.notes],
            "isolated": score.isolated,
            "graded_from": score.graded_from,
        },
    }


def read_results(place: str | Path) -> Score:
    """Return the score that ``write_results`` wrote.

    Raises:
        CompressionError: the file is missing, damaged, or of another program.
    """
    try:
        return score_of(json.loads(Path(place).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedFile(
            f"{place} can't be read ({type(error).__name__}: {error}); expected a results.json of "
            "compresslab; remove it and grade again"
        ) from error


def score_of(results: dict[str, Any]) -> Score:
    """Return the score of the JSON values that ``results_of`` made.

    Raises:
        KeyError, TypeError, ValueError: they are not of that form.
    """
    tests = tuple(
        ExerciseScore(
            test["name"],
            Verdict(test["extra_data"]["verdict"]),
            test["max_score"] + 0,
            test["output"],
            test["extra_data"]["mistake"],
            bool(test["extra_data"]["bonus"]),
        )
        for test in results["tests"]
    )
    extra = results["extra_data"]
    return Score(
        extra["lab"],
        Status(extra["status"]),
        tests,
        results["output"],
        float(results["execution_time"]),
        tuple(extra["notes"]),
        bool(extra["isolated"]),
        extra["graded_from"],
    )


def score_table(score: Score) -> Table:
    """The score for a terminal: a row an exercise, then the sum."""
    table = Table(title=f"{score.lab}: {score.status}", caption=Text(plain(score.message)), show_footer=True)
    table.add_column("exercise", footer="sum")
    table.add_column("points", justify="right", footer=score.points)
    table.add_column("what we saw", footer=Text(plain("\n".join(score.notes))))
    for test in score.tests:
        mark = "✓" if test.status == "passed" else "–" if test.verdict == Verdict.FAULT else "✗"
        points = "–" if test.verdict == Verdict.FAULT else f"{test.score:g} of {test.max_score:g}"
        table.add_row(f"{mark} {test.name}", points, Text(plain(test.output)))
    return table


_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?", re.DOTALL)
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_TAGS = re.compile(r"</?[a-z][a-z0-9-]*(?:\s[^<>]*=[^<>]*|\s*/?)>", re.IGNORECASE)


def plain(text: str) -> str:
    r"""The text without terminal escapes, control characters and HTML tags, cut to a readable length.

    >>> plain("\x1b[31mred\x1b[0m <b>bold</b> <class 'int'> 1 < 2")
    "red bold <class 'int'> 1 < 2"
    """
    text = _UNSEEN.sub("", _ESCAPES.sub("", text[:LONGEST_OUTPUT]))
    while (bare := _TAGS.sub("", text)) != text:  # what is left of <<b>b> is a tag again
        text = bare
    return text
