"""The pictures of gains show the intervals that they were given, in points and percent, without colours."""

from itertools import pairwise

import pytest

from compresslab.course.figures.gains import (
    KNOWLEDGE,
    STRATEGIES,
    draw_accuracy,
    draw_by_teacher,
    draw_gains,
    draw_taxonomy,
)
from compresslab.errors import CompressionError
from compresslab.measurement.statistics import Interval

KD, HINT, WORSE = (
    Interval(0.031, 0.028, 0.034),
    Interval(0.004, -0.003, 0.011),
    Interval(-0.012, -0.02, -0.01),
)
GAINS = {"worse": WORSE, "kd": KD, "hint": HINT}


def texts(axes) -> list[str]:
    return [text.get_text().strip() for text in axes.texts]


def boxes_that_overlap(figure) -> list[tuple[str, str]]:
    """Pairs of upright texts on a figure whose boxes meet."""
    figure.draw_without_rendering()
    written = [t for t in figure.axes[0].texts if t.get_text().strip() and t.get_rotation() == 0]
    places = [(t.get_text(), t.get_window_extent()) for t in written]
    pairs = ((a, b) for i, a in enumerate(places) for b in places[:i])
    return [(a, b) for (a, box), (b, other) in pairs if box.overlaps(other)]


def test_gains_are_written_in_points_best_first():
    axes = draw_gains(GAINS, label="gain, points").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["kd", "hint", "worse"]
    assert texts(axes)[:3] == ["+3.1 [2.8, 3.4]", "+0.4 [−0.3, 1.1]", "−1.2 [−2.0, −1.0]"]
    assert axes.yaxis_inverted()
    assert axes.get_xlabel().startswith("gain, points")


def test_a_bar_reaches_from_low_to_high_and_is_hollow_where_it_covers_nothing_gained():
    axes = draw_gains(GAINS, label="gain").axes[0]
    ends = [end for bar in axes.patches for end in (bar.get_x(), bar.get_x() + bar.get_width())]
    assert ends == pytest.approx([2.8, 3.4, -0.3, 1.1, -2.0, -1.0])
    assert [bar.get_facecolor() == (1, 1, 1, 1) for bar in axes.patches] == [False, True, False]
    dots = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert dots == pytest.approx([3.1, 0.4, -1.2])
    assert axes.get_xlim()[0] < -2.0 < 3.4 < axes.get_xlim()[1]


def test_an_interval_that_only_touches_zero_is_hollow_too():
    axes = draw_gains({"touches": Interval(0.01, 0.0, 0.02)}, label="gain").axes[0]
    assert axes.patches[0].get_facecolor() == (1, 1, 1, 1)


def test_the_student_alone_is_the_dashed_line_at_zero():
    axes = draw_gains(GAINS, label="gain").axes[0]
    dashed = [list(line.get_xdata()) for line in axes.lines if line.get_linestyle() == "--"]
    assert dashed == [[0, 0]]
    assert "student alone" in texts(axes)
    (other,) = draw_gains(GAINS, label="points", against="fine-tuned").axes
    assert "fine-tuned" in texts(other)
    assert "student alone" not in texts(other)


def test_a_gain_that_rounds_to_nothing_has_no_minus():
    assert "+0.0 [0.0, 0.0]" in texts(draw_gains({"a": Interval(-1e-5, -2e-5, 0)}, label="gain").axes[0])


CELLS = {("response", "offline"): {"fitted": HINT, "kd": KD}, ("relation", "self"): {"rkd": WORSE}}


def test_each_cell_of_the_taxonomy_lists_its_methods_best_first_under_its_row_and_column():
    axes = draw_taxonomy(CELLS).axes[0]
    cell = {text.get_text(): text.xy for text in axes.texts}
    x, y = cell["kd     +3.1 [2.8, 3.4]\nfitted +0.4 [−0.3, 1.1]"]
    assert (x, y) == (0.5, cell["response\n"][1])
    assert cell["offline\n"][0] == 0.5
    x, y = cell["rkd −1.2 [−2.0, −1.0]"]
    assert (x, y) == (cell["self\n"][0], cell["relation\n"][1])
    assert [bar.get_x() for bar in axes.patches] == 3 * [0, 1, 2]
    for name, words in (KNOWLEDGE | STRATEGIES).items():
        assert {f"{name}\n", f"\n{words}"} <= set(cell)


def test_a_cell_is_as_dark_as_its_best_gain_and_an_empty_one_is_hatched_and_says_so():
    cells = CELLS | {("feature", "offline"): {"hint": HINT}}
    axes = draw_taxonomy(cells).axes[0]
    response, *_ = (bar for bar in axes.patches if bar.get_x() == 0)
    feature = next(bar for bar in axes.patches if bar.get_x() == 0 and bar.get_y() == response.get_height())
    relation = axes.patches[-1]  # the last column of the last row
    light = [sum(bar.get_facecolor()[:3]) for bar in (response, feature, relation)]
    assert light == sorted(light)
    assert light[2] == 3  # a loss is white
    assert texts(axes).count("not tried here") == 6
    assert sum(bar.get_hatch() == "//" for bar in axes.patches) == 6


def test_the_map_is_drawn_when_nothing_is_known_and_when_nothing_gained():
    assert texts(draw_taxonomy({}).axes[0]).count("not tried here") == 9
    axes = draw_taxonomy({("feature", "self"): {"a": WORSE}}).axes[0]
    assert all(bar.get_facecolor()[:3] == (1, 1, 1) for bar in axes.patches)


def test_no_two_texts_of_a_full_map_overlap():
    methods = {f"noisy_student{n}": Interval(-0.012, -0.02, -0.01) for n in range(4)}
    full = {(row, column): methods for row in KNOWLEDGE for column in STRATEGIES}
    pairs = boxes_that_overlap(draw_taxonomy(full))
    heads = {*KNOWLEDGE, *STRATEGIES}  # a head and its words share a box of two lines, one line each
    assert [pair for pair in pairs if not any(text.strip() in heads for text in pair)] == []


@pytest.mark.parametrize("cell", [("offline", "response"), ("answer", "offline"), ("response", "offlin")])
def test_a_cell_outside_the_map_is_refused_with_the_rows_and_columns(cell):
    with pytest.raises(
        CompressionError, match="the rows are response, feature, relation and the columns off"
    ):
        draw_taxonomy({cell: {"kd": KD}})


CURVES = {
    "alone": [(30_000, Interval(0.873, 0.870, 0.877)), (8_000, Interval(0.838, 0.832, 0.845))],
    "kd": [(8_000, Interval(0.865, 0.86, 0.87)), (30_000, Interval(0.875, 0.874, 0.876))],
}


def test_each_series_has_its_points_in_order_its_error_bars_and_its_own_marker():
    axes = draw_accuracy(CURVES).axes[0]
    alone, kd = (container.lines[0] for container in axes.containers)
    assert list(alone.get_xdata()) == [8_000, 30_000]
    assert list(alone.get_ydata()) == pytest.approx([83.8, 87.3])
    assert list(kd.get_ydata()) == pytest.approx([86.5, 87.5])
    bars = axes.containers[0].lines[2][0].get_segments()
    assert [y for bar in bars for _, y in bar] == pytest.approx([83.2, 84.5, 87.0, 87.7])
    assert alone.get_marker() != kd.get_marker()
    assert alone.get_linestyle() != kd.get_linestyle()
    assert axes.get_xscale() == "log"
    assert "%" in axes.get_ylabel()
    assert axes.get_xlabel().startswith("parameters")
    assert draw_accuracy(CURVES, against="labels").axes[0].get_xlabel().startswith("labels")


def test_series_are_named_at_their_ends_and_the_names_keep_apart():
    figure = draw_accuracy(CURVES | {"third": [(30_000, Interval(0.874, 0.87, 0.88))]})
    assert texts(figure.axes[0]) == ["alone", "kd", "third"]
    assert {text.xy[0] for text in figure.axes[0].texts} == {30_000}
    assert boxes_that_overlap(figure) == []


def test_more_series_than_markers_are_all_drawn():
    many = {f"series {n}": [(1000 * (n + 1), Interval(0.8, 0.7, 0.9))] for n in range(8)}
    assert len(draw_accuracy(many).axes[0].containers) == 8


def test_students_stand_above_their_teachers_accuracy_and_the_student_alone_is_dashed():
    points = [("wide", 0.94, Interval(0.893, 0.889, 0.896)), ("tiny", 0.86, Interval(0.868, 0.865, 0.871))]
    axes = draw_by_teacher(points, alone=Interval(0.875, 0.871, 0.879)).axes[0]
    dots = axes.containers[0].lines[0]
    assert list(dots.get_xdata()) == pytest.approx([94, 86])
    assert list(dots.get_ydata()) == pytest.approx([89.3, 86.8])
    names = {text.get_text(): text for text in axes.texts}
    assert names["wide"].xy == pytest.approx((94, 89.6))  # the name belongs to the end of its bar
    assert names["tiny"].xy == pytest.approx((86, 87.1))
    dashed = [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"]
    assert dashed == pytest.approx([87.5])
    assert "student alone" in names
    band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (band.y0, band.y1) == pytest.approx((87.1, 87.9))


def test_names_of_equally_good_teachers_keep_apart():
    same = Interval(0.89, 0.88, 0.9)
    axes = draw_by_teacher([("a", 0.94, same), ("b", 0.94, same), ("c", 0.9, same)], alone=same).axes[0]
    places = sorted(text.xyann[0] for text in axes.texts if text.get_rotation())
    first, last = axes.get_xlim()
    assert all(b - a > 0.03 * (last - first) for a, b in pairwise(places))
