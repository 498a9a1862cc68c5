"""Whatever bytes are handed in, grading them ends in a score, and never in a point that is not earned."""

from __future__ import annotations

import json

import pytest
from hostile.attack import TINY, holes
from hypothesis import given, settings
from hypothesis import strategies as st
from submissions import notebook

from compresslab.grading.bundle import make_bundle
from compresslab.grading.grade import grade
from compresslab.grading.sandbox.worker_client import WorkerClient
from compresslab.grading.scores import EXIT_CODES, read_results, write_results

RIGHT = json.dumps(notebook(holes(TINY))).encode()

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
)
cells = st.fixed_dictionaries(
    {},
    optional={
        "cell_type": st.sampled_from(["code", "markdown", 3]),
        "id": st.sampled_from(["attacked", "honest", "check-honest", 5]) | anything,
        "source": st.text()
        | st.lists(st.text() | st.integers())
        | anything
        | st.sampled_from(["def honest(x): return x", "honest = attacked = None", "def attacked(x): pass"]),
        "metadata": anything,
        "outputs": anything,
    },
)


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """Grades bytes: random text is no code that needs a sandbox."""
    folder = tmp_path_factory.mktemp("any")
    bundle = make_bundle(TINY, folder / "bundle")
    with WorkerClient(bundle, isolated=False) as workers:

        def grade_bytes(content: bytes):
            (folder / "any.ipynb").write_bytes(content)
            score = grade(bundle, folder / "any.ipynb", worker=workers)
            assert EXIT_CODES[score.status] in (0, 3)
            assert read_results(write_results(score, folder)).score == score.score
            return score

        yield grade_bytes


@settings(max_examples=60)
@given(content=st.binary(max_size=200))
def test_random_bytes_are_looked_at_by_somebody(graded, content):
    assert (graded(content).status, graded(content).score) == ("needs-review", 0)


@settings(max_examples=60)
@given(book=st.fixed_dictionaries({"cells": st.lists(cells | anything)}) | anything)
def test_random_notebooks_earn_nothing(graded, book):
    assert graded(json.dumps(book).encode()).score == 0


@settings(max_examples=60)
@given(place=st.integers(0, len(RIGHT) - 1), put=st.binary(max_size=3), cut=st.integers(0, 40))
def test_a_damaged_notebook_earns_no_more_than_what_is_still_there(graded, place, put, cut):
    score = graded(RIGHT[:place] + put + RIGHT[place + cut :])
    assert 0 <= score.score <= TINY.points
    assert (score.status == "graded") or score.score == 0


def test_the_whole_notebook_earns_everything(graded):
    assert graded(RIGHT).score == TINY.points
