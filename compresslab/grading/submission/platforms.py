"""Recognize the exports of learning platforms by the names that they give to files and folders.

    Moodle       Anna Müller_1234_assignsubmission_file_/lab.ipynb, or …_file_lab.ipynb; …_onlinetext_/…
    Blackboard   Lab 00_amueller_attempt_2026-09-01-10-11-12_lab.ipynb, and the same name without a file, .txt
    Brightspace  12345-67890 - Anna Müller - Sep 1, 2026 1011 AM/lab.ipynb, or … AM - lab.ipynb; index.html
    Canvas       mulleranna_LATE_123_456_lab-1.ipynb; mulleranna_123_text.html
    ILIAS        Lab 00/Submissions/Mueller_Anna_amueller_123/Late Submission - lab.ipynb

What a platform writes itself (a text that was typed in, an index) is told from what a student handed in.

Sources: Moodle's mod/assign/classes/downloader.php, ILIAS's ilExSubmission, Canvas's ContentZipper; for
Blackboard and Brightspace, the scripts of teachers that sort their exports.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from compresslab.errors import CompressionError
from compresslab.grading.submission.entries import Entry, Kind

__all__ = ["OWN_FILES", "Upload", "is_own_file", "recognized", "version_of"]

OWN_FILES = frozenset({"index.html", "feedback_files", "readme.md"})  # of a platform, in lower case
TABLES = frozenset({".xlsx", ".xls", ".csv"})  # ILIAS adds one, Moodle's teachers another

YEAR = r"(?<!\d)(?:19|20)\d\d(?!\d)"

Version = tuple[int, ...]


@dataclass(frozen=True)
class Upload:
    """One entry of an export: whose it is, and when it was handed in.

    ``student`` has the platform's number, so that it does not depend on who else has that name. ``file`` is
    the student's own name of a file. ``attempt`` orders what was handed in at different times (it begins with
    ``?`` where the date is in no known form), ``version`` files of one name. ``typed`` marks the platform's
    own text.
    """

    platform: str
    student: str
    entry: Entry
    file: str = ""
    attempt: str = ""
    version: Version = ()
    typed: bool = False


def recognized(entries: Sequence[Entry]) -> dict[str, Upload]:
    """Return the entries that a platform named, by their names."""
    found = {entry.name: upload for entry in entries if (upload := _recognized(entry)) is not None}
    return _with_logins(_without_chance(found))


def is_own_file(entry: Entry) -> bool:
    """Whether a platform, and no student, put this beside the submissions."""
    return entry.name.lower() in OWN_FILES or (entry.kind == Kind.FILE and entry.suffix in TABLES)


def version_of(name: str, platform: str) -> tuple[str, Version]:
    """Return a file's name without the mark of a later version, and that version.

    >>> version_of("lab-2.ipynb", "Canvas"), version_of("Late Submission - lab (3).ipynb", "ILIAS")
    (('lab.ipynb', (2,)), ('lab.ipynb', (1, 3)))
    """
    stem, dot, suffix = name.rpartition(".") if "." in name else (name, "", "")
    if platform == "Canvas" and (found := re.fullmatch(r"(.+)-(\d{1,3})", stem)):
        return f"{found[1]}{dot}{suffix}", (int(found[2]),)
    if platform == "ILIAS":
        late, _, own = stem.rpartition(" - ")
        found = re.fullmatch(r"(.+?) \((\d{1,3})\)", own)
        return f"{found[1] if found else own}{dot}{suffix}", (int(bool(late)), int(found[2]) if found else 1)
    return name, (0,) if platform == "Canvas" else ()


def _recognized(entry: Entry) -> Upload | None:
    if entry.kind not in (Kind.FILE, Kind.FOLDER):
        return None
    readers: tuple[Callable[[Entry, str], Upload | None], ...] = (
        _moodle,
        _blackboard,
        _brightspace,
        _canvas,
        _ilias,
    )
    name = unicodedata.normalize("NFC", entry.name)
    return next((upload for reader in readers if (upload := reader(entry, name)) is not None), None)


def _moodle(entry: Entry, name: str) -> Upload | None:
    """Read ``NAME_NUMBER_assignsubmission_KIND_FILE``; a group's default team has no number."""
    found = re.fullmatch(r"(.+?)_assignsubmission_([a-z]+)(?:_(.*))?", name, re.DOTALL)
    if found is None:
        return None
    return Upload("Moodle", found[1], entry, found[3] or "", typed=found[2] != "file")


def _blackboard(entry: Entry, name: str) -> Upload | None:
    """Read ``ASSIGNMENT_LOGIN_attempt_DATE_FILE``; without a file it is the platform's own text."""
    found = re.fullmatch(r"(.+)_attempt_(\d{4}(?:-\d{1,2}){2,5})(?:_(.+)|\.txt)", name, re.DOTALL)
    if found is None or entry.kind != Kind.FILE:
        return None
    date = "-".join(part.zfill(2) for part in found[2].split("-"))
    return Upload("Blackboard", found[1], entry, found[3] or "", date, typed=found[3] is None)


def _brightspace(entry: Entry, name: str) -> Upload | None:
    """Read ``NUMBER-NUMBER - NAME - DATE`` of a folder, with `` - FILE`` of a file."""
    number, *parts = name.split(" - ")
    if not re.fullmatch(r"\d+-\d+", number) or len(parts) < 2:
        return None
    places = range(1, len(parts) if entry.kind == Kind.FOLDER else len(parts) - 1)
    dated = next((place for place in places if re.search(YEAR, parts[place])), None)
    if dated is None:
        return None
    student = f"{' - '.join(parts[:dated])}_{number.partition('-')[0]}"
    return Upload(
        "Brightspace",
        student,
        entry,
        " - ".join(parts[dated + 1 :]),
        _sortable(parts[dated]) or f"?{parts[dated]}",
    )


def _canvas(entry: Entry, name: str) -> Upload | None:
    """Read ``NAME_LATE_NUMBER_UPLOAD_FILE``, or ``NAME_NUMBER_text.html`` of what was typed in."""
    if entry.kind != Kind.FILE:
        return None
    anonymous = r"(anon)(?:_LATE)?_([A-Za-z0-9]{5})"
    usual = r"(.*?[^\W\d_].*?)(?:_LATE)?_(\d+)"
    for who in (anonymous, usual):
        if found := re.fullmatch(who + r"_(\d+)_(.+)", name, re.DOTALL):
            file, version = version_of(found[4], "Canvas")
            typed = found[4] in ("text.html", "link.html")
            student = f"{found[1]}_{found[2]}"
            return Upload("Canvas", student, entry, file, version=(*version, int(found[3])), typed=typed)
        if found := re.fullmatch(who + r"_(?:text|link)\.html", name, re.DOTALL):
            return Upload("Canvas", f"{found[1]}_{found[2]}", entry, typed=True)
    return None


def _ilias(entry: Entry, name: str) -> Upload | None:
    """Read the folder ``LASTNAME_FIRSTNAME_LOGIN_NUMBER``; names have no digits."""
    last, first, *rest = [*name.split("_"), ""]
    named = all(part and not re.search(r"\d", part) for part in (last, first))
    if entry.kind != Kind.FOLDER or not named or len(rest) < 3 or not rest[-2].isdecimal():
        return None
    return Upload("ILIAS", name, entry)


def _without_chance(found: dict[str, Upload]) -> dict[str, Upload]:
    """Leave out what only looks like Canvas: lab_10_01_anna.ipynb, lab_10_01_ben.ipynb are no one upload."""
    canvas = {name: upload for name, upload in found.items() if upload.platform == "Canvas"}
    uploads = {(upload.student, upload.version[1:]) for upload in canvas.values()}
    notebooks = {upload.file for upload in canvas.values() if upload.file.lower().endswith(".ipynb")}
    if len(uploads) == 1 and len(notebooks) > 1:
        return {name: upload for name, upload in found.items() if name not in canvas}
    return found


def _with_logins(found: dict[str, Upload]) -> dict[str, Upload]:
    """Name Blackboard's students by their logins, where no two would get the same."""
    heads = {u.student: "" for u in found.values() if u.platform == "Blackboard"}
    for upload in found.values():
        if upload.platform == "Blackboard" and upload.typed:
            heads[upload.student] = heads[upload.student] or _stated_login(upload)
    logins = {head: stated or head.rpartition("_")[2] for head, stated in heads.items()}
    unique = {head: login for head, login in logins.items() if list(logins.values()).count(login) == 1}
    return {
        name: replace(upload, student=unique.get(upload.student, upload.student))
        if upload.platform == "Blackboard"
        else upload
        for name, upload in found.items()
    }


def _stated_login(upload: Upload) -> str:
    """Return the login in Blackboard's text, ``Name: Anna Müller (amueller)``, if the name ends with it."""
    try:
        first = upload.entry.content().decode("utf-8", errors="replace").lstrip("\ufeff").partition("\n")[0]
    except CompressionError:
        return ""
    stated = re.search(r"\(([^()]+)\)\s*$", first)
    return stated[1] if stated and upload.student.endswith(f"_{stated[1]}") else ""


# by the first letters in English, German, French, Spanish, Italian, Portuguese and Dutch, without accents
_MONTHS = {
    name: month
    for month, names in enumerate(
        (
            "jan ene gen", "feb fev", "mar mrt maa", "apr avr abr", "may mai mag mei", "jun juin giu",
            "jul juil lug", "aug aou ago", "sep set", "oct okt out ott", "nov", "dec dez dic",
        ),
        start=1,
    )
    for name in names.split()
}  # fmt: skip


def _sortable(date: str) -> str:
    r"""Return a date so that later ones sort later; empty if it is in no known form.

    >>> _sortable("Sep 24, 2026 926 PM"), _sortable("1 September 2026 10:11"), _sortable("2026-09-01 1011")
    ('2026-09-24T21:26', '2026-09-01T10:11', '2026-09-01T10:11')
    """
    bare = unicodedata.normalize("NFKD", date).encode("ascii", errors="ignore").decode().lower()
    month = next((number for name, number in _MONTHS.items() if re.search(rf"\b{name}", bare)), 0)
    numbers = [int(part) for part in re.findall(r"\d+", date)]
    if month:
        day, year, *time = numbers if len(numbers) > 2 and numbers[1] > 31 else [0, 0]
    else:
        year, month, day, *time = numbers if len(numbers) > 3 and numbers[0] > 31 else [0, 0, 0]
    if not time:
        return ""
    hour, minute = (time[0], time[1]) if len(time) > 1 else divmod(time[0], 100)
    half = re.search(r"([ap])\.?m\b", date, re.I)
    if half:
        hour = hour % 12 + (12 if half[1].lower() == "p" else 0)
    try:
        return datetime(year, month, day, hour, minute).isoformat(timespec="minutes")
    except ValueError:
        return ""
