"""Plan of lab 03's experiments: ``compresslab train 03``.

Short tries with their own seed choose by validation: the learning rate after pruning single weights, the
learning rate after 2:4, and for removed channels also the criterion, once among widths that are multiples of
eight (``channel``) and once among all widths (``channel_any_width``). Then come the networks of the lab, with
seed 0. Competing methods are trained alike and as long: one-shot and iterative pruning at one learning rate,
torch-pruning's channels at the rate of our channels of any width.

Then come the studies, by which nothing is chosen, most with three seeds: the baseline masked by every
criterion at every granularity; some of these, and two allocations, after a short training at the learning
rate of single weights; SparseGPT; the lottery ticket, on the small student; and the sensitivity scan, which
is the same for every seed. Test images are read once per reported run, never for a choice.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from compresslab.experiments.experiment import TUNING, Best, Experiment, Run
from compresslab.experiments.pruning.methods import CRITERIA, GRANULARITIES, LAB
from compresslab.experiments.pruning.runs import (
    LOOKED_AT,
    prune_channels,
    prune_in_rounds,
    prune_two_in_four,
    structure,
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

__all__ = ["EXPERIMENT", "load_network", "load_results"]

SEEDS, KEPT_SEED, TRIED_AT = (0, 1, 2), 0, 100
LEARNING_RATES = {  # tried after pruning single weights, and after removing channels, which breaks more
    "fine": (0.003, 0.0125, 0.05, 0.2),
    "nm_2_4": (0.003, 0.0125, 0.05),
    "channel": (0.05, 0.2),
}
ALLOWED_MACS = 11_250_693  # of torch-pruning's network, which ours may not exceed; a test counts them
SPARSITIES = [0.3, 0.5, 0.7, 0.8, 0.9]  # of the masks before training
TUNED = (0.7, 0.9)  # of those after it, for magnitude; for the other criteria:
COMPARED: dict[str, tuple[float, ...]] = {"fine": (0.9,), "vector": (), "kernel": (), "channel": (0.7,)}
SEEDED = ("fine", "channel")  # where masks come from every seed; magnitude's have no chance in them
PASS = 10_000  # images that the short training learns from
CHOICES = {  # of our channels, one for each network by validation; widths of eight suit the processor
    "channel": ("magnitude_of_eight", "taylor_of_eight"),
    "channel_any_width": ("magnitude", "taylor"),
}
RAMPS = {  # of one length: epochs of each round, and at the end
    "fine_95_oneshot": {"sparsity": 0.95, "rounds": 1, "epochs": 24, "more": 0},
    "fine_95_iterative": {"sparsity": 0.95, "rounds": 6, "epochs": 1, "more": 18},
    "fine_90": {"sparsity": 0.9, "rounds": 6, "epochs": 1, "more": 14},
}


def _try(function: str, *names: str, rate: float, **settings: Any) -> Run:
    """A tuning run: a short training whose validation accuracy decides a setting."""
    key = "/".join([TUNING, *names, f"{rate:g}", str(TRIED_AT)])
    return Run(key, function, {**settings, "epochs": 3, "learning_rate": rate}, TRIED_AT)


FINE_TRIES = [
    _try("prune_in_rounds", "fine", rate=rate, sparsity=0.9, rounds=1, more=0)
    for rate in LEARNING_RATES["fine"]
]
TWO_IN_FOUR_TRIES = [_try("prune_two_in_four", "nm_2_4", rate=rate) for rate in LEARNING_RATES["nm_2_4"]]
CHANNEL_TRIES = {
    name: [
        _try("prune_channels", "channel", choice, rate=rate, choice=choice, macs=ALLOWED_MACS)
        for choice, rate in itertools.product(choices, LEARNING_RATES["channel"])
    ]
    for name, choices in CHOICES.items()
}


def _best(tries: list[Run], *settings: str) -> dict[str, Best]:
    return {setting: Best(setting, tuple(run.key for run in tries)) for setting in settings}


CHOSEN = {
    "fine": _best(FINE_TRIES, "learning_rate"),
    "nm_2_4": _best(TWO_IN_FOUR_TRIES, "learning_rate"),
} | {name: _best(tries, "choice", "learning_rate") for name, tries in CHANNEL_TRIES.items()}


def _network(name: str, function: str, derived: dict[str, Best], **settings: Any) -> Run:
    key = f"networks/{name}/{KEPT_SEED}"
    return Run(key, function, settings, KEPT_SEED, derived=derived, network=name)


def _networks() -> Iterator[Run]:
    """The networks of the lab."""
    alike = {"macs": ALLOWED_MACS, "epochs": 24}
    for name in CHOICES:
        yield _network(name, "prune_channels", CHOSEN[name], **alike)
    as_ours = {"learning_rate": CHOSEN["channel_any_width"]["learning_rate"]}
    yield _network("torch_pruning", "prune_channels", as_ours, choice="torch_pruning", **alike)
    for name, ramp in RAMPS.items():
        yield _network(name, "prune_in_rounds", CHOSEN["fine"], **ramp)
    yield _network("nm_2_4", "prune_two_in_four", CHOSEN["nm_2_4"], epochs=6)


def _masks() -> Iterator[Run]:
    """The masked baseline, before training and after a short one."""
    for seed, criterion, granularity in itertools.product(SEEDS, CRITERIA, GRANULARITIES):
        names = {"criterion": criterion, "granularity": granularity}
        if seed == KEPT_SEED or (criterion != "magnitude" and granularity in SEEDED):
            settings = {**names, "sparsities": SPARSITIES, "images": LOOKED_AT}
            yield Run(f"masks/{criterion}/{granularity}/{seed}", "study_masks", settings, seed)
        for sparsity in TUNED if criterion == "magnitude" else COMPARED[granularity]:
            key = f"tuned/{criterion}/{granularity}/{sparsity:g}/{seed}"
            settings = {**names, "sparsity": sparsity, "images": PASS}
            yield Run(key, "study_tuning", settings, seed, derived=CHOSEN["fine"])


def _studies() -> Iterator[Run]:
    """The other comparisons of the lab."""
    yield Run("scan", "scan", {"sparsities": list(SCAN_SPARSITIES), "images": SCAN_IMAGES})
    lottery = {"sparsity": 0.8, "channel_macs": 0.5, "epochs": 6, "early_steps": 391, "learning_rate": 0.4}
    for seed in SEEDS:
        yield Run(f"surgeon/{seed}", "study_surgeon", {"sparsities": SPARSITIES, "images": 300}, seed)
        for name in ALLOCATIONS:
            settings = {"allocation": name, "sparsity": 0.9, "images": PASS}
            key = f"allocation/{name}/{seed}"
            yield Run(key, "study_allocation", settings, seed, derived=CHOSEN["fine"])
        yield Run(f"lottery/{seed}", "study_lottery", lottery, seed)


EXPERIMENT = Experiment(
    lab=LAB,
    plan=(
        *FINE_TRIES,
        *TWO_IN_FOUR_TRIES,
        *itertools.chain(*CHANNEL_TRIES.values()),
        *_networks(),
        *_masks(),
        *_studies(),
    ),
    functions={
        function.__name__: function
        for function in (
            prune_channels, prune_in_rounds, prune_two_in_four,
            scan, study_allocation, study_lottery, study_masks, study_surgeon, study_tuning,
        )
    },
    structure=structure,
    summary=("networks", "test_accuracy", "storage_bytes"),
    chosen={"chosen": CHOSEN},
)  # fmt: skip
load_results, load_network = EXPERIMENT.load_results, EXPERIMENT.load_network
