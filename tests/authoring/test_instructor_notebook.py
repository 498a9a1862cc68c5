"""A source becomes the instructor's notebook, and that the student's: always the same, no answer in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from made_lab import LAB, SOURCE, write_made_lab

import compresslab
from compresslab.authoring.build import build, execute, paths, reuse_outputs
from compresslab.authoring.edition_metadata import digest
from compresslab.authoring.editions import STUB, student_edition
from compresslab.authoring.instructor_notebook import (
    MAY_RAISE,
    code_cells,
    holes,
    instructor_notebook,
    without_solution,
)
from compresslab.authoring.needs_answers import cells_that_need_answers
from compresslab.errors import CompressionError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """The made lab, built once with a run."""
    root = tmp_path_factory.mktemp("course")
    write_made_lab(root)
    heard = []
    build(LAB, root, say=heard.append)
    return root, heard


def read(course, name):
    return nbformat.read(paths(LAB, course[0])[name], as_version=4)


def cell(notebook, name):
    return next(cell for cell in notebook.cells if cell.id == name)


# text → instructor's notebook


def test_a_hole_becomes_card_solution_and_check():
    ids = [cell.id for cell in instructor_notebook(LAB, SOURCE).cells]
    place = ids.index("double")
    assert ids[place - 1 : place + 2] == ["card-double", "double", "check-double"]


def test_the_card_tells_points_minutes_difficulty_and_statement():
    words = cell(instructor_notebook(LAB, SOURCE), "card-double").source
    assert "`double`" in words
    assert "2 points · about 5 minutes · difficulty ●●○○○" in words
    assert "double(x) is twice x." in words


def test_the_check_cell_is_locked_and_carries_the_points():
    check = cell(instructor_notebook(LAB, SOURCE), "check-double")
    assert check.source == "check.double(double)"
    marks = check.metadata.nbgrader
    assert (marks.grade, marks.locked, marks.solution, marks.points) == (True, True, False, 2)


def test_the_opening_prints_objectives_prerequisites_and_minutes():
    words = instructor_notebook(LAB, SOURCE).cells[0].source
    assert "- see a lab being built" in words
    assert "**You need** Python." in words
    assert "about 5 minutes: 1 exercise, 2 points" in words


def test_the_same_source_gives_the_same_notebook_with_ids_of_its_own():
    one, other = instructor_notebook(LAB, SOURCE), instructor_notebook(LAB, SOURCE)
    assert one == other
    ids = [cell.id for cell in one.cells]
    assert len(set(ids)) == len(ids)
    assert all(len(name) <= 64 for name in ids)


def test_cells_that_begin_alike_have_different_ids():
    notebook = instructor_notebook(LAB, "# %%\nx = 1\n\n# %%\nx = 1\n")
    assert [cell.id for cell in notebook.cells] == ["code-x-1", "code-x-1--2"]


def test_jupytext_leaves_nothing_behind():
    notebook = instructor_notebook(LAB, SOURCE)
    assert set(notebook.metadata) == {"kernelspec", "language_info", "compresslab"}
    assert {key for cell in notebook.cells for key in cell.metadata} == {"nbgrader", "tags"}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            'exercise="double"',
            'exercise="treble"',
            "the hole 'treble' must be an exercise of 90_made; there are double",
        ),
        ('exercise="double"', 'excercise="double"', "may have the settings exercise and tags, got excercise"),
        ("nbval-check-output", "nbval-check", "may have the tags .*, got nbval-check$"),
        ("nbval-check-output", "raises-exception", "may have the tags .*, got raises-exception"),
        ("### BEGIN SOLUTION", "# here", "must have one ### BEGIN SOLUTION"),
        ("def double(x", "def twice(x", r"must define double, got \['twice'\]"),
        ("def double(x: float)", "def double(x: float", "the hole double must be Python"),
    ],
)
def test_a_slip_of_the_author_is_named(old, new, says):
    with pytest.raises(CompressionError, match=says):
        instructor_notebook(LAB, SOURCE.replace(old, new))


def test_a_hole_that_stands_twice_is_refused():
    hole = SOURCE[SOURCE.index('# %% exercise="double"') :]
    with pytest.raises(CompressionError, match="the hole double must be there once, got two in 90_made"):
        instructor_notebook(LAB, SOURCE + "\n" + hole)


def test_without_its_solution_a_hole_keeps_head_and_docstring():
    hole = holes(instructor_notebook(LAB, SOURCE))["double"]
    assert without_solution(hole.source).splitlines() == [
        "def double(x: float) -> float:",
        '    """Twice x. About 1 line."""',
    ]


# the student's edition


def test_the_students_hole_has_the_docstring_and_the_stub():
    student = nbformat.reads(student_edition(instructor_notebook(LAB, SOURCE), LAB.name), as_version=4)
    hole = cell(student, "double").source
    assert '"""Twice x.' in hole
    assert STUB in hole
    assert "the_double_of_x" not in nbformat.writes(student)


USES = """
# %%
before = 1

# %%
thin = {n: yours.double(n) for n in range(3)}

# %%
print(before, [thin for thin in "no other name"])

# %%
rows = []

# %%
for n in thin:
    rows.append(n)

# %%
def width(rows):
    return rows + before

# %%
print(width(0), rows)

# %%
thin = 3

# %%
print(thin)
"""


def test_cells_that_use_what_an_empty_hole_cannot_give_are_found():
    need = cells_that_need_answers(instructor_notebook(LAB, SOURCE + USES))
    assert [cell.source.splitlines()[0] for cell in need] == [
        "check.double(double)",
        'metric("made.share", 0.942, low=0.9, high=0.96)',  # and calls double in the next line
        "thin = {n: yours.double(n) for n in range(3)}",
        "for n in thin:",
        "print(width(0), rows)",
    ]


def test_in_the_students_edition_alone_such_cells_let_run_all_go_on():
    teacher = instructor_notebook(LAB, SOURCE + USES)
    wanted = [cell.id for cell in cells_that_need_answers(teacher)]
    student = nbformat.reads(student_edition(teacher, LAB.name), as_version=4)
    tagged = [cell.id for cell in code_cells(student) if MAY_RAISE in cell.metadata.get("tags", ())]
    assert tagged == wanted
    assert cell(student, "code-print-3-2").metadata.tags == ["nbval-check-output"]
    assert not any(MAY_RAISE in cell.metadata.get("tags", ()) for cell in teacher.cells)


def test_a_notebook_that_nbgrader_refuses_is_an_error_in_words():
    notebook = instructor_notebook(LAB, SOURCE)
    cell(notebook, "double").metadata.nbgrader.grade_id = "check_double"
    with pytest.raises(CompressionError, match="nbgrader refuses 90_made"):
        student_edition(notebook, LAB.name)


# build: runs, fills, writes


def test_a_build_writes_both_notebooks_and_the_metrics(course):
    assert all(path.is_file() for path in paths(LAB, course[0]).values())
    assert sorted(path.name for path in (course[0] / "labs" / LAB.name).iterdir()) == ["90_made.ipynb"]
    assert paths(LAB, course[0])["metrics"].read_text().startswith('{\n "made.count": 582266,')


def test_a_build_says_how_far_it_is(course):
    assert "cell 4 of 6: double" in course[1]


@pytest.mark.parametrize("edition", ["solution", "student"])
def test_both_editions_name_the_version_of_the_kit_and_the_lab(course, edition):
    about = read(course, edition).metadata["compresslab"]
    assert (about["version"], about["lab"]) == (compresslab.__version__, LAB.name)


def test_the_students_edition_knows_each_of_its_cells_by_a_digest(course):
    student = read(course, "student")
    cells = student.metadata["compresslab"]["cells"]
    assert cells == {cell.id: digest(cell.source) for cell in student.cells}


@pytest.mark.parametrize("edition", ["solution", "student"])
def test_both_editions_show_the_numbers_of_the_build(course, edition):
    words = read(course, edition).cells[-1].source
    assert words.startswith("We keep 94.2 % of 582,266 numbers.\n")


@pytest.mark.parametrize("edition", ["solution", "student"])
def test_the_last_cell_says_how_the_lab_is_marked_without_an_activated_environment(course, edition):
    words = read(course, edition).cells[-1].source
    for command in ("!compresslab check 90", "make check LAB=90", ".venv/bin/compresslab check 90"):
        assert f"`{command}`" in words


def test_outputs_are_stored_without_times(course):
    notebook = read(course, "solution")
    marked = cell(notebook, "code-print-3-2")
    assert marked.outputs[0].text == "6\n"
    assert marked.execution_count == 3
    assert "execution" not in {key for cell in notebook.cells for key in cell.metadata}
    assert "version" not in notebook.metadata.language_info


def test_the_students_edition_has_no_outputs(course):
    assert not any(cell.get("outputs") for cell in read(course, "student").cells)


def test_a_second_build_without_a_run_changes_nothing(course):
    before = {name: path.read_bytes() for name, path in paths(LAB, course[0]).items()}
    build(LAB, course[0], run=False, say=lambda words: None)
    assert {name: path.read_bytes() for name, path in paths(LAB, course[0]).items()} == before


def test_without_a_run_changed_code_is_refused(course):
    notebook = instructor_notebook(LAB, SOURCE.replace("print(3 * 2)", "print(3 * 3)"))
    with pytest.raises(CompressionError, match=r"differs \(code-print-3-3\); build without --no-run"):
        reuse_outputs(notebook, paths(LAB, course[0])["solution"])


def test_nbgraders_own_command_makes_the_same_edition(course, tmp_path):
    solution = tmp_path / "solutions" / LAB.name
    solution.mkdir(parents=True)
    for name in ("source", "solution", "metrics"):
        path = paths(LAB, course[0])[name]
        (solution / path.name).write_bytes(path.read_bytes())
    (tmp_path / "nbgrader_config.py").write_text((ROOT / "nbgrader_config.py").read_text())
    command = [sys.executable, "-m", "nbgrader", "generate_assignment", LAB.name, "--no-db"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "labs" / LAB.name).iterdir()] == ["90_made.ipynb"]
    made = (tmp_path / "labs" / LAB.name / "90_made.ipynb").read_bytes()
    assert made == paths(LAB, course[0])["student"].read_bytes()


def test_a_cell_that_fails_is_shown_with_its_last_line_and_nothing_is_written(tmp_path):
    write_made_lab(tmp_path, SOURCE.replace("print(3 * 2)", "print(3 / 0)"))
    with pytest.raises(CompressionError, match="cell code-print-3-0 fails") as caught:
        build(LAB, tmp_path, say=lambda words: None)
    assert "ZeroDivisionError: division by zero" in str(caught.value)
    assert "print(3 / 0)" in str(caught.value)
    assert not (tmp_path / "labs").exists()


def test_progress_bars_and_widgets_are_not_stored_and_other_warnings_are_told(tmp_path):
    source = '# %%\nimport sys\nprint("50%|##", file=sys.stderr)\n\n'
    source += '# %%\nprint("beware", file=sys.stderr)\nprint(1)\n'
    source += "\n# %%\nfrom ipywidgets import IntSlider\nIntSlider()\n"
    notebook = instructor_notebook(LAB, source)
    heard = []
    execute(notebook, tmp_path, say=heard.append)
    assert [[output.get("text") for output in cell.outputs] for cell in notebook.cells] == [[], ["1\n"], []]
    assert [words for words in heard if "wrote on stderr" in words] == [
        "  cell code-print-beware-file-sys-stderr wrote on stderr, not stored: beware"
    ]


def test_a_lab_without_a_source_says_which_file_to_write(tmp_path):
    with pytest.raises(CompressionError, match=r"90_made/90_made\.py must be the source .* write it"):
        build(LAB, tmp_path)
