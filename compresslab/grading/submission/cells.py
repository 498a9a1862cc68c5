"""Read a submitted file and parse its code cells, without running them."""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import stat
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compresslab.errors import DamagedFile

__all__ = ["Cell", "bound", "code_cells", "parsed", "source_of", "submitted_bytes"]

MAXIMUM_BYTES = 25_000_000  # a notebook with its stored outputs
MAXIMUM_SOURCE = 500_000  # characters of code in all its cells
MAXIMUM_CELLS = 10_000  # with code


@dataclass(frozen=True)
class Cell:
    """A code cell: its name in messages, its id, its text, and its statements or the error of parsing it."""

    name: str
    id: str
    text: str
    body: tuple[ast.stmt, ...] = ()
    error: str = ""

    @functools.cached_property
    def defines(self) -> frozenset[str]:
        """The names that it defines itself, without imports."""
        own = (s for s in self.body if not isinstance(s, ast.Import | ast.ImportFrom))
        return frozenset().union(*map(bound, own))


def bound(statement: ast.stmt) -> set[str]:
    """Return the names that a statement defines; ``*`` for a star import.

    >>> sorted(bound(ast.parse("import os.path, math as m").body[0]))
    ['m', 'os']
    """
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Try):  # one package, else another; nothing else is kept
        parts = (*statement.body, *(s for handler in statement.handlers for s in handler.body))
        imports = all(isinstance(part, ast.Import | ast.ImportFrom | ast.Pass) for part in parts)
        return set().union(*map(bound, parts)) if imports else set()
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
    return set()


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


def code_cells(content: bytes, path: str) -> Iterator[Cell]:
    """Yield the code cells of a notebook file; ``path`` is its name in messages.

    Raises:
        CompressionError: it is not a notebook, or holds too much code.
    """
    numbered = enumerate(_notebook(content, path)["cells"], start=1)
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
                return Cell(name, identity, attempt, tuple(ast.parse(attempt).body))
        except SyntaxError as error:
            where = f" in line {error.lineno}: {(error.text or '').strip()[:100]}" if error.lineno else ":"
            problem = f"syntax error{where} ({error.msg})"
        except (ValueError, RecursionError, MemoryError) as error:
            problem = f"Python can't read the cell ({type(error).__name__}: {str(error)[:100]})"
    return Cell(name, identity, text, error=problem)


_MAGIC = re.compile(r"[%!?]|[\w.]+\?{1,2}\s*$|[\w, ]+=\s*[%!]")  # at a line's first character
_WITH_PYTHON_BELOW = ("%%time", "%%timeit", "%%capture", "%%prun")


def _without_magics(text: str) -> str:
    r"""Return the text with ``pass`` for each magic line; a cell in another language becomes empty.

    >>> _without_magics("%matplotlib inline\nfiles = !ls\nx = 7 % 2")
    'pass\npass\nx = 7 % 2'
    """
    first = text.lstrip().partition("\n")[0]
    if first.startswith("%%") and not first.startswith(_WITH_PYTHON_BELOW):
        return ""
    return "\n".join(_passed(line) if _MAGIC.match(line.lstrip()) else line for line in text.split("\n"))


def _passed(line: str) -> str:
    return line[: len(line) - len(line.lstrip())] + "pass"
