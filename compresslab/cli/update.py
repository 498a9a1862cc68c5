"""``compresslab update``: a student's cells, by their ids, in the new edition of a lab.

What the student wrote stays: the holes, the bets and other cells that differ from those shipped, and the
added cells, each below the cell that it followed. All else comes from the new edition, locked checks always.
"""

from __future__ import annotations

import ast
import copy
import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.validator import normalize

from compresslab.authoring.edition_metadata import KEY, digest, shipped_cells, version_of
from compresslab.cli.jupyter import back_up, lab_names, notebook_of
from compresslab.data.location import LABS, MY_LABS
from compresslab.errors import BadSetting, CompressionError, DamagedFile
from compresslab.storage.atomic import replacing

__all__ = ["Update", "copies_of_other_editions", "merged", "update_lab"]

_NO_ROOM = "your notebook is as it was. Free some space, and try again"


@dataclass(frozen=True)
class Update:
    """What an update did: the backup, and the ids of the cells that hold the student's words.

    ``twice`` are cells that both the student and the new edition changed: the student's is below the new one.
    """

    backup: Path
    kept: tuple[str, ...]
    twice: tuple[str, ...]


@dataclass
class _Students:
    """A student's cells: those of the lab by id, and those that were added, by the lab's cell they follow."""

    of_lab: dict[str, NotebookNode] = field(default_factory=dict)
    added: dict[str, list[NotebookNode]] = field(default_factory=dict)


def update_lab(
    name: str, *, now: datetime.datetime, labs: Path = LABS, target: Path = MY_LABS
) -> Update | None:
    """Put the student's cells into the new edition of a lab; None if it already is that edition.

    Args:
        name: the lab's folder, such as ``00_measuring``.
        now: names the backup, ``00_measuring.20260901-141500.ipynb``, beside the notebook.
        labs: where the course's notebooks are.
        target: where the student's notebooks are.

    Raises:
        BadSetting: there is no such lab, or no copy of it.
        DamagedFile: the copy is no notebook, or none of this lab. It stays as it is.
    """
    if name not in lab_names(labs):
        raise BadSetting(f"name must be a lab, got {name!r}; there are {', '.join(lab_names(labs))}")
    place = notebook_of(target, name)
    if not place.is_file():
        raise BadSetting(f"my_labs/{name} is not there yet; copy the labs with: compresslab start")
    edition, mine = _read(notebook_of(labs, name)), _read(place)
    if mine.metadata.get(KEY) == edition.metadata.get(KEY):
        return None
    made, kept, twice = merged(mine, edition, name)
    with replacing(place, advice=_NO_ROOM, durable=True) as unfinished:
        unfinished.write_text(nbformat.writes(made) + "\n", encoding="utf-8")
        backup = back_up(place, now)
    return Update(backup, kept, twice)


def copies_of_other_editions(*, labs: Path = LABS, target: Path = MY_LABS) -> Iterator[tuple[str, str]]:
    """Yield each lab whose copy was made from another edition than today's, and the version that made it."""
    for name in lab_names(labs):
        try:
            mine, edition = (_read(notebook_of(folder, name)) for folder in (target, labs))
        except (CompressionError, OSError):
            continue  # not copied yet, or damaged: the commands that need it say so
        if mine.metadata.get(KEY) != edition.metadata.get(KEY):
            yield name, version_of(mine)


def merged(
    mine: NotebookNode, edition: NotebookNode, lab_name: str
) -> tuple[NotebookNode, tuple[str, ...], tuple[str, ...]]:
    """Return the new notebook, the ids of the cells with the student's words, and those that both changed.

    Raises:
        DamagedFile: the student's notebook is not one of this lab.
    """
    shipped = shipped_cells(mine, lab_name)
    _give_back_ids(mine, shipped)
    students = _sorted_out(mine, edition, shipped)
    _require_lab(students, edition, lab_name)
    made, kept, twice = list(students.added.get("", ())), [], []
    for new in edition.cells:
        own = students.of_lab.get(new.id)
        made.append(_chosen(new, own, shipped))
        if made[-1].source != new.source:
            kept.append(new.id)
        elif own is not None and _changed(own, shipped) and own.source != new.source and not _is_check(new):
            twice.append(new.id)
            made.append(_as_added(own, f"{new.id}-yours"))
        made += students.added.get(new.id, ())
    added = [cell.id for cells in students.added.values() for cell in cells]
    notebook = copy.deepcopy(edition)
    notebook.cells = made
    notebook.metadata = NotebookNode({**mine.metadata, KEY: edition.metadata[KEY]})
    nbformat.validate(notebook)
    return notebook, (*kept, *added), tuple(twice)


def _chosen(new: NotebookNode, own: NotebookNode | None, shipped: Mapping[str, str]) -> NotebookNode:
    """Return the cell to use: the student's, if it fills a hole or only the student changed it."""
    if own is None:
        return new
    as_shipped = digest(new.source) == shipped.get(new.id)
    theirs = _changed(own, shipped) and not _is_check(new) and (_is_hole(new) or as_shipped)
    if not theirs and own.source != new.source:
        return new
    cell = copy.deepcopy(own)  # with its outputs
    cell.id, cell.metadata = new.id, copy.deepcopy(new.metadata)
    return cell


def _changed(own: NotebookNode, shipped: Mapping[str, str]) -> bool:
    return digest(own.source) != shipped.get(own.id)


def _is_hole(cell: NotebookNode) -> bool:
    return bool(cell.metadata.get("nbgrader", {}).get("solution"))


def _is_check(cell: NotebookNode) -> bool:
    return bool(cell.metadata.get("nbgrader", {}).get("grade"))


def _give_back_ids(mine: NotebookNode, shipped: Mapping[str, str]) -> None:
    """Give unchanged cells of the lab their ids again, where another program has lost them."""
    missing = {shipped[name]: name for name in shipped.keys() - {cell.id for cell in mine.cells}}
    for cell in mine.cells:
        if cell.id not in shipped and digest(cell.source) in missing:
            cell.id = missing.pop(digest(cell.source))


def _sorted_out(mine: NotebookNode, edition: NotebookNode, shipped: Mapping[str, str]) -> _Students:
    """Separate the lab's cells from added ones.

    Cells that the new edition dropped are added ones if they were changed, and otherwise left out.
    A hole whose cell is gone is filled by the last added cell that defines its function.
    """
    students, last = _Students(), ""
    names = {cell.id for cell in edition.cells}
    gone = {cell.id for cell in edition.cells if _is_hole(cell)} - {cell.id for cell in mine.cells}
    rewritten = {name: cell for cell in mine.cells if cell.id not in names for name in _defined(cell) & gone}
    students.of_lab.update(rewritten)
    for cell in mine.cells:
        if cell.id in names:
            last = cell.id
            students.of_lab[last] = cell
        elif any(cell is other for other in rewritten.values()):
            last = next(name for name, other in rewritten.items() if other is cell)
        elif _changed(cell, shipped):
            students.added.setdefault(last, []).append(_as_added(cell, cell.id))
    return students


def _defined(cell: NotebookNode) -> set[str]:
    """Return the functions that a code cell defines; none if it is not Python."""
    try:
        body = ast.parse(cell.source).body if cell.cell_type == "code" else []
    except (SyntaxError, ValueError):
        return set()
    return {node.name for node in body if isinstance(node, ast.FunctionDef)}


def _as_added(cell: NotebookNode, name: str) -> NotebookNode:
    """Return a copy of a cell as one of the student's own: no hole, no check, editable and deletable."""
    cell = copy.deepcopy(cell)
    cell.id = name
    for mark in ("nbgrader", "editable", "deletable"):
        cell.metadata.pop(mark, None)
    return cell


def _require_lab(students: _Students, edition: NotebookNode, lab_name: str) -> None:
    if not any(_is_hole(cell) and cell.id in students.of_lab for cell in edition.cells):
        raise DamagedFile(
            f"my_labs/{lab_name} has no exercise of this lab; is it another lab's notebook? Put yours back, "
            f"or begin anew with: compresslab reset {lab_name} (it keeps a backup)"
        )


def _read(place: Path) -> NotebookNode:
    """Read a notebook of format 4 whose cells have ids of their own.

    Raises:
        DamagedFile: it is not such a notebook.
    """
    try:
        notebook = nbformat.v4.upgrade(nbformat.reads(place.read_text(encoding="utf-8"), as_version=4))
        _, notebook = normalize(notebook, version=4, version_minor=notebook.nbformat_minor)
        nbformat.validate(notebook)
    except (ValueError, KeyError, AttributeError, TypeError, nbformat.ValidationError) as error:
        words = str(error).strip().partition("\n")[0][:150]
        raise DamagedFile(
            f"{place.parent.name}/{place.name} is not a notebook that can be read ({words}); nothing was "
            f"changed. Open and save it in JupyterLab, or begin anew with: compresslab reset {place.stem}"
        ) from error
    return notebook
