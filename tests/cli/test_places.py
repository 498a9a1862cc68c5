"""The places that the kit writes to: a full, read-only or missing one is told, with what to do."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from compresslab.__main__ import app
from compresslab.cli import doctor, places
from compresslab.cli.places import home_problem, require_home, temporary_problem, write_problem
from compresslab.data import location
from compresslab.data.fashion_mnist import cache_folder
from compresslab.errors import CompressionError


def without_home(*_: object) -> Path:
    raise RuntimeError("Could not determine home directory.")


def is_full(**_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_folder_that_can_be_written_has_no_problem_and_nothing_in_it_afterwards(tmp_path):
    assert write_problem(tmp_path / "not" / "yet") == ""
    assert list(tmp_path.iterdir()) == []


def test_a_full_a_small_and_a_taken_place_are_told_apart(tmp_path, monkeypatch):
    (tmp_path / "taken").write_text("a file")
    assert write_problem(tmp_path / "taken" / "my_labs") == f"{tmp_path / 'taken'} is not a folder"
    assert " MB free in " in write_problem(tmp_path, least=2**60)
    monkeypatch.setattr(tempfile, "TemporaryFile", is_full)
    assert write_problem(tmp_path / "new") == f"{tmp_path} can't be written (No space left on device)"


def test_without_a_home_the_cache_is_asked_for_by_name(monkeypatch):
    for name in ("COMPRESSLAB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", without_home)
    with pytest.raises(
        CompressionError, match=r"HOME is not set, .*55 MB free\. Name one .* COMPRESSLAB_CACHE"
    ):
        cache_folder()
    monkeypatch.setenv("COMPRESSLAB_CACHE", "/somewhere")
    assert cache_folder() == Path("/somewhere")


def test_jupyterlab_is_not_started_without_a_home(monkeypatch, tmp_path):
    assert home_problem(without_home) == "this user has none, and HOME is not set"
    monkeypatch.setattr(location, "MY_LABS", tmp_path)
    monkeypatch.setattr(places, "_jupyter_folders", without_home)
    result = CliRunner().invoke(app, ["start"], env={"COLUMNS": "300"})
    assert result.exit_code == 2
    assert "JupyterLab needs a home folder: this user has none" in result.output
    assert "HOME=$PWD compresslab start" in result.output


def test_a_home_that_cannot_be_written_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(places, "_jupyter_folders", lambda: (tmp_path,))
    require_home()
    monkeypatch.setattr(tempfile, "TemporaryFile", is_full)
    with pytest.raises(CompressionError, match=r"home folder: .* can't be written \(No space left"):
        require_home()


def test_no_temporary_folder_is_told(monkeypatch):
    assert temporary_problem() == ""

    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    assert temporary_problem() == "none of the usual folders can be written"


def test_the_doctor_says_it_first(monkeypatch, tmp_path):
    good = doctor.places(tmp_path)
    assert [finding.name for finding in good] == ["my_labs", "home folder", "temporary files"]
    assert all(finding.good for finding in good)
    monkeypatch.setattr(places, "_jupyter_folders", without_home)
    monkeypatch.setattr(tempfile, "TemporaryFile", is_full)
    bad = doctor.places(tmp_path)
    assert not any(finding.good for finding in bad)
    assert all(finding.needed and finding.remedy for finding in bad)


def test_the_doctor_examines_a_machine_without_a_home(monkeypatch, tmp_path):
    for name in ("COMPRESSLAB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", without_home)
    monkeypatch.setattr(doctor, "dataset", lambda *_: doctor.Finding("Fashion-MNIST", True, True, "there"))
    found = {finding.name: finding for finding in doctor.examine()}
    assert not found["cache folder"].good
    assert "COMPRESSLAB_CACHE" in found["cache folder"].remedy


MOUNTS = shutil.which("mount") and hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 KB, as only root can make one."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True)
    if made.returncode:
        pytest.skip("this container may not mount a file system")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.skipif(not MOUNTS, reason="only root can mount a small file system")
def test_on_a_disk_that_is_really_full_and_then_read_only_each_command_ends_in_a_sentence(small_disk):
    code = (
        "import sys; from pathlib import Path; from compresslab.data import location; "
        f"location.MY_LABS = Path({str(small_disk)!r}, 'my_labs'); "
        "from compresslab.__main__ import app; app(prog_name='compresslab')"
    )
    for words in ("(No space left on device)", "(Read-only file system)"):
        done = subprocess.run([sys.executable, "-c", code, "start"], capture_output=True, text=True)
        assert (done.returncode, words in done.stdout, done.stderr) == (2, True, ""), done
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
