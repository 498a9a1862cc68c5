"""Test on this machine whether the sandbox isolates a student's code, by trying to break out of it.

A made-up exercise asks its answer to break out. The answer goes the way of every answer, through a worker in
a sandbox into namespaces of its own, and what it could do comes back as a record. So nothing is concluded
from versions or settings: each finding is something that has just been tried.
"""

from __future__ import annotations

import functools
import inspect
import platform
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compresslab import course
from compresslab.checks.call import run_from_bytes
from compresslab.checks.exercise import Lab
from compresslab.errors import CompressionError
from compresslab.grading.bundle import Bundle, make_bundle
from compresslab.grading.sandbox.messages import Ending, Reply
from compresslab.grading.sandbox.syscalls import architecture
from compresslab.grading.sandbox.worker_client import WorkerClient

__all__ = ["Finding", "can_isolate", "run_self_test"]

INSTALL = "install bubblewrap (apt-get install bubblewrap, dnf install bubblewrap, apk add bubblewrap)"
FORBIDDEN = (
    "is there, but no answer can be run in it. In most cases namespaces are forbidden. In a container: start "
    "it with --privileged, or with --cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt "
    "apparmor=unconfined. On Ubuntu 24.04 and later: sudo sysctl "
    "kernel.apparmor_restrict_unprivileged_userns=0. Or grade as root"
)


@dataclass(frozen=True)
class Finding:
    """One part of isolation, whether it holds, and in ``words`` what was tried and what came of it."""

    about: str
    holds: bool
    words: str


def can_isolate() -> bool:
    """Whether a student's code can be isolated here, in every respect that was tried."""
    return all(finding.holds for finding in run_self_test())


@functools.cache
def run_self_test() -> tuple[Finding, ...]:
    """Return what holds on this machine and what does not; tried once in a process, in some seconds."""
    if sys.platform != "linux":
        return (Finding("bubblewrap", False, f"is for Linux alone, this is {sys.platform}; grade in a VM"),)
    try:
        architecture(platform.machine())
    except CompressionError as error:
        return (Finding("system calls", False, str(error)),)
    if shutil.which("bwrap") is None:
        return (Finding("bubblewrap", False, f"is not installed; {INSTALL}"),)
    with (
        tempfile.TemporaryDirectory(prefix="compresslab-") as folder,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        lab = Lab("90_sandbox", "The sandbox", "what an answer can reach", (), (), (), ())
        bundle = make_bundle(lab, Path(folder) / "bundle")
        try:
            hidden = [folder, str(bundle.folder / "bundle.json"), course.__path__[0]]
            return _try_out(bundle, {"port": listener.getsockname()[1], "hidden": hidden})
        except (RuntimeError, CompressionError) as error:
            return (Finding("bubblewrap", False, f"{FORBIDDEN}. It said: {error}"),)


def _try_out(bundle: Bundle, case: Mapping[str, Any]) -> tuple[Finding, ...]:
    job = {
        "name": "_break_out",
        "seconds": 20.0,
        "probe_name": "_probe",
        "probe": inspect.getsource(_probe),
        "pieces": [["cell 1", inspect.getsource(_break_out), [0]]],
        "target": "_break_out",
        "published": {},
        "cases": [("here", dict(case))],
    }
    with WorkerClient(bundle, isolated=True) as worker:
        ending, content = worker.run(job)
        left = _processes_left(worker)
    reply, _, record = content.partition(b"\n")
    if ending != Ending.OK or reply != Reply.RUN.encode():
        raise RuntimeError(content.decode(errors="replace")[:200] or ending)
    attempt = run_from_bytes(record).attempts[0]
    if attempt.raised:
        raise RuntimeError(attempt.words)
    found = {name: value.array is not None and bool(value.array) for name, value in attempt.record.items()}
    refused = {name: not done for name, done in found.items()} | {"left": left == 0}
    return tuple(Finding(about, refused[about], words[not refused[about]]) for about, words in WORDS.items())


def _processes_left(worker: WorkerClient) -> int:
    """Count processes beside bubblewrap's own two and the worker, once they had time to end."""
    deadline = time.monotonic() + 2
    while (left := worker.processes() - 3) > 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


WORDS = {  # what each finding says where it holds, and where it does not
    "network": ("not even this machine's own ports answer", "an answer reached a port of this machine"),
    "files": (
        "no file of yours is there, nor the kit's answers",
        "an answer sees your files, or the kit's answers",
    ),
    "environment": ("your variables are not there", "an answer sees variables of yours"),
    "writing": (
        "everything is read-only except one folder that begins empty",
        "an answer wrote outside its folder",
    ),
    "rights": (
        "no mounts, no other users, no namespaces",
        "an answer has privileges that it should not have",
    ),
    "processes seen": ("nothing is seen of any process", "an answer sees other processes"),
    "memory": ("6 GiB at once are refused", "an answer got 6 GiB at once"),
    "file size": ("no file grows beyond 16 MiB", "an answer wrote a file of 20 MiB"),
    "file count": ("no more than 4,096 files", "an answer made 5,000 files"),
    "processes": ("no more than 12 processes and threads", "an answer started 64 processes"),
    "left": ("what an answer leaves running is ended", "a process outlived its exercise"),
}


def _probe(case: dict[str, Any], break_out: Any) -> dict[str, Any]:
    return break_out(case)


def _break_out(case: Any) -> Any:
    import ctypes
    import mmap
    import os
    import socket
    import sys
    import time

    def can(attempt: Any) -> bool:
        try:
            return bool(attempt())
        except (OSError, MemoryError):
            return False

    def write(path: str, size: int = 1) -> bool:
        with open(path, "wb") as file:
            file.write(bytes(size))
        return True

    def start(count: int) -> bool:
        for _ in range(count):
            if os.fork() == 0:
                os.setsid()
                time.sleep(60)  # left behind
                os._exit(0)
        return True

    known = {"HOME", "LANG", "LC_CTYPE", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "PATH", "PWD"}
    known |= {
        "COMPRESSLAB_CACHE",
        "COMPRESSLAB_DATA",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONHASHSEED",
        "PYTHONPATH",
        "TMPDIR",
    }
    folders = ["/usr", "/", "/dev/shm", "/proc", sys.prefix, sys.base_prefix, os.path.dirname(os.__file__)]
    kernel = ctypes.CDLL(None)
    return {
        "network": can(lambda: socket.create_connection(("127.0.0.1", case["port"]), timeout=2)),
        "files": any(os.path.exists(path) for path in case["hidden"]),
        "environment": not set(os.environ) <= known,
        "writing": any(can(lambda folder=folder: write(f"{folder}/canary")) for folder in folders),
        "rights": any(
            call == 0
            for call in (
                kernel.unshare(0x10020000),
                kernel.mount(b"x", b"/tmp", b"tmpfs", 0, None),
                kernel.chroot(b"/tmp"),
            )
        ),
        "processes seen": can(lambda: os.listdir("/proc")),
        "memory": can(lambda: mmap.mmap(-1, 6 * 2**30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)),
        "file size": can(lambda: write("large", 20 * 2**20)),
        "file count": can(lambda: all(write(f"{n}") for n in range(5_000))),
        "processes": can(lambda: start(64)),
    }
