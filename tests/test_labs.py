"""Every lab as it lies in the repository: current, complete, no answer where students look.

Notebooks are run by nbval (``make test``), exercises by ``tests/checks/test_proofs.py``.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from markdown_it import MarkdownIt

from compresslab.authoring.build import execute, paths
from compresslab.authoring.instructor_notebook import code_cells, holes, instructor_notebook
from compresslab.authoring.verify import (
    problems_in_editions,
    problems_in_labs,
    problems_in_source,
    problems_with_grading,
)
from compresslab.course import all_labs

ROOT = Path(__file__).parents[1]

each_lab = pytest.mark.parametrize("lab", all_labs(), ids=lambda lab: lab.name)


@each_lab
@pytest.mark.parametrize(
    "check",
    [problems_in_source, problems_in_editions, problems_in_labs, problems_with_grading],
    ids=lambda check: check.__name__,
)
def test_the_author_has_nothing_left_to_do(lab, check):
    assert check(lab, ROOT) == []


@each_lab
def test_the_opening_states_the_minutes_and_points_of_the_exercises(lab):
    opening = nbformat.read(paths(lab, ROOT)["student"], as_version=4).cells[0].source
    core = [exercise for exercise in lab.exercises if not exercise.bonus]
    minutes, points = sum(exercise.minutes for exercise in core), sum(exercise.points for exercise in core)
    assert f"about {minutes} minutes" in opening
    assert f"{points} points" in opening
    bonus = len(lab.exercises) - len(core)
    assert (f"{bonus} bonus" in opening) == bool(bonus)
    assert all(objective in opening for objective in lab.objectives)


def blocks(text):
    """What a Markdown text is made of, as JupyterLab and GitHub read it: paragraphs, lists, tables, …"""
    return [token.type for token in MarkdownIt("commonmark").enable("table").parse(text)]


@each_lab
@pytest.mark.parametrize("edition", ["solution", "student"])
def test_a_number_does_not_tear_its_paragraph_apart(lab, edition):
    files = paths(lab, ROOT)
    with_words = instructor_notebook(lab, files["source"].read_text(encoding="utf-8")).cells
    with_numbers = nbformat.read(files[edition], as_version=4).cells
    for before, after in zip(with_words, with_numbers, strict=True):
        if before.cell_type == "markdown":
            assert blocks(after.source) == blocks(re.sub(r"\{\{.*?\}\}", "word", before.source)), after.id
            assert "html_block" not in blocks(after.source), after.id


@each_lab
@pytest.mark.parametrize("edition", ["solution", "student"])
def test_no_placeholder_and_no_comment_is_left_in_the_text(lab, edition):
    texts = [c.source for c in nbformat.read(paths(lab, ROOT)[edition], as_version=4).cells]
    assert not [text for text in texts if "{{" in text or "<!--" in text]


@each_lab
def test_exercises_stand_in_the_notebook_in_the_order_of_the_lab(lab):
    student = nbformat.read(paths(lab, ROOT)["student"], as_version=4)
    assert list(holes(student)) == [exercise.name for exercise in lab.exercises]


@each_lab
def test_something_in_the_lab_is_compared_by_nbval(lab):
    solution = nbformat.read(paths(lab, ROOT)["solution"], as_version=4)
    assert any("nbval-check-output" in cell.metadata.get("tags", ()) for cell in solution.cells)


def test_run_all_on_an_untouched_lab_runs_to_its_last_cell(tmp_path):
    """As in JupyterLab, where a cell that fails without the tag ends the run."""
    notebook = nbformat.read(ROOT / "labs" / "00_measuring" / "00_measuring.ipynb", as_version=4)
    execute(notebook, tmp_path, say=lambda words: None)
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    checks = [cell for cell in code_cells(notebook) if cell.id.startswith("check-")]
    shown = [[output.data for output in cell.outputs] for cell in checks]
    assert [[data["text/plain"] for data in outputs] for outputs in shown] == [["0"]] * len(checks)
    assert all("not written yet" in outputs[0]["text/html"] for outputs in shown)


@pytest.mark.parametrize("folder", ["labs", "solutions"])
def test_there_is_one_folder_a_lab_and_no_other(folder):
    assert sorted(p.name for p in (ROOT / folder).iterdir() if p.is_dir()) == [lab.name for lab in all_labs()]
