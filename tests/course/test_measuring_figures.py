"""The pictures show the numbers that they were given, with labelled axes."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from compresslab.course.figures.guesses import draw_guesses
from compresslab.course.measuring.figures import (
    convolution_cost,
    draw_classes,
    draw_convolution_cost,
    draw_ratios,
)
from compresslab.data.images import Images
from compresslab.errors import CompressionError
from compresslab.measurement.costs import count_macs, count_parameters
from compresslab.measurement.statistics import Interval


def words(figure: Figure) -> str:
    axes = figure.axes[0]
    texts = [*axes.texts, axes.title, axes.xaxis.label, *axes.get_yticklabels()]
    return " | ".join(text.get_text() for text in texts)


def test_a_guess_stands_beside_what_was_measured():
    figure = draw_guesses(
        {"file": np.float32(10), "time": np.int64(4)}, {"file": 1.0, "time": Interval(1.31, 1.2, 1.4)}
    )
    for expected in ("10×", "1.00×", "4×", "1.31×", "file", "time", "95 % interval"):
        assert expected in words(figure)


@pytest.mark.parametrize("guess", [0, -1.0, None, "ten", float("inf"), float("nan"), True])
def test_a_guess_that_is_no_positive_number_is_refused(guess):
    with pytest.raises(CompressionError, match=r"a guess is a positive number .*, got .* for 'file'"):
        draw_guesses({"file": guess}, {"file": 1.0})


@pytest.mark.parametrize(
    "settings",
    [{}, {"kernel": 1}, {"kernel": 5, "stride": 2}, {"stride": 4}, {"groups": 16}, {"groups": 4, "size": 15}],
)
def test_the_costs_of_a_convolution_are_those_of_a_real_one(settings):
    cost = convolution_cost(channels=16, **settings)
    kernel, stride, groups = (settings.get(k, d) for k, d in (("kernel", 3), ("stride", 1), ("groups", 1)))
    layer = torch.nn.Conv2d(16, 16, kernel, stride, kernel // 2, groups=groups, bias=False)
    size = settings.get("size", 28)
    image = torch.zeros(1, 16, size, size)
    assert cost["weights"] == count_parameters(layer)
    assert cost["MACs"] == count_macs(layer, image)
    assert cost["output numbers"] == layer(image).numel()


def test_the_convolution_is_drawn_with_its_numbers_and_its_factors():
    said = words(draw_convolution_cost(channels=32, stride=2))
    for expected in ("9,216  (4×)", "1,806,336  (1×)", "6,272  (0.5×)", "32 channels", "stride 2"):
        assert expected in said


def test_each_estimate_is_a_dot():
    figure = draw_ratios({"one": [0.9, 1.2], "two": [1.0, 1.0, 1.1]})
    dots = [
        line.get_xdata().tolist() if hasattr(line.get_xdata(), "tolist") else list(line.get_xdata())
        for line in figure.axes[0].lines
    ]
    assert dots[:2] == [[0.9, 1.2], [1.0, 1.0, 1.1]]
    assert "the truth, 1" in words(figure)


def test_one_image_of_each_class_is_shown():
    pixels = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).expand(20, 1, 28, 28)
    figure = draw_classes(Images(pixels, torch.arange(20) % 10))
    shown = [int(axes.images[0].get_array().max()) for axes in figure.axes]
    assert shown == list(range(10))
    assert figure.axes[8].get_title() == "Bag"
