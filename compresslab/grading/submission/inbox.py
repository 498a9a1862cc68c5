"""Find the submissions in an inbox: a folder as teachers have them, with one entry per student.

    inbox/STUDENT.ipynb           one file per student, with any suffix
    inbox/STUDENT/anything.ipynb  one folder per student
    inbox/STUDENT/LAB/LAB.ipynb   nbgrader's ``submitted``

Ignored are names that begin with a dot, and files that systems leave in a folder (``IGNORED``). All else is
somebody's submission: what can't be graded, or exists twice, comes with a sentence for the teacher; no choice
is made silently. Links are never followed.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from compresslab.errors import BadSetting, DamagedFile

__all__ = ["IGNORED", "Submitted", "find_submissions"]

IGNORED = frozenset({"__MACOSX", "__pycache__", "Thumbs.db", "desktop.ini", "Icon\r"})


@dataclass(frozen=True)
class Submitted:
    """What one student handed in: a file, or the sentence why a person must look at it first.

    ``student`` is also the name of the folder of the results, so it must be a single part of a path.

    Raises:
        CompressionError: the name is not a single part of a path.
    """

    student: str
    path: Path
    problem: str = ""

    def __post_init__(self) -> None:
        if self.student in ("", ".", "..") or Path(self.student).name != self.student or "\0" in self.student:
            raise BadSetting(
                f"the student's name must be usable as a folder's name, got {self.student!r}; rename "
                f"{self.path}"
            )


def find_submissions(inbox: Path, lab_name: str) -> tuple[Submitted, ...]:
    """Return what is in the inbox, one entry per student, in the order of their names.

    Args:
        inbox: the folder, in one of the layouts above.
        lab_name: such as ``00_measuring``; of several notebooks, the one with this name counts.

    Raises:
        CompressionError: the inbox is missing, is not a folder, can't be read, or holds no submission.
    """
    wanted = "expected a folder with one notebook or one folder per student"
    try:
        entries = _entries(inbox)
    except OSError as error:
        raise DamagedFile(
            f"{inbox} can't be listed ({error.strerror}); {wanted}; give the folder that your course "
            "system exported, or nbgrader's submitted/"
        ) from error
    if not entries:
        raise DamagedFile(f"{inbox} holds no submission; {wanted}; hidden files do not count")
    claims: dict[str, list[Path]] = {}
    for entry in entries:
        claims.setdefault(entry.name if _is_folder(entry) else entry.stem, []).append(entry)
    return tuple(_of_student(student, claims[student], lab_name) for student in sorted(claims))


def _of_student(student: str, entries: Sequence[Path], lab_name: str) -> Submitted:
    if len(entries) > 1:
        problem = f"{student} has {len(entries)} entries in the inbox ({_listed(entries)})"
        return Submitted(student, entries[0], f"{problem}; expected one; remove all but the one that counts")
    if not _is_folder(entries[0]):
        return Submitted(student, entries[0], _kind_problem(entries[0]))
    try:
        candidates = list(_candidates(entries[0], lab_name))
    except OSError as error:
        problem = f"{student}'s folder can't be listed ({error.strerror}); expected one with a notebook"
        return Submitted(student, entries[0], f"{problem}; check its permissions")
    return _chosen(student, entries[0], candidates, lab_name)


def _candidates(folder: Path, lab_name: str) -> Iterator[Path]:
    """Yield the notebooks of a student's folder and of the lab's folder in it; else the other files."""
    own = _entries(folder)
    within = [each for path in own if path.name == lab_name and _is_folder(path) for each in _entries(path)]
    found = [path for path in (*own, *within) if not _is_folder(path)]
    notebooks = [path for path in found if path.suffix.lower() == ".ipynb"]
    yield from notebooks or (path for path in found if path.name != "timestamp.txt")  # nbgrader's own


def _chosen(student: str, folder: Path, candidates: Sequence[Path], lab_name: str) -> Submitted:
    """Return the only candidate, or the only one with the lab's name."""
    meant = [path for path in candidates if path.name == f"{lab_name}.ipynb"]
    match meant or candidates:
        case [only]:
            return Submitted(student, only, _kind_problem(only))
        case []:
            problem = f"{student}'s folder holds no file that could be {lab_name}"
            return Submitted(student, folder, f"{problem}; expected {lab_name}.ipynb; ask the student for it")
    problem = f"{student} handed in {len(candidates)} files ({_listed(candidates)})"
    return Submitted(
        student,
        folder,
        f"{problem}; expected one {lab_name}.ipynb; give the one that counts this name",
    )


def _kind_problem(path: Path) -> str:
    """Return why a file can't be a submission, or an empty text. Links, FIFOs and devices are not opened."""
    kind = "" if stat.S_ISREG(_mode(path)) else "a link" if path.is_symlink() else "not a regular file"
    return kind and f"{path.name} is {kind}; expected a notebook itself; ask the student for the file"


def _entries(folder: Path) -> list[Path]:
    """Return what is in a folder, in the order of the names, without what is ignored."""
    return sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.name not in IGNORED)


def _is_folder(path: Path) -> bool:
    return stat.S_ISDIR(_mode(path))


def _mode(path: Path) -> int:
    """Return the kind of a file, for a link its own; 0, which is no kind, if it no longer exists."""
    try:
        return path.lstat().st_mode
    except OSError:
        return 0


def _listed(paths: Sequence[Path]) -> str:
    names = [path.name for path in paths[:5]]
    return ", ".join(names) + (", …" if len(paths) > 5 else "")
