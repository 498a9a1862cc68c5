"""Findings: gains seed by seed, with Student's interval, and no row before it has two seeds."""

import statistics

import pytest

from compresslab.errors import BadSetting
from compresslab.experiments.distillation.comparison.findings import difference, gains, tries
from compresslab.experiments.distillation.comparison.plan import EXPERIMENT, ROWS
from compresslab.experiments.distillation.comparison.task import TASKS

REACHED = {
    "alone": (0.90, 0.91, 0.92),
    "kd": (0.92, 0.91, 0.93),
    "permuted": (0.89, 0.91),
    "dkd": (0.95,),
    "deep_alone": (0.94, 0.95),
    "own_teacher": (0.95, 0.97),
}


def some(task):
    return {
        f"{task}/{name}/{seed}": {"test_accuracy": reached}
        for name, each in REACHED.items()
        for seed, reached in enumerate(each)
    }


def test_a_gain_is_the_mean_difference_of_the_same_seeds_with_students_interval():
    found = gains(some("few_labels"), "few_labels")
    assert found.keys() == {"kd", "permuted", "deep_alone", "own_teacher"}  # dkd has one seed
    kd = found["kd"]
    assert kd.value == pytest.approx(0.01)
    half = 4.3027 * statistics.stdev([0.02, 0.0, 0.01]) / 3**0.5  # t with two degrees of freedom
    assert (kd.low, kd.high) == (pytest.approx(0.01 - half), pytest.approx(0.01 + half))
    assert found["permuted"].value == pytest.approx(-0.005)
    assert found["own_teacher"].value == pytest.approx(0.015)  # over the deep student alone


def test_seeds_that_only_one_of_two_rows_has_are_left_out():
    results = some("all_labels")
    assert difference(results, "all_labels", "kd", "permuted").value == pytest.approx(0.015)
    del results["all_labels/kd/0"]
    assert difference(results, "all_labels", "kd", "alone").value == pytest.approx(0.005)
    assert gains(results, "few_labels") == {}


def test_a_difference_of_fewer_than_two_seeds_is_refused():
    text = (
        r"^row and other must have two seeds in common, got 'dkd' and 'kd' with 1; run what is missing of the"
    )
    with pytest.raises(BadSetting, match=text):
        difference(some("all_labels"), "all_labels", "dkd", "kd")


def test_a_table_of_tries_says_what_was_tried_and_chosen_and_whether_at_an_edge():
    row = next(row for row in ROWS if (row.task, row.name) == ("all_labels", "smoothed"))
    results = {"all_labels/smoothed/0": {}}
    for run in row.tuning.runs:
        if run.needed is None:
            rate, smoothing = (run.settings.get(name, 0.8) for name in ("learning_rate", "smoothing"))
            reached = {"validation_accuracy": 0.5 + rate / 10 - abs(smoothing - 0.1)}
            results[run.key] = {"learning_rate": rate, "smoothing": smoothing, **reached}
    rates, smoothings = tries(results, "all_labels")
    assert (rates.row, rates.setting, rates.values) == ("smoothed", "learning_rate", (0.1, 0.2, 0.4, 0.8))
    assert (rates.chosen, rates.at_edge) == (0.8, True)
    assert (smoothings.values, smoothings.chosen, smoothings.at_edge) == ((0.05, 0.1, 0.2), 0.1, False)
    assert tries(results, "few_labels") == []


@pytest.mark.parametrize("task", TASKS)
def test_the_stored_choices_lie_inside_what_was_tried(task):
    for tried in tries(EXPERIMENT.load_results(), task):
        assert tried.chosen in tried.values
        assert len(tried.values) >= 3
        assert not tried.at_edge, tried
