"""Seconds per submission, ours and nbgrader's. Run by name: ``python -m tests.benchmarks.grading``.

Ours is ``compresslab grade``: each hole in a room of a sandbox, values judged outside of it. Theirs is
``nbgrader autograde``, which executes the notebook in one kernel, with no isolation. It is measured twice:
on the lab's whole notebook, and on its least work, a notebook of the same holes and checks alone; the honest
ratio is that to the least work. Commands are timed from outside, as a teacher waits for them. What is done
once a course (the bundle, ``generate_assignment``) is not in it.

    cold     one submission, one fresh process
    batch    20 submissions, one process
    two      20 submissions, two processes: ours ``--jobs 2``; nbgrader has no such option, so it is two
             commands in two course folders, half of the students each, with one thread for each of them

Each round runs all of them once, in this order or in the reverse one; ratios are of the same round, and their
median has a bootstrap interval. The whole notebook is measured on fewer students, as it takes much longer.
``--write`` stores what was found in ``data/results/grading.json``; ``--quick`` only shows that it works.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import nbformat
import torch

from compresslab.course import find_lab
from compresslab.grading.scores import read_results
from compresslab.measurement.statistics import Interval, bootstrap, median
from tests.benchmarks.made_class import ROOT, HandedIn, holes_and_checks, machine, made_class, solution

LAB = find_lab("00_measuring")
PLACE = ROOT / "data" / "results" / "grading.json"
GOAL = 0.5  # ours over nbgrader's least work, in a batch
NEW = (sys.executable, "-W", "ignore", "-m")

Run = Callable[[Path], tuple[float, list[str]]]  # an empty folder → seconds, and who got another score


# Two graders, each prepared once and then timed.


def ours(students: Sequence[HandedIn], bundle: Path, jobs: int) -> Run:
    """Times ``compresslab grade`` on a folder, or on the one notebook that there is."""

    def run(folder: Path) -> tuple[float, list[str]]:
        for each in students:
            _write(folder / "inbox" / f"{each.student}.ipynb", each.text)
        single = len(students) == 1
        inbox = folder / "inbox" / f"{students[0].student}.ipynb" if single else folder / "inbox"
        command = [*NEW, "compresslab", "grade", LAB.name, str(inbox), "--bundle", str(bundle)]
        command += ["--out", str(folder / "results"), *([] if single else ["--jobs", str(jobs)])]
        taken = seconds([(command, ROOT)], threads=None)
        return taken, odd_of_ours(students, folder / "results")

    return run


def nbgrader(students: Sequence[HandedIn], course: Path, processes: int, *, whole: bool) -> Run:
    """Times ``nbgrader autograde`` on so many copies of a course folder, the students dealt out to them."""

    def run(folder: Path) -> tuple[float, list[str]]:
        commands = []
        for number in range(min(processes, len(students))):
            copy = shutil.copytree(course, folder / f"course_{number}")
            for each in students[number::processes]:
                book = nbformat.reads(each.text, as_version=4)
                book = book if whole else holes_and_checks(book, LAB)
                place = copy / "submitted" / each.student / LAB.name / f"{LAB.name}.ipynb"
                _write(place, nbformat.writes(book))
            commands.append(([*NEW, "nbgrader", "autograde", LAB.name], copy))
        taken = seconds(commands, threads=1 if processes > 1 else None)
        return taken, odd_of_theirs(students, [copy for _, copy in commands])

    return run


def new_course(folder: Path, *, whole: bool) -> Path:
    """An nbgrader course with this one assignment, generated and in its gradebook; nobody has handed in."""
    book = solution(LAB) if whole else holes_and_checks(solution(LAB), LAB)
    _write(folder / "solutions" / LAB.name / f"{LAB.name}.ipynb", nbformat.writes(book))
    shutil.copy(ROOT / "nbgrader_config.py", folder)
    seconds([([*NEW, "nbgrader", "generate_assignment", LAB.name], folder)], threads=None)
    return folder


def seconds(commands: Sequence[tuple[list[str], Path]], *, threads: int | None) -> float:
    """The seconds from the start of these commands, side by side, to the end of the last.

    Raises:
        RuntimeError: one of them failed.
    """
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # alembic is there
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {"PATH": programs} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    with tempfile.TemporaryFile("w+") as said:
        start = time.perf_counter()
        running = [
            subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
            for command, folder in commands
        ]
        codes = [process.wait() for process in running]
        taken = time.perf_counter() - start
        said.seek(0)
        if any(codes):
            raise RuntimeError(f"{commands[0][0][4:]} ended with {codes}: {said.read()[-2000:]}")
    return taken


# A time counts for something only if everybody got what they deserve, from both.


def odd_of_ours(students: Sequence[HandedIn], results: Path) -> list[str]:
    """The students who did not get, in a sandbox, the points of the holes that they have right."""
    odd = []
    for each in students:
        place = results if len(students) == 1 else results / "students" / each.student
        score = read_results(place / "results.json")
        right = tuple(test.name for test in score.tests if test.status == "passed")
        if (right, score.isolated) != (each.right, True):
            odd.append(each.student)
    return odd


def odd_of_theirs(students: Sequence[HandedIn], courses: Sequence[Path]) -> list[str]:
    """The students whose points in nbgrader's gradebooks are not those of the holes that they have right."""
    from nbgrader.api import Gradebook

    scores: dict[str, float] = {}
    for course in courses:
        with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
            scores |= {each.student.id: each.score for each in book.assignment_submissions(LAB.name)}
    wanted = {each.student: sum(LAB.exercise(name).points for name in each.right) for each in students}
    return [name for name, points in wanted.items() if scores.get(name) != points]


# Rounds.


@dataclasses.dataclass(frozen=True)
class Way:
    """One thing that is timed: ``row/way``, of how many students, how."""

    name: str
    students: int
    run: Run
    seconds: list[float] = dataclasses.field(default_factory=list)  # per submission, a number a round
    odd: set[str] = dataclasses.field(default_factory=set)  # who got another score than they deserve


def measure(ways: Sequence[Way], pairs: int) -> None:
    """Times each way once a round; the order turns round after each."""
    for number in range(pairs):
        for way in ways[:: -1 if number % 2 else 1]:
            with tempfile.TemporaryDirectory(prefix="grading-", ignore_cleanup_errors=True) as folder:
                taken, odd = way.run(Path(folder))
            way.seconds.append(taken / way.students)
            way.odd.update(odd)
            said = f"other scores than deserved: {', '.join(odd)}" if odd else ""
            print(f"round {number + 1} of {pairs}: {way.name:<24}{way.seconds[-1]:7.2f} s {said}", flush=True)


def all_ways(scratch: Path, batch: int, whole: int) -> Iterator[Way]:
    """Every way, in three rows: cold, batch, two."""
    bundle, students = scratch / "bundle", made_class(LAB, batch)
    seconds([([*NEW, "compresslab", "bundle", LAB.name, "--out", str(bundle)], ROOT)], threads=None)
    least = new_course(scratch / "least", whole=False)
    full = new_course(scratch / "whole", whole=True)
    for row, who, processes in (("cold", students[1:2], 1), ("batch", students, 1), ("two", students, 2)):
        few = who[:whole]
        yield Way(f"{row}/ours", len(who), ours(who, bundle, processes))
        yield Way(f"{row}/holes_and_checks", len(who), nbgrader(who, least, processes, whole=False))
        yield Way(f"{row}/whole_lab", len(few), nbgrader(few, full, processes, whole=True))


def summary(ways: Sequence[Way]) -> dict[str, dict]:
    """For cold, batch and two: the seconds of each way, and ours over theirs, with intervals."""
    rows: dict[str, dict] = {}
    taken = {way.name: way.seconds for way in ways}
    for way in ways:
        row, name = way.name.split("/")
        entry = {"students": way.students, "seconds": dataclasses.asdict(interval(way.seconds))}
        entry["other_scores"] = len(way.odd)
        if name != "ours":
            ratios = [a / b for a, b in zip(taken[f"{row}/ours"], way.seconds, strict=True)]
            entry["ratio"] = dataclasses.asdict(interval(ratios))
        rows.setdefault(row, {})[name] = entry | {"rounds": [round(each, 3) for each in way.seconds]}
    return rows


def interval(samples: Sequence[float]) -> Interval:
    """Their median with its bootstrap interval."""
    return bootstrap(torch.tensor(samples, dtype=torch.float64), median)


def report(rows: dict[str, dict]) -> Iterator[str]:
    """The table for a terminal."""
    yield f"{'':<8}{'seconds per submission':<28}{'of':>4}  {'seconds':<22}{'ours / nbgrader':<22}"
    for name, ways in rows.items():
        for way, entry in ways.items():
            ratio = str(Interval(**entry["ratio"])) if "ratio" in entry else ""
            yield f"{name:<8}{way:<28}{entry['students']:>4}  {Interval(**entry['seconds'])!s:<22}{ratio}"
    for name in ("batch", "two"):
        reached = "reached" if rows[name]["holes_and_checks"]["ratio"]["high"] <= GOAL else "not reached"
        yield f"goal in a batch, ours / least work ≤ {GOAL}, {name}: {reached}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints, and stores where asked to."""
    parser = argparse.ArgumentParser(description="seconds per submission, ours against nbgrader's")
    parser.add_argument("--pairs", type=int, default=5, help="rounds, each with one ratio a comparison")
    parser.add_argument("--whole", type=int, default=4, help="students of the whole notebook's batch")
    parser.add_argument("--quick", action="store_true", help="one round, two students: only whether it works")
    parser.add_argument("--write", action="store_true", help=f"store it in {PLACE.relative_to(ROOT)}")
    asked = parser.parse_args(arguments)
    pairs, batch, whole = (1, 2, 2) if asked.quick else (asked.pairs, 20, asked.whole)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="grading-") as scratch:
        ways = list(all_ways(Path(scratch), batch, whole))
        measure(ways, pairs)
    rows = summary(ways)
    print(*report(rows), f"{time.perf_counter() - started:.0f} s in all", sep="\n")
    if asked.write:
        result = {"lab": LAB.name, "pairs": pairs, "goal": GOAL, "machine": machine(), **rows}
        PLACE.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"written to {PLACE.relative_to(ROOT)}")


def _write(place: Path, text: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
