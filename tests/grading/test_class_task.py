"""The task of a class: a real lab gets the same scores on every pool, and graders are kept open."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from submissions import notebook, right_answers, saved

from compresslab.course import find_lab
from compresslab.grading import class_task
from compresslab.grading.bundle import make_bundle, open_bundle
from compresslab.grading.class_task import close_graders, grade_task
from compresslab.grading.grade_class import grade_class
from compresslab.grading.scores import score_of
from compresslab.grading.submission.inbox import find_submissions
from compresslab.jobs.executor import dask_cluster, local_processes, zipped

LAB = find_lab("00_measuring")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(LAB, tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def inbox(tmp_path_factory):
    """One student who has everything right, one who ends the process, one whose file is no notebook."""
    folder = tmp_path_factory.mktemp("inbox")
    answers = right_answers(LAB)
    saved(notebook(answers), folder, "alice.ipynb")
    first = next(iter(answers))
    saved(notebook({**answers, first: f"import os\ndef {first}(*x, **y): os._exit(0)"}), folder, "bob.txt")
    (folder / "carol.ipynb").write_text("no notebook")
    return folder


@pytest.fixture(autouse=True)
def clean():
    yield
    close_graders()


def grade(bundle, inbox, out, pool):
    scores = grade_class(bundle, find_submissions(inbox, LAB.name), out, pool=pool, isolated=False)
    return {student: dataclasses.replace(score, execution_time=0.0) for student, score in scores.items()}


def test_a_real_class_comes_to_the_same_on_processes_and_on_a_cluster(bundle, inbox, tmp_path):
    distributed = pytest.importorskip("distributed", reason="the extra [cluster] is not installed")
    with local_processes(1) as pool:
        here = grade(bundle, inbox, tmp_path / "here", pool)
    assert {student: score.status for student, score in here.items()} == {
        "alice": "graded",
        "bob": "graded",
        "carol": "needs-review",
    }
    assert here["alice"].score == LAB.points == here["bob"].score + LAB.exercises[0].points
    assert here["carol"].message.startswith("carol.ipynb is not a notebook")
    with contextlib.ExitStack() as stack:
        settings = {"processes": False, "host": "127.0.0.1", "protocol": "tcp://", "dashboard_address": ":0"}
        cluster = stack.enter_context(distributed.LocalCluster(1, 2, **settings))
        there = grade(
            bundle,
            inbox,
            tmp_path / "there",
            stack.enter_context(dask_cluster(cluster.scheduler_address, at_end=close_graders)),
        )
    assert there == here


def test_a_bundle_is_the_same_after_its_journey(bundle, tmp_path):
    (tmp_path / "bundle.zip").write_bytes(zipped(bundle.folder))
    grader = class_task._open_grader(zipped(bundle.folder), isolated=False)
    with grader.closing:
        assert grader.bundle.digest == open_bundle(bundle.folder).digest == bundle.digest
        there = grader.bundle.folder
        assert there != bundle.folder
    assert not there.exists()


def test_threads_have_graders_of_their_own_and_leave_them_open_for_the_next(bundle, inbox):
    content = (inbox / "carol.ipynb").read_bytes()
    ask = [bundle.folder, bundle.digest, "carol.ipynb", content, False]
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda _: grade_task(*ask), range(6)))
    assert {score_of(json.loads(answer)).status for answer in answers} == {"needs-review"}
    (waiting,) = class_task._idle.values()
    assert 1 <= len(waiting) <= 2
    assert len({id(grader) for grader in waiting}) == len(waiting)
    close_graders()
    assert not class_task._idle


def test_a_grader_is_not_used_again_after_an_exception(bundle):
    with pytest.raises(KeyboardInterrupt), class_task._grader(bundle.folder, bundle.digest, False):
        raise KeyboardInterrupt
    assert not any(class_task._idle.values())
