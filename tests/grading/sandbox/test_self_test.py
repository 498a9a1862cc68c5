"""Isolation: every finding holds where bubblewrap can run, each one can fail, what is missing is said."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from compresslab.checks.call import Attempt, Run, run_to_bytes
from compresslab.checks.record import describe
from compresslab.grading.bundle import make_bundle
from compresslab.grading.sandbox import bubblewrap, self_test, worker_client
from compresslab.grading.sandbox.bubblewrap import sandbox_command, shown_at, unused_user
from compresslab.grading.sandbox.namespaces import SCRATCH
from compresslab.grading.sandbox.self_test import WORDS, Finding, can_isolate, run_self_test

pytestmark = pytest.mark.alone  # counts processes and tries every limit
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="bubblewrap is for Linux alone")
afresh = run_self_test.__wrapped__  # tried again, whatever an earlier test has found


@pytest.fixture
def isolating():
    if not can_isolate():
        pytest.skip("bubblewrap can't isolate here: compresslab sandbox --check says why")


def failing(findings) -> set[str]:
    return {finding.about for finding in findings if not finding.holds}


# Every finding holds here, and each can fail.


def test_everything_that_was_tried_holds(isolating):
    assert run_self_test() == tuple(Finding(about, True, words[0]) for about, words in WORDS.items())


def weakened(monkeypatch, *changes: tuple[str, str, str], options=()) -> set[str]:
    """What fails where a worker's modules are changed, or bubblewrap is given more options."""

    def make(lab, out):
        bundle = make_bundle(lab, out)
        for page, before, after in changes:
            place = bundle.worker / "compresslab" / "grading" / "sandbox" / f"{page}.py"
            assert before in place.read_text()
            place.write_text(place.read_text().replace(before, after))
        return bundle

    def command(package, inner):
        whole = sandbox_command(package, inner)
        place = whole.index("--remount-ro")
        link = whole.index("/tmp")
        kept = [*whole[: link - 2], *whole[link + 1 : place]]
        return (
            whole
            if not options
            else [*(part for part in kept if part != "--unshare-net"), *options, *whole[place:]]
        )

    monkeypatch.setattr(self_test, "make_bundle", make)
    monkeypatch.setattr(worker_client, "sandbox_command", command)
    return failing(afresh())


def test_what_the_sandbox_no_longer_takes_away_is_found(isolating, monkeypatch, tmp_path):
    monkeypatch.setattr(self_test.tempfile, "tempdir", str(tmp_path))
    tmp_path.chmod(0o755)
    way = [part for place in reversed(tmp_path.parents[:-2]) for part in ("--perms", "0755", "--dir", place)]
    found = weakened(
        monkeypatch,
        ("namespaces", '    mount("tmpfs"', '    print("tmpfs"'),
        ("syscalls", '    "socket": Syscall', '    "getppid": Syscall'),
        ("syscalls", "(x86_64=41, aarch64=198)", "(x86_64=110, aarch64=173)"),
        options=[
            *("--setenv", "MY_TOKEN", "secret", "--perms", "1777", "--tmpfs", "/dev/shm"),
            *(*map(str, way), "--ro-bind", str(tmp_path), str(tmp_path)),
        ],
    )
    assert found >= {"network", "environment", "writing", "files", "processes seen"}


def test_limits_that_are_gone_are_found(isolating, monkeypatch):
    found = weakened(
        monkeypatch,
        ("limits", "MEMORY = 4 * 2**30", "MEMORY = 2**40"),
        ("limits", "LARGEST_FILE = 16 * 2**20", "LARGEST_FILE = 2**30"),
        ("limits", "PROCESSES = 12", "PROCESSES = 3_000"),
        ("namespaces", "nr_inodes=4096", "nr_inodes=40960"),
    )
    assert found == {"memory", "file size", "file count", "processes"}


def test_rights_that_are_kept_are_found(isolating, monkeypatch):
    kept = ("privileges", "    for capability in", "    return\n    for capability in")
    assert "rights" in weakened(monkeypatch, kept)


def test_a_process_that_stays_is_found(isolating, monkeypatch):
    found = weakened(
        monkeypatch,
        ("namespaces", " | Namespace.PROCESSES", ""),
        ("worker", "os.killpg(child, signal.SIGKILL)", "pass"),
    )
    assert found == {"left"}


@pytest.fixture
def leaving(monkeypatch):
    """Makes the worker of the trial leave this, and so many processes."""

    def leave(end: str, content: bytes, left: int = 0) -> None:
        worker = SimpleNamespace(run=lambda job: (end, content))
        monkeypatch.setattr(
            self_test, "WorkerClient", lambda bundle, isolated: contextlib.nullcontext(worker)
        )
        monkeypatch.setattr(self_test, "_processes_left", lambda workers: left)
        monkeypatch.setattr(self_test.shutil, "which", lambda name: name)

    return leave


@linux
@pytest.mark.parametrize("about", WORDS)
def test_what_was_found_is_said_in_its_own_words(leaving, about):
    record = {name: describe(name == about) for name in WORDS}
    leaving("ok", b"run\n" + run_to_bytes(Run((Attempt(record=record),))), left=about == "left")
    assert afresh() == tuple(Finding(name, name != about, w[name == about]) for name, w in WORDS.items())


@linux
@pytest.mark.parametrize(
    ("end", "content", "said"),
    [
        ("late", b"", "late"),
        ("ok", b"no\nyour cell raises", "your cell raises"),
        (
            "ok",
            b"run\n" + run_to_bytes(Run((Attempt(raised="OSError", words="it raises OSError"),))),
            "OSError",
        ),
        ("ok", b"run\nno record", "a record can't be read"),
    ],
)
def test_a_trial_that_came_to_nothing_does_not_hold(leaving, end, content, said):
    leaving(end, content)
    (finding,) = afresh()
    assert not finding.holds
    assert said in finding.words.partition("It said: ")[2]


# Where it can't be tried.


def test_another_system_is_told_so(monkeypatch):
    monkeypatch.setattr(self_test.sys, "platform", "darwin")
    (finding,) = afresh()
    assert not finding.holds
    assert finding.words == "is for Linux alone, this is darwin; grade in a VM"


@linux
def test_an_unknown_processor_is_told_so(monkeypatch):
    monkeypatch.setattr(self_test.platform, "machine", lambda: "riscv64")
    (finding,) = afresh()
    assert (finding.about, finding.holds) == ("system calls", False)
    assert finding.words == (
        "the processor architecture 'riscv64' has no table of system calls in this kit; expected one of "
        "x86_64, aarch64; grade on such a machine"
    )


@linux
def test_a_missing_bubblewrap_is_told_with_how_to_install_it(monkeypatch):
    monkeypatch.setattr(self_test.shutil, "which", lambda name: None)
    (finding,) = afresh()
    assert (finding.about, finding.holds) == ("bubblewrap", False)
    assert finding.words.startswith("is not installed; install bubblewrap (apt-get install bubblewrap, ")


@linux
def test_a_kernel_that_refuses_is_told_with_what_to_allow(monkeypatch, tmp_path):
    bwrap = tmp_path / "bwrap"
    bwrap.write_text("#!/bin/sh\necho 'bwrap: No permissions to create a new namespace' >&2\nexit 1\n")
    bwrap.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (finding,) = afresh()
    assert (finding.about, finding.holds) == ("bubblewrap", False)
    for words in ("namespaces are forbidden", "--cap-add SYS_ADMIN", "apparmor_restrict", "grade as root"):
        assert words in finding.words
    assert finding.words.endswith("not start (bwrap: No permissions to create a new namespace)")


# The sandbox's command line.


def pairs(command, option):
    return [command[place + 1] for place, part in enumerate(command) if part == option]


@linux
def test_the_sandbox_has_no_network_no_variables_and_nothing_that_can_be_written(tmp_path):
    command = sandbox_command(tmp_path, ["inner", "command"])
    assert command[-3:] == ["--", "inner", "command"]
    for option in ("--unshare-net", "--unshare-pid", "--unshare-ipc", "--die-with-parent", "--clearenv"):
        assert option in command
    assert "--new-session" in command  # no words into the teacher's terminal
    assert "--bind" not in command
    assert {"/", "/dev"} <= set(pairs(command, "--remount-ro"))
    assert command[command.index(str(tmp_path)) + 1] == "/kit"


@linux
def test_folders_of_the_course_below_a_shown_one_are_covered(monkeypatch, tmp_path):
    course = tmp_path / "prefix" / "course"
    for name in ("compresslab", "solutions", "labs"):
        (course / name).mkdir(parents=True)
    monkeypatch.setattr(bubblewrap, "PACKAGE", course / "compresslab")
    assert {str(course / name) for name in ("compresslab", "solutions")}.isdisjoint(
        pairs(sandbox_command(tmp_path, []), "--tmpfs")
    )
    monkeypatch.setattr(bubblewrap, "_python", lambda: (tmp_path / "prefix",))
    command = sandbox_command(tmp_path, [])
    covered = [str(shown_at(course / name)) for name in ("compresslab", "solutions", "labs")]
    assert [place for place in pairs(command, "--tmpfs") if place in covered] == covered
    assert command.index(str(tmp_path / "prefix")) < command.index(covered[0])


@linux
@pytest.mark.parametrize(
    ("prefix", "base", "there"),
    [
        ("/home/me/.venv", "/usr", "/home/me/.venv"),
        ("/tmp/clone/.venv", "/usr", "/python/clone/.venv"),
        ("/tmp/conda", "/tmp/conda", "/python/conda"),
    ],
)
def test_an_answer_has_its_own_tmp_wherever_python_lies(monkeypatch, prefix, base, there):
    monkeypatch.setattr(bubblewrap.sys, "prefix", prefix)
    monkeypatch.setattr(bubblewrap.sys, "base_prefix", base)
    monkeypatch.setattr(bubblewrap, "_python", lambda: (Path(prefix, "bin"),))
    command = " ".join(sandbox_command(Path("/"), []))
    assert f"--ro-bind {prefix}/bin {there}/bin " in command
    assert f"--symlink {SCRATCH} /tmp" in command
    assert str(shown_at(Path(prefix, "bin", "python"))) == f"{there}/bin/python"


@linux
def test_an_environment_whose_base_lies_below_tmp_too_is_shown_in_its_place(monkeypatch):
    monkeypatch.setattr(bubblewrap.sys, "prefix", "/tmp/clone/.venv")
    monkeypatch.setattr(bubblewrap.sys, "base_prefix", "/tmp/python")
    monkeypatch.setattr(bubblewrap, "_python", lambda: (Path("/tmp/clone/.venv/bin"),))
    command = " ".join(sandbox_command(Path("/"), []))
    assert "--ro-bind /tmp/clone/.venv/bin /tmp/clone/.venv/bin " in command
    assert f"{SCRATCH} /tmp" not in command


def test_each_worker_has_a_user_that_nobody_is():
    users = {unused_user() for _ in range(20)}
    assert users == {0} if os.getuid() else (len(users) == 20 and min(users) >= 2**30)


# As an ordinary user.


@linux
def test_an_ordinary_user_can_isolate_too(isolating, tmp_path_factory):
    if os.getuid():
        pytest.skip("the tests run as an ordinary user already")
    root = Path(self_test.__file__).parents[3]
    words = "import dataclasses, json; from compresslab.grading.sandbox.self_test import run_self_test; "
    words += "print(json.dumps([dataclasses.astuple(finding) for finding in run_self_test()]))"
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(root),
        "HOME": "/nowhere",
        "OMP_NUM_THREADS": "1",
    }

    def as_nobody(code):
        return subprocess.run(
            [sys.executable, "-P", "-B", "-c", code],
            env=environment,
            cwd="/",
            user=65534,
            group=65534,
            extra_groups=[],
            capture_output=True,
            text=True,
        )

    try:
        reached = as_nobody("import torch, compresslab").returncode == 0
    except PermissionError:
        reached = False
    if not reached:
        pytest.skip("this Python lies where an ordinary user can't reach it")
    done = as_nobody(words)
    assert done.returncode == 0, done.stderr
    findings = [Finding(*finding) for finding in json.loads(done.stdout)]
    if failing(findings) == {"bubblewrap"}:
        pytest.skip(f"this kernel lets root alone isolate: {findings[0].words}")
    assert failing(findings) == set()
