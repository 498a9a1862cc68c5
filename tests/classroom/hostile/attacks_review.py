"""What a review found: a reader that swells, memory that no watch sees, records that lack their values."""

from __future__ import annotations

import ctypes
import io
import mmap
import os
import sys

import numpy as np
from hostile.attack import Attack, attack, written

__all__ = ["ATTACKS"]

NOTHING = "ValueError: found nothing"


def send(record):
    """Hands in these bytes as if they were the worker's own record, and ends."""
    rest = memoryview(len(record).to_bytes(8, "big") + record)
    while rest:
        rest = rest[os.write(3, rest) :]
    os._exit(0)


@attack("can't be read")
def strides_that_swell(x):
    """Sends 600 tensors of 976 bytes, whose strides put each byte on a page of its own: 2.4 GB when read."""
    node = '{{"tensor": "array_{}", "dtype": "uint8", "strides": [4096]}}'
    words = f'[[], "", 0, [{",".join(map(node.format, range(600)))}]]'.encode()
    arrays = {f"array_{number}": np.zeros(976, np.uint8) for number in range(600)}
    file = io.BytesIO()
    np.savez(file, tree=np.frombuffer(words, np.uint8), **arrays)
    send(b"run\n" + file.getvalue())


@attack("left a record that can't be read", hole="count_parameters")
def a_record_without_its_values(*arguments, **settings):
    """Sends a record that lacks the value a judge looks up, so that the fault would seem the grader's."""
    running = sys.modules["compresslab.classroom.running"]
    send(b"run\n" + running.run_to_bytes(running.Run((running.Attempt(),) * 9)))


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
