"""The long runs of lab 02: ``compresslab train 02_distillation``.

Every method teaches the same student from three seeds, at the learning rate that did best on validation
among three tried at another seed; so does the student alone. Beside the table: more labels, other students,
other teachers, two unlike peers, transformers, and what the embeddings are worth on classes that nobody saw.
Each run is kept as soon as it ends, so an interrupted command goes on. Test images are read once for each run
that is reported, never to choose. About 40 minutes on two cores.

Written: ``data/results/02_distillation.json`` (every run: accuracies as fractions, seconds of one thread) and
``data/results/02_distillation/NAME.safetensors`` (the students of seed 0, the teacher of the seen classes and
the transformer). Runs go side by side, one thread each.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compresslab.data.images import Images, Splits
from compresslab.data.location import DATA
from compresslab.errors import BadSetting
from compresslab.experiments.distillation.methods import METHODS
from compresslab.experiments.distillation.runs import SEEN, SEEN_TEACHER, STUDENTS, TRANSFORMER, Job, perform
from compresslab.experiments.distillation.setting import of_classes
from compresslab.experiments.distillation.transformer import deep_transformer
from compresslab.experiments.long_runs import (
    load_whole,
    read_results,
    run_missing,
    save_whole,
    values_by_seed,
    workers,
    write_results,
)
from compresslab.measurement.statistics import gain_over_seeds
from compresslab.models.residual import baseline, student
from compresslab.training.loop import fast_precision, fit

__all__ = ["LAB", "load_results", "load_student", "run_experiments", "summary", "values"]

LAB = "02_distillation"
SEEDS, HELD_OUT_SEEDS, TRIED_AT = (0, 1, 2), (0, 1, 2, 3, 4), 100
LEARNING_RATES = (0.1, 0.4, 1.6)  # tried for every method, and for the student alone
TRANSFORMER_RATE = 0.05  # for the transformers, great and small; no other was tried
LABELS = (1000, 4000)  # beside the table's
RETRIEVAL = ("alone", "kd", "rkd", "pkt", "sp")
TEACHERS = ("mlp", "student", "baseline")  # beside "teacher", which the table has


def run_experiments(
    data: Splits, *, folder: Path = DATA / "results", jobs: int | None = None, small: bool = False
) -> dict:
    """The results of every run, {"group/name/…/seed": {"test_accuracy": …, "seconds": …}}; runs the missing.

    Args:
        data: what the further teachers learn from; each run reads Fashion-MNIST for itself.
        folder: where the results and the weights are kept.
        jobs: how many runs side by side, by default one a processor.
        small: a setting of a few images, to try the whole thing out.
    """
    results = load_results(folder=folder)

    def settings(job: Job) -> dict:
        return {"learning_rate": job.learning_rate, "small": small}

    with workers(jobs) as pool:

        def run(jobs: list[Job]) -> None:
            at_work = functools.partial(perform, folder=folder / LAB, small=small)
            run_missing(jobs, at_work, settings=settings, results=results, place=_place(folder), pool=pool)

        tries = [
            Job("tries", name, TRIED_AT, learning_rate=rate)
            for name in ("alone", *METHODS)
            for rate in LEARNING_RATES
        ]
        run(tries)
        rates = {name: _best(results, name) for name in ("alone", *METHODS)}
        run(list(_table(rates)))
        _train_other_teachers(data, folder / LAB, small=small)
        run(list(_beside(rates)))
    results["learning_rates"] = rates
    write_results(results, _place(folder))
    return results


def load_results(*, folder: Path = DATA / "results") -> dict:
    """What the runs found, as far as they have ended: {"group/name/…/seed": {…}}."""
    return read_results(_place(folder))


def load_student(method: str, *, group: str = "methods", folder: Path = DATA / "results") -> nn.Module:
    """The student that a method taught from seed 0, in evaluation mode.

    Args:
        method: a name in METHODS, "alone" or "alone_long".
        group: "methods", or "held_out" for those that saw only every other class.
        folder: where the results are kept.

    Raises:
        CompressionError: no such student.
    """
    place = folder / LAB / f"{group}_{method}.safetensors"
    if not place.exists():
        there = ", ".join(sorted(file.stem for file in place.parent.glob("*_*.safetensors")))
        raise BadSetting(
            f"no student of {group}/{method} is kept; there are {there or 'none'}. "
            f"Repeat the runs with: compresslab train {LAB}"
        )
    return load_whole(place, into=student()).eval()


def summary(results: dict) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """What the command line prints of the results: the columns' names, and a row a method, the best first."""
    alone = values(results, "methods", "alone")
    gains = {
        name: gain_over_seeds(values(results, "methods", name), alone) for name in ("alone_long", *METHODS)
    }
    rows: list[tuple[str, ...]] = [
        (name, f"{gain.value:+.4f}", f"{gain.low:+.4f} … {gain.high:+.4f}")
        for name, gain in sorted(gains.items(), key=lambda item: -item[1].value)
    ]
    return ("method", "accuracy gained over the student alone", "95 % interval"), rows


def values(results: dict, group: str, *names: str, key: str = "test_accuracy") -> list[float]:
    """One value a seed, in the order of the seeds: ``values(results, "methods", "kd")``.

    Raises:
        CompressionError: no run has that name, or that key.
    """
    return values_by_seed(results, group, *names, key=key, command=f"compresslab train {LAB}")


def _place(folder: Path) -> Path:
    return folder / f"{LAB}.json"


def _table(rates: dict[str, float]) -> Iterator[Job]:
    """The runs of the table: every method, and the student alone, from every seed."""
    for seed in SEEDS:
        yield Job("methods", "alone_long", seed, rates["alone"], longer=3)
        for name, rate in rates.items():
            yield Job("methods", name, seed, rate)


def _beside(rates: dict[str, float]) -> Iterator[Job]:
    """The runs beside the table: held-out classes, and other labels, teachers, students, peers."""
    for seed in HELD_OUT_SEEDS:
        for name in RETRIEVAL:
            yield Job("held_out", name, seed, rates[name], teacher=SEEN_TEACHER)
    for labels in LABELS:
        for seed in SEEDS:
            for name in ("alone", "kd"):
                yield Job("labels", name, seed, rates[name], labels=labels)
    for seed in SEEDS:
        for teacher in TEACHERS:
            yield Job("teachers", "kd", seed, rates["kd"], teacher=teacher)
        for size in STUDENTS:
            if size != "student":
                for name in ("alone", "kd"):
                    yield Job("students", name, seed, rates[name], student=size)
        for name in ("alone", "response", "tinybert"):
            yield Job("transformers", name, seed, TRANSFORMER_RATE)
        yield Job("peers", "mutual", seed, rates["mutual"], peer="double")


def _best(results: dict, name: str) -> float:
    """The learning rate that reached most on validation; the first of equals."""
    reached = {r: results[f"tries/{name}/{r:g}/{TRIED_AT}"]["validation_accuracy"] for r in LEARNING_RATES}
    return max(reached, key=lambda rate: reached[rate])


def _train_other_teachers(data: Splits, folder: Path, *, small: bool) -> None:
    """The teacher that saw only some classes, and the transformer, where they are not there yet."""
    settings: dict[str, Any] = {"precision": fast_precision()}
    if not (folder / SEEN_TEACHER).exists():
        torch.manual_seed(0)
        train, validation = of_classes(data.train, SEEN), of_classes(data.validation, SEEN)
        _train(baseline(), train, validation, folder / SEEN_TEACHER, epochs=1 if small else 8, **settings)
    if not (folder / TRANSFORMER).exists():
        torch.manual_seed(0)
        settings |= {"learning_rate": TRANSFORMER_RATE}
        place, epochs = folder / TRANSFORMER, 1 if small else 16
        _train(deep_transformer(), data.train, data.validation, place, epochs=epochs, **settings)


def _train(network: nn.Module, train: Images, validation: Images, place: Path, **settings) -> None:
    checkpoint = place.with_suffix(".checkpoint.safetensors")
    trained = fit(network, train, validation, checkpoint=checkpoint, **settings)
    save_whole(trained.model, place)
    checkpoint.unlink()
