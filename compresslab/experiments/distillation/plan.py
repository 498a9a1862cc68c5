"""Plan of lab 02's experiments: ``compresslab train 02``; about 40 minutes on two cores.

Every method trains the same student with three seeds, at the best of three learning rates by validation,
tried with another seed; so is the student alone. Further runs: more labels, other students, other teachers,
two different peers, transformers, and embeddings of classes that were unseen in training. Test images are
read once per reported run, never for a choice.

The students of seed 0 are stored, and two teachers, of which only the networks are stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import nn

from compresslab.experiments.distillation.methods import METHODS
from compresslab.experiments.distillation.runs import (
    SEEN_TEACHER,
    TRANSFORMER,
    structure,
    teach,
    teach_seen_classes,
    teach_transformer,
    train_seen_classes_teacher,
    train_transformer_teacher,
)
from compresslab.experiments.experiment import TUNING, Best, Experiment, Run
from compresslab.experiments.results import RESULTS

__all__ = ["EXPERIMENT", "load_results", "load_student"]

SEEDS, HELD_OUT_SEEDS, TRIED_AT = (0, 1, 2), (0, 1, 2, 3, 4), 100
KEPT_SEED = 0  # the seed of the stored students
LEARNING_RATES = (0.1, 0.4, 1.6)  # tried for every method, and for the student alone
TRANSFORMER_RATE = 0.05  # for the transformers, deep and shallow; no other was tried
LABELS = (1000, 4000)  # in addition to the table's
RETRIEVAL = ("alone", "kd", "rkd", "pkt", "sp")
TEACHERS = ("mlp", "student", "baseline")  # in addition to the table's "teacher"

TRIES = {
    (name, rate): Run(
        f"{TUNING}/{name}/{rate:g}/{TRIED_AT}", "teach", {"method": name, "learning_rate": rate}, TRIED_AT
    )
    for name in ("alone", *METHODS)
    for rate in LEARNING_RATES
}
BEST_RATES = {
    name: Best("learning_rate", tuple(TRIES[name, rate].key for rate in LEARNING_RATES))
    for name in ("alone", *METHODS)
}


def _taught(group: str, method: str, *names: str, seed: int, called: str = "", **settings) -> Run:
    """The run of a method at its best learning rate."""
    name = called or method
    return Run(
        "/".join([group, name, *names, str(seed)]),
        "teach_seen_classes" if group == "held_out" else "teach",
        {"method": method, **settings},
        seed,
        derived={"learning_rate": BEST_RATES[method]},
        after=(SEEN_TEACHER,) if group == "held_out" and method != "alone" else (),
        network=f"{group}_{name}" if seed == KEPT_SEED and group in ("methods", "held_out") else "",
    )


def _table() -> Iterator[Run]:
    """The runs of every method, and of the student alone, with every seed."""
    for seed in SEEDS:
        yield _taught("methods", "alone", seed=seed, called="alone_long", longer=3)
        for name in ("alone", *METHODS):
            yield _taught("methods", name, seed=seed)


def _teachers() -> Iterator[Run]:
    """The teacher trained on some classes only, and the transformer: only the networks are stored."""
    yield Run(
        SEEN_TEACHER, "train_seen_classes_teacher", {"epochs": 8}, 0, network=SEEN_TEACHER, network_only=True
    )
    settings = {"epochs": 16, "learning_rate": TRANSFORMER_RATE}
    yield Run(TRANSFORMER, "train_transformer_teacher", settings, 0, network=TRANSFORMER, network_only=True)


def _held_out() -> Iterator[Run]:
    """Students trained on some classes only."""
    for seed in HELD_OUT_SEEDS:
        for name in RETRIEVAL:
            yield _taught("held_out", name, seed=seed)


def _transformers() -> Iterator[Run]:
    for seed in SEEDS:
        for name in ("alone", "response", "tinybert"):
            settings = {"method": name, "learning_rate": TRANSFORMER_RATE}
            after = () if name == "alone" else (TRANSFORMER,)
            yield Run(f"transformers/{name}/{seed}", "teach_transformer", settings, seed, after=after)


def _beside_the_table() -> Iterator[Run]:
    """The runs with other numbers of labels, other students, teachers and peers."""
    for seed in SEEDS:
        for name in ("alone", "kd"):
            for labels in LABELS:
                yield _taught("labels", name, str(labels), seed=seed, labels=labels)
            for size in ("half", "double"):
                yield _taught("students", name, size, seed=seed, student=size)
        for teacher in TEACHERS:
            yield _taught("teachers", "kd", teacher, seed=seed, teacher=teacher)
        yield _taught("peers", "mutual", "double", seed=seed, peer="double")


EXPERIMENT = Experiment(
    lab="02_distillation",
    plan=(*TRIES.values(), *_table(), *_teachers(), *_held_out(), *_transformers(), *_beside_the_table()),
    functions={
        function.__name__: function
        for function in (
            teach,
            teach_seen_classes,
            teach_transformer,
            train_seen_classes_teacher,
            train_transformer_teacher,
        )
    },
    structure=structure,
    summary=("methods", "test_accuracy"),
    chosen={"learning_rates": BEST_RATES},
    unrecorded=frozenset({"method", "seed", "student", "teacher", "peer", "labels", "longer"}),
)
load_results = EXPERIMENT.load_results


def load_student(method: str, *, group: str = "methods", folder: Path = RESULTS) -> nn.Module:
    """Return the student that a method taught from seed 0, in evaluation mode.

    Args:
        method: a name in METHODS, "alone" or "alone_long".
        group: "methods", or "held_out" for those that saw only every other class.
        folder: where the results are.

    Raises:
        BadSetting: no such student.
    """
    return EXPERIMENT.load_network(f"{group}_{method}", folder=folder)
