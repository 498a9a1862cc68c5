"""A file or folder is replaced as a whole or stays as it was, whatever interrupts the write."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from compresslab.errors import NotAvailable
from compresslab.storage import atomic
from compresslab.storage.atomic import (
    new_folder,
    replacing,
    write_bytes,
    write_json,
    write_tensors,
    write_text,
)

LARGE = 2_000_000
WRITERS = {
    "bytes": lambda path: write_bytes(path, bytes(LARGE)),
    "text": lambda path: write_text(path, "é" * LARGE),
    "json": lambda path: write_json(path, ["x" * LARGE]),
    "tensors": lambda path: write_tensors(path, {"w": torch.zeros(LARGE // 4)}),
    "durable": lambda path: write_bytes(path, bytes(LARGE), durable=True),
}
each_writer = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


@pytest.fixture
def path(tmp_path):
    """A file with something in it, alone in its folder."""
    place = tmp_path / "folder" / "file"
    place.parent.mkdir()
    place.write_text("before")
    return place


def is_untouched(path: Path) -> bool:
    return path.read_text() == "before" and list(path.parent.iterdir()) == [path]


def test_what_is_written_is_what_is_read(tmp_path):
    write_bytes(tmp_path / "a", b"\x00\xff")
    write_text(tmp_path / "b", "naïve\n")
    write_json(tmp_path / "new" / "folder" / "c", {"x": [1, 2.5]})
    write_tensors(tmp_path / "d", {"w": torch.arange(3)}, metadata={"of": "a test"}, durable=True)
    assert (tmp_path / "a").read_bytes() == b"\x00\xff"
    assert (tmp_path / "b").read_bytes() == "naïve\n".encode()
    assert (tmp_path / "new/folder/c").read_text() == json.dumps({"x": [1, 2.5]}, indent=1) + "\n"
    assert load_file(tmp_path / "d")["w"].tolist() == [0, 1, 2]
    assert {place.name for place in tmp_path.iterdir()} == {"a", "b", "d", "new"}


@each_writer
def test_a_file_is_replaced_and_nothing_is_left_beside_it(path, write):
    write(path)
    assert path.stat().st_size >= LARGE
    assert list(path.parent.iterdir()) == [path]


@each_writer
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(5, "Input/output error")], ids=["stop", "disk"])
def test_an_interruption_before_the_last_step_leaves_what_was_there(path, write, error, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(atomic.os, "replace", fail)
    with pytest.raises((KeyboardInterrupt, NotAvailable)):
        write(path)
    assert is_untouched(path)


def test_an_interruption_while_the_disk_is_asked_leaves_what_was_there(path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic.os, "fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "after", durable=True)
    assert is_untouched(path)


def test_a_failure_in_the_block_leaves_what_was_there(path):
    def fail():
        with replacing(path) as unfinished:
            unfinished.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert is_untouched(path)


@each_writer
def test_a_disk_that_is_full_leaves_what_was_there(path, write):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))  # the kernel refuses the rest of a file
    try:
        with pytest.raises(
            NotAvailable, match=r"file can't be written \(.*too large.*\); name a file in a folder"
        ):
            write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert is_untouched(path)


def test_a_process_that_is_killed_leaves_what_was_there(path):
    code = (
        "import os, sys; from compresslab.storage import atomic\n"
        "atomic.os.replace = lambda *_: os.kill(os.getpid(), 9)\n"
        "atomic.write_text(sys.argv[1], 'after')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "before"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write to a read-only folder")
def test_a_folder_that_is_read_only_says_what_to_do(path):
    path.parent.chmod(0o500)
    try:
        with pytest.raises(NotAvailable, match=r"\(Permission denied\); choose another"):
            write_text(path, "after", advice="choose another")
    finally:
        path.parent.chmod(0o700)
    assert is_untouched(path)


@each_writer
def test_a_folder_that_is_a_file_is_refused(path, write):
    with pytest.raises(NotAvailable, match=r"inside can't be written \("):
        write(path / "inside")
    assert is_untouched(path)


def test_the_longest_name_can_be_written(tmp_path):
    write_text(tmp_path / ("ü" * 127), "words")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_appears_whole(tmp_path):
    with new_folder(tmp_path / "out", mode=0o700) as unfinished:
        (unfinished / "a").write_text("words")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "a").read_text() == "words"
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_a_folder_may_take_the_place_of_an_empty_one_alone(tmp_path):
    out = tmp_path / "out"
    out.mkdir()

    def fill(text):
        with new_folder(out, advice="another one") as unfinished:
            (unfinished / "a").write_text(text)

    fill("first")
    with pytest.raises(NotAvailable, match=r"out can't be written \(.*\); another one"):
        fill("second")
    assert (out / "a").read_text() == "first"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_folder_that_fails_half_way_is_not_there(tmp_path, error):
    def fail():
        with new_folder(tmp_path / "out") as unfinished:
            (unfinished / "a").write_text("words")
            raise error

    with pytest.raises((KeyboardInterrupt, NotAvailable)):
        fail()
    assert list(tmp_path.iterdir()) == []
