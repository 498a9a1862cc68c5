"""Atomic writes: a file or a folder is replaced as a whole, or stays as it was.

Everything is first written under another name in the same folder, so that one rename of the operating system
puts it in place. What fails on the way (an interruption, a full disk) leaves nothing behind. A power failure
may still undo the last writes; ``durable`` asks the disk to have them before the rename.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from compresslab.errors import NotAvailable

__all__ = ["new_folder", "replacing", "write_bytes", "write_json", "write_tensors", "write_text"]

ADVICE = "name a file in a folder that you may write to"


@contextlib.contextmanager
def replacing(path: str | Path, *, advice: str = ADVICE, durable: bool = False) -> Iterator[Path]:
    """Yield a path to write to; when the block ends, that file takes the place of ``path``.

    Args:
        path: of the file; its folder is made where it is missing.
        advice: what a reader of the error can do, as the end of its sentence.
        durable: survive a power failure too; some milliseconds.

    Raises:
        NotAvailable: the file cannot be written. What was at ``path`` is still there.
    """
    place = Path(path)
    unfinished = _beside(place)
    try:
        _make(place.parent)
        yield unfinished
        if durable:
            _sync(unfinished)
        os.replace(unfinished, place)
    except (OSError, SafetensorError) as error:
        raise _not_written(place, error, advice) from error
    finally:
        with contextlib.suppress(OSError):  # where the folder is none, there is no file either
            unfinished.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes, *, advice: str = ADVICE, durable: bool = False) -> None:
    """Write a file atomically, with its folder; ``replacing`` documents the settings and the error."""
    with replacing(path, advice=advice, durable=durable) as unfinished:
        unfinished.write_bytes(content)


def write_text(path: str | Path, text: str, *, advice: str = ADVICE, durable: bool = False) -> None:
    """Write a text file in UTF-8 atomically, with its folder."""
    write_bytes(path, text.encode(), advice=advice, durable=durable)


def write_json(path: str | Path, values: Any, *, durable: bool = False) -> None:
    """Write JSON, indented by one space, atomically, with its folder."""
    write_text(path, json.dumps(values, indent=1) + "\n", durable=durable)


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    *,
    metadata: Mapping[str, str] | None = None,
    durable: bool = False,
) -> None:
    """Write named tensors, each contiguous and with memory of its own, as safetensors, atomically."""
    with replacing(path, durable=durable) as unfinished:
        save_file(dict(tensors), unfinished, metadata=None if metadata is None else dict(metadata))


@contextlib.contextmanager
def new_folder(path: str | Path, *, mode: int = 0o777, advice: str = ADVICE) -> Iterator[Path]:
    """Yield a folder to fill; when the block ends, it stands at ``path``, where there was nothing before.

    Args:
        path: of the folder: missing or empty.
        mode: its permissions, less the umask.
        advice: what a reader of the error can do, as the end of its sentence.

    Raises:
        NotAvailable: the folder cannot be made or filled, or holds something. ``path`` is as it was.
    """
    place = Path(path)
    unfinished = _beside(place)
    try:
        _make(place.parent)
        unfinished.mkdir(mode=mode)
        yield unfinished
        os.replace(unfinished, place)
    except OSError as error:
        raise _not_written(place, error, advice) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # its own words, "File exists", are of no help
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None


def _beside(path: Path) -> Path:
    """Return a free name in the same folder: short, since names have at most 255 bytes."""
    return path.with_name(f".{path.name[:20]}.{secrets.token_hex(4)}.part")


def _sync(path: Path) -> None:
    """Wait until the disk has the file's content."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _not_written(path: Path, error: Exception, advice: str) -> NotAvailable:
    return NotAvailable(f"{path} can't be written ({getattr(error, 'strerror', None) or error}); {advice}")
