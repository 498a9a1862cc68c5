"""The task that a pool runs for each submission of a class: bytes in, bytes out, on whatever machine.

``grade_task`` needs no file of the teacher's machine. Between tasks a process keeps its graders open (a
bundle that is opened once, with a worker that has imported torch). Threads may call it side by side: each
call takes a grader that is not in use, or makes a new one.
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

__all__ = ["close_graders", "grade_task"]


@dataclass(frozen=True)
class _Grader:
    """An open bundle, a worker, and what has to be closed in the end."""

    bundle: Any
    worker: Any
    closing: ExitStack


_idle: dict[tuple[str, bool], list[_Grader]] = {}
_one_at_a_time = threading.Lock()  # opening a bundle imports its exercises


def grade_task(bundle: Path | bytes, digest: str, name: str, content: bytes, isolated: bool) -> bytes:
    """Return the score of one submission, as the JSON of its ``results.json``.

    Args:
        bundle: the folder, or the folder ``zipped`` for a machine that does not have it.
        digest: the bundle's.
        name: of the submitted file.
        content: of that file.
        isolated: whether the student's code runs in a sandbox.
    """
    from compresslab.grading.grade import grade_content
    from compresslab.grading.scores import results_of

    with _grader(bundle, digest, isolated) as grader:
        score = grade_content(grader.bundle, content, worker=grader.worker, path=name)
    return json.dumps(results_of(score)).encode()


def close_graders() -> None:
    """End the workers of idle graders, and remove what was unpacked for them."""
    while _idle:
        for grader in _idle.popitem()[1]:
            with contextlib.suppress(OSError):
                grader.closing.close()


@contextlib.contextmanager
def _grader(bundle: Path | bytes, digest: str, isolated: bool) -> Iterator[_Grader]:
    """A grader for one submission; after an exception it is not used again."""
    key = (digest, isolated)
    with _one_at_a_time:
        idle = _idle.get(key)
        grader = idle.pop() if idle else _open_grader(bundle, isolated)
    try:
        yield grader
    except BaseException:
        grader.closing.close()
        raise
    with _one_at_a_time:
        _idle.setdefault(key, []).append(grader)


def _open_grader(bundle: Path | bytes, isolated: bool) -> _Grader:
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
        Finalize(None, close_graders, exitpriority=10)  # a pool's process leaves without atexit
        return _Grader(opened, worker, closing.pop_all())
