"""The bench that a long run works on, and one run as a worker process does it: settings in, findings out.

A run is a function of a bench (data, folder, whether everything is small to try it out), of its key and of
JSON values; it returns JSON values. Accuracies are fractions. Networks to keep go to the bench's folder.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from compresslab.data.fashion_mnist import fashion_mnist
from compresslab.data.images import Images, Splits
from compresslab.experiments.long_runs import run_missing, workers
from compresslab.training.loop import fast_precision

__all__ = ["Bench", "Job", "perform", "side_by_side"]


@dataclass(frozen=True)
class Bench:
    """What a run works with: data, where networks are kept, whether everything is small to try it out."""

    data: Splits
    folder: Path
    small: bool = False

    def some(self, count: int, seed: int) -> Images:
        """So many different training images (all, if there are fewer), drawn by the seed."""
        train = self.data.train
        index = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:count]
        return Images(train.pixels[index], train.labels[index])

    def glance(self) -> Images:
        """The first 4,000 test images (all, where there are fewer), for curves of many points."""
        return self.data.test.first(min(4000, len(self.data.test)))

    def training(self, *, epochs: int, learning_rate: float, seed: int) -> dict[str, Any]:
        """The settings of ``fit``: one epoch if everything is small, the precision that is fast here."""
        settings = {"epochs": 1 if self.small else epochs, "learning_rate": learning_rate, "seed": seed}
        return settings | {"precision": fast_precision()}

    def checkpoint(self, key: str) -> Path:
        """Where a run that is interrupted keeps its state."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{key.replace('/', '_')}.checkpoint"


@dataclass(frozen=True)
class Job:
    """One run: its name in the results, what runs, and with which settings (JSON values)."""

    key: str
    run: Callable[..., dict]
    settings: dict[str, Any] = field(default_factory=dict)


def perform(job: Job, folder: Path, small: bool = False) -> dict:
    """What a job found, and the seconds that it took.

    Args:
        job: what to run.
        folder: where its network is kept, if it is one to keep.
        small: a setting of a few images and one epoch, to try the whole thing out.
    """
    start = time.perf_counter()
    torch.manual_seed(job.settings.get("seed", 0))
    found = job.run(Bench(_data(small), folder, small), job.key, **job.settings)
    return found | {"seconds": round(time.perf_counter() - start, 1)}


@contextlib.contextmanager
def side_by_side(
    results: dict, place: Path, *, jobs: int | None = None, small: bool = False
) -> Iterator[Callable[[Iterable[Job]], None]]:
    """A function that runs those of some jobs which are missing among the results, and keeps what they find.

    Args:
        results: {key: found}, added to.
        place: the JSON file that keeps them; networks go to the folder of that name.
        jobs: how many runs side by side, by default one a processor.
        small: a setting of a few images, to try the whole thing out.
    """
    at_work = functools.partial(perform, folder=place.with_suffix(""), small=small)

    def settings(job: Job) -> dict:
        return {**job.settings, "small": small}

    with workers(jobs) as pool:

        def run(some: Iterable[Job]) -> None:
            run_missing(list(some), at_work, settings=settings, results=results, place=place, pool=pool)

        yield run


@functools.lru_cache(maxsize=1)
def _data(small: bool) -> Splits:
    data = fashion_mnist()
    return Splits(data.train.first(1000), data.validation.first(500), data.test.first(100)) if small else data
