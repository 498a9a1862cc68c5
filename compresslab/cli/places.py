"""The places that the kit writes to: whether each can be written, told before a student loses work there.

The cache of the unpacked data, ``my_labs/``, the folder of temporary files, and JupyterLab's own below the
home folder. ``compresslab doctor`` examines all of them first; ``start`` those that JupyterLab needs.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from compresslab.errors import CompressionError, NotAvailable

__all__ = ["NO_ROOM", "cause", "home_problem", "require_home", "temporary_problem", "write_problem"]

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
_LEAST = 10 * 2**20  # bytes: all the students' notebooks, with room for their outputs
HOME_ADVICE = "name a folder of yours in the environment variable HOME, such as: HOME=$PWD compresslab start"


def write_problem(folder: Path, *, least: int = _LEAST) -> str:
    """Return why a folder, which may not exist yet, can't be written; empty if it can.

    A file without a name is written into it, or into the folder where it would be made.
    """
    existing = next((place for place in (folder, *folder.absolute().parents) if place.exists()), Path("/"))
    try:
        if not existing.is_dir():
            return f"{existing} is not a folder"
        with tempfile.TemporaryFile(dir=existing, buffering=0) as probe:
            probe.write(bytes(4096))
        free = shutil.disk_usage(existing).free
        return f"{free / 2**20:.0f} MB free in {existing}" if free < least else ""
    except OSError as error:
        return f"{existing} can't be written ({error.strerror or error})"


def temporary_problem() -> str:
    """Return why there is no folder for temporary files; empty if there is one."""
    try:
        return write_problem(Path(tempfile.gettempdir()))
    except OSError:
        return "none of the usual folders can be written"


def require_home() -> None:
    """Raise unless JupyterLab can write its own files, which lie below the home folder.

    Raises:
        NotAvailable: there is no home folder, or it can't be written; with what to do.
    """
    problem = home_problem()
    if problem:
        raise NotAvailable(f"JupyterLab needs a home folder: {problem}; {HOME_ADVICE}")


def home_problem(folders: Callable[[], tuple[Path, ...]] | None = None) -> str:
    """Return why JupyterLab can't write its own files; empty if it can."""
    try:
        places = (folders or _jupyter_folders)()
    except (RuntimeError, KeyError):
        return "this user has none, and HOME is not set"
    return next(filter(None, map(write_problem, places)), "")


def _jupyter_folders() -> tuple[Path, ...]:
    from jupyter_core.paths import jupyter_config_dir, jupyter_runtime_dir

    return Path(jupyter_config_dir()), Path(jupyter_runtime_dir())


def cause(error: OSError) -> CompressionError | None:
    """Return what to say of a place that is full or read-only; None for an error of another kind."""
    if error.errno == errno.ENOENT and "temporary directory" in str(error):
        return NotAvailable(
            "no folder for temporary files can be written; free some space, or name one of yours in the "
            "environment variable TMPDIR"
        )
    if error.errno not in NO_ROOM:
        return None
    place = os.fspath(error.filename) if error.filename else "a file"
    return NotAvailable(
        f"{place} can't be written ({error.strerror}); free some space, or use a folder that you may write "
        "to; compresslab doctor says which places are needed"
    )
