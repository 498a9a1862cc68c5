"""What a notebook has without an import is there for an answer, and marks, shows and reveals nothing."""

from __future__ import annotations

import pytest

from compresslab.grading.sandbox.notebook_names import NAMES, Revealed, notebook_modules, notebook_names

PUBLISHED = {"half": "def half(x: Size):\n    return x / 2\n"}


def test_every_name_that_is_promised_is_there():
    assert set(NAMES) - {"__name__"} == set(notebook_names("mine", {}))


def test_what_was_checked_is_in_yours_and_what_was_revealed_else():
    names = notebook_names("mine", PUBLISHED)
    with pytest.raises(LookupError, match=r"call reveal\.half\(\)"):
        _ = names["yours"].half
    assert names["reveal"].half()(6) == 3
    assert names["yours"].half(6) == 3
    names["check"].half(names["yours"].half)  # the revealed one is not the student's
    names["check"].half(max)
    assert names["yours"].half(6, 7) == 7


@pytest.mark.parametrize("marked", ["half", "mine"])
def test_the_published_answer_of_the_marked_exercise_is_not_there(marked):
    names = notebook_names(marked, PUBLISHED if marked == "half" else {})
    with pytest.raises(Revealed):
        names["reveal"].half()(6)


def test_the_notebook_s_imports_do_nothing():
    modules = notebook_modules(notebook_names("mine", {}))
    assert set(modules) == {"compresslab.notebook", "compresslab.classroom"}
    notebook = modules["compresslab.notebook"]
    assert notebook.metric("a", 1) is None
    assert notebook.verdict("a", True) is None
    check, hint, _, _ = notebook.lab("00_measuring")
    assert (check.a(max), hint.a()) == (None, None)


def test_ipython_takes_any_question():
    shell = notebook_names("mine", {})["get_ipython"]()
    assert repr(shell.run_line_magic("matplotlib", "inline").anything()) == ""
    with pytest.raises(AttributeError):
        _ = shell.__wrapped__
