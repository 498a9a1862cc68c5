"""Where the costs sit: a row and a bar for each layer that multiplies, one for each other kind."""

import pytest

from compresslab.errors import CompressionError
from compresslab.measurement.costs import LayerCost
from compresslab.measurement.layer_profile import draw_layers, layer_table


def layers(count):
    convolutions = [LayerCost(f"conv{i}", "Conv2d", (8, 9, 9), 10, 40, 100, 2592, 0.5) for i in range(count)]
    norms = [LayerCost(f"norm{i}", "BatchNorm2d", (8, 9, 9), 2, 8, 0, 2592, 0.25) for i in range(count)]
    return [layer for pair in zip(convolutions, norms, strict=True) for layer in pair]


def test_the_layers_picture_has_four_panels_whose_shares_sum_to_one_hundred():
    figure = draw_layers(layers(20))
    assert len(figure.axes) == 4
    for axes in figure.axes:
        assert sum(bar.get_width() for bar in axes.patches) == pytest.approx(100)
        assert axes.get_xlabel().endswith(", %")
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == [f"conv{i} (Conv2d)" for i in range(20)] + ["all BatchNorm2d (20)"]
    assert figure.axes[2].patches[-1].get_width() == 0  # norms cost no MACs
    assert figure.axes[3].patches[-1].get_width() == pytest.approx(100 / 3)
    assert figure.axes[2].get_title() == "MACs: 2,000"


def test_a_network_without_macs_can_be_drawn_and_no_layers_can_not():
    assert len(draw_layers([LayerCost("relu", "ReLU", (1,), 0, 0, 0, 4, 0.1)]).axes) == 4
    with pytest.raises(
        CompressionError, match=r"at least one layer, got none; layer_costs\(model, inputs\) makes them"
    ):
        draw_layers([])


def test_the_table_has_a_row_for_each_layer_with_macs_and_one_for_each_other_kind():
    table = layer_table(layers(3))
    assert [row[0] for row in table.rows] == [
        "conv0 (Conv2d)",
        "conv1 (Conv2d)",
        "conv2 (Conv2d)",
        "all BatchNorm2d (3)",
        "all layers",
    ]
    assert table.rows[0] == ("conv0 (Conv2d)", "10", "40", "100", "0.500")
    assert table.rows[-2] == ("all BatchNorm2d (3)", "6", "24", "0", "0.750")
    assert table.rows[-1] == ("all layers", "36", "144", "300", "2.250")
    with pytest.raises(CompressionError, match="at least one layer, got none"):
        layer_table([])
