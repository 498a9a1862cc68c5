"""The long runs of lab 04: ``compresslab train 04_low_rank``.

First each layer of the baseline is scanned: thin alone, in several strengths, by each split. Budgets of MACs
then say how thin each layer becomes (on validation images, without labels). Short tries at a seed of their
own choose learning rates by validation: of one short pass for each split, of the long training for Tucker
(space and CP are trained alike), and for the perceptron. Then come the networks that the lab names, of seed
0, and the studies, by which nothing is chosen, of three seeds: every split at every budget before and after a
short training, Tucker between random directions, a perceptron that begins thin, low-rank updates for a new
task. Test images are read once for each run that is reported, never to choose.

Written: ``data/results/04_low_rank.json`` (every run: accuracies as fractions, ranks, seconds of one thread;
and what was ``chosen``) and ``data/results/04_low_rank/NAME.safetensors`` (the named networks). Runs go side
by side, one thread each; each is kept as soon as it ends, so an interrupted command goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compresslab.analysis.layer_inputs import multiplying_layers
from compresslab.data.images import Splits
from compresslab.data.location import DATA
from compresslab.errors import BadSetting
from compresslab.experiments.bench import Job, side_by_side
from compresslab.experiments.long_runs import (
    load_whole,
    read_kept,
    read_results,
    values_by_seed,
    write_results,
)
from compresslab.experiments.low_rank.runs import (
    SCAN_IMAGES,
    as_ranks,
    make_thin,
    scan,
    study_adapting,
    study_beginning,
    study_tuning,
)
from compresslab.measurement.costs import count_macs
from compresslab.models.pretrained import load_baseline
from compresslab.techniques.low_rank.factorization import thin_like
from compresslab.techniques.low_rank.layer_splits import CHANNELS, SPLITS, Rank
from compresslab.techniques.low_rank.rank_selection import break_even_rank, ranks_under_budget, spread_ranks

__all__ = [
    "LAB",
    "load_against_tensorly",
    "load_network",
    "load_results",
    "network_ranks",
    "run_experiments",
    "summary",
    "values",
]

LAB = "04_low_rank"
KEPT_SEED = 0  # whose networks are stored
SEEDS, TRIED_AT = (KEPT_SEED, 1, 2), 100
SHARES = (0.7, 0.5, 0.4, 0.3, 0.2, 0.12)  # of a layer's weights, that the scan tries
MULTIPLE = 8  # of what ranks are: lab 03 measured what other widths cost
COMPARED = ("whitened", "space", "tucker", "cp")  # at every budget
PLANNED_AS = {"random": "tucker", "channels": "whitened"}  # controls that differ in one thing alone
TRIED_SHORT = (*COMPARED, "random")  # random directions get a rate of their own
BUDGETS = (1.5, 2.0, 3.0, 4.0)  # how many times fewer MACs
PASS = 10_000  # images that the short training learns from
SHORT_RATES, LONG_RATES = (0.001, 0.003, 0.0125, 0.05, 0.2), (0.003, 0.0125, 0.05)
NETWORKS = {"tucker": ("tucker", 2.05), "space": ("space", 2.05), "cp": ("cp", 4.0)}  # way, budget
TRIED_LONG = ("tucker",)  # the others are trained at its rate
MLP_BUDGET, MLP_RATES = 4.2, (0.003, 0.01, 0.03, 0.1)
UPDATES, UPDATE_RATES = (1, 4, 16), (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # ranks of low-rank updates


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
        run(_scans())
        plans = _Plans(results)
        run(_tries(plans))
        chosen = _choose(results)
        run(_networks(plans, chosen))
        run(_studies(plans, chosen))
    results["chosen"] = chosen
    write_results(results, _place(folder))
    return results


def load_results(*, folder: Path = DATA / "results") -> dict:
    """What the runs found, as far as they have ended: {"group/name/…/seed": {…}}."""
    return read_results(_place(folder))


def network_ranks(name: str, *, folder: Path = DATA / "results") -> dict[str, Rank]:
    """The ranks of a named network's layers.

    Raises:
        CompressionError: no such network.
    """
    return as_ranks(_network(name, folder)["ranks"])


def load_network(name: str, *, folder: Path = DATA / "results") -> nn.Module:
    """A named network of seed 0, in evaluation mode, as thin as it was made.

    Args:
        name: "svd_mlp", "tucker", "space" or "cp".
        folder: where the results are kept.

    Raises:
        CompressionError: no such network, or a file that is damaged or not of these results.
    """
    run, place = _network(name, folder), folder / LAB / f"{name}.safetensors"
    split = SPLITS.get(run["way"], CHANNELS)  # whitened layers look like plain ones
    thin = thin_like(load_baseline(run["network"]), as_ranks(run["ranks"]), split=split)
    return load_whole(place, into=thin).eval()


def load_against_tensorly(*, folder: Path = DATA / "results") -> dict[str, Any]:
    """How ``tucker2`` compares with tensorly's; ``python -m tests.benchmarks.tucker`` measures it again.

    Raises:
        CompressionError: that measurement is not there, or can't be read.
    """
    return read_kept(folder / LAB / "tensorly.json", about="it says how Tucker compares with tensorly's")


def summary(results: dict) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """What the command line prints of the results: the columns' names, and a row a network."""
    networks = {key.split("/")[1]: run for key, run in results.items() if key.startswith("networks/")}
    rows: list[tuple[str, ...]] = [
        (name, f"{run['test_accuracy']:.4f}", f"{run['macs_per_sample']:,}") for name, run in networks.items()
    ]
    return ("network", "test accuracy", "MACs"), rows


def values(results: dict, group: str, *names: str, key: str = "test_accuracy") -> list[float]:
    """One value a seed, in the order of the seeds: ``values(results, "tuned", "tucker", "2")``.

    Raises:
        CompressionError: no run has that name, or that key.
    """
    return values_by_seed(results, group, *names, key=key, command=f"compresslab train {LAB}")


def _place(folder: Path) -> Path:
    return folder / f"{LAB}.json"


def _network(name: str, folder: Path) -> dict[str, Any]:
    results = load_results(folder=folder)
    if f"networks/{name}/{KEPT_SEED}" not in results:
        there = ", ".join(key.split("/")[1] for key in results if key.startswith("networks/"))
        raise BadSetting(
            f"no network {name!r} is kept; there are {there or 'none'}. "
            f"Repeat the runs with: compresslab train {LAB}"
        )
    return results[f"networks/{name}/{KEPT_SEED}"]


class _Plans:
    """How thin each layer becomes under a budget, by what the scans found; as JSON values."""

    def __init__(self, results: Mapping[str, Any]) -> None:
        self.results, self.model = results, load_baseline()
        self.one = torch.zeros(1, 1, 28, 28)
        self.whole = count_macs(self.model, self.one)
        self.known: dict[tuple[str, float], dict[str, Any]] = {}

    def ranks(self, way: str, budget: float) -> dict[str, Any]:
        """Of the baseline, for so many times fewer MACs."""
        scanned = PLANNED_AS.get(way, way)
        if (scanned, budget) not in self.known:
            damages = self.results[f"scan/{scanned}"]["damages"]
            found = ranks_under_budget(
                self.model,
                self.one,
                damages,
                shares=SHARES,
                macs_per_sample=int(self.whole / budget),
                split=SPLITS.get(scanned, CHANNELS),
                multiple=MULTIPLE,
            )
            plain = {name: rank if isinstance(rank, int) else list(rank) for name, rank in found.items()}
            self.known[scanned, budget] = plain
        return self.known[scanned, budget]

    def of_perceptron(self) -> dict[str, Any]:
        """Of the perceptron's hidden layers, by their spectra, each as a share of its energy."""
        model = load_baseline("mlp")
        layers = dict(list(multiplying_layers(model).items())[:-1])  # the last is small, and stays whole
        spectra = []
        for layer in layers.values():
            s = torch.linalg.svdvals(layer.weight.detach().double())
            spectra.append((s / s.norm())[: break_even_rank(*layer.weight.shape)])
        fixed = count_macs(model, self.one) - sum(layer.weight.numel() for layer in layers.values())
        ranks = spread_ranks(
            spectra,
            [sum(layer.weight.shape) for layer in layers.values()],
            budget=int(count_macs(model, self.one) / MLP_BUDGET) - fixed,
        )
        return dict(zip(layers, ranks, strict=True))


def _scans() -> Iterator[Job]:
    for way in COMPARED:
        settings = {"way": way, "shares": list(SHARES), "multiple": MULTIPLE, "images": SCAN_IMAGES}
        yield Job(f"scan/{way}", scan, settings)


def _tries(plans: _Plans) -> Iterator[Job]:
    """Short runs whose validation chooses; test is not read."""
    for name in TRIED_LONG:
        way, budget = NETWORKS[name]
        thin = {"network": "baseline", "way": way, "ranks": plans.ranks(way, budget), "augmented": True}
        for rate in LONG_RATES:
            settings = {**thin, "epochs": 6, "learning_rate": rate, "seed": TRIED_AT}
            yield Job(f"tries/long/{name}/{rate:g}/{TRIED_AT}", make_thin, settings)
    thin = {"network": "mlp", "way": "whitened", "ranks": plans.of_perceptron(), "augmented": False}
    for rate in MLP_RATES:
        settings = {**thin, "epochs": 12, "learning_rate": rate, "seed": TRIED_AT}
        yield Job(f"tries/long/svd_mlp/{rate:g}/{TRIED_AT}", make_thin, settings)
    for way in TRIED_SHORT:
        for rate in SHORT_RATES:
            settings = {"way": way, "ranks": plans.ranks(way, 2.0), "images": PASS, "seed": TRIED_AT}
            key = f"tries/short/{way}/{rate:g}/{TRIED_AT}"
            yield Job(key, study_tuning, settings | {"learning_rate": rate})


def _choose(results: dict) -> dict[str, dict[str, float]]:
    """{"long" or "short": {what: the learning rate that did best on validation}}; of equals the first."""

    def best(length: str, name: str, rates: tuple[float, ...]) -> float:
        return max(
            rates, key=lambda r: results[f"tries/{length}/{name}/{r:g}/{TRIED_AT}"]["validation_accuracy"]
        )

    long = {name: best("long", name, LONG_RATES) for name in TRIED_LONG}
    long |= {"space": long["tucker"], "cp": long["tucker"], "svd_mlp": best("long", "svd_mlp", MLP_RATES)}
    short = {way: best("short", way, SHORT_RATES) for way in TRIED_SHORT}
    return {"long": long, "short": short | {"channels": short["whitened"]}}


def _networks(plans: _Plans, chosen: dict[str, dict[str, float]]) -> Iterator[Job]:
    """The networks that the lab names."""
    common = {"seed": KEPT_SEED}
    for name, (way, budget) in NETWORKS.items():
        settings = {"network": "baseline", "way": way, "ranks": plans.ranks(way, budget), "augmented": True}
        settings |= {"epochs": 24, "learning_rate": chosen["long"][name], **common}
        yield Job(f"networks/{name}/{KEPT_SEED}", make_thin, settings)
    settings = {"network": "mlp", "way": "whitened", "ranks": plans.of_perceptron(), "augmented": False}
    settings |= {"epochs": 12, "learning_rate": chosen["long"]["svd_mlp"], **common}
    yield Job(f"networks/svd_mlp/{KEPT_SEED}", make_thin, settings)


def _studies(plans: _Plans, chosen: dict[str, dict[str, float]]) -> Iterator[Job]:
    """What the lab compares, beside the networks that it names."""
    points = [(way, budget) for budget in BUDGETS for way in COMPARED]
    for seed in SEEDS:
        for way, budget in [*points, ("channels", 2.0), ("random", 2.0)]:
            settings = {"way": way, "ranks": plans.ranks(way, budget), "images": PASS, "seed": seed}
            settings |= {"learning_rate": chosen["short"][way]}
            yield Job(f"tuned/{way}/{budget:g}/{seed}", study_tuning, settings)
        beginning = {"ranks": plans.of_perceptron(), "epochs": 12, "more": 12, "learning_rate": 0.03}
        yield Job(f"beginning/{seed}", study_beginning, {**beginning, "seed": seed})
        turned = {"images": 2000, "epochs": 10, "learning_rates": list(UPDATE_RATES), "seed": seed}
        for way, rank in (("all", 0), ("head", 0), *(("update", rank) for rank in UPDATES)):
            name = f"{way}_{rank}" if rank else way
            yield Job(f"adapting/{name}/{seed}", study_adapting, {"way": way, "rank": rank, **turned})
