"""The parts of the README that nobody types: the kill table, the tables of labs and grading, the tree.

Each stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``; ``compresslab build`` refreshes them,
and a test proves them current.
"""

from __future__ import annotations

import ast
import fnmatch
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from compresslab.checks.exercise import Lab
from compresslab.checks.proofs import Kill, kills
from compresslab.course import all_labs
from compresslab.errors import CompressionError
from compresslab.measurement.statistics import Interval

__all__ = [
    "BLOCKS", "blocks_in", "fill", "generated", "grading_tables", "kill_table", "lab_table", "refresh_readme",
    "tree",
]  # fmt: skip

BLOCKS = ("labs", "kill-table", "grading", "tree")
SEEDS = range(10)
_BLOCK = re.compile(r"<!-- generated: ([\w-]+) -->\n(.*?)<!-- end -->", re.DOTALL)

TOP = {  # in this order; what has a docstring speaks for itself
    "README.md": "what this is, and the two commands",
    "pyproject.toml": "what is installed, and how it is checked",
    "TEACHING.md": "how a class is graded: from the notebooks that came in to a table and feedback",
    "Makefile": "make start, make test",
    "LICENSE": "MIT",
    "CONTRIBUTING.md": "how to add a lab or a method",
    "nbgrader_config.py": "",
    ".ci/run": "what continuous integration calls",
    ".pre-commit-config.yaml": "what runs before a commit",
    "compresslab/": "the package",
    "labs/": "the students' notebooks, built, never edited by hand",
    "solutions/": "the source of each lab, and the instructor's notebook built from it",
    "data/": "Fashion-MNIST, the trained networks with their cards, long results",
    "tests/": "mirrors compresslab/",
}


def refresh_readme(root: Path) -> bool:
    """Rewrites the generated blocks of ``README.md``; whether anything changed."""
    page = root / "README.md"
    if not page.is_file():
        return False
    before = page.read_text(encoding="utf-8")
    after = fill(before, generated(root, names=blocks_in(before)))
    page.write_text(after, encoding="utf-8")
    return after != before


def generated(root: Path, *, names: Iterable[str] = BLOCKS) -> dict[str, str]:
    """The wanted blocks, by name."""
    makers = {
        "labs": lambda: lab_table(all_labs()),
        "kill-table": lambda: kill_table([kills(e, SEEDS) for lab in all_labs() for e in lab.exercises]),
        "grading": lambda: grading_tables(root / "data" / "results"),
        "tree": lambda: tree(root),
    }
    return {name: makers[name]() for name in names if name in makers}


def blocks_in(text: str) -> dict[str, str]:
    """What stands in each generated block of a text now."""
    return {found[1]: found[2] for found in _BLOCK.finditer(text)}


def fill(text: str, blocks: Mapping[str, str]) -> str:
    r"""The text with its generated blocks replaced.

    Raises:
        CompressionError: the text has a block that nothing generates.

    >>> print(fill("<!-- generated: a -->\nold\n<!-- end -->", {"a": "new"}))
    <!-- generated: a -->
    new
    <!-- end -->
    """

    def replace(found: re.Match[str]) -> str:
        if found[1] not in blocks:
            raise CompressionError(f"nothing generates the block {found[1]!r}; there are {', '.join(blocks)}")
        return f"<!-- generated: {found[1]} -->\n{blocks[found[1]].strip()}\n<!-- end -->"

    return _BLOCK.sub(replace, text)


def lab_table(labs: Sequence[Lab]) -> str:
    """One row a lab: where it is, what it teaches, what it asks for, how long it takes."""
    rows = [
        (
            f"[{lab.name}](labs/{lab.name}/{lab.name}.ipynb)", lab.title, "; ".join(lab.objectives),
            "; ".join(lab.prerequisites), str(lab.minutes), str(lab.points),
        )
        for lab in labs
    ]  # fmt: skip
    heading = ("lab", "title", "you will", "you need", "minutes", "points")
    return _table(heading, rows, right=2)


def kill_table(found: Sequence[Kill]) -> str:
    """One row a lab and one for all: how many wrong answers were planted, and how many the checks caught."""
    labs = sorted({kill.lab for kill in found})
    rows = [(lab, *_sums([kill for kill in found if kill.lab == lab])) for lab in labs]
    heading = (
        "lab",
        "exercises",
        "right answers",
        "mistakes planted",
        "killed",
        "killed with their own message",
    )
    return _table(heading, [*rows, ("**all**", *_sums(found))], right=5)


def _sums(found: Sequence[Kill]) -> tuple[str, ...]:
    fields = ("rights", "mistakes", "killed", "own_message")
    return (str(len(found)), *(str(sum(getattr(kill, field) for kill in found)) for field in fields))


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]], *, right: int) -> str:
    """A Markdown table whose last columns are numbers."""
    rule = ["---"] * (len(heading) - right) + ["---:"] * right
    return "\n".join("| " + " | ".join(row) + " |" for row in (heading, rule, *rows))


# What grading takes, and what it bears

COMMAND = "python -W ignore -m tests.benchmarks."
ROWS = {"cold": "one submission, cold", "batch": "{}, one process", "two": "{}, two processes"}
COUNTS = {
    "submissions": "submissions",
    "hostile": "of them hostile",
    "lost": "lost",
    "forged_points": "points forged",
    "honest_with_another_score": "honest, with another score than deserved",
    "graded_twice": "results made twice",
    "left_running": "processes left",
}


def grading_tables(results: Path) -> str:
    """Seconds per submission beside nbgrader's, then the soak; what is not measured says so."""
    tables = {"grading": _seconds_table, "soak": _soak_table}
    return "\n\n".join(_measured(results / f"{name}.json", table) for name, table in tables.items())


def _measured(place: Path, table: Callable[[dict[str, Any]], str]) -> str:
    command = f"`{COMMAND}{place.stem} --write`"
    if not place.is_file():
        return f"Not measured yet: there is no `data/results/{place.name}`; {command} makes it."
    found = json.loads(place.read_text(encoding="utf-8"))
    where = "on {processors} processors ({processor}), Python {python}, torch {torch}, nbgrader {nbgrader}"
    return f"{table(found)} Measured {where.format(**found['machine'])}; {command} repeats it."


def _seconds_table(found: Mapping[str, Any]) -> str:
    """Ours, nbgrader's least work, nbgrader's whole notebook; the ratios are ours over theirs."""
    rows = []
    for name, title in ROWS.items():
        ours, *others = (found[name][way] for way in ("ours", "holes_and_checks", "whole_lab"))
        pairs = [(_seconds(entry), str(Interval(**entry["ratio"]))) for entry in others]
        rows.append(
            (title.format(ours["students"]), _seconds(ours), *(word for pair in pairs for word in pair))
        )
    least, whole = "nbgrader, holes and checks alone", "nbgrader, the whole notebook"
    heading = ("seconds per submission", "compresslab, isolated", least, "ratio", whole, "ratio")
    few = found["batch"]["whole_lab"]["students"]
    words = (
        f"Lab {found['lab']}; medians of {found['pairs']} rounds, ratios (compresslab / nbgrader) with their "
        f"95 % interval; the whole notebook is measured on {few} submissions at a time."
    )
    return f"{_table(heading, rows, right=5)}\n\n{words}"


def _seconds(entry: Mapping[str, Any]) -> str:
    return f"{entry['seconds']['value']:.2f}"


def _soak_table(found: Mapping[str, Any]) -> str:
    """What must be 0, and what it took."""
    row = [str(found[name]) for name in COUNTS]
    row += [f"{found['peak_pss_bytes'] / 2**30:.1f} GiB", f"{sum(found['seconds']) / 60:.1f} min"]
    table = _table((*COUNTS.values(), "peak memory", "time"), [row], right=len(row))
    return f"{table}\n\nKilled meanwhile, by SIGKILL: {', '.join(found['killed'])}; then started again."


# The tree


def tree(root: Path) -> str:
    """The repository, one line a file, each with the first sentence of its docstring.

    Raises:
        CompressionError: a file has nothing to say for itself.
    """
    lines = [(name, words) for name, words in _entries(root)]
    width = max(len(name) for name, _ in lines) + 2
    return "\n".join(["```text", *(f"{name:<{width}}{words}" for name, words in lines), "```"])


def _entries(root: Path) -> Iterator[tuple[str, str]]:
    top = {path.name + "/" * path.is_dir() for path in _visible(root, root)}
    top |= {name for name in TOP if name.startswith(".") and (root / name).exists()}
    for name in sorted(top, key=_files_first(list(TOP))):
        yield name, _says(root / name, TOP.get(name, ""))
        if name == "compresslab/":
            yield from _package(root, root / name, depth=1)
        elif name in ("labs/", "solutions/"):
            titles = {lab.name: lab.title for lab in all_labs()}
            for path in _visible(root, root / name):
                yield f"    {path.name}/", titles.get(path.name, "")


def _package(root: Path, folder: Path, *, depth: int) -> Iterator[tuple[str, str]]:
    """The modules and packages of a package; of a lab's exercises the folder alone."""
    paths = [
        path for path in _visible(root, folder) if path.suffix == ".py" or (path / "__init__.py").is_file()
    ]
    for path in sorted(paths, key=lambda path: (path.is_dir(), path.name)):
        if path.name == "__init__.py":
            continue
        yield "    " * depth + path.name + "/" * path.is_dir(), _says(path, "")
        if path.is_dir() and folder.name != "exercises":
            yield from _package(root, path, depth=depth + 1)


def _visible(root: Path, folder: Path) -> list[Path]:
    """What lies in a folder, less the hidden and what git ignores."""
    ignored = [".*"]
    if (root / ".gitignore").is_file():
        lines = (root / ".gitignore").read_text().split()
        kept = {line[1:].strip("/") for line in lines if line.startswith("!")}
        ignored += [line.strip("/") for line in lines if line.strip("/") not in kept]
    return sorted(
        p for p in folder.iterdir() if not any(fnmatch.fnmatch(p.name, pattern) for pattern in ignored)
    )


def _says(path: Path, words: str) -> str:
    page = path / "__init__.py" if path.is_dir() else path
    if not words and page.suffix == ".py" and page.is_file():
        words = _first_sentence(ast.get_docstring(ast.parse(page.read_text(encoding="utf-8"))) or "")
    if not words:
        raise CompressionError(
            f"{path.name} has no words for the README's tree; give it a docstring, or a line in TOP"
        )
    return words


def _first_sentence(words: str) -> str:
    r"""Up to the first full stop or paragraph, in one line.

    >>> _first_sentence("The honest clock: how many times faster.\n\nMore.")
    'The honest clock: how many times faster'
    """
    paragraph = " ".join(words.split("\n\n")[0].replace("``", "").split())
    return re.split(r"(?<=[^.])[.!?](?:\s|$)", paragraph)[0]


def _files_first(order: Sequence[str]) -> Callable[[str], tuple[int, str]]:
    return lambda name: (order.index(name) if name in order else len(order), name)
