"""The generated parts of the README: the kill table and the tables of labs and grading.

Each is between ``<!-- generated: NAME -->`` and ``<!-- end -->``; ``compresslab build`` refreshes them,
and a test proves them current.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from compresslab.checks.exercise import Lab
from compresslab.checks.proofs import Kill, kills
from compresslab.course import all_labs
from compresslab.errors import BadSource
from compresslab.measurement.statistics import Interval
from compresslab.storage.atomic import write_text

__all__ = [
    "BLOCKS",
    "blocks_in",
    "fill",
    "generated",
    "grading_tables",
    "kill_table",
    "lab_table",
    "refresh_readme",
]

BLOCKS = ("labs", "kill-table", "grading")
SEEDS = range(10)
_BLOCK = re.compile(r"<!-- generated: ([\w-]+) -->\n(.*?)<!-- end -->", re.DOTALL)


def refresh_readme(root: Path) -> bool:
    """Rewrite the generated blocks of ``README.md``; return whether anything changed."""
    page = root / "README.md"
    if not page.is_file():
        return False
    before = page.read_text(encoding="utf-8")
    after = fill(before, generated(root, names=blocks_in(before)))
    write_text(page, after)
    return after != before


def generated(root: Path, *, names: Iterable[str] = BLOCKS) -> dict[str, str]:
    """Return the wanted blocks by name."""
    makers = {
        "labs": lambda: lab_table(all_labs()),
        "kill-table": lambda: kill_table([kills(e, SEEDS) for lab in all_labs() for e in lab.exercises]),
        "grading": lambda: grading_tables(root / "data" / "results"),
    }
    return {name: makers[name]() for name in names if name in makers}


def blocks_in(text: str) -> dict[str, str]:
    """Return the present text of each generated block."""
    return {found[1]: found[2] for found in _BLOCK.finditer(text)}


def fill(text: str, blocks: Mapping[str, str]) -> str:
    r"""Return the text with its generated blocks replaced.

    Raises:
        BadSource: the text has a block that nothing generates.

    >>> print(fill("<!-- generated: a -->\nold\n<!-- end -->", {"a": "new"}))
    <!-- generated: a -->
    new
    <!-- end -->
    """

    def replace(found: re.Match[str]) -> str:
        if found[1] not in blocks:
            raise BadSource(f"the block {found[1]!r} must be a generated one; there are {', '.join(blocks)}")
        return f"<!-- generated: {found[1]} -->\n{blocks[found[1]].strip()}\n<!-- end -->"

    return _BLOCK.sub(replace, text)


def lab_table(labs: Sequence[Lab]) -> str:
    """Return a table with one row per lab: link, content, prerequisites, minutes and points."""
    rows = [
        (
            f"[{lab.name}](labs/{lab.name}/{lab.name}.ipynb)",
            lab.title,
            "; ".join(lab.objectives),
            "; ".join(lab.prerequisites),
            str(lab.minutes),
            str(lab.points),
        )
        for lab in labs
    ]
    heading = ("lab", "title", "you will", "you need", "minutes", "points")
    return _table(heading, rows, right=2)


def kill_table(found: Sequence[Kill]) -> str:
    """Return a table with one row per lab and a total: wrong answers planted, and rejected by the checks."""
    labs = sorted({kill.lab for kill in found})
    rows = [(lab, *_sums([kill for kill in found if kill.lab == lab])) for lab in labs]
    heading = (
        "lab",
        "exercises",
        "right answers",
        "mistakes planted",
        "killed",
        "killed with their own message",
    )
    return _table(heading, [*rows, ("**all**", *_sums(found))], right=5)


def _sums(found: Sequence[Kill]) -> tuple[str, ...]:
    fields = ("rights", "mistakes", "killed", "own_message")
    return (str(len(found)), *(str(sum(getattr(kill, field) for kill in found)) for field in fields))


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]], *, right: int) -> str:
    """Return a Markdown table whose last columns are numbers."""
    rule = ["---"] * (len(heading) - right) + ["---:"] * right
    return "\n".join("| " + " | ".join(row) + " |" for row in (heading, rule, *rows))


# Grading: time per submission, and the soak test

COMMAND = "python -W ignore -m tests.benchmarks."
ROWS = {"cold": "one submission, cold", "batch": "{}, one process", "two": "{}, two processes"}
COUNTS = {
    "submissions": "submissions",
    "hostile": "of them hostile",
    "lost": "lost",
    "forged_points": "points forged",
    "honest_with_another_score": "honest, with another score than deserved",
    "graded_twice": "results made twice",
    "left_running": "processes left",
}


def grading_tables(results: Path) -> str:
    """Return the seconds per submission beside nbgrader's, and the soak test; or how to measure them."""
    tables = {"grading": _seconds_table, "soak": _soak_table}
    return "\n\n".join(_measured(results / f"{name}.json", table) for name, table in tables.items())


def _measured(place: Path, table: Callable[[dict[str, Any]], str]) -> str:
    command = f"`{COMMAND}{place.stem} --write`"
    if not place.is_file():
        return f"Not measured yet: there is no `data/results/{place.name}`; {command} makes it."
    found = json.loads(place.read_text(encoding="utf-8"))
    where = "on {processors} processors ({processor}), Python {python}, torch {torch}, nbgrader {nbgrader}"
    return f"{table(found)} Measured {where.format(**found['machine'])}; {command} repeats it."


def _seconds_table(found: Mapping[str, Any]) -> str:
    """Return ours, nbgrader's holes and checks, nbgrader's whole notebook; ratios are ours over theirs."""
    rows = []
    for name, title in ROWS.items():
        ours, *others = (found[name][way] for way in ("ours", "holes_and_checks", "whole_lab"))
        pairs = [(_seconds(entry), str(Interval(**entry["ratio"]))) for entry in others]
        rows.append(
            (title.format(ours["students"]), _seconds(ours), *(word for pair in pairs for word in pair))
        )
    least, whole = "nbgrader, holes and checks alone", "nbgrader, the whole notebook"
    heading = ("seconds per submission", "compresslab, isolated", least, "ratio", whole, "ratio")
    few = found["batch"]["whole_lab"]["students"]
    words = (
        f"Lab {found['lab']}; medians of {found['pairs']} rounds, ratios (compresslab / nbgrader) with their "
        f"95 % interval; the whole notebook is measured on {few} submissions at a time."
    )
    return f"{_table(heading, rows, right=5)}\n\n{words}"


def _seconds(entry: Mapping[str, Any]) -> str:
    return f"{entry['seconds']['value']:.2f}"


def _soak_table(found: Mapping[str, Any]) -> str:
    """Return the counts that must be 0, the peak memory and the time."""
    row = [str(found[name]) for name in COUNTS]
    row += [f"{found['peak_pss_bytes'] / 2**30:.1f} GiB", f"{sum(found['seconds']) / 60:.1f} min"]
    table = _table((*COUNTS.values(), "peak memory", "time"), [row], right=len(row))
    return f"{table}\n\nKilled meanwhile, by SIGKILL: {', '.join(found['killed'])}; then started again."
