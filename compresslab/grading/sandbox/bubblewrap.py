"""The sandbox around a worker: no network, home, course files or environment (bubblewrap, on Linux).

Inside are the system's programs and Python, read-only; the worker's copy of the package; the data set and
networks that every student has; and an empty folder, which is ``/tmp`` too. What is not mounted can't be
read: solutions, bundle, other students, the grader's files. Inside the sandbox each exercise gets fresh
namespaces (``namespaces.py``), no privileges (``privileges.py``) and limits (``limits.py``).
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import shutil
import site
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import compresslab
from compresslab.data.fashion_mnist import cache_folder
from compresslab.data.location import DATA, LABS, MY_LABS, PACKAGE, SOLUTIONS
from compresslab.errors import NotAvailable
from compresslab.grading.sandbox.namespaces import SCRATCH
from compresslab.jobs.openmp import POLICY, passive

__all__ = ["fixed_variables", "sandbox_command", "shown_at", "unused_user"]

COURSE = (SOLUTIONS.name, LABS.name, "tests", MY_LABS.name, ".git")  # beside the package, in a repository
SHOWN_DATA = ("fashion_mnist", "baselines")  # what a lab's opening cell loads; no results
KIT_DATA = "/data"  # where they lie inside
UNPACKED = f"{KIT_DATA}/unpacked"  # the cache of the data set, where the grader's user has one
KIT = "/kit"  # where the worker's copy of the package lies inside
TEMPORARY = Path("/tmp")  # inside, the scratch folder: what lies there outside is shown elsewhere
PYTHON = Path("/python")  # where: a Python below /tmp, such as the environment of a clone made there
CAPABILITIES = (
    "SYS_ADMIN",
    "SETUID",
    "SETGID",
    "SETPCAP",
    "KILL",
)  # of the worker: to isolate and end answers
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
    """Return the command line that runs ``inner`` in a sandbox, where Python imports from ``package``."""
    capabilities = [part for name in CAPABILITIES for part in ("--cap-add", f"CAP_{name}")]
    as_root = ["--cap-drop", "ALL", *capabilities]
    as_user = ["--unshare-user", "--uid", "0", "--gid", "0", "--cap-add", "ALL"]  # root inside alone
    return [
        shutil.which("bwrap") or "bwrap",
        *("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"),
        *(as_root if os.getuid() == 0 else as_user),
        *("--die-with-parent", "--new-session", "--clearenv", "--hostname", "grader"),
        *_mounts(package.resolve()),
        *("--proc", "/proc", "--dev", "/dev", "--perms", "0755", "--dir", SCRATCH),
        *("--ro-bind", str(package.resolve()), KIT),
        *_data_mounts(),
        *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", SCRATCH),
        *_variables(),
        "--",
        *inner,
    ]


def unused_user() -> int:
    """Return the id of a user that does not exist, for the student's code; 0 where we can't change users."""
    return 2**30 + secrets.randbelow(2**30) if os.getuid() == 0 else 0


def fixed_variables() -> dict[str, str]:
    """Return the environment variables of every worker, in a sandbox or not."""
    return {
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        POLICY: passive()[POLICY],
    }


def _mounts(package: Path) -> Iterator[str]:
    """Mount the system and Python read-only, and an empty folder over what they hold of the course."""
    shown = [path for path in map(Path, SYSTEM) if path.exists() and not path.is_symlink()]
    yield from _system_mounts()
    for path in _python():
        if not _lies_in(path, shown):
            yield from _python_mount(path)
            shown.append(path)
    if not any(shown_at(path).is_relative_to(TEMPORARY) for path in shown):
        yield from ("--symlink", SCRATCH, str(TEMPORARY))
    for path in dict.fromkeys([*_course(), package.parent]):
        if path.exists() and _lies_in(path, shown):
            yield from ("--tmpfs", str(shown_at(path)))


def _system_mounts() -> Iterator[str]:
    for name in SYSTEM:
        if Path(name).is_symlink():
            yield from ("--symlink", os.readlink(name), name)
        elif Path(name).exists():
            yield from ("--ro-bind", name, name)


def _data_mounts() -> Iterator[str]:
    """Mount what every student has of the kit's data, read-only."""
    yield from ("--perms", "0755", "--dir", KIT_DATA)
    for name in SHOWN_DATA:
        yield from ("--ro-bind-try", str(DATA / name), f"{KIT_DATA}/{name}")
    with contextlib.suppress(NotAvailable):  # a user without a home folder
        yield from ("--ro-bind-try", str(cache_folder()), UNPACKED)


def _python_mount(path: Path) -> Iterator[str]:
    for parent in reversed(shown_at(path).parents[:-1]):
        yield from ("--perms", "0755", "--dir", str(parent))  # the student's user passes through
    yield from ("--ro-bind", str(path), str(shown_at(path)))


def _lies_in(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def shown_at(path: Path) -> Path:
    """Return where a file or folder of Python's is seen inside: its own path, or in ``PYTHON`` if below /tmp.

    Python finds its packages by the path of its program, so it may be moved. An environment whose base Python
    lies below /tmp as well names that base by its path: both stay, and answers have no /tmp of their own.
    """
    base = Path(sys.base_prefix)
    stays = sys.prefix != sys.base_prefix and base.is_relative_to(TEMPORARY)
    if stays or not path.is_relative_to(TEMPORARY):
        return path
    return PYTHON / path.relative_to(TEMPORARY)


@functools.cache
def _python() -> tuple[Path, ...]:
    """Return where Python and its packages lie, the wider folders first; of a prefix only its programs.

    An environment may be made in a course's own folder: that folder is not shown.
    """
    prefixes = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent.parent}
    paths = {
        path for prefix in prefixes for path in (prefix / "bin", prefix / "pyvenv.cfg", *prefix.glob("lib*"))
    }
    paths |= {path for path in _packages() if str(path) in sys.path}
    return tuple(sorted((path for path in paths if path.exists()), key=lambda path: len(path.parts)))


def _packages() -> list[Path]:
    return [Path(path) for path in (*site.getsitepackages(), site.getusersitepackages())]


def _course() -> Iterator[Path]:
    """Yield where the kit and its course lie, by each name: this copy, and others that are installed."""
    for package in (Path(compresslab.__file__).parent, PACKAGE):
        yield package
        yield from (package.parent / name for name in COURSE)
    yield from (path / "compresslab" for path in _packages())


def _variables() -> Iterator[str]:
    inside = {
        "PATH": "/usr/bin:/bin",
        "HOME": SCRATCH,
        "TMPDIR": SCRATCH,
        "LANG": "C.UTF-8",
        "PYTHONPATH": KIT,
        "COMPRESSLAB_DATA": KIT_DATA,
        "COMPRESSLAB_CACHE": UNPACKED,
    }
    for name, value in (inside | fixed_variables()).items():
        yield from ("--setenv", name, value)
