"""The pictures of what low rank costs and buys show the errors, accuracies and speeds they were given."""

import matplotlib.pyplot as plt
import pytest
import torch

from compresslab.course.low_rank.tradeoff_figures import (
    draw_accuracy_by_macs,
    draw_cancellation,
    draw_errors_by_rank,
    draw_speedups,
)
from compresslab.errors import CompressionError
from compresslab.measurement.statistics import Interval


def styles(lines) -> set[tuple[str, str]]:
    return {(line.get_marker(), line.get_linestyle()) for line in lines}


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


# error by rank

ERRORS = {"plain": torch.tensor([1.0, 0.6, 0.0]), "whitened": [1.0, 0.25, 0.0]}


def test_each_way_has_its_errors_in_percent_at_its_ranks_and_its_own_style():
    axes = draw_errors_by_rank(ERRORS).axes[0]
    assert [list(line.get_xdata()) for line in axes.lines] == [[0, 1, 2]] * 2
    assert list(axes.lines[0].get_ydata()) == pytest.approx([100, 60, 0])
    assert list(axes.lines[1].get_ydata()) == pytest.approx([100, 25, 0])
    assert len(styles(axes.lines)) == 2
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [*ERRORS]
    assert axes.get_xlabel() == "rank"
    assert axes.get_ylabel() == "relative error of the outputs, %"
    assert axes.get_ylim()[0] == 0


def test_ranks_that_are_given_and_what_was_measured_are_on_the_axes():
    axes = draw_errors_by_rank(ERRORS, ranks=(2, 4, 8), measured="weights").axes[0]
    assert list(axes.lines[0].get_xdata()) == [2, 4, 8]
    assert axes.get_ylabel() == "relative error of the weights, %"


def test_the_break_even_rank_is_dotted_and_named_where_it_is_given():
    axes = draw_errors_by_rank(ERRORS, break_even=1.5).axes[0]
    dotted = axes.lines[-1]
    assert (dotted.get_xdata()[0], dotted.get_linestyle()) == (1.5, ":")
    assert texts(axes) == ["break-even: smaller to the left "]
    assert axes.texts[0].xy[0] == 1.5
    bare = draw_errors_by_rank(ERRORS).axes[0]
    assert len(bare.lines) == 2
    assert not bare.texts


def test_many_ranks_have_few_marks():
    line = draw_errors_by_rank({"plain": torch.linspace(1, 0, 113)}).axes[0].lines[0]
    assert len(line.get_xdata()) == 113
    assert len(line.get_xdata()[:: line.get_markevery()]) < 20


@pytest.mark.parametrize(
    ("errors", "ranks", "says"),
    [
        ({}, None, r"errors has at least one line, got none; try .'plain': dropped_error"),
        ({"a": [1.0, 0.5]}, (1, 2, 4), r"3 here, got \(2,\) for 'a'; measure all at the same ranks"),
        ({"a": [1.0, 0.5], "b": [1.0]}, None, r"2 here, got \(1,\) for 'b'"),
        ({"a": [[1.0, 0.5]]}, None, r"2 here, got \(1, 2\) for 'a'"),
        ({"a": []}, None, r"0 here, got \(0,\) for 'a'"),
        ({"a": [1.0, -0.5]}, None, r"from 0 up, got \[1.0, -0.5\] for 'a'; divide the norm of the diff"),
        ({"a": [float("nan")]}, None, r"from 0 up, got \[nan\] for 'a'"),
    ],
)
def test_errors_that_are_not_one_number_a_rank_are_refused_by_their_line(errors, ranks, says):
    with pytest.raises(CompressionError, match=says):
        draw_errors_by_rank(errors, ranks=ranks)


# accuracy by MACs

BEFORE = {"tucker": [(4.0, 0.3), (2.0, 0.8)], "cp": [(2.0, 0.2), (8.6, 0.1)]}
AFTER = {"tucker": [(2.0, Interval(0.93, 0.92, 0.935)), (4.0, 0.9)], "cp": [(2.0, 0.91), (8.6, 0.88)]}


def test_each_stage_has_a_panel_with_its_own_accuracies_in_percent_in_the_order_of_the_macs():
    figure = draw_accuracy_by_macs(BEFORE, AFTER, baseline=0.94)
    drawn = [[container.lines[0] for container in axes.containers] for axes in figure.axes]
    assert [list(line.get_xdata()) for line in drawn[0]] == [[2, 4], [2, 8.6]]
    wanted = [[[80, 30], [20, 10]], [[93, 90], [91, 88]]]
    for lines, heights in zip(drawn, wanted, strict=True):
        for line, expected in zip(lines, heights, strict=True):
            assert list(line.get_ydata()) == pytest.approx(expected)
        assert len(styles(lines)) == 2
    assert [axes.get_title() for axes in figure.axes] == [
        "before fine-tuning",
        "after fine-tuning (its own scale)",
    ]
    (low, high), *_ = figure.axes[1].containers[0].lines[2][0].get_segments()
    assert (low[1], high[1]) == pytest.approx((92, 93.5))


def test_a_line_has_one_style_in_both_panels_whatever_the_order_of_the_second():
    swapped = dict(reversed(AFTER.items()))
    before, after = (
        {bars.get_label(): styles([bars.lines[0]]) for bars in axes.containers}
        for axes in draw_accuracy_by_macs(BEFORE, swapped, baseline=0.94).axes
    )
    assert before == after


def test_the_baseline_is_dashed_and_named_in_both_panels_and_the_axes_have_units():
    figure = draw_accuracy_by_macs(BEFORE, AFTER, baseline=0.94)
    for axes in figure.axes:
        (level,) = (
            x.get_ydata()
            for x in axes.lines
            if x.get_linestyle() == "--" and len(x.get_xdata()) == 2 and x.get_ydata()[0] == x.get_ydata()[1]
        )
        assert level[0] == pytest.approx(94)
        assert texts(axes) == ["baseline, 94.0%", "tucker", "cp"]
        assert axes.get_xlabel() == "baseline's MACs / the network's (logarithmic)"
        assert axes.get_xscale() == "log"
    assert figure.axes[0].get_ylabel().startswith("test accuracy, %")


def test_the_macs_share_one_axis_from_the_baselines_on_with_ticks_at_doublings():
    figure = draw_accuracy_by_macs(BEFORE, AFTER, baseline=0.94)
    limits = {axes.get_xlim() for axes in figure.axes}
    assert len(limits) == 1
    low, high = limits.pop()
    assert low < 1 < 8.6 < high
    figure.draw_without_rendering()
    ticks = {tick.get_position()[0]: tick.get_text() for tick in figure.axes[0].get_xticklabels()}
    shown = {place: text for place, text in ticks.items() if low <= place <= high}
    assert shown == {1: "1×", 2: "2×", 4: "4×", 8: "8×"}


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (BEFORE, {"cp": AFTER["cp"]}, "got tucker, cp and cp; give both from the same networks"),
        ({}, BEFORE, "got none and tucker, cp"),
        ({}, {}, "got no line; give one by its name"),
        ({"cp": []}, {"cp": []}, "got none for 'cp'; leave it out"),
        ({"cp": [(0.0, 0.5)]}, {"cp": [(2.0, 0.5)]}, "above 0, got 0 for 'cp'; a quarter of the MACs is 4"),
        ({"cp": [(2.0, 0.5)]}, {"cp": [(2.0, 0.5), (-1.0, 0.5)]}, "above 0, got -1 for 'cp'"),
        ({"cp": [(2.0, 0.5)]}, {"cp": [(float("inf"), 0.5)]}, "above 0, got inf for 'cp'"),
        (
            {"cp": [(2.0, 50)]},
            {"cp": [(2.0, 0.5)]},
            r"accuracy of 'cp' .*, got 50; did you mean 0.5\?",
        ),
    ],
)
def test_lines_ratios_and_accuracies_that_cannot_be_drawn_are_refused(before, after, says):
    with pytest.raises(CompressionError, match=says):
        draw_accuracy_by_macs(before, after, baseline=0.94)


# how far components cancel

PATHS = {"no ridge": [1.5, 40.0, 141.0], "ridge": (1.2, 1.4, 1.3)}


def test_each_way_has_its_numbers_at_its_sweeps_above_the_dotted_one():
    axes = draw_cancellation(PATHS, sweeps=(1, 10, 100)).axes[0]
    *lines, one = axes.lines
    assert [list(line.get_xdata()) for line in lines] == [[1, 10, 100]] * 2
    assert [list(line.get_ydata()) for line in lines] == [[1.5, 40, 141], [1.2, 1.4, 1.3]]
    assert len(styles(lines)) == 2
    assert (one.get_ydata()[0], one.get_linestyle()) == (1, ":")
    assert texts(axes) == ["components at right angles"]
    assert axes.get_ylim()[0] == 0
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("sweeps", "size of the components /\nsize of their sum")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [*PATHS]


@pytest.mark.parametrize(
    ("paths", "sweeps", "says"),
    [
        ({}, (1, 2), "one line and one sweep, got 0 and 2; try .'no ridge'"),
        ({"a": []}, (), "one line and one sweep, got 1 and 0"),
        ({"a": [1.5]}, (1, 2), r"each of 2 sweeps, got \[1.5\] for 'a'; try cancellation\(factors\)"),
        ({"a": [1.5, 0.0]}, (1, 2), r"above 0 for each of 2 sweeps, got \[1.5, 0.0\] for 'a'"),
        ({"a": [1.5, float("inf")]}, (1, 2), r"got \[1.5, inf\] for 'a'"),
    ],
)
def test_a_path_without_one_number_a_sweep_is_refused(paths, sweeps, says):
    with pytest.raises(CompressionError, match=says):
        draw_cancellation(paths, sweeps=sweeps)


# measured speed by MACs

POINTS = {
    "tucker": (2.8, Interval(1.7, 1.5, 1.8)),
    "one image": (2.8, Interval(0.98, 0.9, 1.06)),
    "wide": (4.0, Interval(5.0, 4.5, 5.2)),
}


def test_each_network_has_its_mark_its_interval_and_both_numbers_in_the_legend():
    figure = draw_speedups(POINTS)
    axes = figure.axes[0]
    marks = [container.lines[0] for container in axes.containers]
    assert [(m.get_xdata()[0], m.get_ydata()[0]) for m in marks] == [(2.8, 1.7), (2.8, 0.98), (4.0, 5.0)]
    bars = [container.lines[2][0].get_segments()[0] for container in axes.containers]
    assert [list(bar[:, 1]) for bar in bars] == [pytest.approx([i.low, i.high]) for _, i in POINTS.values()]
    assert len(styles(marks)) == 3
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "tucker: 2.8× fewer MACs,\n1.70 [1.50, 1.80] × faster",
        "one image: 2.8× fewer MACs,\n0.98 [0.90, 1.06] × faster",
        "wide: 4.0× fewer MACs,\n5.00 [4.50, 5.20] × faster",
    ]


def test_only_a_mark_whose_interval_covers_one_is_hollow():
    containers = draw_speedups(POINTS).axes[0].containers
    hollow = [container.lines[0].get_markerfacecolor() == "white" for container in containers]
    assert hollow == [False, True, False]


def test_the_ideal_is_the_diagonal_of_a_square_and_no_gain_is_the_dotted_one():
    axes = draw_speedups(POINTS).axes[0]
    assert axes.get_xlim() == axes.get_ylim()
    low, high = axes.get_xlim()
    assert low < 0.9 < 5.2 < high
    (ideal,) = (line for line in axes.lines if line.get_linestyle() == "--")
    assert list(ideal.get_xdata()) == list(ideal.get_ydata()) == [low, high]
    (one,) = (line for line in axes.lines if line.get_linestyle() == ":")
    assert list(one.get_ydata()) == [1, 1]
    assert texts(axes) == ["ideal: time falls as MACs do", "no gain"]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_xlabel() == "baseline's MACs / the network's (logarithmic)"
    assert axes.get_ylabel().startswith("baseline's time / the network's (logarithmic")


def test_grey_joins_a_mark_to_the_ideal_above_it_and_one_beyond_the_ideal_has_none():
    axes = draw_speedups(POINTS).axes[0]
    grey = [line.get_data() for line in axes.lines if line.get_color() == "0.8"]
    assert [(tuple(x), tuple(y)) for x, y in grey] == [((2.8, 2.8), (1.7, 2.8)), ((2.8, 2.8), (0.98, 2.8))]
    assert axes.get_title() == "grey: MACs that were saved, but not their time"


@pytest.mark.parametrize(
    ("points", "says"),
    [
        ({}, r"points has at least one network, got none; try .'tucker': \(2.8, speedup"),
        ({"cp": (0.0, Interval(1.5, 1.4, 1.6))}, "above 0, got 0 for 'cp'; a quarter of the MACs is 4"),
        ({"cp": (float("inf"), Interval(1.5, 1.4, 1.6))}, "above 0, got inf for 'cp'"),
        ({"cp": (8.6, Interval(1.5, -0.1, 1.6))}, "above 0, got -0.1 for 'cp'"),
    ],
)
def test_no_network_and_ratios_that_are_not_above_zero_are_refused(points, says):
    with pytest.raises(CompressionError, match=says):
        draw_speedups(points)


def test_nothing_of_a_figure_is_left_open_and_no_tensor_is_changed():
    errors = torch.tensor([1.0, 0.5], requires_grad=True)
    before = len(plt.get_fignums())
    draw_errors_by_rank({"plain": errors}, break_even=1)
    draw_accuracy_by_macs(BEFORE, AFTER, baseline=0.94)
    draw_cancellation(PATHS, sweeps=range(3))
    draw_speedups(POINTS)
    assert len(plt.get_fignums()) == before
    assert errors.tolist() == [1, 0.5]
