"""Limits on memory, files, processes and time, for a process that runs a student's code.

The kernel's resource limits bind each process alone; ``MemoryWatchdog`` adds up what all processes of one
exercise hold. Root would have to obey the limits too, so they are set before privileges are dropped.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys

from compresslab.grading.sandbox.privileges import end_with_parent

__all__ = ["MemoryWatchdog", "address_space_bytes", "set_limits"]

MEMORY = 4 * 2**30  # bytes, beside what torch itself has mapped
LARGEST_FILE = 16 * 2**20  # bytes
OPEN_FILES = 64
PROCESSES = 12  # threads count too, and where the grader is not root its own four


def address_space_bytes() -> int:
    """Bytes of address space in use already: torch's libraries alone may take several GB of it."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/statm") as sizes:
        return int(sizes.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def set_limits(seconds: float, *, address_space: int, isolated: bool) -> None:
    """Limit memory, file sizes and processor time of this process; where it is isolated, processes too.

    Args:
        seconds: of processor time, about.
        address_space: bytes in use already, which come on top of what is allowed.
        isolated: whether it stands in namespaces of its own. Elsewhere the student's user is the grader's,
            who has more processes than the limit.
    """
    import resource  # there is none on Windows

    if sys.platform == "linux" and not isolated:
        end_with_parent()
    limits = {"AS": address_space + MEMORY, "FSIZE": LARGEST_FILE, "CPU": math.ceil(seconds) + 1, "CORE": 0}
    if isolated:
        limits |= {"NOFILE": OPEN_FILES, "NPROC": PROCESSES}
    for name, most in limits.items():
        with contextlib.suppress(AttributeError, OSError, ValueError):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))


class MemoryWatchdog:
    """Measures, from outside the namespaces, the memory of all processes of one exercise together.

    Made before the namespaces are, since their ``/proc`` is empty.
    """

    def __init__(self) -> None:
        self.processes = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
        self.grader = {"1", str(os.getppid()), str(os.getpid())}
        self.inherited = self._resident(str(os.getpid()))  # bytes that each fork of the worker begins with

    def is_exceeded(self) -> bool:
        """Whether the processes of the exercise together hold more memory than one may."""
        names = [name for name in os.listdir(self.processes) if name.isdecimal()]
        taken = [self._resident(name) - self.inherited for name in names if name not in self.grader]
        return sum(max(0, more) for more in taken) > MEMORY

    def _resident(self, name: str) -> int:
        """Return the bytes of memory that a process holds; 0 where it has ended."""
        with contextlib.suppress(OSError, IndexError):
            path = os.open(f"{name}/statm", os.O_RDONLY, dir_fd=self.processes)
            try:
                return int(os.read(path, 200).split()[1]) * os.sysconf("SC_PAGE_SIZE")
            finally:
                os.close(path)
        return 0
