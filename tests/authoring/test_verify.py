"""The author's checks find each thing that an author gets wrong, and nothing in a lab that is right."""

from __future__ import annotations

import dataclasses
import json
import shutil

import nbformat
import pytest
from made_lab import EXERCISE, LAB, SOURCE, write_made_lab

from compresslab.authoring import verify as verifying
from compresslab.authoring.build import build, paths
from compresslab.authoring.instructor_notebook import MAY_RAISE
from compresslab.authoring.verify import (
    author_files,
    problems_in_editions,
    problems_in_labs,
    problems_in_source,
    problems_left_to_do,
    problems_with_grading,
    verify,
)
from compresslab.checks.exercise import mistake
from compresslab.grading import grade as marking


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("built")
    write_made_lab(root)
    build(LAB, root, say=lambda words: None)
    return root


@pytest.fixture
def root(built, tmp_path):
    """A built lab that a test may spoil."""
    return shutil.copytree(built, tmp_path / "course")


def spoil(root, name, change):
    """Changes one notebook in place."""
    path = paths(LAB, root)[name]
    notebook = nbformat.read(path, as_version=4)
    change({cell.id: cell for cell in notebook.cells}, notebook)
    path.write_text(nbformat.writes(notebook))


def everything(root):
    return problems_in_source(LAB, root) + problems_in_editions(LAB, root) + problems_in_labs(LAB, root)


def test_a_lab_as_built_has_no_problems(root):
    assert everything(root) == []


# the source


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("# {{ lab }}\n", "# Hello.\n", "the opening cell has no {{ lab }}"),
        ("# {{ check }}\n", "# The end.\n", "the last cell has no {{ check }}"),
        ("import metric\n", "import metric\nx = 1\n", "the first code cell does more than import"),
        ("We keep {{ made.share | percent }}", "We keep 94.2 %", "the number '94.2 %' typed by hand"),
        ("print(3 * 2)", 'open("/home/somebody/x")', "has an absolute path"),
        ("print(3 * 2)", "# %pip install x", "has an installation"),
        ("print(3 * 2)", "fashion_mnist(download=True)", "has a download"),
        ("print(3 * 2)", "print(3)\n" * 21, "lines; at most 20"),
        ('exercise="double"', 'exercise="treble"', "the hole 'treble' must be an exercise"),
        ("# %% exercise=", "# %% x=", "exercise and tags, got x"),
    ],
)
def test_a_slip_in_the_source_is_found(tmp_path, old, new, says):
    write_made_lab(tmp_path, SOURCE.replace(old, new))
    found = problems_in_source(LAB, tmp_path)
    assert any(says in problem for problem in found), found


def test_an_exercise_without_a_hole_is_found(root):
    lab = dataclasses.replace(LAB, exercises=(EXERCISE, dataclasses.replace(EXERCISE, name="treble")))
    assert problems_in_source(lab, root) == ['no cell has exercise="treble"']


def test_a_long_solution_is_no_long_cell(tmp_path):
    write_made_lab(
        tmp_path, SOURCE.replace("    the_double_of_x = 2 * x\n", "    the_double_of_x = 2 * x\n" * 30)
    )
    assert problems_in_source(LAB, tmp_path) == []


def test_a_missing_source_is_found(tmp_path):
    assert problems_in_source(LAB, tmp_path) == ["there is no solutions/90_made/90_made.py"]


# the editions


def test_a_source_that_was_edited_and_not_built_is_found(root):
    write_made_lab(root, SOURCE.replace("numbers.", "weights."))
    solution, student = problems_in_editions(LAB, root)
    assert (
        "solutions/90_made/90_made.ipynb is not what its source makes (first at the cell text-we" in solution
    )
    assert student == (
        "labs/90_made/90_made.ipynb is not what the source makes; run compresslab build 90_made"
    )


def test_a_student_notebook_that_was_edited_by_hand_is_found(root):
    spoil(root, "student", lambda cells, notebook: cells["code-print-3-2"].update(source="print(4)"))
    assert problems_in_editions(LAB, root) == [
        "labs/90_made/90_made.ipynb is not what the source makes; run compresslab build 90_made"
    ]


@pytest.mark.parametrize("name", ["solution", "metrics", "student"])
def test_a_missing_file_is_found(root, name):
    paths(LAB, root)[name].unlink()
    assert (
        f"it is not built: {paths(LAB, root)[name].relative_to(root)} missing; run"
        in problems_in_editions(LAB, root)[0]
    )


def test_a_metric_that_is_gone_is_found(root):
    paths(LAB, root)["metrics"].write_text("{}")
    assert "the metric made.share must be measured" in problems_in_editions(LAB, root)[0]


def test_outputs_may_differ_from_run_to_run(root):
    spoil(root, "solution", lambda cells, notebook: cells["check-double"].update(outputs=[]))
    assert problems_in_editions(LAB, root) == []


def test_a_marked_cell_without_a_stored_output_is_found(root):
    spoil(root, "solution", lambda cells, notebook: cells["code-print-3-2"].update(outputs=[]))
    assert problems_in_editions(LAB, root) == [
        "the cell code-print-3-2 is marked nbval-check-output and has no stored output"
    ]


def test_a_cell_of_solutions_that_would_pass_where_it_fails_is_found(root):
    spoil(root, "solution", lambda cells, notebook: cells["check-double"].metadata.update(tags=[MAY_RAISE]))
    found = problems_in_editions(LAB, root)
    assert any("check-double of solutions/ has the tag raises-exception" in problem for problem in found)


# the students' folder


def test_a_file_beside_the_students_notebook_is_found(root):
    (root / "labs" / LAB.name / "metrics.json").write_text("{}")
    assert "labs/90_made/metrics.json must not be in the students' folder" in problems_in_labs(LAB, root)[0]


@pytest.mark.parametrize(
    ("name", "source", "says"),
    [
        ("double", "### BEGIN SOLUTION", "still has its solution"),
        ("code-print-3-2", "the_double_of_x = 2 * x", "has a line of a solution: the_double_of_x = 2 * x"),
    ],
)
def test_an_answer_in_the_students_notebook_is_found(root, name, source, says):
    spoil(root, "student", lambda cells, notebook: cells[name].update(source=source))
    assert any(says in problem for problem in problems_in_labs(LAB, root))


def test_an_output_in_the_students_notebook_is_found(root):
    spoil(root, "student", lambda cells, notebook: cells["check-double"].update(execution_count=1))
    assert problems_in_labs(LAB, root) == ["the student's cell check-double has an output"]


# grading, and the whole


@pytest.fixture
def marks(monkeypatch):
    """Stands in for the grader: gives each notebook the points in this dict."""
    given = {"labs": 0.0, "solutions": 2.0}

    class Score:
        def __init__(self, score):
            self.score, self.max_score = score, 2.0

    monkeypatch.setattr(marking, "grade_alone", lambda lab, path, *, seed: Score(given[path.parts[-3]]))
    return given


def test_a_solution_worth_less_than_everything_is_found(root, marks):
    assert problems_with_grading(LAB, root) == []
    marks["solutions"] = 1.0
    assert problems_with_grading(LAB, root) == ["the solution earns 1 of 2 points"]


def test_a_bonus_is_earned_on_top(root, marks):
    bonus = dataclasses.replace(EXERCISE, name="more", points=3, bonus=True)
    lab = dataclasses.replace(LAB, exercises=(*LAB.exercises, bonus))
    assert (lab.points, lab.minutes) == (LAB.points, LAB.minutes)
    marks["solutions"] = 5.0
    assert problems_with_grading(lab, root) == []
    marks["solutions"] = 2.0
    assert problems_with_grading(lab, root) == ["the solution earns 2 of 5 points"]


def test_an_untouched_notebook_that_earns_something_is_found(root, marks):
    marks["labs"] = 2.0
    assert problems_with_grading(LAB, root) == ["the untouched notebook earns 2 points"]


def test_verify_answers_in_json_with_exactly_these_names(root, marks):
    found = json.loads(verify(root, labs=[LAB], seeds=[0, 1]).to_json())
    assert found == {
        "exercises": [
            {
                "lab": "90_made",
                "name": "double",
                "points": 2,
                "rights": 2,
                "mistakes": 4,
                "killed": 4,
                "own_message": 4,
            }
        ],
        "problems": [],
    }


def test_verify_finds_a_mistake_that_passes(root, marks):
    passes = mistake("is right", says="it is not")(lambda x: 2.0 * x)
    lab = dataclasses.replace(
        LAB, exercises=(dataclasses.replace(EXERCISE, mistakes=(*EXERCISE.mistakes, passes)),)
    )
    found = verify(root, labs=[lab], seeds=[0])
    assert (found.exercises[0].mistakes, found.exercises[0].killed) == (5, 4)
    assert found.problems == ("90_made: double: 'is right' passes on seed 0",)


def test_an_exercise_whose_proof_crashes_is_a_sentence_and_the_others_are_still_proved(root, marks):
    def no_judge(case, record):
        raise NameError("name 'oracle' is not defined")

    broken = dataclasses.replace(EXERCISE, name="broken", judge=no_judge)
    found = verify(root, labs=[dataclasses.replace(LAB, exercises=(broken, EXERCISE))], seeds=[0])
    assert any(
        problem.startswith(
            "90_made: broken: a proof ends with NameError: name 'oracle' is not defined (test_"
        )
        for problem in found.problems
    )
    assert [row.killed for row in found.exercises] == [0, 4]


def test_lines_that_are_left_to_do_are_found_in_each_of_the_authors_files(root):
    files = author_files(LAB.name, root)
    for place in (files["course"] / "one.py", files["test"]):
        place.parent.mkdir(parents=True)
        place.write_text('x = 1\ny = "TODO: say more.",\n')
    write_made_lab(root, SOURCE.replace("# # A made lab", "# # TODO: a title"))
    assert problems_left_to_do(LAB, root) == [
        "compresslab/course/made/one.py:2: TODO: say more",
        "solutions/90_made/90_made.py:2: TODO: a title",
        "tests/course/test_made.py:2: TODO: say more",
    ]


def test_a_lab_without_an_exercise_says_how_to_write_one(root):
    assert problems_in_source(dataclasses.replace(LAB, exercises=()), root) == [
        "it has no exercise yet; run compresslab new exercise 90_made NAME"
    ]


def test_verify_finds_a_folder_that_belongs_to_no_lab(root, marks, monkeypatch):
    monkeypatch.setattr(verifying, "all_labs", lambda: (LAB,))
    (root / "labs" / "98_old").mkdir()
    assert verify(root, seeds=[0]).problems == ("labs/98_old belongs to no lab; remove it",)


def test_verify_says_what_it_is_doing(root, marks):
    heard = []
    verify(root, labs=[LAB], seeds=[0], say=heard.append)
    assert heard[:2] == ["90_made: problems left to do", "90_made: problems in source"]
