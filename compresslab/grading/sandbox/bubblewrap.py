"""Where a worker lives: a sandbox without network, home, course files or environment (bubblewrap, on Linux).

What is there: the system's programs and Python, read-only; the stripped copy of the package; an empty
folder, which is ``/tmp`` too. What is not there can't be read: solutions, bundle, other students, the
grader's files. The limits within it, and a fresh room for each exercise, are ``confinement.py``'s.
"""

from __future__ import annotations

import functools
import os
import secrets
import shutil
import site
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import compresslab
from compresslab.grading.sandbox.limits import ROOM
from compresslab.jobs.openmp import POLICY, passive

__all__ = ["free_user", "sandbox_command", "shown_at"]

PACKAGE = Path(compresslab.__file__).resolve().parent
COURSE = ("solutions", "labs", "tests", "my_labs", ".git")  # beside the package, in a repository
KIT = "/kit"  # where the stripped package lies inside
TEMPORARY = Path("/tmp")  # inside, the answer's own folder: whatever lies there outside is shown elsewhere
PYTHON = Path("/python")  # where that is: a Python below /tmp, such as the environment of a clone made there
RIGHTS = ("SYS_ADMIN", "SETUID", "SETGID", "SETPCAP", "KILL")  # of the worker: rooms, other users, their end
SYSTEM = (
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/bin",
    "/sbin",
    "/nix/store",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
)


def sandbox_command(package: Path, inner: Sequence[str]) -> list[str]:
    """The command line that runs another one in a sandbox; ``package`` is what Python imports from there."""
    rights = [part for right in RIGHTS for part in ("--cap-add", f"CAP_{right}")]
    as_root = ["--cap-drop", "ALL", *rights]
    as_user = ["--unshare-user", "--uid", "0", "--gid", "0", "--cap-add", "ALL"]  # root of its own room alone
    return [
        shutil.which("bwrap") or "bwrap",
        *("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"),
        *(as_root if os.getuid() == 0 else as_user),
        *("--die-with-parent", "--new-session", "--clearenv", "--hostname", "grader"),
        *_mounts(package.resolve()),
        *("--proc", "/proc", "--dev", "/dev", "--perms", "0755", "--dir", ROOM),
        *("--ro-bind", str(package.resolve()), KIT),
        *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", ROOM),
        *_variables(),
        "--",
        *inner,
    ]


def free_user() -> int:
    """A user that nobody is, for the student's code; 0 where we can't change users ourselves."""
    return 2**30 + secrets.randbelow(2**30) if os.getuid() == 0 else 0


def _mounts(package: Path) -> Iterator[str]:
    """The system and Python, read-only; what of the course lies in them is covered."""
    shown: list[Path] = []
    for name in SYSTEM:
        place = Path(name)
        if place.is_symlink():
            yield from ("--symlink", os.readlink(place), name)
        elif place.exists():
            yield from ("--ro-bind", name, name)
            shown.append(place)
    for place in _python():
        if not any(place.is_relative_to(known) for known in shown):
            for parent in reversed(shown_at(place).parents[:-1]):
                yield from ("--perms", "0755", "--dir", str(parent))  # the student's user passes through
            yield from ("--ro-bind", str(place), str(shown_at(place)))
            shown.append(place)
    if not any(shown_at(place).is_relative_to(TEMPORARY) for place in shown):
        yield from ("--symlink", ROOM, str(TEMPORARY))
    for place in dict.fromkeys([*_course(), package.parent]):
        if place.exists() and any(place.is_relative_to(known) for known in shown):
            yield from ("--tmpfs", str(shown_at(place)))


def shown_at(place: Path) -> Path:
    """Where a file or folder of Python's is seen inside: at its own path, or in ``PYTHON`` if below /tmp.

    Python finds its packages by the path of its program, so it may be moved. An environment whose base Python
    lies below /tmp as well names that base by its path: both stay, and answers have no /tmp of their own.
    """
    base = Path(sys.base_prefix)
    stays = sys.prefix != sys.base_prefix and base.is_relative_to(TEMPORARY)
    if stays or not place.is_relative_to(TEMPORARY):
        return place
    return PYTHON / place.relative_to(TEMPORARY)


@functools.cache
def _python() -> tuple[Path, ...]:
    """Where Python and its packages lie, the wider places first; of a prefix no more than its programs.

    An environment may be made in a course's own folder: that folder is not shown.
    """
    prefixes = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent.parent}
    places = {
        place
        for prefix in prefixes
        for place in (prefix / "bin", prefix / "pyvenv.cfg", *prefix.glob("lib*"))
    }
    places |= {place for place in _packages() if str(place) in sys.path}
    return tuple(sorted((p for p in places if p.exists()), key=lambda place: len(place.parts)))


def _packages() -> list[Path]:
    return [Path(place) for place in (*site.getsitepackages(), site.getusersitepackages())]


def _course() -> Iterator[Path]:
    """Where the kit and its course lie, by each name: this copy, and others that are installed."""
    for package in (Path(compresslab.__file__).parent, PACKAGE):
        yield package
        yield from (package.parent / name for name in COURSE)
    yield from (place / "compresslab" for place in _packages())


def _variables() -> Iterator[str]:
    ours = {
        "PATH": "/usr/bin:/bin",
        "HOME": ROOM,
        "TMPDIR": ROOM,
        "LANG": "C.UTF-8",
        "PYTHONPATH": KIT,
        "OMP_NUM_THREADS": "1",
        POLICY: passive()[POLICY],
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
    }
    for name, value in ours.items():
        yield from ("--setenv", name, value)
