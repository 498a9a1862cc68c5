"""Zip files are read and never unpacked: what is in them is graded, and whatever is wrong is a sentence."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path

import pytest

from compresslab.errors import CompressionError
from compresslab.grading.submission import entries
from compresslab.grading.submission.inbox import Submitted, find_submissions

LAB = "00_measuring"


def made(place: Path, files: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(place, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return place


def only(inbox: Path) -> Submitted:
    (each,) = find_submissions(inbox, LAB)
    return each


def problem(inbox: Path) -> str:
    """What is said about the only student, when it is found or when it is read."""
    each = only(inbox)
    if each.problem:
        return each.problem
    with pytest.raises(CompressionError) as told:
        each.content()
    return str(told.value)


@pytest.mark.parametrize(
    "files",
    [
        {"mine.ipynb": b"right"},
        {"my_labs/00_measuring/mine.ipynb": b"right", "my_labs/picture.png": b"", "notes.txt": b""},
        {"00_measuring.ipynb": b"right", "draft.ipynb": b"", "a/00_measuring.20260901-101112.ipynb": b""},
        {"mine.ipynb": b"right", "__MACOSX/._mine.ipynb": b"", ".ipynb_checkpoints/mine.ipynb": b""},
        {"my_labs\\00_measuring\\mine.ipynb": b"right"},
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "place", ["anna.zip", "anna/work.ZIP", "Anna Li_1_assignsubmission_file_/w.zip", "lianna_1_2_w.zip"]
)
def test_a_notebook_in_a_students_zip_is_the_submission(tmp_path, place, files):
    made(tmp_path / place, files)
    each = only(tmp_path)
    assert (each.problem, each.content()) == ("", b"right")
    assert each.student == {"anna.zip": "anna", "anna/work.ZIP": "anna"}.get(place, each.student)


def test_students_zips_in_the_zip_of_the_class(tmp_path):
    inner = {f"class/{name}.zip": made(tmp_path / f"{name}.zip", {"x.ipynb": name.encode()}).read_bytes()
             for name in ("anna", "ben")}  # fmt: skip
    found = find_submissions(made(tmp_path / "class.zip", inner), LAB)
    assert {each.student: each.content() for each in found} == {"anna": b"anna", "ben": b"ben"}


@pytest.mark.parametrize(
    ("names", "students"),
    [
        (["anna.ipynb", "ben.ipynb"], ["anna", "ben"]),
        (["class/anna.ipynb", "class/ben.ipynb"], ["anna", "ben"]),
        (["class/anna/x.ipynb", "class/ben/x.ipynb", "__MACOSX/class/._x"], ["anna", "ben"]),
        (["anna/x.ipynb", "ben/x.ipynb"], ["anna", "ben"]),
        (["submitted/anna/00_measuring/00_measuring.ipynb"], ["anna"]),
        (["anna/00_measuring/00_measuring.ipynb"], ["anna"]),
        (["anna/x.ipynb"], ["anna"]),
    ],
)
def test_the_zip_of_an_inbox_is_an_inbox_with_a_folder_around_it_or_without(tmp_path, names, students):
    found = find_submissions(made(tmp_path / "inbox.zip", dict.fromkeys(names, b"x")), LAB)
    assert [each.student for each in found] == students
    assert not any(each.problem for each in found)


def test_names_that_macos_writes_are_read_as_they_were_meant(tmp_path):
    place = tmp_path / "inbox.zip"
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr("Zoe.ipynb", "x")
        archive.writestr("Mia.ipynb", "x")
    raw = place.read_bytes().replace(b"Zoe.ipynb", "Zoë.ipyn".encode())  # UTF-8, and no flag says so
    place.write_bytes(raw)
    assert {each.student for each in find_submissions(place, LAB)} == {"Mia", "Zoë"}


# What is wrong is said, of the student or of the whole zip.


def encrypted(content: bytes) -> bytes:
    """The zip with the flag of encryption set on its first member, in both places."""
    raw = bytearray(content)
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    return bytes(raw)


def test_an_encrypted_zip_is_a_sentence(tmp_path):
    place = made(tmp_path / "anna.zip", {"x.ipynb": b"secret"})
    place.write_bytes(encrypted(place.read_bytes()))
    assert problem(tmp_path).startswith("anna.zip is encrypted; expected a zip without a password; unpack")


def test_a_bomb_is_a_sentence_and_is_not_unpacked(tmp_path, monkeypatch):
    made(tmp_path / "anna.zip", {"x.ipynb": bytes(entries.MAXIMUM_BYTES + 1)})
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    assert "x.ipynb in anna.zip has 25,000,001 bytes; at most 25,000,000 are read; clear" in problem(tmp_path)


def test_a_bomb_that_lies_about_its_size_is_a_sentence(tmp_path):
    place = made(tmp_path / "anna.zip", {"x.ipynb": bytes(30_000_000)})
    size = (30_000_000).to_bytes(4, "little")
    place.write_bytes(place.read_bytes().replace(size, (1000).to_bytes(4, "little")))
    assert "x.ipynb in anna.zip can't be unpacked" in problem(tmp_path)


def test_too_many_files_are_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(entries, "MAXIMUM_MEMBERS", 3)
    made(tmp_path / "anna.zip", dict.fromkeys("abcd", b""))
    assert problem(tmp_path).startswith("anna.zip holds 4 files; at most 3 are read; ask")


def test_a_large_zip_in_a_zip_is_a_sentence(tmp_path, monkeypatch):
    inner = made(tmp_path / "made" / "anna.zip", {"x.ipynb": b"x"}).read_bytes()
    place = made(tmp_path / "inbox.zip", {"anna.zip": inner, "ben.ipynb": b""})
    monkeypatch.setattr(entries, "MAXIMUM_ZIP", 10)
    anna, ben = find_submissions(place, LAB)
    assert "anna.zip in inbox.zip has" in anna.problem
    assert ben.problem == ""


def test_a_damaged_zip_is_a_sentence(tmp_path):
    (tmp_path / "anna.zip").write_bytes(b"PK, or so")
    assert problem(tmp_path).startswith(
        "anna.zip can't be read as a zip (File is not a zip file); expected an"
    )
    with pytest.raises(CompressionError, match=r"anna\.zip can't be read as a zip"):
        find_submissions(tmp_path / "anna.zip", LAB)


def test_a_damaged_member_is_a_sentence(tmp_path):
    place = made(tmp_path / "anna.zip", {"x.ipynb": b"abcdefgh"}, method=zipfile.ZIP_STORED)
    place.write_bytes(place.read_bytes().replace(b"abcdefgh", b"abcdefgX"))
    assert "x.ipynb in anna.zip can't be unpacked (Bad CRC-32" in problem(tmp_path)


def test_a_method_that_takes_memory_without_a_limit_is_not_used(tmp_path):
    made(tmp_path / "anna.zip", {"x.ipynb": b"x" * 99}, method=zipfile.ZIP_LZMA)
    assert "x.ipynb in anna.zip can't be unpacked (method 14); expected" in problem(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../x.ipynb", "a/../../x.ipynb", "/etc/x.ipynb", "C:\\x.ipynb", "..\\x.ipynb", "a/" * 31 + "x.ipynb"],
)
def test_a_path_that_leads_out_is_a_sentence(tmp_path, name):
    made(tmp_path / "inbox" / "anna.zip", {name: b"x"})
    words = r"anna\.zip names .*, which lies outside of it or too deep; expected"
    each = only(tmp_path / "inbox")
    assert each.problem.startswith("anna.zip names ")
    with pytest.raises(CompressionError, match=words):
        find_submissions(tmp_path / "inbox" / "anna.zip", LAB)


def test_a_link_in_a_zip_is_not_followed(tmp_path):
    info = zipfile.ZipInfo("x.ipynb")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "anna.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    assert problem(tmp_path).startswith("x.ipynb is a link; expected a notebook itself; ask")


def test_a_zip_without_a_notebook_is_told(tmp_path):
    made(tmp_path / "anna.zip", {"essay.txt": b"x"})
    assert problem(tmp_path).startswith(
        "anna.zip holds no file that could be 00_measuring; expected 00_measuring"
    )


def test_nothing_is_written_while_a_zip_is_read(tmp_path):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("x.ipynb", "x")
    made(tmp_path / "inbox.zip", {"class/anna.zip": inner.getvalue(), "class/ben.ipynb": b"y"})
    for each in find_submissions(tmp_path / "inbox.zip", LAB):
        each.content()
    assert [path.name for path in tmp_path.rglob("*")] == ["inbox.zip"]
