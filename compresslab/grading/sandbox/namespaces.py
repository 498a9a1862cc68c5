"""Fresh namespaces for one exercise: process numbers, mounts and shared memory that nothing else uses.

The worker already stands in a sandbox (``bubblewrap.py``). A child of it makes these namespaces inside, for
one exercise: the student's code sees no other process, no ``/proc``, and one empty folder that it can write
to. When the first process of the namespace ends, the kernel ends all others in it.
"""

from __future__ import annotations

import contextlib

from compresslab.grading.sandbox.kernel import Mount, Namespace, mount, unshare

__all__ = ["SCRATCH", "isolate_next_child"]

SCRATCH = "/scratch"  # the one folder that can be written to
SCRATCH_OPTIONS = "size=64m,nr_inodes=4096,mode=1777"  # bytes and files in it; writable for every user
EMPTY_OPTIONS = "size=4k"


def isolate_next_child() -> None:
    """Give this process's next child fresh namespaces; needs the privileges of a sandboxed worker.

    Raises:
        OSError: the kernel refuses.
    """
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")  # where memory runs out all the same, the kernel ends this before the grader
    unshare(Namespace.MOUNTS | Namespace.IPC | Namespace.PROCESSES)
    mount(None, "/", None, Mount.RECURSIVE | Mount.PRIVATE, None)
    mount("tmpfs", SCRATCH, "tmpfs", Mount.NO_SETUID | Mount.NO_DEVICES, SCRATCH_OPTIONS)
    mount("tmpfs", "/proc", "tmpfs", Mount.NO_SETUID | Mount.NO_DEVICES | Mount.READ_ONLY, EMPTY_OPTIONS)
