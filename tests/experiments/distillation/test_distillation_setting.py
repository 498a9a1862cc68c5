"""Few labels: who gets to see which label, and in which order the views lie."""

import dataclasses

import pytest
import torch

from compresslab.data.images import Images, Splits
from compresslab.errors import CompressionError
from compresslab.experiments.distillation.setting import few_labels, of_classes
from compresslab.techniques.distillation.offline import Knowledge
from compresslab.techniques.distillation.response import UNLABELLED
from compresslab.training.loop import BATCH_SIZE

GREYS = torch.arange(0, 200, 10, dtype=torch.uint8)  # one an image: 0 … 190


def plain(n=20):
    """Images of one grey each, so that a view tells which image it is of: grey 10 · number."""
    return Images(GREYS[:n].reshape(n, 1, 1, 1).repeat(1, 1, 28, 28), torch.arange(n) % 10)


def grey(pixels):
    """The grey of most pixels of each view: a shift adds black at the edges, an erasure a little noise."""
    return pixels[:, 0, 2:26, 2:26].flatten(1).mode(dim=1).values


@pytest.fixture
def data():
    return Splits(plain(), plain(5), plain(5))


@pytest.fixture
def setting(data):
    return few_labels(data, labelled=6, unlabelled=10, views=(3, 2))


def test_no_label_of_the_unlabelled_images_is_left_anywhere(data, setting):
    assert setting.unlabelled.labels.tolist() == [UNLABELLED] * 10
    assert setting.views.labels[18:].tolist() == [UNLABELLED] * 20
    given = [
        t
        for images in (setting.views, setting.labelled, setting.unlabelled)
        for t in vars(images).values()
        if t.dtype == torch.int64
    ]
    told = torch.cat(given)
    assert (told != UNLABELLED).sum() == 2 * 18  # those of the labelled views and images, and no other
    torch.manual_seed(0)
    others = dataclasses.replace(data.train, labels=data.train.labels.clone())
    others.labels[6:] = torch.randint(10, (14,))  # what nobody may know
    again = few_labels(Splits(others, data.validation, None), labelled=6, unlabelled=10, views=(3, 2))
    for name in ("views", "labelled", "unlabelled"):
        assert torch.equal(getattr(again, name).labels, getattr(setting, name).labels)
        assert torch.equal(getattr(again, name).pixels, getattr(setting, name).pixels)


def test_labelled_and_unlabelled_images_are_others(setting):
    with_label = set(grey(setting.labelled.pixels).tolist())
    without = set(grey(setting.unlabelled.pixels).tolist())
    assert with_label == set(range(0, 60, 10))
    assert without == set(range(60, 160, 10))


def test_views_lie_image_after_image_round_after_round_the_labelled_first(setting):
    numbers = grey(setting.views.pixels).tolist()
    assert numbers == 3 * list(range(0, 60, 10)) + 2 * list(range(60, 160, 10))
    assert setting.views.labels[:18].tolist() == 3 * list(range(6))


def test_the_labelled_images_are_there_as_often_as_they_have_views_and_untouched(data, setting):
    assert setting.labelled.labels.tolist() == 3 * list(range(6))
    assert torch.equal(setting.labelled.pixels, data.train.pixels[:6].repeat(3, 1, 1, 1))
    assert torch.equal(setting.unlabelled.pixels, data.train.pixels[6:16])
    assert setting.validation is data.validation


def test_a_setting_comes_again_the_same(data, setting):
    again = few_labels(data, labelled=6, unlabelled=10, views=(3, 2))
    assert torch.equal(again.views.pixels, setting.views.pixels)


def test_steps_are_the_batches_of_all_passes(setting):
    assert dataclasses.replace(setting, passes=5).steps == 5
    n = BATCH_SIZE + 1
    many = Images(torch.zeros(n, 1, 28, 28, dtype=torch.uint8), torch.zeros(n, dtype=torch.long))
    assert dataclasses.replace(setting, views=many, passes=5).steps == 10


def test_what_is_set_is_kept(data):
    settings = {"passes": 7, "learning_rate": 0.3, "precision": torch.bfloat16}
    setting = few_labels(data, labelled=6, unlabelled=10, views=(1, 1), **settings)
    assert {name: getattr(setting, name) for name in settings} == settings


def test_a_setting_with_a_teacher_hands_out_what_it_knows_and_one_without_says_so(setting):
    knowledge = Knowledge(torch.zeros(2, 10), torch.zeros(2, 4))
    assert dataclasses.replace(setting, knowledge=knowledge).taught is knowledge
    text = (
        r"^this method learns from a teacher, and the setting has knowledge None; give it some: "
        r"dataclasses\.replace\(setting, knowledge=know\(teacher, setting\.views\)\)$"
    )
    with pytest.raises(CompressionError, match=text):
        _ = setting.taught


@pytest.mark.parametrize(("labelled", "unlabelled"), [(0, 5), (5, 0), (15, 6), (-1, 3)])
def test_more_images_than_there_are_or_none_are_refused(data, labelled, unlabelled):
    text = rf"^labelled and unlabelled images come out of 20, got {labelled} and {unlabelled}; try 3 and 10$"
    with pytest.raises(CompressionError, match=text):
        few_labels(data, labelled=labelled, unlabelled=unlabelled)


def test_all_images_may_be_used(data):
    assert len(few_labels(data, labelled=5, unlabelled=15, views=(1, 1)).views) == 20


def test_no_view_is_refused(data):
    with pytest.raises(CompressionError, match="count must be a whole number from 1 up, got 0"):
        few_labels(data, labelled=5, unlabelled=5, views=(1, 0))


def test_images_of_some_classes_are_those_and_keep_their_order():
    some = of_classes(plain(), (3, 1))
    assert some.labels.tolist() == [1, 3, 1, 3]
    assert grey(some.pixels).tolist() == [10, 30, 110, 130]
