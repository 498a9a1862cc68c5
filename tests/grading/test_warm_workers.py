"""Desks: a class of a real lab comes to the same scores on every pool, and desks are kept warm."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from submissions import notebook, right_answers, saved

from compresslab.course import find_lab
from compresslab.grading import warm_workers as desks
from compresslab.grading.bundle import make_bundle, open_bundle
from compresslab.grading.class_run import grade_class
from compresslab.grading.scores import score_of
from compresslab.grading.submission.inbox import find_submissions
from compresslab.grading.warm_workers import close_desks, grade_at_desk
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
    close_desks()


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
            stack.enter_context(dask_cluster(cluster.scheduler_address, at_end=close_desks)),
        )
    assert there == here


def test_a_bundle_is_the_same_after_its_journey(bundle, tmp_path):
    (tmp_path / "bundle.zip").write_bytes(zipped(bundle.folder))
    desk = desks._set_up(zipped(bundle.folder), isolated=False)
    with desk.closing:
        assert desk.bundle.digest == open_bundle(bundle.folder).digest == bundle.digest
        there = desk.bundle.folder
        assert there != bundle.folder
    assert not there.exists()


def test_threads_have_desks_of_their_own_and_leave_them_warm_for_the_next(bundle, inbox):
    content = (inbox / "carol.ipynb").read_bytes()
    ask = [bundle.folder, bundle.digest, "carol.ipynb", content, False]
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda _: grade_at_desk(*ask), range(6)))
    assert {score_of(json.loads(answer)).status for answer in answers} == {"needs-review"}
    (waiting,) = desks._idle.values()
    assert 1 <= len(waiting) <= 2
    assert len({id(desk) for desk in waiting}) == len(waiting)
    close_desks()
    assert not desks._idle


def test_a_desk_that_something_went_wrong_at_is_not_used_again(bundle):
    with pytest.raises(KeyboardInterrupt), desks._desk(bundle.folder, bundle.digest, False):
        raise KeyboardInterrupt
    assert not any(desks._idle.values())
