"""Stored runs as curves: the right run at the right sparsity, its interval where there are several."""

import pytest

from compresslab.errors import CompressionError
from compresslab.experiments.pruning.curves import (
    masked_curve,
    surgeon_curves,
    tuned_accuracies,
    tuned_curve,
)
from compresslab.experiments.pruning.plan import SPARSITIES, TUNED
from compresslab.measurement.statistics import Interval, mean_over_seeds

FALLING = [0.9 - 0.1 * place for place in range(len(SPARSITIES))]


def shifted(by):
    return [reached + by for reached in FALLING]


def test_a_curve_has_a_point_a_sparsity_with_an_interval_over_its_seeds():
    runs = {f"masks/obd/fine/{seed}": {"test_accuracies": shifted(0.01 * seed)} for seed in range(3)}
    curve = masked_curve(runs, "obd", "fine")
    assert [sparsity for sparsity, _ in curve] == SPARSITIES
    assert curve[1][1] == mean_over_seeds([FALLING[1], FALLING[1] + 0.01, FALLING[1] + 0.02])


def test_one_run_has_no_interval():
    curve = masked_curve({"masks/magnitude/kernel/0": {"test_accuracies": FALLING}}, "magnitude", "kernel")
    assert [reached for _, reached in curve] == FALLING


def test_a_tuned_curve_is_magnitudes_and_accuracies_come_in_the_order_of_seeds():
    runs = {
        f"tuned/{criterion}/fine/{sparsity:g}/{seed}": {"test_accuracy": sparsity / 2 + seed / 100 + shift}
        for criterion, shift in (("magnitude", 0.0), ("random", -0.2))
        for sparsity in TUNED
        for seed in (2, 0, 1)
    }
    assert tuned_accuracies(runs, "random", "fine", TUNED[0]) == pytest.approx(
        [TUNED[0] / 2 - 0.2 + seed / 100 for seed in range(3)]
    )
    curve = tuned_curve(runs, "fine")
    assert [sparsity for sparsity, _ in curve] == list(TUNED)
    assert [reached.value for _, reached in curve] == pytest.approx([s / 2 + 0.01 for s in TUNED])


def test_the_surgeons_three_curves_keep_their_names():
    ways = {"magnitude": -0.3, "compensated": 0.0, "sparse_gpt": -0.1}
    runs = {f"surgeon/{seed}": {way: shifted(by) for way, by in ways.items()} for seed in range(2)}
    curves = surgeon_curves(runs)
    assert {name: curve[0][1].value for name, curve in curves.items()} == pytest.approx(
        {way: FALLING[0] + by for way, by in ways.items()}
    )
    assert all(isinstance(reached, Interval) for curve in curves.values() for _, reached in curve)


def test_a_curve_that_was_not_run_is_an_error_that_says_how_to_run_it():
    with pytest.raises(CompressionError, match="repeat the runs with: compresslab train"):
        masked_curve({}, "obd", "fine")
