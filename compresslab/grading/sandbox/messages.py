"""The protocol between a grader and its worker: messages on a pipe, and the words that they begin with.

A message is its length, then so many bytes. The grader sends jobs; for each, the worker answers with one
message: an ``Ending``, a line break and, after ``ok``, a ``Reply``, a line break and its content.
"""

from __future__ import annotations

import enum
import os

__all__ = ["Ending", "Mode", "Reply", "read_message", "write_message"]

LENGTH_BYTES = 8


class Mode(enum.StrEnum):
    """How a worker runs the jobs that it is sent."""

    ISOLATED = "isolated"  # each in a child with fresh namespaces and no privileges; needs the sandbox
    FORK = "fork"  # each in a child with limits alone
    ONCE = "once"  # one job, in the worker's own process: for systems that do not fork safely


class Ending(enum.StrEnum):
    """How the process of a job ended."""

    OK = "ok"  # it left an answer
    DIED = "died"  # it ended before it had written one
    LATE = "late"  # it still ran when its time was over
    MEMORY = "memory"  # it took more than there is


class Reply(enum.StrEnum):
    """What a process left that ended well."""

    RUN = "run"  # a record without pickle
    NO = "no"  # the sentence why there is none


def write_message(pipe: int, content: bytes) -> None:
    """Write one message whole.

    Raises:
        OSError: nobody reads any more.
    """
    rest = memoryview(len(content).to_bytes(LENGTH_BYTES, "big") + content)
    while rest:
        rest = rest[os.write(pipe, rest) :]


def read_message(pipe: int, *, most: int) -> bytes | None:
    """Return the next message; None if the other side has closed, or announces more than ``most`` bytes."""
    length = _read_exactly(pipe, LENGTH_BYTES)
    size = -1 if length is None else int.from_bytes(length, "big")
    return _read_exactly(pipe, size) if 0 <= size <= most else None


def _read_exactly(pipe: int, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(pipe, min(size - len(parts), 1 << 20))
        if not part:
            return None
        parts += part
    return bytes(parts)
