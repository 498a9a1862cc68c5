"""Plan of lab 04's experiments: ``compresslab train 04``.

First, sensitivity scans: each layer of the baseline is factorized alone, at several ranks, by each split. The
ranks of all layers then follow from budgets of MACs (on validation images, without labels). Short tries with
their own seed choose learning rates by validation: for one short pass of each split, for the long training of
Tucker (space and CP are trained alike), and for the perceptron. Then come the networks of the lab, with seed
0, and the studies, with three seeds, by which nothing is chosen: every split at every budget before and after
a short training, Tucker with random directions, a perceptron factorized before training, low-rank updates for
a new task. Test images are read once per reported run, never for a choice.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from compresslab.experiments.experiment import TUNING, Best, Derived, Experiment, Run
from compresslab.experiments.low_rank.runs import (
    SCAN_IMAGES,
    as_ranks,
    make_thin,
    scan,
    structure,
    study_adapting,
    study_beginning,
    study_tuning,
)
from compresslab.experiments.results import RESULTS, read_json
from compresslab.measurement.costs import count_macs
from compresslab.models.pretrained import load_baseline
from compresslab.models.surgery import weight_layers
from compresslab.techniques.low_rank.layer_splits import CHANNELS, SPLITS, Rank
from compresslab.techniques.low_rank.rank_selection import break_even_rank, ranks_under_budget, spread_ranks

__all__ = [
    "EXPERIMENT",
    "PerceptronRanks",
    "Ranks",
    "load_against_tensorly",
    "load_network",
    "load_results",
    "network_ranks",
]

SEEDS, KEPT_SEED, TRIED_AT = (0, 1, 2), 0, 100
SHARES = (0.7, 0.5, 0.4, 0.3, 0.2, 0.12)  # of a layer's weights, that the scan tries
MULTIPLE = 8  # of what ranks are: lab 03 measured what other widths cost
COMPARED = ("whitened", "space", "tucker", "cp")  # at every budget
PLANNED_AS = {"random": "tucker", "channels": "whitened"}  # controls that differ in one thing alone
BUDGETS = (1.5, 2.0, 3.0, 4.0)  # how many times fewer MACs
PASS = 10_000  # images that the short training learns from
SHORT_RATES, LONG_RATES = (0.001, 0.003, 0.0125, 0.05, 0.2), (0.003, 0.0125, 0.05)
NETWORKS = {"tucker": 2.05, "space": 2.05, "cp": 4.0}  # split: budget
MLP_BUDGET, MLP_RATES = 4.2, (0.003, 0.01, 0.03, 0.1)
UPDATES, UPDATE_RATES = (1, 4, 16), (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # ranks of low-rank updates
ONE = torch.zeros(1, 1, 28, 28)


@dataclass(frozen=True)
class Ranks:
    """The ranks of the baseline's layers, as JSON, from a scan and a budget: ``budget``× lower MACs."""

    way: str
    budget: float

    @property
    def scanned(self) -> str:
        """The scanned split: a control has the ranks of the split that it is compared with."""
        return PLANNED_AS.get(self.way, self.way)

    @property
    def after(self) -> tuple[str, ...]:
        return (f"scan/{self.scanned}",)

    def value(self, results: Mapping[str, Any]) -> dict[str, Any]:
        return _ranks(self.scanned, self.budget, json.dumps(results[self.after[0]]["damages"]))


@dataclass(frozen=True)
class PerceptronRanks:
    """The ranks of the perceptron's hidden layers, as JSON, from their spectra; they depend on no run."""

    after: tuple[str, ...] = ()

    def value(self, results: Mapping[str, Any]) -> dict[str, Any]:
        return _perceptron_ranks()


@functools.cache
def _perceptron_ranks() -> dict[str, int]:
    """The ranks by ``spread_ranks``, with each layer's spectrum normalized to energy 1."""
    model = load_baseline("mlp")
    layers = dict(list(weight_layers(model).items())[:-1])  # the last is small, and stays whole
    spectra = []
    for layer in layers.values():
        s = torch.linalg.svdvals(layer.weight.detach().double())
        spectra.append((s / s.norm())[: break_even_rank(*layer.weight.shape)])
    costs = [sum(layer.weight.shape) for layer in layers.values()]  # MACs of one rank
    whole = count_macs(model, ONE)
    fixed = whole - sum(layer.weight.numel() for layer in layers.values())
    ranks = spread_ranks(spectra, costs, budget=int(whole / MLP_BUDGET) - fixed)
    return dict(zip(layers, ranks, strict=True))


@functools.cache
def _ranks(scanned: str, budget: float, sensitivities: str) -> dict[str, Any]:
    model = load_baseline()
    found = ranks_under_budget(
        model,
        ONE,
        json.loads(sensitivities),
        shares=SHARES,
        macs_per_sample=int(count_macs(model, ONE) / budget),
        split=SPLITS.get(scanned, CHANNELS),
        multiple=MULTIPLE,
    )
    return {name: rank if isinstance(rank, int) else list(rank) for name, rank in found.items()}


THIN_MLP = {"network": "mlp", "way": "whitened", "augmented": False, "epochs": 12}


def _thin_baseline(way: str, epochs: int) -> dict[str, Any]:
    return {"network": "baseline", "way": way, "augmented": True, "epochs": epochs}


def _try(length: str, name: str, rate: float, function: str, settings: dict, ranks: Derived) -> Run:
    """A tuning run, whose validation accuracy chooses the learning rate."""
    key = f"{TUNING}/{length}/{name}/{rate:g}/{TRIED_AT}"
    return Run(key, function, {**settings, "learning_rate": rate}, TRIED_AT, derived={"ranks": ranks})


def _tries() -> Iterator[Run]:
    thin = _thin_baseline("tucker", 6)
    for rate in LONG_RATES:
        yield _try("long", "tucker", rate, "make_thin", thin, Ranks("tucker", NETWORKS["tucker"]))
    for rate in MLP_RATES:
        yield _try("long", "svd_mlp", rate, "make_thin", THIN_MLP, PerceptronRanks())
    for way in (*COMPARED, "random"):  # random directions get a rate of their own
        for rate in SHORT_RATES:
            yield _try("short", way, rate, "study_tuning", {"way": way, "images": PASS}, Ranks(way, 2.0))


TRIES = tuple(_tries())


def _best_rate(length: str, name: str) -> Best:
    start = f"{TUNING}/{length}/{name}/"
    return Best("learning_rate", tuple(run.key for run in TRIES if run.key.startswith(start)))


LONG = {name: _best_rate("long", "tucker") for name in NETWORKS} | {"svd_mlp": _best_rate("long", "svd_mlp")}
SHORT = {way: _best_rate("short", PLANNED_AS[way] if way == "channels" else way)
         for way in (*COMPARED, "random", "channels")}  # fmt: skip


def _scans() -> Iterator[Run]:
    for way in COMPARED:
        settings = {"way": way, "shares": list(SHARES), "multiple": MULTIPLE, "images": SCAN_IMAGES}
        yield Run(f"scan/{way}", "scan", settings)


def _network(name: str, settings: dict[str, Any], ranks: Derived) -> Run:
    derived: dict[str, Derived] = {"ranks": ranks, "learning_rate": LONG[name]}
    return Run(f"networks/{name}/{KEPT_SEED}", "make_thin", settings, KEPT_SEED, derived, network=name)


def _networks() -> Iterator[Run]:
    """The networks of the lab."""
    for way, budget in NETWORKS.items():
        yield _network(way, _thin_baseline(way, 24), Ranks(way, budget))
    yield _network("svd_mlp", THIN_MLP, PerceptronRanks())


def _studies() -> Iterator[Run]:
    """The comparisons of the lab, in addition to its networks."""
    points = [(way, budget) for budget in BUDGETS for way in COMPARED]
    beginning = {"epochs": 12, "more": 12, "learning_rate": 0.03}
    adapting = {"images": 2000, "epochs": 10, "learning_rates": list(UPDATE_RATES)}
    for seed in SEEDS:
        for way, budget in [*points, ("channels", 2.0), ("random", 2.0)]:
            derived: dict[str, Derived] = {"ranks": Ranks(way, budget), "learning_rate": SHORT[way]}
            settings = {"way": way, "images": PASS}
            yield Run(f"tuned/{way}/{budget:g}/{seed}", "study_tuning", settings, seed, derived)
        yield Run(f"beginning/{seed}", "study_beginning", beginning, seed, {"ranks": PerceptronRanks()})
        for way, rank in (("all", 0), ("head", 0), *(("update", rank) for rank in UPDATES)):
            name = f"{way}_{rank}" if rank else way
            settings = {"way": way, "rank": rank, **adapting}
            yield Run(f"adapting/{name}/{seed}", "study_adapting", settings, seed)


EXPERIMENT = Experiment(
    lab="04_low_rank",
    plan=(*_scans(), *TRIES, *_networks(), *_studies()),
    functions={
        function.__name__: function
        for function in (make_thin, scan, study_adapting, study_beginning, study_tuning)
    },
    structure=structure,
    summary=("networks", "test_accuracy", "macs_per_sample"),
    chosen={"chosen": {"long": LONG, "short": SHORT}},
)
load_results, load_network = EXPERIMENT.load_results, EXPERIMENT.load_network


def network_ranks(name: str, *, folder: Path = RESULTS) -> dict[str, Rank]:
    """Return the ranks of a named network's layers.

    Raises:
        BadSetting: no such network.
    """
    return as_ranks(EXPERIMENT.load_record(name, folder=folder)["ranks"])


def load_against_tensorly(*, folder: Path = RESULTS) -> dict[str, Any]:
    """Return how ``tucker2`` compares with tensorly's; ``python -m tests.benchmarks.tucker`` measures it.

    Raises:
        DamagedFile: that measurement is not there, or can't be read.
    """
    path = folder / EXPERIMENT.lab / "tensorly.json"
    return read_json(path, about="it says how Tucker compares with tensorly's")
