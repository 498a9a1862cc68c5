"""The inbox: a folder of submissions as teachers have them becomes one entry a student.

    inbox/STUDENT.ipynb           one file a student, called as it likes behind the student's name
    inbox/STUDENT/anything.ipynb  one folder a student
    inbox/STUDENT/LAB/LAB.ipynb   nbgrader's ``submitted``

Passed over are names that begin with a dot, and what computers leave in a folder (``PASSED_OVER``). All else
is somebody's submission: whatever can't be graded, or is there twice, comes with a sentence for the teacher,
never as a choice made in silence. Links are never followed.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from compresslab.errors import BadSetting, DamagedFile

__all__ = ["PASSED_OVER", "Submitted", "find_submissions"]

PASSED_OVER = frozenset({"__MACOSX", "__pycache__", "Thumbs.db", "desktop.ini", "Icon\r"})


@dataclass(frozen=True)
class Submitted:
    """What one student handed in: a file, or the sentence why somebody must look at it first.

    ``student`` also names the folder of the results, so it is one part of a path and nothing else.

    Raises:
        CompressionError: the name could lead out of that folder.
    """

    student: str
    path: Path
    problem: str = ""

    def __post_init__(self) -> None:
        if self.student in ("", ".", "..") or Path(self.student).name != self.student or "\0" in self.student:
            raise BadSetting(
                f"a student can't be called {self.student!r}; expected a name that can be a folder's; rename "
                f"{self.path}"
            )


def find_submissions(inbox: Path, lab_name: str) -> tuple[Submitted, ...]:
    """What lies in the inbox, a student an entry, in the order of their names.

    Args:
        inbox: the folder; the page's head shows the layouts.
        lab_name: such as ``00_measuring``: of several notebooks, the one called so is meant.

    Raises:
        CompressionError: the inbox is missing, is no folder, can't be read, or holds no submission.
    """
    wanted = "expected a folder with one notebook, or one folder, a student"
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
    """The notebooks of a student's folder and of the lab's folder in it; without any, the other files."""
    own = _entries(folder)
    within = [
        each for place in own if place.name == lab_name and _is_folder(place) for each in _entries(place)
    ]
    found = [place for place in (*own, *within) if not _is_folder(place)]
    notebooks = [place for place in found if place.suffix.lower() == ".ipynb"]
    yield from notebooks or (place for place in found if place.name != "timestamp.txt")  # nbgrader's own


def _chosen(student: str, folder: Path, candidates: Sequence[Path], lab_name: str) -> Submitted:
    """The only candidate, or the only one that is called as the lab."""
    meant = [place for place in candidates if place.name == f"{lab_name}.ipynb"]
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


def _kind_problem(place: Path) -> str:
    """Why a file can't be a submission; nothing if it can. Links, FIFOs and devices are left alone."""
    kind = "" if stat.S_ISREG(_mode(place)) else "a link" if place.is_symlink() else "no ordinary file"
    return kind and f"{place.name} is {kind}; expected a notebook itself; ask the student for the file"


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, in the order of the names, less what is passed over."""
    return sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.name not in PASSED_OVER)


def _is_folder(place: Path) -> bool:
    return stat.S_ISDIR(_mode(place))


def _mode(place: Path) -> int:
    """The kind of what lies there, a link's own; 0, which is no kind, if it has gone meanwhile."""
    try:
        return place.lstat().st_mode
    except OSError:
        return 0


def _listed(places: Sequence[Path]) -> str:
    names = [place.name for place in places[:5]]
    return ", ".join(names) + (", …" if len(places) > 5 else "")
