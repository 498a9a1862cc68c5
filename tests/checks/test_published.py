"""The published answer runs by itself, wherever it is sent, and is right there."""

from __future__ import annotations

import pytest

from compresslab.checks.call import run
from compresslab.checks.exercise import draw_cases
from compresslab.checks.judge import examine
from compresslab.checks.published import published_module, published_source
from compresslab.course import all_labs
from compresslab.grading.sandbox.notebook_names import notebook_names

EXERCISES = [exercise for lab in all_labs() for exercise in lab.exercises]


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
def test_the_published_answer_of_every_exercise_is_right_in_another_process_s_names(exercise):
    reveal = notebook_names("another", {exercise.name: published_module(exercise)})["reveal"]
    cases = draw_cases(exercise, 5)
    answer = getattr(reveal, exercise.name)()
    examine(exercise, cases, run(exercise.probe, cases, answer, seconds=30))


def test_what_is_shown_has_the_exercise_s_name_and_no_imports():
    for exercise in EXERCISES:
        assert published_source(exercise).startswith(f"def {exercise.name}("), exercise.name
