"""Desks: in whatever process a class is graded, a bundle opened once and its worker kept warm.

``grade_at_desk`` is the task of every pool, a function of bytes: it needs no file of the teacher's machine.
Threads may call it side by side: each call takes a desk that nobody uses, or sets up a new one.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

__all__ = ["close_desks", "grade_at_desk"]


@dataclass(frozen=True)
class _Desk:
    """An open bundle, warm worker, and what has to be closed in the end."""

    bundle: Any
    worker: Any
    closing: ExitStack


_idle: dict[tuple[str, bool], list[_Desk]] = {}
_alone = threading.Lock()  # opening a bundle imports its exercises


def grade_at_desk(bundle: Path | bytes, digest: str, name: str, content: bytes, isolated: bool) -> bytes:
    """The score of one submission, as the JSON of its ``results.json``.

    Args:
        bundle: the folder, or where there is none of it, the folder ``zipped``.
        digest: the bundle's.
        name: what the submitted file is called.
        content: its bytes.
        isolated: whether the student's code runs in a sandbox.
    """
    from compresslab.grading.grade import grade_content
    from compresslab.grading.scores import results_of

    with _desk(bundle, digest, isolated) as desk:
        score = grade_content(desk.bundle, content, worker=desk.worker, path=name)
    return json.dumps(results_of(score)).encode()


def close_desks() -> None:
    """Ends the warm worker that nobody uses, and removes what was unpacked for them."""
    while _idle:
        for desk in _idle.popitem()[1]:
            with contextlib.suppress(OSError):
                desk.closing.close()


@contextlib.contextmanager
def _desk(bundle: Path | bytes, digest: str, isolated: bool) -> Iterator[_Desk]:
    """A desk for one submission; one that something went wrong at is not used again."""
    key = (digest, isolated)
    with _alone:
        waiting = _idle.get(key)
        desk = waiting.pop() if waiting else _set_up(bundle, isolated)
    try:
        yield desk
    except BaseException:
        desk.closing.close()
        raise
    with _alone:
        _idle.setdefault(key, []).append(desk)


def _set_up(bundle: Path | bytes, isolated: bool) -> _Desk:
    import torch

    from compresslab.grading.bundle import open_bundle
    from compresslab.grading.sandbox.worker_client import WorkerClient

    torch.set_num_threads(1)
    with ExitStack() as closing:
        if isinstance(bundle, bytes):
            scratch = tempfile.TemporaryDirectory(prefix="compresslab-bundle-", ignore_cleanup_errors=True)
            folder = Path(closing.enter_context(scratch))
            zipfile.ZipFile(io.BytesIO(bundle)).extractall(folder)
        else:
            folder = bundle
        opened = open_bundle(folder)
        worker = closing.enter_context(WorkerClient(opened, isolated=isolated))
        Finalize(None, close_desks, exitpriority=10)  # a pool's process leaves without atexit
        return _Desk(opened, worker, closing.pop_all())
