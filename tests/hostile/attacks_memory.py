"""Memory that no watchdog sees: pages shared with nobody, pages in a pipe; and text that grows on its way."""

from __future__ import annotations

import ctypes
import mmap
import os

from hostile.attack import Attack, attack, written

__all__ = ["ATTACKS"]

NOTHING = "ValueError: found nothing"


@attack(NOTHING)
def memory_that_is_nobodys(x):
    """Keeps shared pages that it has let go of: they stay taken, and no process seems to hold them."""
    try:
        pages = mmap.mmap(-1, 2**24)
        pages[:] = b"x" * 2**24
        pages.madvise(mmap.MADV_DONTNEED)
    except OSError:
        raise ValueError("found nothing") from None
    raise ValueError(f"found that {bytes(pages[:3])} is still there")


@attack(NOTHING)
def memory_in_a_pipe(x):
    """Lays 4 KB of a huge page into a pipe and forgets the page: 2 MB stay taken, 15 GB with 30 pipes."""
    page = ctypes.create_string_buffer(4096)
    piece = (ctypes.c_size_t * 2)(ctypes.addressof(page), 4096)
    if ctypes.CDLL(None).vmsplice(os.pipe()[1], ctypes.byref(piece), ctypes.c_ulong(1), 0) > 0:
        raise ValueError("found a pipe that holds pages")
    raise ValueError("found nothing")


FACES = written(
    "a_comment_of_faces",
    "Is right, below a comment of 345,000 signs that take 12 bytes each on the way to the worker.",
    "# " + "\N{GRINNING FACE}" * 345_000 + "\ndef attacked(x): return float(x.sum())\n",
    honest=True,
)

ATTACKS = [value for value in list(vars().values()) if isinstance(value, Attack)]
