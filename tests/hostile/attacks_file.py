"""What is handed in is no ordinary notebook file: a folder, a link, a device, 200 MB, brackets, nothing."""

from __future__ import annotations

import os
from pathlib import Path

from hostile.attack import MEASURING, TINY, Attack, handed_in, holes
from submissions import notebook, saved

__all__ = ["ATTACKS"]


def written(folder: Path, content: bytes) -> Path:
    """A submission of these bytes."""
    place = folder / "submission.ipynb"
    place.write_bytes(content)
    return place


@handed_in("is empty", status="needs-review")
def an_empty_file(folder: Path) -> Path:
    """Hands in nothing."""
    return written(folder, b"")


@handed_in("a folder", status="needs-review")
def a_folder(folder: Path) -> Path:
    """Hands in a folder that is called like a notebook."""
    place = folder / "submission.ipynb"
    place.mkdir()
    return place


@handed_in("does not exist", status="needs-review")
def no_file(folder: Path) -> Path:
    """Hands in a path at which nothing lies."""
    return folder / "none.ipynb"


@handed_in("is a link", status="needs-review")
def a_link_to_the_teachers_file(folder: Path) -> Path:
    """Hands in a link to a file that only the teacher may read."""
    place = folder / "submission.ipynb"
    place.symlink_to(folder / "solutions/99_tiny/99_tiny.py")
    return place


@handed_in("is a link", status="needs-review")
def a_link_to_another_students_work(folder: Path) -> Path:
    """Hands in a link to somebody else's right answers."""
    other = saved(notebook(holes(TINY)), folder.parent, f"{folder.name}-grace.ipynb")
    place = folder / "submission.ipynb"
    place.symlink_to(other)
    return place


@handed_in("is a link", status="needs-review")
def a_link_to_itself(folder: Path) -> Path:
    """Hands in a link that leads to itself."""
    place = folder / "submission.ipynb"
    place.symlink_to(place)
    return place


@handed_in("is a link", status="needs-review")
def a_link_to_endless_zeros(folder: Path) -> Path:
    """Hands in a link to /dev/zero, which never ends."""
    place = folder / "submission.ipynb"
    place.symlink_to("/dev/zero")
    return place


@handed_in("not a regular file", status="needs-review")
def a_pipe(folder: Path) -> Path:
    """Hands in a FIFO, on which whoever opens it waits for ever."""
    place = folder / "submission.ipynb"
    os.mkfifo(place)
    return place


@handed_in("bytes", status="needs-review")
def two_hundred_megabytes(folder: Path) -> Path:
    """Hands in a notebook of 200 MB."""
    place = written(folder, b'{"cells": [')
    os.truncate(place, 200_000_000)
    return place


@handed_in("is not a notebook", status="needs-review")
def nested_json(folder: Path) -> Path:
    """Hands in JSON that is nested a million deep."""
    return written(folder, b'{"cells": ' + b'[{"cells": ' * 1_000_000)


@handed_in("is not a notebook", status="needs-review")
def a_number_without_end(folder: Path) -> Path:
    """Hands in JSON with an integer of a million digits, which takes square time to read."""
    return written(folder, b'{"cells": [], "nbformat": ' + b"9" * 1_000_000 + b"}")


@handed_in("without a single cell", status="needs-review")
def many_nests(folder: Path) -> Path:
    """Hands in cells nested as deep as the reader of JSON just allows."""
    return written(folder, b'{"cells": [' + b'{"cells": [' * 400 + b"]}" * 400 + b"]}")


@handed_in("is not a notebook", status="needs-review")
def a_program(folder: Path) -> Path:
    """Hands in a shell script that may be run."""
    place = written(folder, b"#!/bin/sh\ntouch pwned\n")
    place.chmod(0o777)
    return place


@handed_in("is not a notebook", status="needs-review")
def bytes_that_are_no_text(folder: Path) -> Path:
    """Hands in bytes of no encoding."""
    return written(folder, bytes(range(256)) * 40)


@handed_in()
def text_in_another_encoding(folder: Path) -> Path:
    """Is right, saved in UTF-16 by an editor that meant well."""
    place = saved(notebook(holes(TINY)), folder)
    place.write_bytes(place.read_text().encode("utf-16"))
    return place


@handed_in()
def a_mark_before_the_text(folder: Path) -> Path:
    """Is right, saved with a byte order mark."""
    place = saved(notebook(holes(TINY)), folder)
    place.write_bytes(b"\xef\xbb\xbf" + place.read_bytes())
    return place


@handed_in(lab=MEASURING)
def a_renamed_file(folder: Path) -> Path:
    """Is right, and called like an option, a path, a formula and a script at once."""
    return saved(notebook(holes(MEASURING)), folder, "--out=..; rm -rf $(HOME) <b>=1+1\n\x1b[31m.txt")


ATTACKS = [value for value in list(vars().values()) if isinstance(value, Attack)]
