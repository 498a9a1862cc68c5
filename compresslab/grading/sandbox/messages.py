"""Messages between a grader and its worker: a length, then so many bytes, on a pipe."""

from __future__ import annotations

import os

__all__ = ["read_frame", "write_frame"]

_HEAD = 8  # bytes that hold the length


def write_frame(pipe: int, content: bytes) -> None:
    """Writes one message whole; OSError where nobody reads any more."""
    rest = memoryview(len(content).to_bytes(_HEAD, "big") + content)
    while rest:
        rest = rest[os.write(pipe, rest) :]


def read_frame(pipe: int, *, most: int) -> bytes | None:
    """The next message; None where the other side has closed, or announces more than ``most`` bytes."""
    head = _exactly(pipe, _HEAD)
    size = -1 if head is None else int.from_bytes(head, "big")
    return _exactly(pipe, size) if 0 <= size <= most else None


def _exactly(pipe: int, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(pipe, min(size - len(parts), 1 << 20))
        if not part:
            return None
        parts += part
    return bytes(parts)
