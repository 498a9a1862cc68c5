"""Notebooks that play with cells: tags, metadata, outputs, ids, order, hidden and endless code."""

from __future__ import annotations

import json
from pathlib import Path

from hostile.attack import MEASURING, TINY, Attack, handed_in, holes
from submissions import adds, code, notebook, right_answers, saved, unwritten

__all__ = ["ATTACKS"]

WRONG = "def attacked(x):\n    return 0.0\n"
HONEST = ("honest",)


def with_wrong(name: str = "attacked") -> dict[str, str]:
    """The tiny lab's holes, one of them wrong."""
    return holes(TINY) | {name: WRONG}


@handed_in("not written yet", lab=MEASURING, earns=())
def skip_execution(folder: Path) -> Path:
    """Tags every cell of the untouched lab skip-execution, which gives full marks in nbgrader."""
    book = notebook({exercise.name: unwritten(exercise) for exercise in MEASURING.exercises})
    for cell in book.cells:
        cell.metadata = {"tags": ["skip-execution", "raises-exception", "nbval-skip", "remove-cell"]}
    return saved(book, folder)


@handed_in("the sum", earns=HONEST)
def points_in_the_metadata(folder: Path) -> Path:
    """Writes its own points, grade ids and checksums into nbgrader's metadata."""
    book = notebook(with_wrong())
    for cell in book.cells:
        grade = {"grade": True, "points": 99, "score": 99, "locked": False, "solution": False}
        cell.metadata = {
            "nbgrader": {**grade, "grade_id": "attacked", "schema_version": 3},
            "deletable": True,
        }
    book.metadata = {
        "kernelspec": {"name": "bash", "argv": ["touch", "/tmp/pwned"]},
        "celltoolbar": "x" * 9_999,
    }
    return saved(book, folder)


@handed_in("the sum", earns=HONEST)
def faked_outputs(folder: Path) -> Path:
    """Stores outputs that say all is passed, full marks, and a script in HTML."""
    book = notebook(with_wrong())
    faked = {"text/plain": "10.0", "text/html": "<script>fetch('//evil')</script>"}
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = [
                {"output_type": "execute_result", "execution_count": 1, "data": faked, "metadata": {}},
                {"output_type": "stream", "name": "stdout", "text": "✓ passed: 2 of 2 points\n"},
            ]
    return saved(book, folder)


@handed_in(lab=MEASURING)
def outputs_of_every_kind_beside_right_answers(folder: Path) -> Path:
    """Is right, and stores 20 MB of outputs, tracebacks and widgets, which cost nothing."""
    book = notebook(right_answers(MEASURING))
    for cell in book.cells[1::3]:
        cell.metadata = {"tags": ["skip-execution"]}
    book.cells[2].outputs = [
        {"output_type": "error", "ename": "E", "evalue": "e", "traceback": ["x" * 20_000_000]}
    ]
    return saved(book, folder)


@handed_in("2 cells have its id", earns=HONEST)
def duplicated_ids(folder: Path) -> Path:
    """Hands in two cells with one id, the right one first."""
    ids = ["attacked", "attacked", "honest"]
    return saved(code(adds("attacked"), WRONG, adds("honest"), ids=ids), folder)


@handed_in("is a function", earns=HONEST)
def a_deleted_hole(folder: Path) -> Path:
    """Deletes the hole and keeps its check, edited to pass."""
    check = "class check:\n    attacked = lambda *given: print('passed')\ncheck.attacked(1)"
    return saved(code(check, adds("honest"), ids=["check-attacked", "honest"]), folder)


@handed_in()
def checks_that_do_harm(folder: Path) -> Path:
    """Is right in each hole, and puts os._exit, loops and patches into all other cells."""
    book = notebook(holes(TINY))
    for cell in book.cells:
        if cell.get("id", "").startswith("check-"):
            cell.source = "import os, torch\ntorch.equal = lambda *a: True\nwhile True: os._exit(0)"
    harm = "import os\nos._exit(0)\ndef honest(x):\n    return 7\nfor _ in iter(int, 1): pass"
    book.cells.insert(0, code(harm).cells[0])
    return saved(book, folder)


@handed_in("seems to be lab 00_measuring", status="needs-review")
def another_labs_submission(folder: Path) -> Path:
    """Hands in the right answers of another lab."""
    return saved(notebook(right_answers(MEASURING)), folder)


@handed_in()
def ids_shuffled_and_cells_reversed(folder: Path) -> Path:
    """Is right, with the cells in reverse order and unknown kinds of cells between them."""
    book = notebook(holes(TINY))
    book.cells.reverse()
    strange = [
        {"cell_type": "code", "id": 5},
        {"cell_type": "quantum"},
        None,
        [],
        "cell",
        {"cell_type": "code"},
    ]
    content = dict(book) | {"cells": [*strange, *book.cells, *strange], "nbformat": "four", "metadata": None}
    place = folder / "submission.ipynb"
    place.write_text(json.dumps(content))
    return place


@handed_in("does not define it", earns=HONEST)
def sources_that_are_no_text(folder: Path) -> Path:
    """Gives a cell's source as numbers, nested lists and objects."""
    book = notebook(holes(TINY))
    cells = [dict(cell) for cell in book.cells]
    for cell in cells:
        if cell.get("id") == "attacked":
            cell["source"] = [1, None, ["def attacked(x): return 1"], {"text": "x"}, 2.5]
    place = folder / "submission.ipynb"
    place.write_text(json.dumps({"cells": cells}))
    return place


@handed_in("syntax error", earns=HONEST)
def a_null_in_the_source(folder: Path) -> Path:
    """Puts NUL bytes, surrogates and form feeds into the hole."""
    return saved(
        notebook(holes(TINY) | {"attacked": "def attacked(x):\0\n    return '\ud800\udfff\x0c'"}), folder
    )


@handed_in("attacked", earns=HONEST)
def a_surrogate_in_the_answer(folder: Path) -> Path:
    """Raises, returns and prints lone surrogates, which no file can hold."""
    text = "def attacked(x):\n    print('\\ud800')\n    raise ValueError('attacked \\ud800')\n"
    return saved(notebook(holes(TINY) | {"attacked": text}), folder)


@handed_in("syntax error", earns=HONEST)
def brackets_without_end(folder: Path) -> Path:
    """Nests brackets and operators in the hole until a parser's stack is used up."""
    return saved(notebook(holes(TINY) | {"attacked": WRONG + "y = " + "(" * 50_000}), folder)


@handed_in("can't read the cell", earns=HONEST)
def a_tree_without_end(folder: Path) -> Path:
    """Hands in an expression that a parser reads, and whoever walks its tree does not survive."""
    return saved(notebook(holes(TINY) | {"attacked": WRONG + "y = 1" + "+1" * 20_000 + "\n"}), folder)


@handed_in("syntax error", earns=HONEST)
def a_regular_expression_without_end(folder: Path) -> Path:
    """Writes lines on which the reader of magics could try for hours."""
    text = WRONG + "a" + ", a" * 3_000 + " = " + "\n" + " " * 100_000 + "x ?\n(" + "a.b" * 9_000 + "?" * 3_000
    return saved(notebook(holes(TINY) | {"attacked": text}), folder)


@handed_in("characters of code", status="needs-review")
def a_mountain_of_code(folder: Path) -> Path:
    """Hands in more code than anybody reads."""
    return saved(notebook(holes(TINY) | {"attacked": adds("attacked") + "x = 1\n" * 200_000}), folder)


@handed_in("cells", status="needs-review")
def half_a_million_cells(folder: Path) -> Path:
    """Hands in half a million cells."""
    cell = '{"cell_type":"code","source":"x"}'
    place = folder / "submission.ipynb"
    place.write_text('{"cells":[' + ",".join([cell] * 500_000) + "]}")
    return place


@handed_in("RecursionError", earns=HONEST)
def many_cells_that_need_each_other(folder: Path) -> Path:
    """Hands in thousands of functions that all call each other, for the search of what a hole needs."""
    names = [f"f{n}" for n in range(3_000)]
    texts = [
        f"def {a}(x): return {b}(x) + {c}(x)" for a, b, c in zip(names, names[1:], names[2:], strict=False)
    ]
    book = code(*texts, "def attacked(x): return f0(x)", adds("honest"))
    return saved(book, folder)


ATTACKS = [value for value in list(vars().values()) if isinstance(value, Attack)]
