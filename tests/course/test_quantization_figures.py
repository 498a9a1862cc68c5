"""The pictures of lab 01 show the grids and errors that the techniques compute."""

import pytest
import torch

from compresslab.course.quantization.figures import (
    RULES,
    draw_channels,
    draw_clipping,
    draw_errors,
    draw_grid,
    draw_sensitivity,
    explore_grid,
    grid_error,
)
from compresslab.errors import CompressionError

WEIGHT = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("symmetric", [True, False])
def test_more_bits_are_never_worse_and_the_grid_has_as_many_values_as_bits_allow(rule, symmetric):
    errors = []
    for bits in range(2, 9):
        error, grid = grid_error(WEIGHT, bits=bits, symmetric=symmetric, rule=rule)
        errors.append(error)
        assert len(grid) == 2**bits - (1 if symmetric else 0)
        assert (grid == 0).any()  # zero is exact
    assert errors == sorted(errors, reverse=True)


def test_a_scale_for_each_channel_is_better_than_one_for_all():
    uneven = WEIGHT * torch.tensor([1, 2, 4, 8, 16, 32.0]).view(6, 1, 1, 1)
    assert grid_error(uneven, bits=4, per_channel=True)[0] < grid_error(uneven, bits=4)[0]


def test_an_unknown_rule_names_the_known_ones():
    with pytest.raises(CompressionError, match="no rule is called 'magic'; there are min and max"):
        grid_error(WEIGHT, bits=4, rule="magic")


def test_the_grid_is_drawn_with_its_values_and_its_error():
    error, grid = grid_error(WEIGHT, bits=3)
    axes = draw_grid(WEIGHT, bits=3).axes[0]
    assert "the 7 values of the grid" in axes.get_xlabel()
    assert f"{error:.2g}" in axes.get_title()
    lines = [segment[0][0] for segment in axes.collections[0].get_segments()]
    assert lines == pytest.approx(grid.tolist())


def test_the_two_errors_of_a_range_sum_to_the_whole_and_the_least_is_marked():
    lines = {line.get_label(): line for line in draw_clipping(WEIGHT.flatten(), bits=3).axes[0].lines}
    rounding, cutting, both = (lines[name].get_ydata() for name in ("rounding", "cutting off", "both"))
    assert list(both) == pytest.approx([a + b for a, b in zip(rounding, cutting, strict=True)])
    assert list(lines["least"].get_ydata()) == [min(both)]
    assert cutting[-1] == 0  # min and max cut nothing


def test_channels_are_drawn_widest_first():
    segments = draw_channels(WEIGHT).axes[0].collections[0].get_segments()
    widths = [segment[1][1] - segment[0][1] for segment in segments]
    assert widths == sorted(widths, reverse=True)
    assert len(widths) == 6


def test_each_layer_has_its_bar_and_its_marks():
    axes = draw_errors({"stem": 0.1, "head": 0.4}, label="error").axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.1, 0.4]
    axes = draw_sensitivity({"stem": {4: 0.001, 2: 0.5}, "head": {4: 0.01, 2: 0.25}}).axes[0]
    marks = {line.get_label(): list(line.get_xdata()) for line in axes.lines}
    assert marks["2 bits"] == [0.5, 0.25]
    assert marks["4 bits"] == [0.001, 0.01]
    assert "nats" in axes.get_xlabel()


def test_the_widget_redraws_for_each_setting():
    box = explore_grid(WEIGHT)
    picture = bytes(box.children[-1].value)
    bits, symmetric, per_channel, rule, _ = box.children
    for widget, value in ((bits, 3), (symmetric, False), (rule, "least squares"), (per_channel, True)):
        widget.value = value
        assert bytes(box.children[-1].value) != picture
        picture = bytes(box.children[-1].value)
