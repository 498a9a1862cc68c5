"""A widget shows what its static twin draws, and draws again when a slider moves."""

import ipywidgets

from compresslab.course.figures.sliders import explore
from compresslab.course.measuring.figures import draw_convolution_cost, explore_convolution


def picture_of(box: ipywidgets.VBox) -> bytes:
    return bytes(box.children[-1].value)


def test_moving_a_slider_redraws_the_picture():
    drawn = []

    def draw(*, channels):
        drawn.append(channels)
        return draw_convolution_cost(channels=channels)

    slider = ipywidgets.SelectionSlider(options=[16, 32], value=16)
    box = explore(draw, channels=slider)
    before = picture_of(box)
    slider.value = 32
    assert drawn == [16, 32]
    assert before.startswith(b"\x89PNG")
    assert picture_of(box) != before


def test_the_convolution_widget_has_a_slider_for_each_setting_and_survives_every_corner():
    box = explore_convolution()
    sliders = {child.description: child for child in box.children[:-1]}
    assert set(sliders) == {"channels", "kernel", "stride", "groups"}
    for slider in sliders.values():
        slider.value = slider.options[-1]
    assert picture_of(box).startswith(b"\x89PNG")
