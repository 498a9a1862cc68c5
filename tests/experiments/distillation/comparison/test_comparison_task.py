"""The two tasks: who sees which label, and which views a shorter task has."""

import pytest
import torch

from compresslab.data.images import Images, Splits
from compresslab.experiments.distillation.comparison.task import (
    ALL_LABELS,
    FEW_LABELS,
    TASKS,
    Size,
    draw_task,
)
from compresslab.techniques.distillation.response import UNLABELLED

GREYS = torch.arange(0, 200, 10, dtype=torch.uint8)  # one an image: 0 … 190
IMAGES = Images(GREYS.reshape(20, 1, 1, 1).repeat(1, 1, 28, 28), torch.arange(20) % 10)
DATA = Splits(IMAGES, IMAGES.first(5), None)
ALL, FEW = Size(8, 0, 2, 0), Size(6, 10, 3, 2)


def grey(images):
    """The grey of most pixels of each view: a shift adds black at the edges, an erasure a little noise."""
    return images.pixels[:, 0, 2:26, 2:26].flatten(1).mode(dim=1).values.tolist()


def test_with_all_labels_every_method_sees_the_same_labelled_views():
    task = draw_task(DATA, ALL)
    assert task.labelled is task.views
    assert grey(task.views) == 6 * list(range(0, 80, 10))
    assert task.views.labels.tolist() == 6 * list(range(8))
    assert len(task.unlabelled) == 0


def test_with_few_labels_no_other_label_is_left_anywhere():
    task = draw_task(DATA, FEW)
    assert grey(task.views) == 9 * list(range(0, 60, 10)) + 6 * list(range(60, 160, 10))
    assert task.views.labels.tolist() == 9 * list(range(6)) + 60 * [UNLABELLED]
    assert torch.equal(task.unlabelled.pixels, IMAGES.pixels[6:16])
    assert task.unlabelled.labels.tolist() == 10 * [UNLABELLED]


def test_a_student_alone_sees_as_many_views_all_of_labelled_images():
    task = draw_task(DATA, FEW)
    assert set(grey(task.labelled)) == set(range(0, 60, 10))
    assert task.labelled.labels.tolist() == len(task.labelled) // 6 * list(range(6))
    assert 0 <= len(task.views) - len(task.labelled) < 6


@pytest.mark.parametrize("size", [ALL, FEW])
def test_the_views_of_a_shorter_task_are_the_first_of_a_longer_one(size):
    short, long = (draw_task(DATA, size, thirds=thirds) for thirds in (1, 3))
    count = size.labelled * size.labelled_views
    assert len(long.views) == 3 * len(short.views)
    assert torch.equal(long.views.pixels[:count], short.views.pixels[:count])
    assert torch.equal(long.labelled.pixels[:count], short.labelled.pixels[:count])


def test_a_task_comes_again_the_same_and_its_learning_rate_is_the_trainings():
    one, other = draw_task(DATA, FEW), draw_task(DATA, FEW)
    assert torch.equal(one.views.pixels, other.views.pixels)
    settings = {"learning_rate": 0.1, "precision": torch.float32, "seed": 4}
    assert one.training(4) == settings


def test_both_tasks_have_the_same_images_and_one_has_a_label_for_each():
    assert {size.labelled + size.unlabelled for size in TASKS.values()} == {12_000}
    assert [TASKS[name].labelled for name in (ALL_LABELS, FEW_LABELS)] == [12_000, 500]
    assert 3 * TASKS[ALL_LABELS].labelled_views == 30
