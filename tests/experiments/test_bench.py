"""What every long run is given: some training images, its settings, and chance that is its seed's."""

import pytest
import torch

from compresslab.data.images import Images, Splits
from compresslab.experiments import bench as page
from compresslab.experiments.bench import Bench, Job, perform

NOISE = torch.randint(0, 256, (300, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
ALL = Images(NOISE, torch.arange(300) % 10)
DATA = Splits(ALL, ALL.first(60), ALL.first(80))


@pytest.fixture(autouse=True)
def small_world(monkeypatch):
    """A few images of noise for the data, and nothing cached of other tests."""
    monkeypatch.setattr(page, "fast_precision", lambda: torch.float32)
    monkeypatch.setattr(page, "fashion_mnist", lambda: DATA)
    page._data.cache_clear()
    yield
    page._data.cache_clear()


def test_some_images_are_drawn_by_the_seed_and_none_of_them_twice(tmp_path):
    bench = Bench(DATA, tmp_path)

    def rows(images):
        pairs = zip(images.pixels, images.labels, strict=True)
        return [(pixels.numpy().tobytes(), int(label)) for pixels, label in pairs]

    some = rows(bench.some(200, 1))
    assert len(set(some)) == len(some) == 200
    assert set(some) < set(rows(DATA.train))
    assert rows(bench.some(50, 1)) == some[:50]
    assert rows(bench.some(200, 2)) != some
    assert len(bench.some(10_000, 1)) == len(DATA.train)


def test_performing_a_job_runs_it_on_the_bench_with_its_settings_and_chance_of_its_seed(tmp_path):
    def found(bench, key, *, seed, more):
        return {"key": key, "more": more, "drawn": torch.rand(()).item(), "images": len(bench.data.test)}

    job = Job("a/b/3", found, {"seed": 3, "more": 1})
    one, other = perform(job, tmp_path), perform(job, tmp_path)
    assert one.pop("seconds") >= 0
    assert one == {"key": "a/b/3", "more": 1, "drawn": other["drawn"], "images": 80}
    assert perform(Job("a/b/4", found, {"seed": 4, "more": 1}), tmp_path)["drawn"] != other["drawn"]


def test_trying_out_takes_one_epoch_over_a_few_images(tmp_path, monkeypatch):
    asked = {"epochs": 7, "learning_rate": 0.3, "seed": 4}
    assert Bench(DATA, tmp_path).training(**asked) == asked | {"precision": torch.float32}
    assert Bench(DATA, tmp_path, small=True).training(**asked)["epochs"] == 1
    many = Images(torch.zeros(1200, 1, 28, 28, dtype=torch.uint8), torch.zeros(1200, dtype=torch.int64))
    monkeypatch.setattr(page, "fashion_mnist", lambda: Splits(many, many, many))
    small = page._data(True)
    assert [len(part) for part in vars(small).values()] == [1000, 500, 100]
    assert len(page._data(False).train) == 1200


def test_a_glance_is_at_the_first_test_images(tmp_path):
    assert torch.equal(Bench(DATA, tmp_path).glance().pixels, DATA.test.pixels)
    many = Images(torch.zeros(4100, 1, 28, 28, dtype=torch.uint8), torch.arange(4100))
    assert torch.equal(Bench(Splits(ALL, ALL, many), tmp_path).glance().labels, torch.arange(4000))
