"""What lies in an inbox: files and folders on disk or in zip files, which are read and never unpacked.

A zip is opened as a folder. Only its list of members and the members that are graded are read, each up to a
limit, so that nothing is written, no path can lead out of it, and a zip bomb costs no more than its list.
"""

from __future__ import annotations

import enum
import io
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from compresslab.errors import DamagedFile
from compresslab.grading.submission.cells import MAXIMUM_BYTES, submitted_bytes

__all__ = ["IGNORED", "Archive", "Entry", "Kind", "entries_of", "entry_at", "opened"]

IGNORED = frozenset({"__MACOSX", "__pycache__", "Thumbs.db", "desktop.ini", "Icon\r"})
MAXIMUM_ZIP = 100_000_000  # bytes of a zip that a student handed in, packed
MAXIMUM_MEMBERS = 200_000
DEEPEST = 30  # folders in folders
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # other methods can take memory without a limit
UNREADABLE = (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError, ValueError)
ENCRYPTED, UTF_8 = 0x1, 0x800  # bits of a member's flags


class Kind(enum.Enum):
    """What an entry is; the values are words for a message."""

    FILE = "a file"
    FOLDER = "a folder"
    LINK = "a link"
    OTHER = "not a regular file"


@dataclass(frozen=True, eq=False)
class Archive:
    """A zip whose list of members was read: what is in each of its folders, and how to open it again."""

    name: str
    reopen: Callable[[], BinaryIO]
    folders: Mapping[str, dict[str, Kind]]
    members: Mapping[str, zipfile.ZipInfo]


@dataclass(frozen=True)
class Entry:
    """A file or folder of an inbox.

    ``path`` is where it lies on disk, or where the zip lies that holds it; ``member`` is its path in the zip.
    """

    path: Path
    kind: Kind
    archive: Archive | None = field(default=None, repr=False)
    member: str = ""

    @property
    def name(self) -> str:
        return self.member.rpartition("/")[2] or self.path.name

    @property
    def stem(self) -> str:
        return Path(self.name).stem

    @property
    def suffix(self) -> str:
        return Path(self.name).suffix.lower()

    @property
    def is_zip(self) -> bool:
        return self.kind == Kind.FILE and self.suffix == ".zip"

    def content(self, most: int = MAXIMUM_BYTES) -> bytes:
        """Return the bytes of the file.

        Raises:
            CompressionError: it is too large, encrypted, damaged, or can't be read.
        """
        return (
            submitted_bytes(self.path) if self.archive is None else _unpacked(self.archive, self.member, most)
        )


def entry_at(path: Path) -> Entry:
    """Return what is at a path; a link is a link, whatever it leads to."""
    try:
        mode = path.lstat().st_mode
    except OSError:  # it no longer exists
        mode = 0
    return Entry(path, _kind(mode))


def entries_of(folder: Entry) -> tuple[Entry, ...]:
    """Return what is in a folder, or in a zip, by name; without hidden files and what systems leave there.

    Raises:
        OSError: a folder on disk can't be listed.
        CompressionError: a zip can't be read.
    """
    if folder.is_zip:
        return entries_of(opened(folder))
    if folder.archive is None:
        return tuple(entry_at(path) for path in sorted(folder.path.iterdir()) if _counts(path.name))
    inside = sorted(folder.archive.folders.get(folder.member, {}).items())
    above = f"{folder.member}/" if folder.member else ""
    return tuple(
        Entry(folder.path, kind, folder.archive, above + name) for name, kind in inside if _counts(name)
    )


def opened(file: Entry) -> Entry:
    """Return a zip file as the folder of what is in it.

    Raises:
        CompressionError: it is not a zip, is damaged, too large, or names a place outside itself.
    """
    reopen = _reopener(file)
    try:
        with reopen() as stream, zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
    except UNREADABLE as error:
        raise DamagedFile(
            f"{file.name} can't be read as a zip ({error}); expected an undamaged one; export it again, or "
            "ask the student for the notebook itself"
        ) from error
    if len(members) > MAXIMUM_MEMBERS:
        raise DamagedFile(
            f"{file.name} holds {len(members):,} files; at most {MAXIMUM_MEMBERS:,} are read; ask for the "
            "notebook itself"
        )
    folders: dict[str, dict[str, Kind]] = {"": {}}
    files = dict(_named(members, file.name))
    for name, info in files.items():
        _place(folders, name, _kind_in_zip(info))
    return Entry(file.path, Kind.FOLDER, Archive(file.name, reopen, folders, files))


def _reopener(file: Entry) -> Callable[[], BinaryIO]:
    """Return what opens a zip: on disk never through a link, within a zip from its bytes."""
    if file.archive is not None:
        return lambda: io.BytesIO(file.content(MAXIMUM_ZIP))
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return lambda: open(os.open(file.path, flags), "rb")


def _named(members: list[zipfile.ZipInfo], zip_name: str) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    """Yield each member with its path in the zip, of plain parts; of two with one path the later counts."""
    for info in members:
        name = _decoded(info).replace("\\", "/")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or re.match("[A-Za-z]:", name) or len(parts) > DEEPEST:
            raise DamagedFile(
                f"{zip_name} names {name[:100]!r}, which lies outside of it or too deep; expected files and "
                "folders of its own; look at it before you unpack it, and ask who made it"
            )
        if parts:
            yield "/".join(parts), info


def _decoded(info: zipfile.ZipInfo) -> str:
    """Return a member's name; macOS writes UTF-8 without saying so, which Python reads as code page 437."""
    if info.flag_bits & UTF_8:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _place(folders: dict[str, dict[str, Kind]], name: str, kind: Kind) -> None:
    """Enter a member and the folders above it."""
    while name:
        above, _, last = name.rpartition("/")
        known = folders.setdefault(above, {})
        if kind == Kind.FOLDER:
            folders.setdefault(name, {})
            known.setdefault(last, kind)
        else:
            known[last] = kind
        name, kind = above, Kind.FOLDER


def _unpacked(archive: Archive, member: str, most: int) -> bytes:
    info = archive.members[member]
    if info.flag_bits & ENCRYPTED:
        raise DamagedFile(
            f"{archive.name} is encrypted; expected a zip without a password; unpack it yourself, or ask the "
            "student for the notebook"
        )
    if info.file_size > most:
        raise DamagedFile(
            f"{member} in {archive.name} has {info.file_size:,} bytes; at most {most:,} are read; clear the "
            "notebook's outputs (Edit, Clear Outputs of All Cells), save and submit again"
        )
    try:
        if info.compress_type not in PACKED:
            raise NotImplementedError(f"method {info.compress_type}")
        with archive.reopen() as stream, zipfile.ZipFile(stream) as file, file.open(info) as unpacking:
            return unpacking.read(most)
    except UNREADABLE as error:
        raise DamagedFile(
            f"{member} in {archive.name} can't be unpacked ({error}); expected an undamaged zip; ask the "
            "student for the notebook itself"
        ) from error


def _kind_in_zip(info: zipfile.ZipInfo) -> Kind:
    mode = info.external_attr >> 16  # of Unix; other systems leave it 0
    if info.is_dir() or info.filename.endswith("\\"):
        return Kind.FOLDER
    return _kind(mode) if stat.S_IFMT(mode) else Kind.FILE


def _kind(mode: int) -> Kind:
    known = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.FOLDER, stat.S_IFLNK: Kind.LINK}
    return known.get(stat.S_IFMT(mode), Kind.OTHER)


def _counts(name: str) -> bool:
    return not name.startswith(".") and name not in IGNORED
