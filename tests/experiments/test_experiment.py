"""What a run is given: its settings, some training images, and test images unless something is tuned."""

import pytest
import torch

from compresslab.data.images import Images, Splits
from compresslab.experiments import experiment as module
from compresslab.experiments.experiment import TUNING, Best, BestIs, Context, Run

NOISE = torch.randint(0, 256, (300, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
ALL = Images(NOISE, torch.arange(300) % 10)
DATA = Splits(ALL, ALL.first(60), ALL.first(80))


@pytest.fixture
def context(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "fast_precision", lambda: torch.float32)
    return Context(DATA, tmp_path, Run("networks/one/0", "make"))


def test_a_sample_is_drawn_by_the_seed_and_no_image_twice(context):
    def rows(images):
        pairs = zip(images.pixels, images.labels, strict=True)
        return [(pixels.numpy().tobytes(), int(label)) for pixels, label in pairs]

    some = rows(context.sample(200, 1))
    assert len(set(some)) == len(some) == 200
    assert set(some) < set(rows(DATA.train))
    assert rows(context.sample(50, 1)) == some[:50]
    assert rows(context.sample(200, 2)) != some
    assert len(context.sample(10_000, 1)) == len(DATA.train)


def test_curves_use_the_first_test_images(context, tmp_path):
    assert torch.equal(context.first_test_images().pixels, DATA.test.pixels)
    many = Images(torch.zeros(4100, 1, 28, 28, dtype=torch.uint8), torch.arange(4100))
    first = Context(Splits(ALL, ALL, many), tmp_path, context.run).first_test_images()
    assert torch.equal(first.labels, torch.arange(4000))


def test_trying_out_takes_one_epoch(context, tmp_path):
    asked = {"epochs": 7, "learning_rate": 0.3, "seed": 4}
    assert context.training(**asked) == asked | {"precision": torch.float32}
    assert Context(DATA, tmp_path, context.run, small=True).training(**asked)["epochs"] == 1


def test_the_best_is_chosen_by_validation_alone_and_is_the_first_of_equals():
    accuracies = {"tries/a/100": 0.7, "tries/b/100": 0.9, "tries/c/100": 0.9}
    results = {key: {"rate": key, "validation_accuracy": a} for key, a in accuracies.items()}
    best = Best("rate", tuple(accuracies))
    assert best.value(results) == "tries/b/100"
    for record, test in zip(results.values(), (0.99, 0.1, 0.5), strict=True):
        record["test_accuracy"] = test
    assert best.value(results) == "tries/b/100"


def test_the_best_is_one_of_the_runs_that_were_needed():
    best = Best("rate", ("tries/a/100", "tries/b/100"))
    results = {"tries/b/100": {"rate": 0.2, "validation_accuracy": 0.9}}
    assert best.value(results) == 0.2
    assert [BestIs(edge, best).value(results) for edge in (0.2, 0.1)] == [True, False]
    assert BestIs(0.2, best).after == best.after


def test_a_run_depends_on_what_decides_its_settings_and_on_what_it_names():
    tries = (f"{TUNING}/x/100", f"{TUNING}/y/100")
    run = Run("methods/x/0", "teach", {"epochs": 2}, 0, {"rate": Best("rate", tries)}, after=("teacher",))
    assert run.depends_on == {*tries, "teacher"}
    assert Run("x", "teach", needed=BestIs(1, Best("rate", tries))).depends_on == {*tries}
    results = {key: {"rate": n, "validation_accuracy": n} for n, key in enumerate(tries)}
    assert run.resolve(results) == {"epochs": 2, "rate": 1, "seed": 0}
    assert Run("scan", "scan", {"images": 5}).resolve({}) == {"images": 5}
