"""The pictures of lab 04 show the spectra, kernels, ranks and errors they were given; the widget follows."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from compresslab.course.low_rank.figures import (
    draw_filters,
    draw_filters_at_rank,
    draw_rank_plan,
    draw_spectra,
    explore_filters,
)
from compresslab.errors import CompressionError

WEIGHT = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))


def nearest(rank: int) -> torch.Tensor:
    """The weight without its smallest singular values, by the decomposition itself."""
    u, s, vt = torch.linalg.svd(WEIGHT.flatten(1), full_matrices=False)
    s[rank:] = 0
    return (u @ torch.diag(s) @ vt).view_as(WEIGHT)


def distance(rank: int) -> float:
    return float((nearest(rank) - WEIGHT).square().sum().sqrt() / WEIGHT.square().sum().sqrt())


def pixels(axes) -> torch.Tensor:
    return torch.tensor(np.asarray(axes.images[0].get_array()))


def kernels(axes, filters: int, inputs: int, height: int, width: int) -> torch.Tensor:
    """The picture's pixels, back in the weight's shape, kernel by kernel."""
    image, found = pixels(axes), torch.empty(filters, inputs, height, width)
    for o in range(filters):
        for i in range(inputs):
            found[o, i] = image[o * height : (o + 1) * height, i * width : (i + 1) * width]
    return found


# what the singular values hold

TRAINED = {"stem": torch.tensor([3.0, 1.0, 0.0, 0.0]), "head": torch.tensor([2.0, 1.0])}
RANDOM = {"head": torch.tensor([1.0, 1.0]), "stem": torch.tensor([1.0, 1.0, 1.0, 1.0])}


def test_each_layer_has_its_energy_rank_by_rank_beside_its_own_random_one():
    stem, head = draw_spectra(TRAINED, RANDOM).axes
    assert [list(line.get_ydata()) for line in stem.lines[:2]] == [
        [0, 90, 100, 100, 100],
        [0, 25, 50, 75, 100],
    ]
    assert [list(line.get_xdata()) for line in stem.lines[:2]] == [[0, 25, 50, 75, 100]] * 2
    assert [list(line.get_ydata()) for line in head.lines[:2]] == [[0, 80, 100], [0, 50, 100]]
    assert [line.get_linestyle() for line in stem.lines] == ["-", "--", ":"]
    assert stem.lines[2].get_ydata()[0] == 90


def test_the_title_has_the_first_ranks_that_hold_most_of_the_energy():
    titles = [axes.get_title() for axes in draw_spectra(TRAINED, RANDOM).axes]
    assert titles == ["stem\n90%: rank 1 of 4, random 4", "head\n90%: rank 2 of 2, random 2"]


def test_the_lines_are_named_once_and_both_axes_have_their_unit():
    figure = draw_spectra(TRAINED, RANDOM)
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == ["trained", "random, same size and norm", "90% of the energy"]
    assert figure.get_supxlabel() == "rank kept, % of the full rank"
    assert figure.get_supylabel() == "energy kept, % of the sum of squares"


def test_many_layers_take_a_second_row_and_no_empty_panel_is_shown():
    spectra = {f"conv{n}": torch.tensor([2.0, 1.0]) for n in range(7)}
    panels = draw_spectra(spectra, spectra).axes
    shown = [axes for axes in panels if axes.get_visible()]
    assert [axes.get_title().split("\n")[0] for axes in shown] == [*spectra]
    assert len(panels) == 10
    ticks = [axes.xaxis.get_tick_params()["labelbottom"] for axes in shown]
    assert ticks == [False, False, True, True, True, True, True]  # below whom no panel is, has numbers


@pytest.mark.parametrize(
    ("trained", "random", "came"),
    [({}, {}, "none and none"), (TRAINED, {"stem": TRAINED["stem"]}, "stem, head and stem")],
)
def test_no_layer_and_other_layers_at_random_are_refused(trained, random, came):
    with pytest.raises(
        CompressionError, match=f"at least one, got {came}; take torch.linalg.svdvals of both"
    ):
        draw_spectra(trained, random)


def test_a_random_matrix_of_another_size_is_refused_by_its_layer():
    with pytest.raises(
        CompressionError, match="got 4 and 2 for 'stem'; draw the random matrix in the layer's"
    ):
        draw_spectra(TRAINED, {"stem": torch.ones(2), "head": torch.ones(2)})


@pytest.mark.parametrize(
    "values",
    [
        torch.ones(2, 2),
        torch.ones(0),
        torch.zeros(2),
        torch.tensor([1.0, 2.0]),
        torch.tensor([1.0, -1.0]),
        torch.tensor([float("nan"), 0.0]),
    ],
)
def test_values_that_are_no_spectrum_are_refused_by_their_layer(values):
    says = r"falling, from 0 up and not all 0, got \(.*\) for 'head'; torch.linalg.svdvals\(weight.flatten"
    with pytest.raises(CompressionError, match=says):
        draw_spectra({"head": values}, {"head": torch.ones(2)})
    with pytest.raises(CompressionError, match=says):
        draw_spectra({"head": torch.ones(2)}, {"head": values})


# what the kernels look like


def test_each_panel_is_a_version_kernel_by_kernel_on_the_originals_scale():
    figure = draw_filters(WEIGHT, {"rank 1": nearest(1), "rank 4": nearest(4)})
    for axes, bank in zip(figure.axes, (WEIGHT, nearest(1), nearest(4)), strict=True):
        assert torch.equal(kernels(axes, 6, 4, 3, 3), bank)
        assert axes.get_xlabel() == "input channel"
    assert figure.axes[0].get_ylabel() == "filter"
    reach = np.quantile(WEIGHT.abs().numpy(), 0.99)
    for axes in figure.axes:
        assert axes.images[0].get_clim() == pytest.approx((-reach, reach))
        assert axes.images[0].to_rgba(np.array([[-9.0, 0.0, 9.0]]))[0, :, 0] == pytest.approx(
            [0, 0.5, 1], abs=0.01
        )
    assert f"black −{reach:.2g}, mid-grey 0, white +{reach:.2g}" in figure.get_supxlabel()


def test_each_title_has_the_error_of_the_whole_bank_and_also_a_copy_has_one():
    figure = draw_filters(WEIGHT, {"rank 1": nearest(1), "original": WEIGHT}, corner=2)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["original", f"rank 1: error {distance(1):.1%}", "original: error 0.0%"]


def test_a_large_bank_is_drawn_by_its_first_kernels_with_lines_between_them():
    weight = torch.rand(10, 9, 3, 5)
    figure = draw_filters(weight, {"half": weight / 2}, corner=4)
    axes = figure.axes[1]
    assert pixels(axes).shape == (12, 20)
    assert torch.equal(kernels(axes, 4, 4, 3, 5), weight[:4, :4] / 2)
    across, down = (lines.get_segments() for lines in axes.collections)
    assert [(first[1], last[1]) for first, last in across] == [(2.5, 2.5), (5.5, 5.5), (8.5, 8.5)]
    assert [(first[0], last[0]) for first, last in down] == [(4.5, 4.5), (9.5, 9.5), (14.5, 14.5)]
    assert list(axes.get_xticks()) == [2, 17]  # the middles of the first and of the last
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "3"]
    assert figure.get_supxlabel().startswith("the first 4 × 4 of 10 × 9 kernels; weight: black")


def test_no_version_and_one_of_another_shape_are_refused():
    with pytest.raises(CompressionError, match=r"at least one filter bank, got none; try \{'rank 4'"):
        draw_filters(WEIGHT, {})
    with pytest.raises(
        CompressionError, match=r"\(6, 4, 3, 3\), got \(6, 36\) for 'flat'; .*view_as\(weight"
    ):
        draw_filters(WEIGHT, {"flat": WEIGHT.flatten(1)})


@pytest.mark.parametrize("weight", [torch.ones(6, 4), torch.zeros(2, 2, 3, 3)])
@pytest.mark.parametrize(
    "draw",
    [lambda w: draw_filters(w, {"a": w}), lambda w: draw_filters_at_rank(w, rank=1), explore_filters],
)
def test_a_weight_that_is_no_convolutions_or_all_zero_is_refused(draw, weight):
    with pytest.raises(CompressionError, match=r"not all 0, got \(.*\); give the weight of a trained Conv2d"):
        draw(weight)


# one rank, and what every rank costs


def test_the_bank_beside_the_original_is_its_nearest_one_of_this_rank():
    whole, bank, *_ = draw_filters_at_rank(WEIGHT, rank=2).axes
    assert torch.equal(kernels(whole, 6, 4, 3, 3), WEIGHT)
    assert torch.allclose(kernels(bank, 6, 4, 3, 3), nearest(2), atol=1e-5)
    assert whole.get_title() == "original, rank 6"
    assert bank.get_title() == f"rank 2: error {distance(2):.1%}"


def test_the_curves_have_every_ranks_error_and_weights_and_this_ones_is_ringed():
    *_, above, below = draw_filters_at_rank(WEIGHT, rank=2).axes
    errors, shares = [100 * distance(r) for r in range(7)], [100 * r * (6 + 36) / (6 * 36) for r in range(7)]
    for axes, curve in ((above, errors), (below, shares)):
        line, ring, _ = axes.lines[:3]
        assert list(line.get_xdata()) == list(range(7))
        assert list(line.get_ydata()) == pytest.approx(curve, abs=1e-3)
        assert (ring.get_xdata()[0], ring.get_ydata()[0]) == pytest.approx((2, curve[2]))
        assert ring.get_fillstyle() == "none"
        assert "%" in axes.get_ylabel()
    assert below.get_xlabel() == "rank (ringed: 2, 39 % of the weights)"


def test_the_whole_bank_is_dashed_and_crosses_the_factors_at_the_break_even_rank():
    *_, above, below = draw_filters_at_rank(WEIGHT, rank=2).axes
    dotted = [axes.lines[2] for axes in (above, below)]
    assert [line.get_linestyle() for line in dotted] == [":", ":"]
    places = [line.get_xdata()[0] for line in dotted]
    assert places == pytest.approx([6 * 36 / 42] * 2)
    ranks, shares = below.lines[0].get_data()
    assert np.interp(places[1], ranks, shares) == pytest.approx(below.lines[3].get_ydata()[0])
    assert below.lines[3].get_linestyle() == "--"
    assert [text.get_text() for text in (*above.texts, *below.texts)] == ["break-even 5.1 ", "the whole bank"]


@pytest.mark.parametrize("rank", [0, 7])
def test_a_rank_that_the_bank_has_not_is_refused(rank):
    with pytest.raises(CompressionError, match=f"from 1 to 6 for a matrix of 6 by 36, got {rank}; try 2"):
        draw_filters_at_rank(WEIGHT, rank=rank)


@pytest.mark.parametrize("shape", [(1, 1, 3, 3), (5, 1, 1, 1), (2, 3, 1, 1)])
def test_the_smallest_banks_are_drawn_too(shape):
    draw_filters_at_rank(torch.ones(shape), rank=1).draw_without_rendering()


def test_the_widget_begins_with_its_static_twin_and_redraws_for_each_rank():
    slider, picture = explore_filters(WEIGHT, corner=3).children
    assert (slider.min, slider.value, slider.max) == (1, 1, 6)
    assert not slider.continuous_update  # one picture where the slider is let go, not one a step
    seen = []
    for rank in (1, 3, 6):
        slider.value = rank
        twin = io.BytesIO()
        draw_filters_at_rank(WEIGHT, rank=rank, corner=3).savefig(twin, format="png", dpi=80)
        assert bytes(picture.value) == twin.getvalue()
        seen.append(twin.getvalue())
    assert len({*seen}) == 3


# the plan

FULL = {"stem": 9, "conv": 16, "head": 10}
PLANS = {"by energy": {"conv": 8, "stem": 3}, "uniform": {"stem": 9, "conv": 4, "head": 1}}


def test_each_bar_is_its_layers_share_and_has_its_rank_beside_it():
    energy, uniform = draw_rank_plan(PLANS, full=FULL).axes
    assert [bar.get_width() for bar in energy.patches] == pytest.approx([100 * 3 / 9, 50, 100])
    assert [bar.get_width() for bar in uniform.patches] == pytest.approx([100, 25, 10])
    assert [text.get_text() for text in energy.texts] == ["3 of 9", "8 of 16", "whole"]
    assert [text.get_text() for text in uniform.texts] == ["9 of 9", "4 of 16", "1 of 10"]
    assert [axes.get_title() for axes in (energy, uniform)] == [*PLANS]


def test_only_a_layer_that_is_left_whole_is_hatched_and_the_full_rank_is_dashed():
    figure = draw_rank_plan(PLANS, full=FULL)
    assert [[bool(bar.get_hatch()) for bar in axes.patches] for axes in figure.axes] == [
        [False, False, True],
        [False, False, False],
    ]
    for axes in figure.axes:
        (line,) = axes.lines
        assert (line.get_xdata()[0], line.get_linestyle()) == (100, "--")
    assert figure.get_supxlabel() == "rank kept, % of the full rank (hatched: the layer is left whole)"


def test_the_layers_are_named_from_the_top_down():
    axes = draw_rank_plan(PLANS, full=FULL).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [*FULL]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert axes.get_ylabel() == "layer"


@pytest.mark.parametrize(("plans", "full", "came"), [({}, FULL, "0 and 3"), (PLANS, {}, "2 and 0")])
def test_no_plan_and_no_layer_are_refused(plans, full, came):
    with pytest.raises(
        CompressionError, match=f"at least one plan and one layer, got {came}; give .'by energ"
    ):
        draw_rank_plan(plans, full=full)


@pytest.mark.parametrize(
    ("ranks", "says"),
    [
        ({"stem": 10}, "a rank is 1 to 9, got 10 for 'stem' in 'odd'; take the plan and the full ranks from"),
        ({"head": 0}, "a rank is 1 to 10, got 0 for 'head' in 'odd'"),
        ({"tail": 2}, "a rank is of a layer in stem, conv, head, got 2 for 'tail' in 'odd'"),
    ],
)
def test_a_rank_that_a_layer_has_not_is_refused(ranks, says):
    with pytest.raises(CompressionError, match=says):
        draw_rank_plan({"odd": ranks}, full=FULL)


def test_nothing_of_a_figure_is_left_open_and_no_tensor_is_changed():
    weight, spectrum = WEIGHT.clone().requires_grad_(), TRAINED["stem"].clone().requires_grad_()
    before = len(plt.get_fignums())
    draw_spectra({"stem": spectrum}, {"stem": spectrum})
    draw_filters(weight, {"half": weight / 2})
    draw_filters_at_rank(weight, rank=2)
    explore_filters(weight)
    assert len(plt.get_fignums()) == before
    assert torch.equal(weight, WEIGHT)
    assert torch.equal(spectrum, TRAINED["stem"])
