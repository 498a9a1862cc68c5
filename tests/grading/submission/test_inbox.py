"""The inbox: every layout that teachers have is read; what is unclear is said, never decided in silence."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compresslab.errors import CompressionError
from compresslab.grading.submission import inbox
from compresslab.grading.submission.inbox import Submitted, find_submissions

LAB = "00_measuring"
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs links, FIFOs and free file names")


def put(folder: Path, *names: str) -> Path:
    """Files of these names, each with its name as its content."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def found(folder: Path) -> dict[str, str]:
    """{student: path below the inbox}, where nothing is unclear."""
    entries = find_submissions(folder, LAB)
    assert not any(each.problem for each in entries)
    return {each.student: each.path.relative_to(folder).as_posix() for each in entries}


def problem(folder: Path) -> str:
    """The problem of the only student, in three parts."""
    (only,) = find_submissions(folder, LAB)
    assert only.problem.count(";") >= 2
    return only.problem


# Layouts.


def test_a_file_a_student_in_the_order_of_the_names_whatever_its_ending(tmp_path):
    put(tmp_path, "carol.ipynb", "alice.txt", "j.doe.ipynb", "bob")
    assert found(tmp_path) == {
        "alice": "alice.txt",
        "bob": "bob",
        "carol": "carol.ipynb",
        "j.doe": "j.doe.ipynb",
    }
    assert [each.student for each in find_submissions(tmp_path, LAB)] == ["alice", "bob", "carol", "j.doe"]


def test_a_folder_a_student_with_a_notebook_of_any_name(tmp_path):
    put(tmp_path, "alice/mine.ipynb", "alice/notes.txt", "bob/renamed.txt")
    assert found(tmp_path) == {"alice": "alice/mine.ipynb", "bob": "bob/renamed.txt"}


def test_the_folders_that_nbgrader_makes(tmp_path):
    put(tmp_path, f"alice/{LAB}/{LAB}.ipynb", f"alice/{LAB}/timestamp.txt", "alice/01_other/01_other.ipynb")
    put(tmp_path, f"bob/{LAB}/mine.ipynb", f"bob/{LAB}/timestamp.txt")
    assert found(tmp_path) == {"alice": f"alice/{LAB}/{LAB}.ipynb", "bob": f"bob/{LAB}/mine.ipynb"}


def test_of_several_notebooks_the_one_that_is_called_as_the_lab(tmp_path):
    put(tmp_path, f"alice/{LAB}.ipynb", "alice/draft.ipynb", "alice/sub/deep.ipynb")
    assert found(tmp_path) == {"alice": f"alice/{LAB}.ipynb"}


def test_what_computers_leave_behind_is_passed_over(tmp_path):
    put(tmp_path, "alice/a.ipynb", "alice/.ipynb_checkpoints/a-checkpoint.ipynb", "alice/.DS_Store")
    put(tmp_path, ".gitignore", ".ipynb_checkpoints/x.ipynb", *(f"{name}/x" for name in inbox.IGNORED))
    assert found(tmp_path) == {"alice": "alice/a.ipynb"}


# What somebody must look at.


def test_several_notebooks_of_one_student_are_never_chosen_among(tmp_path):
    put(tmp_path, "alice/a.ipynb", "alice/b.ipynb")
    assert problem(tmp_path).startswith(
        "alice handed in 2 files (a.ipynb, b.ipynb); expected one 00_measuring"
    )


def test_the_lab_twice_is_not_chosen_among_either(tmp_path):
    put(tmp_path, f"alice/{LAB}.ipynb", f"alice/{LAB}/{LAB}.ipynb")
    assert "handed in 2 files" in problem(tmp_path)


def test_a_file_and_a_folder_of_one_student_are_both_named(tmp_path):
    put(tmp_path, "alice.ipynb", "alice/a.ipynb", "alice.txt")
    assert problem(tmp_path).startswith("alice has 3 entries in the inbox (alice, alice.ipynb, alice.txt); ")


def test_an_empty_folder_or_one_with_another_lab_holds_nothing(tmp_path):
    (tmp_path / "alice").mkdir()
    assert problem(tmp_path).startswith("alice's folder holds no file that could be 00_measuring; ")
    put(tmp_path, "alice/01_other/01_other.ipynb")
    assert "holds no file" in problem(tmp_path)


@POSIX
@pytest.mark.parametrize("place", ["alice.ipynb", "alice/a.ipynb", f"alice/{LAB}/{LAB}.ipynb"])
def test_links_and_fifos_are_left_alone(tmp_path, place):
    secret = put(tmp_path / "elsewhere", "secret.ipynb") / "secret.ipynb"
    target = tmp_path / "inbox" / place
    target.parent.mkdir(parents=True)
    target.symlink_to(secret)
    assert f"{target.name} is a link; expected a notebook itself" in problem(tmp_path / "inbox")
    target.unlink()
    os.mkfifo(target)
    assert f"{target.name} is not a regular file; expected" in problem(tmp_path / "inbox")


@POSIX
def test_links_to_folders_are_not_entered(tmp_path):
    put(tmp_path / "elsewhere", f"{LAB}.ipynb")
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "alice").symlink_to(tmp_path / "elsewhere")
    assert "alice is a link" in problem(tmp_path / "inbox")
    (tmp_path / "inbox" / "alice").unlink()
    (tmp_path / "inbox" / "alice").mkdir()
    (tmp_path / "inbox" / "alice" / LAB).symlink_to(tmp_path / "elsewhere")
    assert f"{LAB} is a link" in problem(tmp_path / "inbox")


@pytest.mark.parametrize("student", ["", ".", "..", "../eve", "a/b", "/etc", "eve/", "e\0ve"])
def test_no_name_leads_out_of_the_results(student):
    with pytest.raises(CompressionError, match=r"name must be usable as a folder's name, got .*; rename"):
        Submitted(student, Path("eve.ipynb"))


@POSIX
@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=5, unique=True))
def test_whatever_files_are_called_nothing_is_lost_and_nothing_escapes(names):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        names = {os.fsdecode(name.replace(b"/", b"_").replace(b"\0", b"_")) for name in names} - {".", ".."}
        for name in names:
            (folder / name).touch()
        seen = {name for name in names if not name.startswith(".") and name not in inbox.IGNORED}
        if not seen:
            with pytest.raises(CompressionError, match="holds no submission"):
                find_submissions(folder, LAB)
            return
        entries = find_submissions(folder, LAB)
        assert all((folder / "students" / each.student).parent == folder / "students" for each in entries)
        claimed = {Path(name).stem for name in seen}
        assert {each.student for each in entries} == claimed
        assert len([each for each in entries if each.problem]) == len(
            [student for student in claimed if sum(Path(name).stem == student for name in seen) > 1]
        )


# The inbox itself.


def test_an_inbox_that_is_none_is_told_so(tmp_path):
    put(tmp_path, "file", "hidden/.alice.ipynb")
    for place, words in (
        ("none", "can't be listed"),
        ("file", "can't be listed"),
        ("hidden", "no submission"),
    ):
        with pytest.raises(CompressionError, match=rf"{place} .*{words}.*; expected a folder .*; ."):
            find_submissions(tmp_path / place, LAB)
