"""The pictures of lab 03 show the masks, weights and losses that they were given, and the widget follows."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from compresslab.course.pruning.figures import (
    draw_granularities,
    draw_pruning,
    draw_sensitivity,
    draw_weight_histograms,
    explore_pruning,
)
from compresslab.errors import CompressionError
from compresslab.experiments.pruning.methods import GRANULARITIES
from compresslab.techniques.pruning.granularity import group_mask, kernel

WEIGHT = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
MASKS = {name: group_mask(WEIGHT.abs(), g, sparsity=0.5) for name, g in GRANULARITIES.items()}


def drawn_mask(axes, filters: int, inputs: int, height: int, width: int) -> torch.Tensor:
    """The picture's pixels that are not white, back in the weight's shape, kernel by kernel."""
    ink = torch.tensor(np.asarray(axes.images[0].get_array())).lt(1).any(dim=-1)
    mask = torch.empty(filters, inputs, height, width, dtype=torch.bool)
    for o in range(filters):
        for i in range(inputs):
            mask[o, i] = ink[o * height : (o + 1) * height, i * width : (i + 1) * width]
    return mask


# what a mask leaves


def test_each_granularity_has_a_panel_with_exactly_its_mask_and_the_share_that_is_left():
    axes = draw_granularities(WEIGHT, MASKS).axes
    assert [panel.get_title() for panel in axes] == [f"{name}: 50.0% left" for name in MASKS]
    for panel, mask in zip(axes, MASKS.values(), strict=True):
        assert torch.equal(drawn_mask(panel, 6, 4, 3, 3), mask)
        assert panel.get_xlabel() == "input channel"
    assert axes[0].get_ylabel() == "filter"


def test_a_large_layer_is_drawn_by_its_first_kernels_but_the_share_is_the_whole_layers():
    weight = torch.rand(10, 9, 3, 5) + 0.1
    mask = torch.ones_like(weight, dtype=torch.bool)
    mask[4:] = False  # of the corner everything is left, of the layer 40 %
    figure = draw_granularities(weight, {"channel": mask}, corner=4)
    assert drawn_mask(figure.axes[0], 4, 4, 3, 5).all()
    assert figure.axes[0].images[0].get_array().shape == (12, 20, 3)
    assert figure.axes[0].get_title() == "channel: 40.0% left"
    assert figure.get_supxlabel().startswith("the first 4 × 4 of 10 × 9 kernels")


def test_the_larger_a_weight_is_the_darker_it_is_drawn_and_none_that_stays_is_white():
    weight = torch.tensor([[0.0, -1.0], [2.0, -4.0]])
    axes = draw_granularities(weight, {"all": torch.ones(2, 2, dtype=torch.bool)}).axes[0]
    light = np.asarray(axes.images[0].get_array()).sum(axis=-1)
    assert 2.4 > light[0, 0] > light[0, 1] > light[1, 0] > light[1, 1]


def test_lines_part_the_kernels_and_ticks_stand_at_their_middles():
    axes = draw_granularities(WEIGHT, {"fine": MASKS["fine"]}).axes[0]
    horizontal = [y[0] for y in (line.get_ydata() for line in axes.lines) if y[0] == y[1]]
    vertical = [x[0] for x in (line.get_xdata() for line in axes.lines) if x[0] == x[1]]
    assert horizontal == [2.5, 5.5, 8.5, 11.5, 14.5]
    assert vertical == [2.5, 5.5, 8.5]
    assert list(axes.get_yticks()) == [1, 4, 7, 10, 13, 16]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2", "3"]


def test_nothing_of_a_figure_is_left_open_and_no_tensor_is_changed():
    weight = WEIGHT.clone().requires_grad_()
    before = len(plt.get_fignums())
    draw_granularities(weight, MASKS)
    draw_weight_histograms(weight, weight, weight)
    assert len(plt.get_fignums()) == before
    assert torch.equal(weight, WEIGHT)


@pytest.mark.parametrize("mask", [torch.ones(6, 4, 3, dtype=torch.bool), torch.ones(6, 4, 3, 3)])
def test_a_mask_of_another_shape_or_type_is_refused_by_its_name(mask):
    with pytest.raises(CompressionError, match=r"bool, of its weight's shape \(6, 4, 3, 3\), got 'odd' with"):
        draw_granularities(WEIGHT, {"odd": mask})


def test_no_mask_and_a_weight_that_is_no_layers_are_refused():
    with pytest.raises(CompressionError, match=r"at least one mask, got none; try .'fine'"):
        draw_granularities(WEIGHT, {})
    with pytest.raises(CompressionError, match=r"a weight is \(out, in\) .* got \(3,\); give a Conv2d's"):
        draw_granularities(torch.ones(3), {"fine": torch.ones(3, dtype=torch.bool)})


# what the weights look like

PRUNED = WEIGHT * group_mask(WEIGHT.abs(), GRANULARITIES["fine"], sparsity=0.8)


def test_zeros_are_counted_in_the_title_and_left_out_of_the_bars():
    axes = draw_weight_histograms(WEIGHT, PRUNED, 2 * PRUNED).axes
    assert [panel.get_title() for panel in axes] == [
        "trained: 216 weights and 0 zeros (not drawn)",
        "pruned: 43 weights and 173 zeros (not drawn)",
        "fine-tuned: 43 weights and 173 zeros (not drawn)",
    ]
    assert [sum(panel.patches[0].get_data().values) for panel in axes] == [216, 43, 43]
    assert len({panel.get_xlim() for panel in axes}) == 1


def test_the_threshold_is_the_smallest_magnitude_left_and_parts_the_bars():
    threshold = float(PRUNED[PRUNED != 0].abs().min())
    axes = draw_weight_histograms(WEIGHT, PRUNED, PRUNED).axes
    for panel in axes:
        assert [line.get_xdata()[0] for line in panel.lines] == pytest.approx([-threshold, threshold])
    values, edges, _ = axes[1].patches[0].get_data()
    inside = (edges[:-1] > -0.999 * threshold) & (edges[1:] < 1.001 * threshold)
    assert min(abs(edges - threshold)) < 1e-4 * threshold  # no bar straddles it
    assert values[inside].sum() == 0
    assert values[~inside].sum() == 43
    assert f"±{threshold:.3g}" in axes[2].get_xlabel()


@pytest.mark.parametrize("tiny", [1e-9, 1e-3])
def test_a_threshold_near_zero_needs_no_more_bins_than_another(tiny):
    weight = torch.tensor([tiny, 0.3, -1.0])
    axes = draw_weight_histograms(weight, weight, weight).axes
    values, edges, _ = axes[0].patches[0].get_data()
    assert sum(values) == 3
    assert len(edges) < 200


def test_weights_that_are_not_the_same_ones_and_a_dead_layer_are_refused():
    with pytest.raises(CompressionError, match="got 216 trained, 216 pruned, 7 fine-tuned; give one layer's"):
        draw_weight_histograms(WEIGHT, PRUNED, torch.ones(7))
    with pytest.raises(CompressionError, match="not zero, got none; try a smaller sparsity"):
        draw_weight_histograms(WEIGHT, 0 * WEIGHT, WEIGHT)


# which layers bear it

LOSSES = {"stem": [0.0, 0.25, 1.0], "head": [-0.0001, 0.04, 0.5]}


def test_the_scan_writes_every_loss_beside_the_weights_of_its_layer():
    weights = {"head": 1120, "stem": 144, "other": 7}
    heat, bars = draw_sensitivity(LOSSES, (0.0, 0.5, 0.9), weights=weights, unit="nats").axes
    cells = {text.xy: text.get_text() for text in heat.texts}
    assert cells == {
        (0, 0): "0.000",
        (1, 0): "0.250",
        (2, 0): "1.000",
        (0, 1): "0.000",
        (1, 1): "0.040",
        (2, 1): "0.500",
    }
    assert [label.get_text() for label in heat.get_yticklabels()] == ["stem", "head"]
    assert [label.get_text() for label in heat.get_xticklabels()] == ["0", "0.5", "0.9"]
    assert "nats" in heat.get_xlabel()
    assert [bar.get_width() for bar in bars.patches] == [144, 1120]
    assert [text.get_text() for text in bars.texts] == ["144", "1,120"]
    assert heat.get_ylim() == bars.get_ylim()  # one row a layer, on both sides


def test_the_worse_the_darker_and_text_keeps_its_contrast():
    heat = draw_sensitivity(LOSSES, (0.0, 0.5, 0.9), weights={"stem": 1, "head": 1}).axes[0]
    shades = np.asarray(heat.images[0].get_array())
    assert shades[0, 0] < shades[1, 1] < shades[0, 1] < shades[1, 2] < shades[0, 2]
    assert shades[1, 0] == 0  # a gain is white
    for text in heat.texts:
        paper = heat.images[0].to_rgba(shades)[text.xy[1], text.xy[0]][0]
        ink = {"white": 1.0, "black": 0.0}[text.get_color()]
        assert abs(paper - ink) > 0.4


@pytest.mark.parametrize(
    ("losses", "weights"),
    [({"a": [1.0, 2.0]}, {"b": 3}), ({"a": [1.0]}, {"a": 3}), ({"a": [1.0, 2.0, 3.0]}, {"a": 3})],
)
def test_a_layer_without_weights_or_with_another_number_of_losses_is_refused(losses, weights):
    with pytest.raises(CompressionError, match=r"2 losses, one per sparsity, got .* for 'a'; take both from"):
        draw_sensitivity(losses, (0.5, 0.9), weights=weights)


def test_no_layer_is_refused():
    with pytest.raises(CompressionError, match="at least one layer, got none; scan_sensitivity makes them"):
        draw_sensitivity({}, (0.5,), weights={})


# the widget and its twin

RECORDED = {
    (criterion, name): [(0.9, 0.5 - drop), (0.3, 0.9 - drop), (0.5, 0.8 - drop)]
    for criterion, drop in (("magnitude", 0.0), ("random", 0.3))
    for name in ("fine", "kernel")
}
SCORES = {"magnitude": WEIGHT.abs(), "random": -WEIGHT}


def drawn(**changes):
    settings = {"criterion": "random", "granularity": "kernel", "sparsity": 0.5} | changes
    return draw_pruning(WEIGHT, RECORDED, scores=SCORES, baseline=0.94, **settings)


def test_the_live_mask_follows_criterion_granularity_and_sparsity():
    left = drawn().axes[0]
    assert torch.equal(drawn_mask(left, 6, 4, 3, 3), group_mask(-WEIGHT, kernel, sparsity=0.5))
    assert left.get_title() == "this layer, kernel: 50.0% left"


@pytest.mark.parametrize(("criterion", "drop"), [("magnitude", 0), ("random", 30)])
def test_the_chosen_point_is_ringed_on_its_curve_and_the_other_curves_are_grey(criterion, drop):
    right = drawn(criterion=criterion).axes[1]
    ring = next(line for line in right.lines if line.get_fillstyle() == "none")
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == pytest.approx((0.5, 80 - drop))
    assert list(right.containers[0].lines[0].get_ydata()) == pytest.approx([90 - drop, 80 - drop, 50 - drop])
    grey = [line for line in right.lines if line.get_color() == "0.6"]
    assert [line.get_label() for line in grey] == ["fine"]
    assert right.get_title() == f"all layers, by {criterion}: {80 - drop:.1f}% at 0.5"


def test_the_accuracies_keep_their_axis_whichever_criterion_is_chosen():
    limits = {drawn(criterion=criterion).axes[1].get_ylim() for criterion in SCORES}
    assert len(limits) == 1
    low, high = limits.pop()
    assert low < 20 < 94 < high


@pytest.mark.parametrize(
    "change", [{"criterion": "wanda"}, {"granularity": "vector"}, {"granularity": "word"}, {"sparsity": 0.7}]
)
def test_a_point_that_was_not_recorded_is_refused_with_those_that_were(change):
    with pytest.raises(CompressionError, match=r"got .*; choose among \('magnitude', 'fine'\), \('magnit"):
        drawn(**change)
    with pytest.raises(CompressionError, match=r"'kernel' at 0.7; .* for this pair at 0.3, 0.5, 0.9"):
        drawn(sparsity=0.7)


def test_the_widget_begins_with_its_static_twin_and_redraws_for_each_setting():
    box = explore_pruning(WEIGHT, RECORDED, scores=SCORES, baseline=0.94)
    granularity, criterion, sparsity, picture = box.children
    assert list(sparsity.options) == [0.3, 0.5, 0.9]
    assert list(granularity.options) == ["fine", "kernel"]
    twin = io.BytesIO()
    drawn(criterion="magnitude", granularity="fine", sparsity=0.5).savefig(twin, format="png", dpi=80)
    assert bytes(picture.value) == twin.getvalue()
    seen = {twin.getvalue()}
    for widget, value in ((granularity, "kernel"), (criterion, "random"), (sparsity, 0.9)):
        widget.value = value
        seen.add(bytes(picture.value))
    assert len(seen) == 4


def test_curves_that_share_no_sparsity_are_refused():
    apart = {("magnitude", "fine"): [(0.3, 0.9)], ("magnitude", "kernel"): [(0.5, 0.9)]}
    for recorded, count in ((apart, 2), ({}, 0)):
        with pytest.raises(CompressionError, match=f"got {count} curves that share none; record all"):
            explore_pruning(WEIGHT, recorded, scores=SCORES, baseline=0.94)
