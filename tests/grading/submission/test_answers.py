"""Reading a notebook: each hole is found, nothing is run, and no file raises anything but a sentence."""

from __future__ import annotations

import ast
import json
import os

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from submissions import adds, code, notebook, right_answers, saved, tiny

from compresslab.course import find_lab
from compresslab.errors import CompressionError
from compresslab.grading.submission.answers import Answer, Submission, read_submission
from compresslab.grading.submission.cells import MAXIMUM_BYTES, MAXIMUM_SOURCE, submitted_bytes


def kept(answer: Answer) -> list[str]:
    """The statements that will define the function, as text."""
    return [ast.unparse(ast.parse(piece.text).body[place]) for piece in answer.pieces for place in piece.keep]


def read_file(place, lab, **settings) -> Submission:
    return read_submission(submitted_bytes(place), lab, path=str(place), **settings)


def read(book: nbformat.NotebookNode, tmp_path, *names: str) -> Submission:
    return read_file(saved(book, tmp_path), tiny(*(names or ("first",))))


# Which cell is the hole.


def test_a_hole_is_found_by_its_cells_id_wherever_the_cell_lies(tmp_path):
    lab = find_lab("00_measuring")
    book = notebook(right_answers(lab))
    book.cells.reverse()
    found = read_file(saved(book, tmp_path, "my final version (2).ipynb"), lab)
    assert [answer.name for answer in found.answers] == [exercise.name for exercise in lab.exercises]
    assert all(kept(answer)[-1].startswith(f"def {answer.name}(") for answer in found.answers)
    assert found.notes == ()


def test_without_ids_the_last_cell_that_defines_the_function_is_the_hole(tmp_path):
    found = read(code("def first(x): return 1", "def first(x): return 2", "first(3)"), tmp_path)
    assert kept(found.answers[0]) == ["def first(x):\n    return 2"]
    assert found.notes == ()  # a converted or merged notebook has lost them, and nothing else


def test_a_duplicated_id_counts_where_it_last_defines_the_function(tmp_path):
    texts = ("def first(x): return 1", "def first(x): return 2", "def first(x) return 3", "first = first")
    book = code(*texts[:3], "second = 4", ids=["first"] * 4)
    found = read(book, tmp_path)
    assert kept(found.answers[0]) == ["def first(x):\n    return 2"]
    assert "4 cells have its id" in found.notes[0]


WRITTEN, SPOILT, STUB = (
    f"def first(x): {line}" for line in ("return 1", "return 2", "raise NotImplementedError")
)


@pytest.mark.parametrize(
    ("texts", "ids"),
    [
        ((STUB, WRITTEN, "check.first(first)"), ["first"]),  # written below the hole
        ((SPOILT, WRITTEN, "check.first(first)"), ["first"]),  # mended below the hole
        ((SPOILT, WRITTEN, "check.first(first)"), []),
        ((WRITTEN, "check.first(first)", SPOILT), ["first"]),  # played with after the check
        ((STUB, "check.first(first)", WRITTEN), ["first"]),  # written after the check
        ((WRITTEN, "check.first(first)", "first = reveal.first()"), ["first"]),
        ((WRITTEN, "check.first(first)", SPOILT, "check.second(first)"), ["first"]),
        ((SPOILT, "check.first(first)", WRITTEN, "check.first(first)"), ["first"]),  # checked once more
        ((SPOILT, "if True:\n    " + WRITTEN, "check.first(first)"), ["first"]),
        (("def first(x) return 3", WRITTEN, "check.first(first)"), ["first"]),
    ],
)
def test_what_stands_when_the_check_runs_is_the_answer(tmp_path, texts, ids):
    found = read(code(*texts, ids=ids), tmp_path)
    assert kept(found.answers[0])[-1].endswith(ast.unparse(ast.parse(WRITTEN)).partition("\n")[2])


def test_the_published_answer_counts_where_it_stands_when_the_check_runs(tmp_path):
    found = read(code(WRITTEN, "first = reveal.first()", "check.first(first)", ids=["first"]), tmp_path)
    assert kept(found.answers[0]) == ["first = reveal.first()"]


def test_the_function_that_is_checked_is_the_answer_whatever_its_name(tmp_path):
    texts = ("def mine(x): return 1", "def first(x): return 2", "check.first(mine)", "def mine(x): return 3")
    answer = read(code(*texts), tmp_path).answers[0]
    assert (answer.target, kept(answer)) == ("mine", ["def mine(x):\n    return 1"])


@pytest.mark.parametrize("target", ["lambda x: half(x)", "partial(half, 1)", "HALVES['a']"])
def test_any_expression_may_be_checked(tmp_path, target):
    made = "from functools import partial\ndef half(x): return x / 2\nHALVES = {'a': half}\nidle = 3"
    answer = read(code(made, f"check.first({target})", "half = None"), tmp_path).answers[0]
    assert answer.target == ast.unparse(ast.parse(target))
    assert "idle = 3" not in kept(answer)
    assert "def half(x):\n    return x / 2" in kept(answer)


def test_a_hole_that_another_cell_replaces_is_noted(tmp_path):
    found = read(code(SPOILT, WRITTEN, "check.first(first)", ids=["first"]), tmp_path)
    assert found.notes == ("first: cell 2 defines it again; that one is graded, not its own cell",)


def test_a_value_of_any_kind_is_taken_along_and_a_function_s_own_names_are_not_asked_for(tmp_path):
    other = (
        "size = lambda t: t.numel()\nHALF = 1 / 2\nQ = torch.tensor([HALF]) ** 2\nmodel = train()\n"
        "verdict = open('x')\ntry:\n    from fast import sort\nexcept ImportError:\n    sort = None\n"
        "W = np.load('x')\nX = {b: b for b in (4, 8)}"
    )
    hole = "def first(x, model):\n    verdict = size(x) * Q\n    return verdict, sort, X"
    answer = read(code(other, hole, "check.first(first)", ids=["other", "first"]), tmp_path).answers[0]
    assert [line.partition(" ")[0] for line in kept(answer)] == ["size", "HALF", "Q", "try:\n", "X", "def"]


def test_a_deleted_cell_costs_its_own_exercise_alone(tmp_path):
    found = read(code(adds("second"), ids=["second"]), tmp_path, "first", "second")
    assert found.answers[0].problem.startswith("its cell is missing; write def first(…)")
    assert found.answers[1].problem == ""


def test_a_syntax_error_costs_its_own_exercise_alone_and_is_quoted(tmp_path):
    broken = "def first(x):\n    y = 2\n    return sum(x"
    found = read(code(broken, adds("second"), ids=["first", "second"]), tmp_path, "first", "second")
    assert "syntax error in line 3: return sum(x" in found.answers[0].problem
    assert found.answers[1].pieces


def test_a_syntax_error_is_found_even_where_the_ids_are_gone(tmp_path):
    found = read(code("def first(x) return x", adds("second")), tmp_path, "first", "second")
    assert "syntax error in line 1" in found.answers[0].problem


def test_a_hole_that_defines_something_else_is_told_so(tmp_path):
    found = read(code("def frist(x): return x", ids=["first"]), tmp_path)
    assert "does not define it; write def first(…)" in found.answers[0].problem


def test_metadata_is_ignored(tmp_path):
    book = code(adds("first"), ids=["first"])
    plain = read(book, tmp_path)
    book.cells[0].metadata = {"tags": ["skip-execution"], "nbgrader": {"grade": False, "locked": "yes"}}
    book.metadata = {"kernelspec": {"name": "no-such-kernel", "language": "brainfuck", "display_name": "?"}}
    assert read(book, tmp_path) == plain


# What is taken along.


def test_what_the_function_does_not_need_is_left_out_in_its_own_cell_too(tmp_path):
    hole = (
        "%matplotlib inline\nimport math\n!pip install x\nTWO = math.sqrt(4)\nwhile True: pass\n"
        "double = lambda x: TWO * x\nprint(TWO)\nfirst?\ndef first(x):\n    return 7 % double(x)\n"
        "first(1)\nn = first(2)\nprint(n)"
    )
    answer = read(code(hole, ids=["first"]), tmp_path).answers[0]
    wanted = ["import math", "TWO = math.sqrt(4)", "double = lambda x: TWO * x"]
    assert kept(answer)[:-1] == wanted
    assert kept(answer)[-1] == "def first(x):\n    return 7 % double(x)"


def test_of_other_cells_what_the_function_needs_is_kept_and_what_that_needs(tmp_path):
    other = (
        "import math as m\nimport os\nSCALE = [1, 2.5]\nslow = expensive()\nclass Part: limit = SCALE\n"
        "def help(x): return m.floor(x) + Part.limit[0]\ndef idle(): return os.name"
    )
    answer = read(code(other, "def first(x): return help(x)", "check.first(first)"), tmp_path).answers[0]
    assert [line.partition("\n")[0] for line in kept(answer)] == [
        "import math as m",
        "SCALE = [1, 2.5]",
        "class Part:",
        "def help(x):",
        "def first(x):",
    ]


def test_what_only_a_cell_below_binds_is_taken_from_there(tmp_path):
    texts = (
        "def first(x): return halve(x) + sum(x)",
        "check.first(first)",
        "halve = abs\nsum = 0\nidle = halve(3)",
    )
    answer = read(code(*texts), tmp_path).answers[0]
    assert kept(answer) == ["def first(x):\n    return halve(x) + sum(x)", "halve = abs"]


def test_a_cell_in_another_language_is_no_syntax_error_and_percent_time_is_python(tmp_path):
    book = code("%%bash\nrm -rf x", "%%time\ndef first(x):\n    return x", "%%html\n<b>")
    assert kept(read(book, tmp_path).answers[0]) == ["def first(x):\n    return x"]


def test_importing_the_answers_is_left_out_with_a_note_where_it_is_needed(tmp_path):
    hole = (
        "from compresslab.techniques.tiny import first as answer\n"
        "from compresslab.techniques import pruning\nimport compresslab.authoring as unused\n"
        "import compresslab.course as e\ndef first(x): return answer(x) + pruning + e + check"
    )
    book = code("from compresslab.notebook import lab\ncheck, = lab('99')", hole, ids=["opening", "first"])
    found = read(book, tmp_path)
    assert kept(found.answers[0])[:-1] == [
        "from compresslab.notebook import lab",
        "check, = lab('99')",
        "from compresslab.techniques import pruning",
    ]
    assert len(found.notes) == 2
    assert "compresslab.techniques.tiny.first is left out" in found.notes[0]


def test_what_the_lab_ships_is_there_even_where_the_student_deleted_it(tmp_path):
    shipped = ["import math as m\nHALF = 0.5\nslow = m.expensive()", "def first(x): return 'not the hole'"]
    hole = "def first(x):\n    return m.floor(x) + HALF"
    for texts, wanted in (((hole,), "HALF = 0.5"), (("HALF = 0.25", hole), "HALF = 0.25")):
        place = saved(code(*texts, "check.first(first)"), tmp_path)
        found = read_file(place, tiny("first"), skeleton=shipped)
        assert kept(found.answers[0]) == ["import math as m", wanted, hole]
    assert found.notes == ()


def test_a_hole_that_is_deleted_is_not_found_in_what_the_lab_ships(tmp_path):
    place = saved(code(adds("second")), tmp_path)
    found = read_file(place, tiny("first", "second"), skeleton=["def first(x): return 1"])
    assert "its cell is missing" in found.answers[0].problem


# What is no submission.


def refused(place, match: str) -> None:
    with pytest.raises(CompressionError, match=match) as caught:
        read_file(place, tiny("first"))
    assert str(caught.value).count(";") >= 2, "a text in three parts"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"print('hello')", "not a notebook"),
        (b"\x89PNG\r\n\x1a\n\xff", "not a notebook"),
        (b"[" * 100_000, "not a notebook"),
        (b"[1, 2]", "JSON without cells"),
        (b'{"worksheets": []}', "JSON without cells"),
        (b'{"cells": {}}', "JSON without cells"),
        (b'{"cells": []}', "without a single cell of lab 99_tiny"),
        (b'{"cells": [3, null, {"cell_type": "code", "source": 5}]}', "without a single cell"),
    ],
)
def test_what_is_not_a_notebook_is_refused_in_three_parts(tmp_path, content, match):
    place = tmp_path / "handed in.ipynb"
    place.write_bytes(content)
    refused(place, match)


def test_folders_missing_files_pipes_and_giants_are_refused(tmp_path):
    refused(tmp_path, "is a folder")
    refused(tmp_path / "nothing.ipynb", "does not exist")
    giant = tmp_path / "giant.ipynb"
    with giant.open("wb") as file:
        file.truncate(MAXIMUM_BYTES + 1)
    refused(giant, "bytes; at most")
    refused(saved(code("x = 1\n" * MAXIMUM_SOURCE), tmp_path), "characters of code")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.ipynb")
    refused(tmp_path / "pipe.ipynb", "not a regular file")


def test_another_labs_notebook_is_recognised(tmp_path):
    lab = find_lab("00_measuring")
    refused(
        saved(notebook(right_answers(lab)), tmp_path), "seems to be lab 00_measuring; expected lab 99_tiny"
    )


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5_000,
        "-" * 50_000 + "1",
        "x" + ".y" * 50_000,
        "1" + "+1" * 50_000,
        "a = " + "[" * 90 + "]" * 90,
        "x\0",
    ],
    ids=["brackets", "signs", "attributes", "sums", "lists", "a null"],
)
def test_code_made_to_break_a_parser_costs_its_own_cell_alone(tmp_path, text):
    found = read(code(adds("first"), text, ids=["first", "second"]), tmp_path, "first", "second")
    assert found.answers[0].problem == ""
    assert found.answers[1].problem


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
)
cells = st.fixed_dictionaries(
    {},
    optional={
        "cell_type": st.sampled_from(["code", "markdown", "raw", 3]),
        "id": st.sampled_from(["first", "check-first", 5]) | json_values,
        "source": st.text()
        | st.lists(st.text() | st.integers())
        | st.just("def first(x):\n  return x\n")
        | json_values,
        "metadata": json_values,
    },
)


@given(book=st.fixed_dictionaries({"cells": st.lists(cells | json_values)}) | json_values)
def test_any_json_is_read_or_refused_in_a_sentence(tmp_path_factory, book):
    place = tmp_path_factory.getbasetemp() / "any.ipynb"
    place.write_text(json.dumps(book))
    try:
        found = read_file(place, tiny("first"))
    except CompressionError:
        return
    assert bool(found.answers[0].pieces) != bool(found.answers[0].problem)
