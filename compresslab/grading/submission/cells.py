"""Read a submitted file and parse its code cells, without running them."""

from __future__ import annotations

import ast
import functools
import json
import os
import platform
import re
import stat
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compresslab.errors import DamagedFile
from compresslab.grading.submission.statements import Statement, read_statement

__all__ = ["Cell", "Notebook", "parsed", "read_notebook", "source_of", "submitted_bytes"]

MAXIMUM_BYTES = 25_000_000  # a notebook with its stored outputs
MAXIMUM_SOURCE = 500_000  # characters of code in all its cells
MAXIMUM_CELLS = 10_000  # with code


OURS = platform.python_version()
MERGE_MARKS = re.compile(r"(?m)^(<<<<<<<|>>>>>>>)( |$)")


@dataclass(frozen=True, eq=False)
class Cell:
    """A code cell: its name in messages, its id, its text, and its statements or the error of parsing it.

    ``conflict`` tells whether the marks of an unfinished merge stand in it.
    """

    name: str
    id: str
    text: str
    statements: tuple[Statement, ...] = ()
    error: str = ""
    conflict: bool = False

    @functools.cached_property
    def defines(self) -> frozenset[str]:
        """The names that it binds itself, without imports."""
        own = [s for s in self.statements if not isinstance(s.node, ast.Import | ast.ImportFrom)]
        return frozenset().union(*(statement.now.binds for statement in own))


@dataclass(frozen=True)
class Notebook:
    """The code cells of a notebook file.

    ``may_be_newer`` says so, in words, where the notebook may be of a newer Python than the one that reads
    it.
    """

    cells: tuple[Cell, ...]
    may_be_newer: str = ""


WANTED = "expected a Jupyter notebook (.ipynb)"


def submitted_bytes(path: Path) -> bytes:
    """Return the content of a submitted file: a regular one of limited size, never the target of a link.

    Raises:
        CompressionError: it is something else, too large, or can't be read.
    """
    try:
        kind = path.lstat().st_mode
        if not stat.S_ISREG(kind):
            what = (
                "a folder" if stat.S_ISDIR(kind) else "a link" if stat.S_ISLNK(kind) else "not a regular file"
            )
            raise DamagedFile(f"{path.name} is {what}; {WANTED}; give the path of the notebook itself")
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with open(os.open(path, flags), "rb") as file:
            content = file.read(MAXIMUM_BYTES + 1)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise DamagedFile(
            f"{path.name} does not exist; {WANTED}; give the path of the notebook itself"
        ) from None
    except OSError as error:
        raise DamagedFile(
            f"{path.name} can't be read ({error.strerror}); {WANTED}; check the permissions"
        ) from error
    if len(content) > MAXIMUM_BYTES:
        raise DamagedFile(
            f"{path.name} has {size:,} bytes; at most {MAXIMUM_BYTES:,} are read; clear its outputs (Edit, "
            "Clear Outputs of All Cells), save and submit again"
        )
    return content


def _notebook(content: bytes, path: str) -> dict[str, Any]:
    if not content.strip():
        raise DamagedFile(f"{path} is empty; {WANTED}; save it in JupyterLab and submit again")
    if MERGE_MARKS.search(content.decode(errors="replace")) and not _is_json(content):
        raise DamagedFile(
            f"{path} holds a merge conflict that was not resolved (a line begins with <<<<<<< or >>>>>>>); "
            f"{WANTED}; keep one of the two versions, open the notebook in JupyterLab, save and submit again"
        )
    try:
        notebook = json.loads(content)
    except (ValueError, RecursionError) as error:
        kinds = {b"PK": "it is a zip or an office file", b"<": "it is a web page", b"%PDF": "it is a PDF"}
        why = next((words for mark, words in kinds.items() if content.lstrip().startswith(mark)), str(error))
        raise DamagedFile(
            f"{path} is not a notebook ({why[:100]}); {WANTED}, which is JSON; submit the file that "
            "JupyterLab saved, not an export or a text with merge marks"
        ) from error
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise DamagedFile(
            f"{path} is JSON without cells; {WANTED} of format 4; open it in JupyterLab, save, submit again"
        )
    return notebook


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


def read_notebook(content: bytes, path: str) -> Notebook:
    """Parse the code cells of a notebook file; ``path`` is its name in messages.

    Raises:
        CompressionError: it is not a notebook, or holds too much code.
    """
    book = _notebook(content, path)
    return Notebook(tuple(_code_cells(book, path)), _may_be_newer(book))


def _may_be_newer(book: Mapping[str, Any]) -> str:
    """Return a sentence on the two versions, unless the notebook's Python is known not to be newer."""
    try:
        made_with = str(book["metadata"]["language_info"]["version"])[:20]
        known = [int(part) for part in made_with.split(".")[:2]]
    except (KeyError, TypeError, ValueError, AttributeError):
        return f"the notebook does not say which Python it was run with; the grader has Python {OURS}"
    if known <= [*sys.version_info[:2]]:
        return ""
    return f"the notebook was run with Python {made_with}; the grader has Python {OURS}"


def _code_cells(book: Mapping[str, Any], path: str) -> Iterator[Cell]:
    numbered = enumerate(book["cells"], start=1)
    written = {n: c for n, c in numbered if isinstance(c, dict) and c.get("cell_type") == "code"}
    if len(written) > MAXIMUM_CELLS:
        raise DamagedFile(
            f"{path} holds {len(written):,} code cells; at most {MAXIMUM_CELLS:,} are read; hand in the "
            "lab's own notebook, as JupyterLab saved it"
        )
    texts = {index: source_of(cell) for index, cell in written.items()}
    if sum(map(len, texts.values())) > MAXIMUM_SOURCE:
        raise DamagedFile(
            f"{path} holds more than {MAXIMUM_SOURCE:,} characters of code; a lab needs a few thousand; "
            "move data out of the code cells and submit again"
        )
    for index, text in texts.items():
        yield parsed(f"cell {index}", str(written[index].get("id", "")), text)


def source_of(cell: Mapping[str, Any]) -> str:
    """Return the text of a cell; its source may be a text or lines, or anything in a hostile file."""
    source = cell.get("source", "")
    lines = source if isinstance(source, list) else [source]
    return "".join(line for line in lines if isinstance(line, str))


def parsed(name: str, identity: str, text: str) -> Cell:
    """Parse a cell; if that fails, once more without IPython's own lines."""
    problem = ""
    for attempt in (text, _without_magics(text)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return Cell(name, identity, attempt, tuple(map(read_statement, _body(attempt))))
        except SyntaxError as error:
            where = f" in line {error.lineno}: {(error.text or '').strip()[:100]}" if error.lineno else ":"
            problem = f"syntax error{where} ({error.msg})"
        except (ValueError, RecursionError, MemoryError) as error:
            problem = f"Python can't read the cell ({type(error).__name__}: {str(error)[:100]})"
    conflict = MERGE_MARKS.search(text) is not None
    if conflict:
        problem = "a merge conflict was not resolved (a line begins with <<<<<<< or >>>>>>>)"
    return Cell(name, identity, text, error=problem, conflict=conflict)


def _body(text: str) -> list[ast.stmt]:
    """Return the statements of a cell, where ``await`` may stand at the left margin."""
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    tree = compile(text, "<cell>", "exec", flags, dont_inherit=True)
    assert isinstance(tree, ast.Module)
    return tree.body


_MAGIC = re.compile(r"[%!?]|[\w.]+\?{1,2}\s*$|[\w, ]+=\s*[%!]")  # at a line's first character
_TIMED = re.compile(r"(\s*)%(?:time|prun) +(?![-%])(.*)")  # runs a statement in the notebook itself
_CAPTURED = re.compile(r"(\s*)([A-Za-z_]\w*)\s*=\s*[%!]")  # takes what a command prints
_WITH_PYTHON_BELOW = ("%%time", "%%capture", "%%prun")


def _without_magics(text: str) -> str:
    r"""Return the text without IPython's own lines; a cell in another language becomes empty.

    >>> _without_magics("%matplotlib inline\nfiles = !ls\nx = 7 % 2\n%time y = 3\n!ls \\\n  -l")
    'pass\nfiles = []\nx = 7 % 2\ny = 3\npass\n'
    """
    first = text.lstrip().partition("\n")[0].split(" ")[0].rstrip()
    if first.startswith("%%") and first not in _WITH_PYTHON_BELOW:
        return ""
    lines, continued = [], False
    for line in text.split("\n"):
        is_magic = not continued and _MAGIC.match(line.lstrip()) is not None
        lines.append("" if continued else _python_of(line) if is_magic else line)
        continued = (is_magic or continued) and line.endswith("\\")
    return "\n".join(lines)


def _python_of(line: str) -> str:
    """Return the Python that stands for a line of IPython's own."""
    if timed := _TIMED.fullmatch(line):
        return timed[1] + timed[2]
    if captured := _CAPTURED.match(line):
        return f"{captured[1]}{captured[2]} = []"
    return line[: len(line) - len(line.lstrip())] + "pass"
