"""A recipe is followed, and the card says what came of it."""

import dataclasses
import datetime

import pytest
import torch
from test_loop import bright_images, same, stop_at

from compresslab.data.images import Splits
from compresslab.errors import CompressionError
from compresslab.models.pretrained import ARCHITECTURES, load_baseline, read_card
from compresslab.models.residual import Mirrored
from compresslab.training import recipes
from compresslab.training.loop import accuracy
from compresslab.training.recipes import RECIPES, Recipe, train_baseline

DATA = Splits(train=bright_images(200, 1), validation=bright_images(50, 2), test=bright_images(70, 3))
QUICK = Recipe(epochs=2, learning_rate=0.05, label_smoothing=0.1, seed=4)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("baselines") / "new"
    return folder, train_baseline("student", DATA, folder=folder, recipe=QUICK)


def test_every_shipped_network_has_a_recipe():
    assert set(RECIPES) == set(ARCHITECTURES)


@pytest.mark.parametrize("name", RECIPES)
def test_the_shipped_weights_were_trained_by_the_recipe_that_is_here(name):
    assert read_card(name)["recipe"] == dataclasses.asdict(RECIPES[name])


def test_the_weights_and_the_card_lie_in_the_folder_and_no_checkpoint(made):
    folder, card = made
    assert sorted(place.name for place in folder.iterdir()) == ["student.json", "student.safetensors"]
    assert read_card("student", folder=folder) == card


def test_the_card_says_what_the_weights_reach(made):
    folder, card = made
    model = load_baseline("student", folder=folder)
    assert card["validation_accuracy"] == accuracy(model, DATA.validation)
    assert card["test_accuracy"] == accuracy(model, DATA.test)
    assert card["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    settings = {"epochs": 2, "learning_rate": 0.05, "label_smoothing": 0.1, "seed": 4}
    assert card["recipe"] == settings | {"augmented": True}
    assert len(card["history"]) == 2
    assert card["torch"] == torch.__version__
    assert datetime.date.fromisoformat(card["date"]) <= datetime.date.today()


def test_training_again_gives_the_same_network(made, tmp_path):
    train_baseline("student", DATA, folder=tmp_path, recipe=QUICK)
    assert same(load_baseline("student", folder=tmp_path), load_baseline("student", folder=made[0]))


def test_an_interrupted_training_goes_on(made, tmp_path, monkeypatch):
    steps_of_an_epoch = 2

    def interrupted(*arguments, **settings):
        return fit(*arguments, **settings, after_step=stop_at(steps_of_an_epoch + 1))

    fit = recipes.fit
    monkeypatch.setattr(recipes, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_baseline("student", DATA, folder=tmp_path, recipe=QUICK)
    monkeypatch.setattr(recipes, "fit", fit)
    assert [place.name for place in tmp_path.iterdir()] == ["student.checkpoint.safetensors"]
    train_baseline("student", DATA, folder=tmp_path, recipe=QUICK)
    assert same(load_baseline("student", folder=tmp_path), load_baseline("student", folder=made[0]))


def test_a_mirrored_network_learns_without_the_mirror_and_is_kept_with_it(tmp_path, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "teacher", lambda: Mirrored(ARCHITECTURES["student"]()))
    card = train_baseline("teacher", DATA, folder=tmp_path / "teacher", recipe=QUICK)
    train_baseline("student", DATA, folder=tmp_path / "student", recipe=QUICK)
    mirrored = load_baseline("teacher", folder=tmp_path / "teacher")
    plain = load_baseline("student", folder=tmp_path / "student")
    assert same(mirrored.network, plain)
    assert card["validation_accuracy"] == accuracy(mirrored, DATA.validation)
    assert card["history"] == read_card("student", folder=tmp_path / "student")["history"]


def test_an_unknown_name_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(
        CompressionError, match="name must be one of baseline, teacher, student, mlp, got 'resnet'"
    ):
        train_baseline("resnet", DATA, folder=tmp_path)
