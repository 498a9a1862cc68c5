"""A call of the kit's own answer is noticed while a student's function runs, and nothing else is."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

import compresslab as cl
from compresslab.checks.call import run
from compresslab.checks.exercise import draw_cases
from compresslab.checks.judge import check_answer
from compresslab.checks.withheld_calls import REVEALED, WithheldCalls
from compresslab.course import all_labs, find_lab
from compresslab.errors import Unwritten, WrongAnswer

LAB = find_lab("00_measuring")
COUNT = LAB.exercise("count_parameters")


def noted(function, *arguments, modules=("compresslab.measurement",)) -> str:
    with WithheldCalls(modules) as calls:
        function(*arguments)
    return calls.called


def test_the_first_call_into_a_module_is_named_however_it_is_reached():
    model = nn.Linear(2, 2)
    assert noted(cl.count_parameters, model) == "count_parameters"
    assert noted(lambda: sorted([model], key=cl.count_parameters)) == "count_parameters"
    assert noted(cl.count_parameters, model, modules=("compresslab.measurement.costs",)) == "count_parameters"
    assert noted(cl.count_parameters, model, modules=("compresslab.measure",)) == ""
    assert noted(sum, [1, 2]) == noted(model, torch.ones(1, 2)) == ""


def test_another_profiler_is_set_again():
    def profiler(*_: object) -> None:
        pass

    sys.setprofile(profiler)
    try:
        noted(len, [1])
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("own", [cl.count_parameters, lambda model: cl.count_parameters(model)])
def test_a_check_refuses_the_kit_s_own_function(own):
    with pytest.raises(WrongAnswer, match="calls compresslab's own count_parameters; write it yourself"):
        check_answer(COUNT, own, answers=LAB.answers)


def test_a_check_counts_the_published_answer_as_unwritten_also_within_another():
    published = COUNT.right[0]
    with pytest.raises(Unwritten, match="for 0 points"):
        check_answer(COUNT, lambda model: published(model), answers=LAB.answers)
    assert WithheldCalls((), [published.__code__])._published
    with WithheldCalls((), [published.__code__]) as calls:
        published(nn.Linear(2, 2))
    assert calls.called == REVEALED


@pytest.mark.parametrize("lab", all_labs(), ids=lambda lab: lab.name)
def test_no_right_answer_calls_what_its_lab_withholds(lab):
    for exercise in lab.exercises:
        for right in exercise.right:
            calls = WithheldCalls(lab.answers)
            run(exercise.probe, draw_cases(exercise, 1), right, seconds=30, calls=calls)
            assert calls.called == "", exercise.name
