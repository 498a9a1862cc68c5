"""A class of 300, a tenth of them hostile, killed in the middle: ``python -m tests.benchmarks.soak``.

``compresslab grade`` on two processes. Meanwhile, by the share of the class that has its result: at 15 % one
sandbox is killed, at 25 % one process of the pool, at 40 % the whole run, all by SIGKILL; it is then started
again and left alone. In the end nobody may be missing, every honest student must have the score that the
notebook deserves, and a hostile one the points of its honest holes.

Memory is the sum of PSS over all processes of the run, looked at twice a second. ``--write`` stores what was
found in ``data/results/soak.json``; ``--quick`` takes 20 students.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from compresslab.course import find_lab
from compresslab.grading.scores import Score, read_results
from tests.benchmarks.made_class import ROOT, HandedIn, hostile_class, machine, made_class
from tests.benchmarks.processes import adopt_orphans, called, left_after, memory_bytes

LAB = find_lab("00_measuring")
PLACE = ROOT / "data" / "results" / "soak.json"
JOBS = 2
KILLS = {"sandbox": 0.15, "pool process": 0.25, "whole run": 0.40}  # when, as a share of the class
GRACE = 10.0  # seconds in which whatever a killed run has started must have ended
HOSTILE = 10  # one student in so many


@dataclass
class Soak:
    """One class being graded in a folder, and what was seen meanwhile."""

    folder: Path
    students: Sequence[HandedIn]
    deadline: float
    peak_bytes: int = 0
    seconds: list[float] = field(default_factory=list)  # of each start
    killed: list[str] = field(default_factory=list)
    left_running: int = 0

    def start(self, kills: dict[str, float]) -> int | None:
        """Runs the command, kills what it is told to; its exit code, None when it was killed itself.

        Raises:
            TimeoutError: the time for the whole soak is over.
        """
        command = [sys.executable, "-W", "ignore", "-m", "compresslab", "grade", LAB.name]
        command += [str(self.folder / "inbox"), "--bundle", str(self.folder / "bundle")]
        command += ["--out", str(self.folder / "results"), "--jobs", str(JOBS)]
        began, waiting = time.monotonic(), list(kills.items())
        with open(self.folder / "log", "ab") as log:
            run = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        try:
            while run.poll() is None:
                if time.monotonic() > self.deadline:
                    raise TimeoutError(f"{len(self.done())} of {len(self.students)} are graded, time is over")
                if waiting and len(self.done()) >= waiting[0][1] * len(self.students):
                    self.kill(run, waiting.pop(0)[0])
                self.peak_bytes = max(self.peak_bytes, memory_bytes(run.pid))
                time.sleep(0.5)
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()
            self.seconds.append(time.monotonic() - began)
            self.left_running += len(left_after(GRACE))
        return None if run.returncode == -signal.SIGKILL else run.returncode

    def kill(self, run: subprocess.Popen, what: str) -> None:
        """Kills one sandbox, one process of the pool, or all of the run."""
        if what == "whole run":
            os.killpg(run.pid, signal.SIGKILL)
        else:
            words = {"sandbox": "--die-with-parent", "pool process": "--multiprocessing-fork"}[what]
            os.kill(called(run.pid, words)[0], signal.SIGKILL)
        self.killed.append(f"{what} at {len(self.done())}")

    def done(self) -> dict[str, int]:
        """Who has a result, and when it was written."""
        places = (self.folder / "results" / "students").glob("*/results.json")
        return {place.parent.name: place.stat().st_mtime_ns for place in places}

    def scores(self) -> dict[str, Score]:
        """The results on disk; one that is damaged raises."""
        students = self.folder / "results" / "students"
        return {name: read_results(students / name / "results.json") for name in self.done()}


def soaked(folder: Path, count: int, minutes: float) -> dict[str, object]:
    """What came of a class of so many students in an empty folder."""
    hostile = max(1, count // HOSTILE)
    students = [*made_class(LAB, count - hostile), *hostile_class(LAB, hostile)]
    random.Random(0).shuffle(students)
    students = [dataclasses.replace(s, student=f"{n:03}_{s.student}") for n, s in enumerate(students)]
    (folder / "inbox").mkdir()
    for each in students:
        (folder / "inbox" / f"{each.student}.ipynb").write_text(each.text, encoding="utf-8")
    command = [sys.executable, "-m", "compresslab", "bundle", LAB.name, "--out", str(folder / "bundle")]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    adopt_orphans()
    soak = Soak(folder, students, deadline=time.monotonic() + 60 * minutes)
    soak.start(KILLS)
    kept, whole = soak.done(), len(soak.scores())
    code = soak.start({})
    again = sum(soak.done()[name] != moment for name, moment in kept.items())
    return findings(soak) | {
        "kept_from_the_killed_run": whole,
        "graded_twice": again,
        "exit_code": code,
    }


def findings(soak: Soak) -> dict[str, object]:
    """The counts that must be 0 or everybody, and what it took."""
    scores = soak.scores()
    with open(soak.folder / "results" / "scores.csv", newline="", encoding="utf-8") as file:
        rows = len(list(csv.DictReader(file)))

    def right(each: HandedIn) -> tuple[str, ...]:
        return tuple(test.name for test in scores[each.student].tests if test.status == "passed")

    here = [each for each in soak.students if each.student in scores]
    odd = [each for each in here if right(each) != each.right]
    for each in odd:
        message = scores[each.student].message
        print(f"{each.student}: got {right(each)}, deserves {each.right} ({message})", file=sys.stderr)
    return {
        "submissions": len(soak.students),
        "hostile": sum(each.hostile for each in soak.students),
        "lost": len(soak.students) - min(len(here), rows),
        "honest_with_another_score": sum(not each.hostile for each in odd),
        "hostile_with_another_score": sum(each.hostile for each in odd),
        "forged_points": sum(
            LAB.exercise(name).points for each in here for name in set(right(each)) - set(each.right)
        ),
        "isolated": sum(score.isolated for score in scores.values()),
        "statuses": dict(Counter(score.status for score in scores.values())),
        "killed": soak.killed,
        "left_running": soak.left_running,
        "peak_pss_bytes": soak.peak_bytes,
        "seconds": [round(seconds, 1) for seconds in soak.seconds],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Soaks, prints, and stores where asked to; exit code 1 where something was lost, forged or left."""
    parser = argparse.ArgumentParser(description="a class with hostile students, killed and started again")
    parser.add_argument("--students", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=20, help="for all of it; then it gives up")
    parser.add_argument("--quick", action="store_true", help="20 students: only whether it works")
    parser.add_argument("--write", action="store_true", help=f"store it in {PLACE.relative_to(ROOT)}")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder:
        found = soaked(Path(folder), 20 if asked.quick else asked.students, asked.minutes)
    print(json.dumps(found, indent=1))
    if asked.write:
        result = {"lab": LAB.name, "jobs": JOBS, "machine": machine(), **found}
        PLACE.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"written to {PLACE.relative_to(ROOT)}")
    wrong = (
        "lost",
        "honest_with_another_score",
        "hostile_with_another_score",
        "forged_points",
        "left_running",
    )
    sys.exit(any(found[name] for name in wrong))


if __name__ == "__main__":
    main()
