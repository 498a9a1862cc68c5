"""What a grading came to: a plain value, a ``results.json`` of Gradescope's shape, and a table."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from compresslab.errors import CompressionError

__all__ = ["EXIT_CODES", "ExerciseScore", "Score", "plain", "score_table", "write_results"]

EXIT_CODES = {"graded": 0, "failed": 1, "needs-review": 3}
LONGEST_OUTPUT = 2_000  # characters


@dataclass(frozen=True)
class ExerciseScore:
    """One exercise. ``verdict``: right, wrong, unwritten, late (out of time) or fault (the grader's own)."""

    name: str
    verdict: str
    max_score: float
    output: str
    mistake: str = ""
    bonus: bool = False

    @property
    def status(self) -> str:
        return "passed" if self.verdict == "right" else "failed"

    @property
    def score(self) -> float:
        return self.max_score if self.verdict == "right" else 0.0


@dataclass(frozen=True)
class Score:
    """One submission. ``status`` is graded, needs-review or failed; only a graded score is final."""

    lab: str
    status: str
    tests: tuple[ExerciseScore, ...]
    message: str
    execution_time: float
    notes: tuple[str, ...] = ()

    @property
    def score(self) -> float:
        return float(sum(test.score for test in self.tests))

    @property
    def max_score(self) -> float:
        """The points of the core exercises; with bonus ones a score can be higher."""
        return float(sum(test.max_score for test in self.tests if not test.bonus))


def write_results(score: Score, folder: str | Path) -> Path:
    """The path of ``results.json``, written whole or not at all.

    Raises:
        CompressionError: the folder can't be made or written to.
    """
    place = Path(folder) / "results.json"
    unfinished = place.with_suffix(f".{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(_results(score), indent=2) + "\n")
        os.replace(unfinished, place)
    except OSError as error:
        raise CompressionError(
            f"{place} can't be written ({error.strerror}); expected a folder that can be; give another --out"
        ) from error
    return place


def _results(score: Score) -> dict[str, object]:
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
            }
            for test in score.tests
        ],
        "extra_data": {
            "status": score.status,
            "lab": score.lab,
            "max_score": score.max_score,
            "mistakes": {test.name: test.mistake for test in score.tests if test.mistake},
            "notes": [plain(note) for note in score.notes],
        },
    }


def score_table(score: Score) -> Table:
    """The score for a terminal: a row an exercise, then the sum."""
    table = Table(title=f"{score.lab}: {score.status}", caption=plain(score.message), show_footer=True)
    table.add_column("exercise", footer="sum")
    table.add_column("points", justify="right", footer=f"{score.score:g} of {score.max_score:g}")
    table.add_column("what we saw", footer=Text(plain("\n".join(score.notes))))
    for test in score.tests:
        mark = "✓" if test.status == "passed" else "✗"
        table.add_row(
            f"{mark} {test.name}", f"{test.score:g} of {test.max_score:g}", Text(plain(test.output))
        )
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
