"""What a command has started, seen from outside: processes, their memory, what outlives it (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from pathlib import Path

__all__ = ["adopt_orphans", "below", "called", "left_after", "memory_bytes"]

_SUBREAPER = 36  # prctl's PR_SET_CHILD_SUBREAPER


def adopt_orphans() -> None:
    """From now on a process whose parents have died becomes our child, so that none gets out of sight."""
    if ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("this kernel lets nobody adopt orphans; the soak needs Linux")


def below(ancestor: int) -> set[int]:
    """The living processes that this one has started, and those that they have started."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state not in "ZX":
                parents[int(entry.name)] = int(parent)
    found = {ancestor}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {ancestor}


def called(ancestor: int, words: str) -> list[int]:
    """Those of the processes below that have these words in their command line, the oldest first."""
    found = []
    for process in sorted(below(ancestor)):
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if words in line:
                found.append(process)
    return found


def memory_bytes(ancestor: int) -> int:
    """The memory of a process and all below it: the sum of PSS (a page that n share counts 1/n for each)."""
    total = 0
    for process in {ancestor, *below(ancestor)}:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += 1024 * int(line.split()[1])
    return total


def left_after(seconds: float) -> set[int]:
    """What still runs below us when it had this long to end; the dead are buried."""
    deadline = time.monotonic() + seconds
    while (left := below(os.getpid())) and time.monotonic() < deadline:
        _bury()
        time.sleep(0.1)
    _bury()
    return left


def _bury() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
