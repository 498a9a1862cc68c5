"""The long runs of lab 03: ``compresslab train 03_pruning``.

Short tries at a seed of their own choose by validation: the learning rate after pruning single weights, that
after 2:4, and for removed channels the criterion too, once among widths of eight (``channel``) and once among
all widths (``channel_any_width``). Then come the networks that the lab names, of seed 0. Rivals are trained
alike and as long: one-shot and iterative at one learning rate, torch-pruning's channels at that of ours of
any width.

Then the studies, by which nothing is chosen, most from three seeds: the baseline masked by every criterion at
every granularity; some of these, and two allocations, after a short training at the learning rate of single
weights; the surgeon; the lottery, on the small student; and the scan of the layers, which is the same at
every seed. Each run is kept as soon as it ends, so an interrupted command goes on. Test images are read once
for each run that is reported, never to choose.

Written: ``data/results/03_pruning.json`` (every run: accuracies as fractions, seconds of one thread; and what
was ``chosen``) and ``data/results/03_pruning/NAME.safetensors`` (the named networks, without their zeros).
Runs go side by side, one thread each.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compresslab.data.images import Splits
from compresslab.data.location import DATA
from compresslab.errors import BadSetting
from compresslab.experiments.bench import Job, side_by_side
from compresslab.experiments.long_runs import read_results, values_by_seed, write_results
from compresslab.experiments.pruning.methods import CRITERIA, GRANULARITIES, torch_prunings_channels
from compresslab.experiments.pruning.runs import (
    KEPT_SEED,
    LOOKED_AT,
    prune_channels,
    prune_in_rounds,
    prune_two_in_four,
)
from compresslab.experiments.pruning.studies import (
    ALLOCATIONS,
    SCAN_IMAGES,
    SCAN_SPARSITIES,
    scan,
    study_allocation,
    study_lottery,
    study_masks,
    study_surgeon,
    study_tuning,
)
from compresslab.measurement.costs import count_macs
from compresslab.models.pretrained import load_baseline
from compresslab.storage import load_model
from compresslab.techniques.pruning.channel_removal import remove_channels
from compresslab.techniques.pruning.sparse_layers import store_sparsely

__all__ = ["LAB", "load_network", "load_results", "run_experiments", "summary", "values"]

LAB = "03_pruning"
SEEDS, TRIED_AT = (KEPT_SEED, 1, 2), 100
LEARNING_RATES = {  # tried after pruning single weights, and after removing channels, which breaks more
    "fine": (0.003, 0.0125, 0.05, 0.2),
    "nm_2_4": (0.003, 0.0125, 0.05),
    "channel": (0.05, 0.2),
}
SPARSITIES = [0.3, 0.5, 0.7, 0.8, 0.9]  # of the masks before training
TUNED = (0.7, 0.9)  # of those after it, for magnitude; for the other criteria:
SEEDED = ("fine", "channel")  # where masks come from every seed; magnitude's have no chance in them
COMPARED: dict[str, tuple[float, ...]] = {"fine": (0.9,), "vector": (), "kernel": (), "channel": (0.7,)}
PASS = 10_000  # images that the short training learns from
CHOICES = {  # of our channels, one for each network by validation; widths of eight suit the processor
    "channel": ("magnitude_of_eight", "taylor_of_eight"),
    "channel_any_width": ("magnitude", "taylor"),
}
RAMPS = {  # sparsity, rounds, epochs of each, epochs at the end
    "fine_95_oneshot": (0.95, 1, 24, 0),
    "fine_95_iterative": (0.95, 6, 1, 18),
    "fine_90": (0.9, 6, 1, 14),
}


def run_experiments(
    data: Splits | None = None,
    *,
    folder: Path = DATA / "results",
    jobs: int | None = None,
    small: bool = False,
) -> dict:
    """The results of every run, {"group/name/…/seed": {…}}; runs those that are missing.

    Args:
        data: not read; each run reads Fashion-MNIST for itself.
        folder: where the results and the weights are kept.
        jobs: how many runs side by side, by default one a processor.
        small: a setting of a few images, to try the whole thing out.
    """
    results = load_results(folder=folder)
    with side_by_side(results, _place(folder), jobs=jobs, small=small) as run:
        run(_tries())
        chosen = _choose(results)
        run(_networks(chosen))
        run(_studies(chosen["fine"]["learning_rate"]))
    results["chosen"] = chosen
    write_results(results, _place(folder))
    return results


def load_results(*, folder: Path = DATA / "results") -> dict:
    """What the runs found, as far as they have ended: {"group/name/…/seed": {…}}."""
    return read_results(_place(folder))


def load_network(name: str, *, folder: Path = DATA / "results") -> nn.Module:
    """A named network of seed 0, in evaluation mode: as wide as it was made, its zeros in place.

    Args:
        name: such as "fine_90" or "channel".
        folder: where the results are kept.

    Raises:
        CompressionError: no such network, or a file that is damaged or not of these results.
    """
    place = folder / LAB / f"{name}.safetensors"
    if not place.exists():
        there = ", ".join(sorted(file.stem for file in place.parent.glob("*.safetensors")))
        raise BadSetting(
            f"no network {name!r} is kept; there are {there or 'none'}. "
            f"Repeat the runs with: compresslab train {LAB}"
        )
    # a sparse file has no shapes of weights in it, so the widths come from the results
    widths = load_results(folder=folder).get(f"networks/{name}/{KEPT_SEED}", {}).get("channels", {})
    thin = remove_channels(load_baseline(), {group: range(width) for group, width in widths.items()})
    return load_model(place, into=store_sparsely(thin)).eval()


def summary(results: dict) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """What the command line prints of the results: the columns' names, and a row a network."""
    networks = {key.split("/")[1]: run for key, run in results.items() if key.startswith("networks/")}
    rows: list[tuple[str, ...]] = [
        (name, f"{run['test_accuracy']:.4f}", f"{run['storage_bytes']:,}") for name, run in networks.items()
    ]
    return ("network", "test accuracy", "bytes"), rows


def values(results: dict, group: str, *names: str, key: str = "test_accuracy") -> list[float]:
    """One value a seed, in the order of the seeds: ``values(results, "networks", "channel")``.

    Raises:
        CompressionError: no run has that name, or that key.
    """
    return values_by_seed(results, group, *names, key=key, command=f"compresslab train {LAB}")


def _place(folder: Path) -> Path:
    return folder / f"{LAB}.json"


def _tries() -> Iterator[Job]:
    """Short runs whose validation chooses; test is not read."""
    common = {"epochs": 3, "seed": TRIED_AT}
    for rate in LEARNING_RATES["fine"]:
        settings: dict[str, Any] = {"sparsity": 0.9, "rounds": 1, "more": 0, **common, "learning_rate": rate}
        yield Job(f"tries/fine/{rate:g}/{TRIED_AT}", prune_in_rounds, settings)
    for rate in LEARNING_RATES["nm_2_4"]:
        settings = {**common, "learning_rate": rate}
        yield Job(f"tries/nm_2_4/{rate:g}/{TRIED_AT}", prune_two_in_four, settings)
    for rate in LEARNING_RATES["channel"]:
        for choice in itertools.chain(*CHOICES.values()):
            settings = {"choice": choice, "macs": _allowed_macs(), **common, "learning_rate": rate}
            yield Job(f"tries/channel/{choice}/{rate:g}/{TRIED_AT}", prune_channels, settings)


def _choose(results: dict) -> dict[str, dict[str, Any]]:
    """{what is pruned: the settings that did best on validation}; of equals the first."""
    chosen: dict[str, dict[str, Any]] = {
        name: {"learning_rate": _best(results, [(name, rate) for rate in LEARNING_RATES[name]])[-1]}
        for name in ("fine", "nm_2_4")
    }
    for name, choices in CHOICES.items():
        tried = [("channel", choice, rate) for choice in choices for rate in LEARNING_RATES["channel"]]
        _, choice, rate = _best(results, tried)
        chosen[name] = {"choice": choice, "learning_rate": rate}
    return chosen


def _best(results: dict, tried: Sequence[tuple]) -> tuple:
    """Of (name, …, learning rate) the one whose try reached most on validation."""

    def reached(names: tuple) -> float:
        *before, rate = names
        return results["/".join(["tries", *before, f"{rate:g}", str(TRIED_AT)])]["validation_accuracy"]

    return max(tried, key=reached)


@functools.lru_cache(maxsize=1)
def _allowed_macs() -> int:
    """What torch-pruning's network costs: ours may not cost more."""
    small = remove_channels(load_baseline(), torch_prunings_channels())
    return count_macs(small, torch.zeros(1, 1, 28, 28))


def _networks(chosen: dict[str, dict[str, Any]]) -> Iterator[Job]:
    """The networks that the lab names."""
    theirs = chosen["channel_any_width"] | {"choice": "torch_pruning"}  # trained as ours of any width
    alike = {"macs": _allowed_macs(), "epochs": 24, "seed": KEPT_SEED}
    for name, settings in (*((name, chosen[name]) for name in CHOICES), ("torch_pruning", theirs)):
        yield Job(f"networks/{name}/{KEPT_SEED}", prune_channels, {**settings, **alike})
    for name, ramp in RAMPS.items():
        settings = dict(zip(("sparsity", "rounds", "epochs", "more"), ramp, strict=True))
        settings |= chosen["fine"] | {"seed": KEPT_SEED}
        yield Job(f"networks/{name}/{KEPT_SEED}", prune_in_rounds, settings)
    settings = {"epochs": 6, **chosen["nm_2_4"], "seed": KEPT_SEED}
    yield Job(f"networks/nm_2_4/{KEPT_SEED}", prune_two_in_four, settings)


def _studies(learning_rate: float) -> Iterator[Job]:
    """What the lab compares, beside the networks that it names."""
    yield Job("scan", scan, {"sparsities": list(SCAN_SPARSITIES), "images": SCAN_IMAGES})
    for seed in SEEDS:
        yield Job(f"surgeon/{seed}", study_surgeon, {"sparsities": SPARSITIES, "images": 300, "seed": seed})
        for criterion in CRITERIA:
            for granularity in GRANULARITIES:
                settings = {"sparsities": SPARSITIES, "images": LOOKED_AT, "seed": seed}
                names = {"criterion": criterion, "granularity": granularity}
                if seed == KEPT_SEED or (criterion != "magnitude" and granularity in SEEDED):
                    yield Job(f"masks/{criterion}/{granularity}/{seed}", study_masks, names | settings)
                for sparsity in TUNED:
                    if criterion == "magnitude" or sparsity in COMPARED[granularity]:
                        settings = {"sparsity": sparsity, "images": PASS, "learning_rate": learning_rate}
                        key = f"tuned/{criterion}/{granularity}/{sparsity:g}/{seed}"
                        yield Job(key, study_tuning, names | settings | {"seed": seed})
        for allocation in ALLOCATIONS:
            settings = {"sparsity": 0.9, "images": PASS, "learning_rate": learning_rate, "seed": seed}
            key = f"allocation/{allocation}/{seed}"
            yield Job(key, study_allocation, {"allocation": allocation, **settings})
        settings = {"sparsity": 0.8, "channel_macs": 0.5, "epochs": 6, "early_steps": 391}
        yield Job(f"lottery/{seed}", study_lottery, {**settings, "learning_rate": 0.4, "seed": seed})
