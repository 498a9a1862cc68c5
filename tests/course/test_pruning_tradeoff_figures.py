"""The pictures against sparsity show the accuracies, ratios and bytes that they were given."""

from itertools import pairwise

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.text import Text

from compresslab.course.pruning.tradeoff_figures import (
    as_interval,
    draw_accuracies,
    draw_accuracy_by_sparsity,
    draw_csr_break_even,
    draw_file_bytes,
    draw_tradeoffs,
)
from compresslab.errors import CompressionError
from compresslab.measurement.statistics import Interval
from compresslab.storage.sparse import BITMAP, CSR, DENSE, relative_index, sizes

CURVES = {
    "magnitude": [(0.9, Interval(0.85, 0.82, 0.87)), (0.5, 0.93)],
    "random": [(0.5, 0.4), (0.9, 0.1)],
    "gradient": [(0.9, 0.1), (0.5, 0.5)],
}


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def dashed(axes) -> list[float]:
    """The heights of the level dashed lines."""
    lines = [line.get_ydata() for line in axes.lines if line.get_linestyle() == "--"]
    return [y[0] for y in lines if len(y) == 2 and y[0] == y[1]]


# accuracy


def test_each_line_has_its_points_in_order_in_percent_and_its_own_style():
    axes = draw_accuracy_by_sparsity(CURVES, baseline=0.943).axes[0]
    lines = [container.lines[0] for container in axes.containers]
    assert list(lines[0].get_xdata()) == [0.5, 0.9]
    assert list(lines[0].get_ydata()) == pytest.approx([93, 85])
    bars = axes.containers[0].lines[2][0].get_segments()
    assert [y for bar in bars for _, y in bar] == pytest.approx([93, 93, 82, 87])
    assert len({(line.get_marker(), line.get_linestyle()) for line in lines}) == 3
    assert "%" in axes.get_ylabel()
    assert axes.get_xlabel().startswith("sparsity")


def test_the_baseline_is_named_and_dashed():
    axes = draw_accuracy_by_sparsity(CURVES, baseline=0.943).axes[0]
    assert dashed(axes)[0] == pytest.approx(94.3)
    assert texts(axes)[0] == "baseline, 94.3%"
    assert axes.get_ylim()[1] > 95  # its name has room


def test_names_point_at_their_lines_ends_and_keep_apart_where_lines_meet():
    figure = draw_accuracy_by_sparsity(CURVES, baseline=0.943)
    figure.draw_without_rendering()
    names = {text.get_text(): text for text in figure.axes[0].texts[1:]}
    assert names["magnitude"].xy == pytest.approx((0.9, 85))
    assert names["random"].xy == names["gradient"].xy == pytest.approx((0.9, 10))
    boxes = sorted((Text.get_window_extent(text) for text in names.values()), key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 for low, high in pairwise(boxes))
    assert all(text.xyann[0] > 1 for text in names.values())  # right of the frame


def test_a_chosen_point_is_ringed_and_limits_that_were_set_stay():
    axes = plt.Figure().add_subplot()
    axes.set_ylim(0, 100)
    draw_accuracies(axes, CURVES, baseline=0.943, chosen=("magnitude", 0.9))
    ring = next(line for line in axes.lines if line.get_fillstyle() == "none")
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == pytest.approx((0.9, 85))
    assert len(axes.containers) == 1  # only the chosen one has intervals
    assert axes.get_ylim() == (0, 100)


@pytest.mark.parametrize(("accuracy", "hint"), [(93.2, "did you mean 0.932?"), (-0.1, "divide right by all")])
def test_an_accuracy_that_is_no_fraction_is_refused(accuracy, hint):
    with pytest.raises(CompressionError, match=rf"accuracy of 'a' must .*, got {accuracy}; {hint}"):
        draw_accuracy_by_sparsity({"a": [(0.5, accuracy)]}, baseline=0.9)
    with pytest.raises(CompressionError, match="accuracy of 'the baseline' must"):
        draw_accuracy_by_sparsity(CURVES, baseline=accuracy)


def test_a_line_without_points_and_no_line_are_refused():
    with pytest.raises(CompressionError, match="each has a point, got none for 'empty'; leave it out"):
        draw_accuracy_by_sparsity(CURVES | {"empty": []}, baseline=0.9)
    with pytest.raises(CompressionError, match="got no line; give one by its name"):
        draw_csr_break_even({})


def test_a_number_is_an_interval_of_no_width_and_an_interval_is_itself():
    assert as_interval(0.5) == Interval(0.5, 0.5, 0.5)
    assert as_interval(Interval(0.5, 0.4, 0.6)) == Interval(0.5, 0.4, 0.6)


# speed

SPEEDUPS = {"CSR": [(0.9, Interval(1.1, 1.0, 1.2)), (0.5, Interval(0.25, 0.2, 0.3))]}


def test_break_even_is_the_dashed_line_at_one_and_slower_is_shaded():
    axes = draw_csr_break_even(SPEEDUPS).axes[0]
    assert list(axes.containers[0].lines[0].get_ydata()) == pytest.approx([0.25, 1.1])
    assert dashed(axes)[0] == 1
    assert texts(axes) == ["CSR", "as fast as dense"]
    band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (band.y0, band.y1) == pytest.approx((axes.get_ylim()[0], 1))
    low, high = axes.get_ylim()
    assert low <= 0.2 < 1.2 <= high
    assert axes.get_yscale() == "log"


def test_a_product_that_is_always_faster_still_shows_the_break_even():
    axes = draw_csr_break_even({"CSR": [(0.99, Interval(5, 4, 6))]}).axes[0]
    assert axes.get_ylim()[0] < 1 < 6 <= axes.get_ylim()[1]


# bytes

FORMS = [DENSE, BITMAP, relative_index(bits=4), relative_index(bits=8), CSR]


def counted(sparsities) -> dict:
    order = torch.rand(20, 400, generator=torch.Generator().manual_seed(0))
    return {s: sizes(torch.ones(20, 400) * (order >= s), forms=FORMS) for s in sparsities}


def test_bytes_are_drawn_as_shares_of_the_dense_layer_beside_the_values_alone():
    found = counted((0.9, 0.0, 0.5))
    axes = draw_file_bytes(found, dense=4 * 8000).axes[0]
    names = ["bitmap", "4-bit gaps", "8-bit gaps", "CSR"]  # the dense form is the dashed line
    assert texts(axes) == [*names, "dense", "values alone"]
    for name, container in zip(names, axes.containers, strict=True):
        wanted = [found[s][name] / 32000 for s in (0.0, 0.5, 0.9)]
        assert list(container.lines[0].get_ydata()) == pytest.approx(wanted)
    alone = next(line for line in axes.lines if line.get_linewidth() == 5)
    assert list(alone.get_xdata()) == [0.0, 0.5, 0.9]
    assert list(alone.get_ydata()) == pytest.approx([1.0, 0.5, 0.1])
    assert dashed(axes)[0] == 1
    low, high = axes.get_ylim()
    assert low < 0.1 < 1.5 < high  # CSR's 1.5 at sparsity 0 and the values' 0.1 are both in sight


@pytest.mark.parametrize(
    ("found", "dense", "says"),
    [
        ({}, 8, "got no sparsity and 8 dense bytes"),
        ({0.5: {"CSR": 4}, 0.9: {"bitmap": 4}}, 8, "got 0.5: CSR; 0.9: bitmap and 8"),
        ({0.5: {"CSR": 4}}, 0, "got 0.5: CSR and 0 dense bytes; take sizes"),
    ],
)
def test_forms_that_differ_and_a_layer_without_bytes_are_refused(found, dense, says):
    with pytest.raises(CompressionError, match=says):
        draw_file_bytes(found, dense=dense)


def test_a_sparsity_in_percent_is_refused():
    with pytest.raises(CompressionError, match=r"got 50; did you mean 0\.5\?"):
        draw_file_bytes({50: {"CSR": 4}}, dense=8)


# both

POINTS = {
    "dense": (5.0, 0.94),
    "channel": (Interval(3.0, 2.5, 3.5), Interval(0.93, 0.92, 0.935)),
    "worse": (4.0, 0.91),
}


def test_points_have_bars_in_both_directions_and_the_baseline_is_filled():
    axes = draw_tradeoffs(POINTS, baseline="dense", xlabel="latency, ms").axes[0]
    marks = [container.lines[0] for container in axes.containers]
    assert [m.get_xdata()[0] for m in marks] == [5, 3, 4]
    assert [m.get_ydata()[0] for m in marks] == pytest.approx([94, 93, 91])
    assert [m.get_markerfacecolor() == "black" for m in marks] == [True, False, False]
    assert len({m.get_marker() for m in marks}) == 3
    across, up = (bar.get_segments()[0] for bar in axes.containers[1].lines[2])
    assert [x for x, _ in across] == pytest.approx([2.5, 3.5])
    assert [y for _, y in up] == pytest.approx([92, 93.5])
    assert axes.get_xlabel() == "latency, ms"


def test_the_dashed_line_joins_what_none_beats_in_both():
    figure = draw_tradeoffs(POINTS, baseline="dense", xlabel="latency, ms")
    best = next(line for line in figure.axes[0].lines if line.get_linestyle() == "--")
    assert list(best.get_xdata()) == [3, 5]
    assert list(best.get_ydata()) == pytest.approx([93, 94])
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(named) == sorted([*POINTS, "none is cheaper and better"])


def test_costs_of_several_orders_have_a_logarithmic_axis_that_says_so():
    axes = draw_tradeoffs(POINTS | {"tiny": (0.1, 0.5)}, baseline="dense", xlabel="file, kB").axes[0]
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "file, kB (logarithmic)"


def test_a_baseline_that_is_no_point_is_refused_with_those_that_are():
    with pytest.raises(CompressionError, match="got 'base'; there are dense, channel, worse"):
        draw_tradeoffs(POINTS, baseline="base", xlabel="ms")
