"""Find the submissions in an inbox: a folder or a zip as teachers have them, with one entry per student.

    inbox/STUDENT.ipynb           one file per student, with any suffix; a zip with the notebook in it
    inbox/STUDENT/anything.ipynb  one folder per student
    inbox/STUDENT/LAB/LAB.ipynb   nbgrader's ``submitted``
    what a platform exported      ``platforms`` knows the names; also in folders within folders

Ignored are names that begin with a dot, files that systems leave in a folder (``IGNORED``), and what a
platform adds of its own. All else is somebody's submission: what can't be graded, or exists twice, comes with
a sentence for the teacher. A choice is made only among the dated or numbered versions that a platform keeps:
the latest counts, and a note says so. Links are never followed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from compresslab.errors import BadSetting, CompressionError, DamagedFile
from compresslab.grading.submission.entries import IGNORED, Archive, Entry, Kind, entries_of, entry_at
from compresslab.grading.submission.platforms import (
    Upload,
    Version,
    is_own_file,
    recognized,
    version_of,
)

__all__ = ["IGNORED", "Submitted", "find_submissions"]

DEEPEST = 6  # folders above the students' in an export, and in a student's


@dataclass(frozen=True)
class Submitted:
    """What one student handed in: a file, or the sentence why a person must look at it first.

    ``student`` is also the name of the folder of the results, so it must be a single part of a path. The file
    is ``path``, or the ``member`` of the zip that lies there. ``note`` says what was chosen among versions.

    Raises:
        CompressionError: the name is not a single part of a path.
    """

    student: str
    path: Path
    problem: str = ""
    note: str = ""
    archive: Archive | None = field(default=None, repr=False)
    member: str = ""

    def __post_init__(self) -> None:
        if self.student in ("", ".", "..") or Path(self.student).name != self.student or "\0" in self.student:
            raise BadSetting(
                f"the student's name must be usable as a folder's name, got {self.student!r}; rename "
                f"{self.path}"
            )

    @property
    def name(self) -> str:
        """The submitted file's own name."""
        return self.member.rpartition("/")[2] or self.path.name

    def content(self) -> bytes:
        """Return the bytes of the file, as they are now.

        Raises:
            CompressionError: it can't be read.
        """
        return Entry(self.path, Kind.FILE, self.archive, self.member).content()


def find_submissions(inbox: Path, lab_name: str) -> tuple[Submitted, ...]:
    """Return what is in the inbox, one entry per student, in the order of their names.

    Args:
        inbox: the folder or zip, in one of the layouts above.
        lab_name: such as ``00_measuring``; of several notebooks, the one with this name counts.

    Raises:
        CompressionError: the inbox is missing, is no folder or zip, can't be read, or holds no submission.
    """
    wanted = "expected a folder with one notebook or one folder per student"
    try:
        at = Entry(inbox, Kind.FOLDER) if inbox.is_dir() else entry_at(inbox)
        entries = _students_entries(at, lab_name)
    except OSError as error:
        raise DamagedFile(
            f"{inbox} can't be listed ({error.strerror}); {wanted}; give the folder that your course "
            "system exported, or nbgrader's submitted/"
        ) from error
    if not entries:
        raise DamagedFile(f"{inbox} holds no submission; {wanted}; hidden files do not count")
    uploads = recognized(entries)
    found: dict[str, Submitted] = {}
    for each in (*_from_platforms(uploads, lab_name), *_from_names(entries, uploads, lab_name)):
        found[each.student] = _both(found[each.student], each) if each.student in found else each
    return tuple(found[student] for student in sorted(found))


def _both(one: Submitted, other: Submitted) -> Submitted:
    """Return that a platform's student and one whose file has that very name can't be told apart."""
    problem = f"{one.student} has 2 entries in the inbox ({one.name}, {other.name})"
    return Submitted(one.student, one.path, f"{problem}; expected one; remove all but the one that counts")


# The entries that belong to students.


def _students_entries(inbox: Entry, lab_name: str) -> tuple[Entry, ...]:
    """Return the inbox's entries, from below the folders in which a platform or a zip wraps them."""
    entries = entries_of(inbox)
    if inbox.is_zip and [entry.kind for entry in entries] == [Kind.FOLDER]:
        inside = entries_of(entries[0])
        entries = inside if _are_students(inside, lab_name) else entries
    exported = _exported(entries)
    return entries if exported is None else exported


def _are_students(inside: Sequence[Entry], lab_name: str) -> bool:
    """Whether the only folder of a zip is the class's: a student's has one file, or the lab's folder."""
    folders = [entry.name for entry in inside if entry.kind == Kind.FOLDER]
    return lab_name not in folders and (len(inside) > 1 or bool(folders))


def _exported(entries: Sequence[Entry], deepest: int = DEEPEST) -> tuple[Entry, ...] | None:
    """Return the entries that a platform named, also those in folders and zips around them; None if none."""
    named = recognized(entries)
    others = [entry for entry in entries if entry.name not in named]
    if named:
        rest = [entry for entry in others if not is_own_file(entry)]
        within = [_within(entry, deepest) if entry.kind == Kind.FOLDER else None for entry in rest]
        students = [inner or (entry,) for entry, inner in zip(rest, within, strict=True)]
        return (*(e for e in entries if e.name in named), *(each for group in students for each in group))
    groups = [_within(entry, deepest) for entry in others if not is_own_file(entry)]
    if not groups or None in groups:
        return None
    return tuple(entry for group in groups for entry in group or ())


def _within(entry: Entry, deepest: int) -> tuple[Entry, ...] | None:
    if deepest == 0 or not (entry.kind == Kind.FOLDER or entry.is_zip):
        return None
    try:
        return _exported(entries_of(entry), deepest - 1)
    except (OSError, CompressionError):  # told where it is a student's
        return None


# Students of a platform.


@dataclass(frozen=True)
class _Candidate:
    """A file that could be the submission: ``name`` is the student's own, without the mark of its version.

    ``uploaded`` is the number that Canvas gives to each upload, in order.
    """

    entry: Entry
    name: str
    version: Version = ()
    uploaded: int = 0


def _from_platforms(uploads: dict[str, Upload], lab_name: str) -> Iterator[Submitted]:
    by_student: dict[str, list[Upload]] = {}
    for upload in uploads.values():
        by_student.setdefault(upload.student, []).append(upload)
    for student, own in by_student.items():
        try:
            yield _latest(student, own, lab_name)
        except (OSError, CompressionError) as error:
            problem = _unlisted(student, error) if isinstance(error, OSError) else str(error)
            yield _submitted(student, own[0].entry, problem)


def _latest(student: str, uploads: Sequence[Upload], lab_name: str) -> Submitted:
    """Return the latest of a student's uploads that holds a file."""
    filled = {upload.entry.name: candidates for upload in uploads if (candidates := _handed_in(upload))}
    if not filled:
        problem = f"{student} handed in no file, only a text or an empty folder"
        problem += f"; expected {lab_name}.ipynb; ask the student for it"
        return _submitted(student, uploads[0].entry, problem)
    attempts = sorted({upload.attempt for upload in uploads if upload.entry.name in filled})
    if len(attempts) > 1 and attempts[-1].startswith("?"):
        problem = f"{student} handed in {len(attempts)} times, at dates that can't be compared"
        dates = ", ".join(attempt.lstrip("?") for attempt in attempts[:5])
        return _submitted(
            student,
            uploads[0].entry,
            f"{problem} ({dates}); expected one; remove all but the one that counts",
        )
    current = [upload for upload in uploads if upload.attempt == attempts[-1] and upload.entry.name in filled]
    candidates = [candidate for upload in current for candidate in filled[upload.entry.name]]
    notebooks = [each for each in candidates if each.entry.suffix == ".ipynb"]
    note = f"of {len(attempts)} submissions the latest counts, of {attempts[-1]}" if len(attempts) > 1 else ""
    return _version_chosen(student, current[0].entry, notebooks or candidates, lab_name, note)


def _version_chosen(
    student: str, entry: Entry, candidates: Sequence[_Candidate], lab_name: str, note: str
) -> Submitted:
    """Return the only candidate, or the latest of those with one name."""
    meant = [each for each in candidates if each.name == f"{lab_name}.ipynb"] or list(candidates)
    ordered = sorted(meant, key=lambda each: each.version)
    distinct = len({each.version for each in meant}) == len(meant)
    if len({each.name for each in meant}) > 1 or not distinct:
        return _chosen(student, entry, [each.entry for each in candidates], lab_name)
    latest = ordered[-1].entry
    notes = [note, *([_which_counts(ordered)] if len(ordered) > 1 else [])]
    return _submitted(student, latest, _kind_problem(latest), "; ".join(filter(None, notes)))


def _which_counts(ordered: Sequence[_Candidate]) -> str:
    """Return the note about versions; a name that ends with -1 may also be a student's own choice."""
    latest = ordered[-1]
    names = _listed([each.entry for each in ordered])
    later = max(each.uploaded for each in ordered) > latest.uploaded
    doubt = "; another of them was uploaded later, so look at both" if later else ""
    return f"of {len(ordered)} versions ({names}) the latest counts: {latest.entry.name}{doubt}"


def _handed_in(upload: Upload) -> list[_Candidate]:
    """Return the files of an upload: itself, or those of its folder; a zip stands for what is in it."""
    if upload.typed:
        return []
    files = list(_files_below(upload.entry))
    if upload.entry.kind == Kind.FILE and files == [upload.entry]:
        uploaded = upload.version[-1] if upload.platform == "Canvas" else 0
        return [_Candidate(upload.entry, upload.file or upload.entry.name, upload.version, uploaded)]
    if upload.platform == "Canvas":  # the zip has the number, not the files in it
        return [_Candidate(file, file.name, upload.version, upload.version[-1]) for file in files]
    named = [(file, *version_of(file.name, upload.platform)) for file in files]
    return [_Candidate(file, name, version) for file, name, version in named]


def _files_below(entry: Entry, deepest: int = DEEPEST) -> Iterator[Entry]:
    """Yield the files in a folder and in the folders in it; a zip stands for its notebooks, if it has any."""
    if entry.is_zip:
        yield from _notebooks_of_zip(entry) or (entry,)
    elif entry.kind != Kind.FOLDER:
        yield entry
    elif deepest:
        inside = entries_of(entry)
        notebooks = [each for each in inside if each.suffix == ".ipynb" and each.kind != Kind.FOLDER]
        for each in inside:
            yield from (each,) if notebooks and each.is_zip else _files_below(each, deepest - 1)


def _notebooks_of_zip(file: Entry) -> list[Entry]:
    """Return the notebooks in a zip, in whichever of its folders.

    Raises:
        CompressionError: it can't be read.
    """
    folders, notebooks = [entries_of(file)], []
    while folders:
        inside = folders.pop()
        notebooks += [each for each in inside if each.suffix == ".ipynb" and each.kind != Kind.FOLDER]
        folders += [entries_of(each) for each in inside if each.kind == Kind.FOLDER]
    return notebooks


# Students by the names of files and folders.


def _from_names(entries: Sequence[Entry], uploads: dict[str, Upload], lab_name: str) -> Iterator[Submitted]:
    claims: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.name in uploads or (uploads and is_own_file(entry)):
            continue
        claims.setdefault(entry.name if entry.kind == Kind.FOLDER else entry.stem, []).append(entry)
    for student, own in claims.items():
        yield _of_student(student, own, lab_name)


def _of_student(student: str, entries: Sequence[Entry], lab_name: str) -> Submitted:
    if len(entries) > 1:
        problem = f"{student} has {len(entries)} entries in the inbox ({_listed(entries)})"
        return _submitted(student, entries[0], f"{problem}; expected one; remove all but the one that counts")
    if entries[0].kind != Kind.FOLDER and not entries[0].is_zip:
        return _submitted(student, entries[0], _kind_problem(entries[0]))
    try:
        candidates = list(_candidates(entries[0], lab_name))
    except OSError as error:
        return _submitted(student, entries[0], _unlisted(student, error))
    except CompressionError as error:
        return _submitted(student, entries[0], str(error))
    return _chosen(student, entries[0], candidates, lab_name)


def _unlisted(student: str, error: OSError) -> str:
    problem = f"{student}'s folder can't be listed ({error.strerror}); expected one with a notebook"
    return f"{problem}; check its permissions"


def _candidates(folder: Entry, lab_name: str) -> Iterator[Entry]:
    """Yield the notebooks of a student's folder and of the lab's folder in it; else the other files."""
    if folder.is_zip:
        yield from _notebooks_of_zip(folder)
        return
    own = entries_of(folder)
    inside = [path for path in own if path.name == lab_name and path.kind == Kind.FOLDER]
    found = [e for e in (*own, *(e for path in inside for e in entries_of(path))) if e.kind != Kind.FOLDER]
    notebooks = [entry for entry in found if entry.suffix == ".ipynb"]
    notebooks = notebooks or [each for entry in found if entry.is_zip for each in _notebooks_of_zip(entry)]
    yield from notebooks or (entry for entry in found if entry.name != "timestamp.txt")  # nbgrader's own


def _chosen(student: str, folder: Entry, candidates: Sequence[Entry], lab_name: str) -> Submitted:
    """Return the only candidate, or the only one with the lab's name."""
    meant = [entry for entry in candidates if entry.name == f"{lab_name}.ipynb"]
    match meant or candidates:
        case [only]:
            return _submitted(student, only, _kind_problem(only))
        case []:
            holder = folder.name if folder.is_zip else f"{student}'s folder"
            problem = f"{holder} holds no file that could be {lab_name}"
            return _submitted(
                student, folder, f"{problem}; expected {lab_name}.ipynb; ask the student for it"
            )
    problem = f"{student} handed in {len(candidates)} files ({_listed(candidates)})"
    return _submitted(
        student,
        folder,
        f"{problem}; expected one {lab_name}.ipynb; give the one that counts this name",
    )


def _submitted(student: str, entry: Entry, problem: str = "", note: str = "") -> Submitted:
    return Submitted(student, entry.path, problem, note, entry.archive, entry.member)


def _kind_problem(entry: Entry) -> str:
    """Return why a file can't be a submission, or an empty text. Links, FIFOs and devices are not opened."""
    kind = "" if entry.kind == Kind.FILE else entry.kind.value
    return kind and f"{entry.name} is {kind}; expected a notebook itself; ask the student for the file"


def _listed(entries: Sequence[Entry]) -> str:
    names = [entry.name for entry in entries[:5]]
    return ", ".join(names) + (", …" if len(entries) > 5 else "")
