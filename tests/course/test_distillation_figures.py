"""The pictures of lab 02 show what the networks know: probabilities, attention and similarities."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from compresslab.course.distillation.figures import (
    draw_attention,
    draw_relations,
    draw_soft_targets,
    draw_soft_targets_at,
    explore_soft_targets,
)
from compresslab.data.fashion_mnist import CLASSES
from compresslab.errors import CompressionError

RANDOM = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 256, (3, 1, 28, 28), generator=RANDOM).to(torch.uint8)
LOGITS = 4 * torch.randn(3, 10, generator=RANDOM)


def bars(axes) -> tuple[list[float], list[float]]:
    """The widths of the filled bars and of the outlines, class by class."""
    filled = [bar.get_width() for bar in axes.patches if bar.get_fill()]
    return filled, [bar.get_width() for bar in axes.patches if not bar.get_fill()]


@pytest.mark.parametrize("temperature", [0.5, 1, 4.0, 20])
def test_the_bars_are_the_softmax_at_the_temperature_and_the_outlines_at_one(temperature):
    figure = draw_soft_targets(IMAGES[0], LOGITS[0], temperature=temperature)
    image, axes = figure.axes
    filled, outlined = bars(axes)
    z = LOGITS[0].double().numpy()
    assert filled == pytest.approx(np.exp(z / temperature) / np.exp(z / temperature).sum(), rel=1e-5)
    assert outlined == pytest.approx(np.exp(z) / np.exp(z).sum(), rel=1e-5)
    assert [label.get_text() for label in axes.get_yticklabels()] == list(CLASSES)
    assert [text.get_text().strip() for text in axes.texts] == [f"{share:.3f}" for share in filled]
    assert (axes.get_xlabel(), f"T = {temperature:g}" in axes.get_title()) == ("probability", True)
    assert CLASSES[int(LOGITS[0].argmax())] in image.get_title()
    assert (image.images[0].get_array() == IMAGES[0, 0].numpy()).all()


def test_the_static_twin_has_a_panel_for_each_temperature_and_hotter_is_more_even():
    _, *panels = draw_soft_targets_at(IMAGES[1], LOGITS[1], temperatures=(1, 4, 16)).axes
    shares = [torch.tensor(bars(axes)[0]) for axes in panels]
    assert [axes.get_title().split("   ")[0] for axes in panels] == ["T = 1", "T = 4", "T = 16"]
    entropies = [float(torch.special.entr(p).sum()) for p in shares]
    assert entropies == sorted(entropies)
    assert bars(panels[0])[0] == bars(panels[0])[1]  # at T = 1 the bars fill their outlines
    assert all(axes.yaxis_inverted() for axes in panels)  # the first class is on top, beside its name


def test_soft_targets_of_a_batch_and_of_no_temperature_are_refused():
    with pytest.raises(CompressionError, match=r"of shape \(10,\), got \(3, 10\); take one row of a batch"):
        draw_soft_targets(IMAGES[0], LOGITS)
    with pytest.raises(CompressionError, match="temperature"):
        draw_soft_targets(IMAGES[0], LOGITS[0], temperature=0)


def test_the_widget_redraws_for_each_image_and_temperature_up_to_its_corners():
    box = explore_soft_targets(IMAGES, LOGITS)
    image, temperature, picture = box.children
    assert (image.min, image.max, temperature.min, temperature.max) == (0, 2, 1, 20)
    seen = {bytes(picture.value)}
    for slider, value in ((image, 2), (temperature, 20)):
        slider.value = value
        seen.add(bytes(picture.value))
    assert len(seen) == 3


@pytest.mark.parametrize(("images", "logits"), [(3, 2), (0, 0)])
def test_the_widget_wants_a_row_of_logits_for_each_image(images, logits):
    with pytest.raises(CompressionError, match=f"got {images} images and {logits} rows; give the logits of"):
        explore_soft_targets(IMAGES[:images], LOGITS[:logits])


def test_each_map_is_enlarged_over_the_image_row_by_row():
    corner = torch.zeros(16)
    corner[3] = 0.1  # the last place of the first row
    figure = draw_attention(IMAGES[0].float(), {"teacher": corner, "student": torch.ones(4)})
    axes = figure.axes[1]
    assert axes.images[0].get_array()[0, 3] == axes.images[0].get_array().max() > 0
    assert axes.images[0].get_extent() == [-0.5, 27.5, 27.5, -0.5]  # the pixels' own: the outline fits on it
    assert axes.images[0].get_interpolation() in ("auto", "nearest", "antialiased")
    assert [panel.get_title() for panel in figure.axes[:3]] == ["image", "teacher (4 × 4)", "student (2 × 2)"]
    assert axes.collections  # the outline


def test_maps_of_all_sizes_and_lengths_share_one_scale_in_which_an_even_map_is_one():
    uneven = torch.tensor([3.0, 0, 0, 4])
    figure = draw_attention(IMAGES[0], {"a": torch.ones(49), "b": torch.full((4,), 0.01), "c": uneven})
    shown = [axes.images[0] for axes in figure.axes[1:4]]
    for even in shown[:2]:
        assert even.get_array().data == pytest.approx(np.ones(even.get_array().shape), rel=1e-6)
    assert shown[2].get_array().data == pytest.approx(np.array([[1.2, 0], [0, 1.6]]), rel=1e-6)
    assert all(image.get_clim() == pytest.approx((0, 1.6)) for image in shown)
    assert "1: spread evenly" in figure.axes[-1].get_ylabel()


@pytest.mark.parametrize("shape", [(50,), (0,), (7, 7)])
def test_a_map_that_is_no_square_in_a_row_is_refused(shape):
    with pytest.raises(CompressionError, match=r"a map is .*, got \(.*\) for 'student'; take one row"):
        draw_attention(IMAGES[0], {"student": torch.ones(shape)})


def test_relations_are_the_cosines_of_all_pairs_sorted_by_class():
    labels = torch.tensor([7, 0, 7, 3, 0])
    order = [1, 4, 3, 0, 2]
    embeddings = {"teacher": torch.randn(5, 6), "student": torch.randn(5, 2)}
    figure = draw_relations(embeddings, labels)
    for axes, (name, z) in zip(figure.axes, embeddings.items(), strict=False):
        wanted = [[float(F.cosine_similarity(z[i], z[j], dim=0)) for j in order] for i in order]
        assert axes.images[0].get_array().data == pytest.approx(np.array(wanted), abs=1e-6)
        assert axes.get_title() == name
    assert len({axes.images[0].get_clim() for axes in figure.axes[:2]}) == 1
    assert figure.axes[-1].get_ylabel() == "cosine similarity"


def test_classes_are_named_at_their_middles_and_parted_at_their_borders():
    axes = draw_relations({"teacher": torch.randn(5, 4)}, torch.tensor([7, 0, 7, 3, 0])).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["T-shirt/top", "Dress", "Sneaker"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["T-shirt/top", "Dress", "Sneaker"]
    assert list(axes.get_xticks()) == [0.5, 2, 3.5]
    borders = [line.get_ydata()[0] for line in axes.lines if line.get_ydata()[0] == line.get_ydata()[1]]
    assert borders == [1.5, 2.5]


@pytest.mark.parametrize("shape", [(4, 2), (5, 2, 2), (5,)])
def test_embeddings_without_a_label_each_are_refused(shape):
    with pytest.raises(CompressionError, match=r"got \(.*\) for 'student' and 5 labels; flatten all but"):
        draw_relations({"student": torch.ones(shape)}, torch.arange(5))


def test_tensors_with_a_gradient_can_be_drawn_and_are_left_alone():
    logits, z, map = (torch.randn(*s, requires_grad=True) for s in ((10,), (4, 3), (4,)))
    before = [t.detach().clone() for t in (logits, z, map)]
    draw_soft_targets(IMAGES[0], logits)
    draw_relations({"a": z}, torch.arange(4))
    draw_attention(IMAGES[0], {"a": map})
    assert all(torch.equal(a, b) for a, b in zip(before, (logits, z, map), strict=True))
