"""Every attack gets the score of its honest content, and nothing on the grader's machine has changed.

Hostile code is run in the sandbox alone: where that does not hold it is skipped, and the log says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from pathlib import Path

import pytest
from hostile import (
    attacks_answers,
    attacks_channel,
    attacks_definition,
    attacks_file,
    attacks_memory,
    attacks_notebook,
    attacks_probe,
    attacks_process,
    attacks_reach,
    attacks_resources,
    attacks_rights,
    attacks_slice,
    attacks_values,
    attacks_words,
)
from hostile.attack import MEASURING, SECRET, TINY, Attack, furnish, holes, is_unheard, listening, unchanged
from submissions import adds, notebook, saved

from compresslab.grading.bundle import make_bundle
from compresslab.grading.grade import grade
from compresslab.grading.sandbox.self_test import can_isolate, run_self_test
from compresslab.grading.sandbox.worker_client import WorkerClient
from compresslab.grading.scores import plain, read_results, write_results

pytestmark = pytest.mark.alone  # counts processes, fills memory and measures time

MODULES = (
    attacks_answers,
    attacks_channel,
    attacks_definition,
    attacks_file,
    attacks_notebook,
    attacks_probe,
    attacks_process,
    attacks_reach,
    attacks_resources,
    attacks_memory,
    attacks_rights,
    attacks_slice,
    attacks_values,
    attacks_words,
)
ATTACKS = {attack.name: attack for module in MODULES for attack in module.ATTACKS}
LONGEST = 60.0  # seconds that one submission may take, on a busy machine
MOST_WORK = 20.0  # seconds of them in which the grader itself computes: on any machine, busy or not
LARGEST = 2**30  # bytes that the grader's own memory may grow by, whatever is handed in
FIGURES = dict.fromkeys(
    ("attacks", "forged points", "points forged within known limits", "lost submissions", "seconds"), 0.0
)


class Graders:
    """A warm worker for each lab, shared by all attacks, as a class of students shares it."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.bundles = {lab.name: make_bundle(lab, folder / lab.name) for lab in (TINY, MEASURING)}
        self.others = settled()  # processes that other tests of this run have left to themselves
        self.calm = 0  # processes there are when nothing is graded
        self.workers = {
            name: stack.enter_context(WorkerClient(bundle, isolated=True))
            for name, bundle in self.bundles.items()
        }

    def grade(self, lab, place):
        return grade(self.bundles[lab.name], place, worker=self.workers[lab.name])


def missing() -> str:
    """What isolation lacks on this machine, in words."""
    return "; ".join(f"{f.about}: {f.words}" for f in run_self_test() if not f.holds)


@pytest.fixture(scope="module")
def graders(tmp_path_factory):
    if not can_isolate():
        pytest.skip(f"no hostile code is run where isolation does not hold ({missing()})")
    with pytest.MonkeyPatch.context() as environment, contextlib.ExitStack() as stack:
        environment.setenv("TEACHERS_SECRET", SECRET)
        graders = Graders(tmp_path_factory.mktemp("bundles"), stack)
        stands_apart(graders, tmp_path_factory.mktemp("before"))
        for lab in (TINY, MEASURING):
            score = graders.grade(lab, saved(notebook(holes(lab)), tmp_path_factory.mktemp(lab.name)))
            assert (score.score, score.isolated) == (score.max_score, True)
        graders.calm = settled()
        yield graders


def stands_apart(graders: Graders, folder: Path) -> None:
    """Before anything hostile is started: the answers run as nobody's user, among nobody else's processes."""
    spy = "import os\ndef attacked(x): raise ValueError(f'{os.getppid()} {os.getuid()} ')"
    words = graders.grade(TINY, saved(notebook(holes(TINY) | {"attacked": spy}), folder)).tests[0].output
    parent, user = re.search(r"ValueError: (\d+) (\d+) ", words).groups()
    assert parent == "0", f"the answers see other processes: {words}"
    assert os.getuid() != 0 or int(user) > 2**16, f"the answers run as a user that exists: {words}"


@pytest.fixture(scope="module")
def listeners():
    sockets = listening()
    yield sockets
    for one in sockets.values():
        one.close()


def descendants(ancestor: int) -> set[int]:
    """The processes that this one has started, and those that they have started."""
    parents = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            parents[int(entry.name)] = int(parent) if state != "Z" else 0  # a zombie is no process any more
    found = {ancestor}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {ancestor}


def peak_bytes(*, anew: bool = False) -> int:
    """The most memory that this process has held, since it was last asked to count anew."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])


def known(attack: Attack) -> object:
    """The attack's name; where it is a known limit the test must fail, or the limit is one no more."""
    marks = [pytest.mark.xfail(reason=attack.limit, strict=True)] if attack.limit else []
    return pytest.param(attack.name, marks=marks)


def settled() -> int:
    """How many processes there are below this one, as soon as it is the same number for half a second."""
    counts = [-1]
    while (len(counts) < 100 and set(counts[-5:]) != {counts[-1]}) or len(counts) < 5:
        time.sleep(0.1)
        counts.append(len(descendants(os.getpid())))
    return counts[-1]


@pytest.mark.parametrize("name", [known(attack) for attack in ATTACKS.values()])
def test_an_attack_gets_the_score_of_its_honest_content(name, graders, listeners, tmp_path):
    attack = ATTACKS[name]
    folder = tmp_path / "class"
    folder.mkdir()
    furnish(folder)
    place = attack.submission(folder)

    before, worked = peak_bytes(anew=True), time.process_time()
    score = graders.grade(attack.lab, place)
    grown, worked = peak_bytes() - before, time.process_time() - worked

    right = tuple(test.name for test in score.tests if test.status == "passed")
    FIGURES["attacks"] += 1
    forged = sum(test.score for test in score.tests if test.name not in attack.earns)
    FIGURES["points forged within known limits" if attack.limit else "forged points"] += forged
    FIGURES["lost submissions"] += score.status != attack.status or score.score < attack.wanted
    FIGURES["seconds"] += score.execution_time
    words = "\n".join([score.message, *score.notes, *(test.output for test in score.tests)])
    slips = {"NameError", "syntax error"} - {part for piece in attack.says for part in piece.split(":")}
    assert not any(slip in words for slip in slips), f"the attack misses its aim: {words}"
    assert (score.status, right, score.score) == (attack.status, attack.earns, attack.wanted), words
    assert not attack.says or any(piece in plain(words) for piece in attack.says)
    unchanged(folder, place)
    assert all(is_unheard(listener) for listener in listeners.values())
    assert score.execution_time < LONGEST
    assert worked < MOST_WORK
    assert grown < LARGEST

    results = write_results(score, tmp_path / "results")
    told = results.read_text()
    assert not re.search(r"\\u001b|\\u009b|<script|<img|onerror=|" + SECRET, told)
    assert json.loads(told)["score"] == read_results(results).score == attack.wanted


@pytest.mark.parametrize("lab", [TINY, MEASURING], ids=lambda lab: lab.name)
def test_after_all_attacks_the_same_worker_grades_an_honest_submission(lab, graders, tmp_path):
    score = graders.grade(lab, saved(notebook(holes(lab)), tmp_path))
    assert {test.name: test.output for test in score.tests} == {e.name: e.statement for e in lab.exercises}
    assert score.score == lab.points


def test_the_same_submission_gets_the_same_score_in_the_same_words_again(graders, tmp_path):
    text = "def attacked(x):\n    return float(x.mean())\n"
    place = saved(notebook({"attacked": text, "honest": adds("honest")}), tmp_path)
    one, other = (graders.grade(TINY, place) for _ in range(2))
    assert (one.tests, one.message, one.notes) == (other.tests, other.message, other.notes)
    assert one.tests[0].mistake == "takes the mean"


@pytest.mark.parametrize(
    "name", ["the_teachers_folder", "other_processes", "a_call_to_this_machine", "a_call_by_an_abstract_name"]
)
def test_a_spy_finds_what_it_looks_for_where_there_is_no_sandbox(name, graders, listeners, tmp_path):
    with WorkerClient(graders.bundles[TINY.name], isolated=False) as workers:
        score = grade(graders.bundles[TINY.name], ATTACKS[name].submission(tmp_path), worker=workers)
    assert "ValueError: found " in score.tests[0].output
    assert ATTACKS[name].says[0] not in score.tests[0].output
    calls = sum(not is_unheard(listener) for listener in listeners.values())
    assert calls == ("call" in name)


def test_after_all_attacks_no_process_is_left_but_the_warm_workers(graders):
    assert settled() == graders.calm
    for workers in graders.workers.values():
        workers.close()
    assert settled() == graders.others


def test_each_attack_says_what_it_tries_and_no_two_have_one_name():
    assert len(ATTACKS) == sum(len(module.ATTACKS) for module in MODULES) >= 45
    for attack in ATTACKS.values():
        assert re.fullmatch(r"[A-Z`][^\n]+\.", attack.tries), attack.name
        everything = len(attack.earns) == len(attack.lab.exercises)
        assert attack.says or attack.limit or everything, f"{attack.name}: what is the student told?"


def test_whether_the_attacks_were_run_stands_in_the_log(capsys):
    counts = ", ".join(f"{value:.0f} {name}" for name, value in FIGURES.items())
    line = counts if can_isolate() else f"{len(ATTACKS)} attacks NOT RUN: {missing()}"
    with capsys.disabled():
        print(f"\nhostile: {line}")
    assert FIGURES["forged points"] == FIGURES["lost submissions"] == 0
