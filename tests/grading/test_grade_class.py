"""A class: no submission is lost, none is graded twice without need, and one costs only itself."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import class_tasks
import pytest
from submissions import tiny

from compresslab.errors import CompressionError
from compresslab.grading.bundle import Bundle
from compresslab.grading.grade_class import STUDENTS, grade_class
from compresslab.grading.scores import read_results
from compresslab.grading.submission.inbox import Submitted, find_submissions
from compresslab.jobs.executor import Pool, dask_cluster, local_processes

THREADS = Pool(lambda: ThreadPoolExecutor(2), 2)


@dataclasses.dataclass
class Class:
    """An inbox, the folder of the results, and who was graded since the last look."""

    folder: Path
    graded: list[str] = dataclasses.field(default_factory=list)
    digest: str = "of the bundle"

    def submit(self, **texts: str) -> Class:
        self.inbox.mkdir(exist_ok=True)
        for student, text in texts.items():
            (self.inbox / f"{student}.ipynb").write_text(text)
        return self

    @property
    def inbox(self) -> Path:
        return self.folder / "inbox"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def bundle(self) -> Bundle:
        return Bundle(self.folder, tiny("add"), {}, (), b"key", self.digest)

    def place(self, student: str) -> Path:
        return self.out / STUDENTS / student / "results.json"

    def task(self, bundle, digest, name, content, isolated):
        self.graded.append(Path(name).stem)
        if content == b"interrupt":
            raise KeyboardInterrupt
        return class_tasks.mark(bundle, digest, name, content, isolated)

    def grade(self, *, pool: Pool = THREADS, isolated: bool = True, task=None, submitted=None):
        """The scores of the class; ``graded`` says afterwards whose task was run."""
        self.graded.clear()
        return grade_class(
            self.bundle,
            find_submissions(self.inbox, "99_tiny") if submitted is None else submitted,
            self.out,
            pool=pool,
            isolated=isolated,
            task=task or self.task,
        )


@pytest.fixture
def made(tmp_path) -> Class:
    return Class(tmp_path)


def test_every_student_has_a_score_in_the_order_of_the_names_and_on_disk(made):
    scores = made.submit(carol="say 1", bob="sleep 0.1", alice="say 2").grade()
    assert list(scores) == ["alice", "bob", "carol"]
    assert [score.message for score in scores.values()] == ["alice.ipynb", "bob.ipynb", "carol.ipynb"]
    for student, score in scores.items():
        assert read_results(made.place(student)) == score
        assert {each.name for each in made.place(student).parent.iterdir()} == {
            "results.json",
            "feedback.html",
        }
        assert score.isolated
    assert (made.out / "scores.csv").read_text().count("\n") >= 4


def test_nothing_is_graded_twice_and_nothing_is_written_again(made):
    first = made.submit(alice="say 1", bob="say 2").grade()
    before = made.place("bob").stat().st_mtime_ns
    assert made.grade() == first
    assert made.graded == []
    assert made.place("bob").stat().st_mtime_ns == before


def test_what_has_changed_is_graded_anew(made):
    made.submit(alice="say 1", bob="say 2").grade()
    scores = made.submit(bob="say 3", carol="say 4").grade()
    assert sorted(made.graded) == ["bob", "carol"]
    assert scores["bob"].tests[0].output == "done: say 3"
    assert not made.grade(isolated=False)["alice"].isolated
    assert len(made.graded) == 3
    made.digest = "of another bundle"
    made.grade(isolated=False)
    assert len(made.graded) == 3


def test_what_the_grader_failed_at_is_tried_again_and_is_nobodys_zero(made):
    scores = made.submit(alice="fail on purpose", bob="say 1").grade()
    assert (scores["alice"].status, scores["bob"].status) == ("failed", "graded")
    assert "the grader's own error" in scores["alice"].message
    assert "ZeroDivisionError: on purpose" in scores["alice"].message
    made.grade()
    assert made.graded == ["alice"]


def test_a_task_that_returns_no_score_is_a_failure_of_ours(made):
    for answer in (b"", b"{}", b"[]", b"\xff", None, b'{"tests": 3}'):
        scores = made.submit(alice="say 1").grade(task=lambda *_, answer=answer: answer)
        assert scores["alice"].status == "failed"


def test_an_interrupted_class_goes_on_where_it_was(made):
    one = dataclasses.replace(THREADS, size=1)
    made.submit(alice="say 1", bob="say 2", carol="interrupt", dave="say 3")
    with pytest.raises(KeyboardInterrupt):
        made.grade(pool=one)
    assert made.graded == ["alice", "bob", "carol"]
    scores = made.submit(carol="say 4").grade(pool=one)
    assert made.graded == ["carol", "dave"]
    assert [score.status for score in scores.values()] == ["graded"] * 4


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: '{"tests": []}',
        lambda text: text.replace('"max_score": 2', '"max_score": "two"'),
        lambda text: text.replace('"graded"', '"splendid"'),
        lambda text: text.replace('"graded_from": "', '"graded_from": "0'),
    ],
)
def test_a_damaged_result_is_graded_anew(made, change):
    made.submit(alice="say 1", bob="say 2").grade()
    made.place("alice").write_text(change(made.place("alice").read_text()))
    assert made.grade()["alice"].score == 2
    assert made.graded == ["alice"]


def test_what_can_not_be_graded_needs_review_with_its_sentence_and_costs_only_itself(made):
    made.submit(alice="say 1", bob="say 2")
    (made.inbox / "bob").mkdir()
    with (made.inbox / "carol.ipynb").open("wb") as huge:
        huge.truncate(60_000_000)
    scores = made.grade()
    assert [score.status for score in scores.values()] == ["graded", "needs-review", "needs-review"]
    assert "bob has 2 entries in the inbox" in scores["bob"].message
    assert scores["carol"].tests[0].output.startswith("not graded: carol.ipynb has 60,000,000 bytes; at most")
    assert made.graded == ["alice"]
    (made.inbox / "bob").rmdir()
    assert made.grade()["bob"].status == "graded"


def test_a_file_that_goes_while_the_class_is_graded_is_not_lost(made):
    made.submit(alice="say 1", bob="say 2")

    def take_away(bundle, digest, name, content, isolated):
        (made.inbox / "bob.ipynb").unlink()
        return class_tasks.mark(bundle, digest, name, content, isolated)

    scores = made.grade(pool=dataclasses.replace(THREADS, size=1), task=take_away)
    assert [score.status for score in scores.values()] == ["graded", "failed"]
    assert "DamagedFile: bob.ipynb does not exist; expected" in scores["bob"].message


@pytest.mark.skipif(os.name != "posix", reason="needs free file names")
def test_odd_names_are_kept_and_stay_in_their_folder(made):
    names = [
        "<b>x</b>",
        "=1+1",
        "a b",
        "-rf",
        "tab\t",
        "line\n",
        "é",
        os.fsdecode(b"\xff"),
        "'; drop",
        "x" * 200,
    ]
    scores = made.submit(**{name: "say 1" for name in names if "/" not in name}).grade()
    folders = {each.name for each in (made.out / STUDENTS).iterdir()}
    assert folders == set(scores) == {Path(f"{name}.ipynb").stem for name in names if "/" not in name}


def test_a_name_twice_and_a_place_that_can_not_be_written_are_told(made):
    twice = [Submitted("alice", made.folder / name) for name in ("a.ipynb", "b.ipynb")]
    with pytest.raises(CompressionError, match=r"student alice has 2 submissions; expected one .*; rename"):
        made.grade(submitted=twice)
    made.submit(alice="say 1").out.write_text("a file")
    with pytest.raises(CompressionError, match="can't be written"):
        made.grade()


def test_a_class_is_silent_where_nobody_looks_at_a_terminal(made, capfd):
    made.submit(alice="say 1").grade()
    assert capfd.readouterr() == ("", "")


# Other processes.


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_submission_that_kills_its_process_needs_review_and_all_others_are_graded(made):
    made.submit(alice="say 1", bob="die", carol="die-once mark", dave="say 2")
    with local_processes(2) as pool:
        scores = made.grade(pool=pool, task=class_tasks.mark)
    assert [score.status for score in scores.values()] == ["graded", "needs-review", "graded", "graded"]
    assert "and died again when it ran nothing else" in scores["bob"].message
    assert scores["bob"].graded_from == ""  # so that it is tried again next time


RUN = """
import sys
from pathlib import Path
import class_tasks, submissions
from compresslab.grading.bundle import Bundle
from compresslab.grading.grade_class import grade_class
from compresslab.jobs.executor import local_processes
from compresslab.grading.submission.inbox import find_submissions
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    bundle = Bundle(folder, submissions.tiny("add"), {}, (), b"key", "of the bundle")
    found = find_submissions(folder / "inbox", "99_tiny")
    with local_processes(2) as pool:
        grade_class(bundle, found, folder / "out", pool=pool, isolated=True, task=class_tasks.mark)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_run_that_is_killed_goes_on_where_it_was(made):
    made.submit(**{f"student-{number}": "sleep 0.2" for number in range(8)})
    (made.folder / "run.py").write_text(RUN)
    paths = os.pathsep.join([str(Path(class_tasks.__file__).parent), *sys.path])
    command = [sys.executable, str(made.folder / "run.py"), str(made.folder)]
    run = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths, "TMPDIR": str(made.folder)})
    until = time.monotonic() + 60
    while len(list(made.out.glob("students/*/results.json"))) < 2:
        assert time.monotonic() < until
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    there = {place.parent.name for place in made.out.glob("students/*/results.json")}
    assert 2 <= len(there) < 8
    scores = made.grade()
    assert sorted(made.graded) == sorted(set(scores) - there)
    assert [score.status for score in scores.values()] == ["graded"] * 8


def test_a_cluster_comes_to_the_same_scores(made):
    distributed = pytest.importorskip("distributed", reason="the extra [cluster] is not installed")
    made.submit(alice="say 1", bob="fail on purpose", carol="say 2")
    here = made.grade()
    made.digest = "of another bundle"
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(
            distributed.LocalCluster(
                1, 2, processes=False, host="127.0.0.1", protocol="tcp://", dashboard_address=":0"
            )
        )
        pool = stack.enter_context(dask_cluster(cluster.scheduler_address))
        there = made.grade(pool=pool, task=class_tasks.mark)
    strip = {student: dataclasses.replace(score, graded_from="") for student, score in there.items()}
    assert strip == {student: dataclasses.replace(score, graded_from="") for student, score in here.items()}
