"""Plan of lab 02's comparison, which is under way: ``compresslab train 02_distillation/comparison``.

Two tasks (``task``), each with its rows. Every row is tuned alike, at a third of the length and with a seed
of its own: four learning rates, then three values of its own settings at the best, each grid extended while
the best lies at an edge (``tuning``). Choices are by validation; test is read once per reported run. The
headlines have five seeds, the other rows three.

The teacher has the baseline's architecture and is trained without label smoothing; its twin, which differs
in label smoothing alone, has a row of its own. One recipe was tried, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from compresslab.experiments.distillation.comparison.runs import structure, teach, train_teacher
from compresslab.experiments.distillation.comparison.task import ALL_LABELS, FEW_LABELS, THIRDS
from compresslab.experiments.distillation.plan import EXPERIMENT as LAB
from compresslab.experiments.experiment import TUNING, Derived, Experiment, Run
from compresslab.experiments.tuning import Grid, Tuning, tune

__all__ = ["EXPERIMENT", "ROWS", "TEACHER", "TWIN", "Row"]

TEACHER, TWIN = "teachers/unsmoothed/0", "teachers/smoothed/0"  # keys of their runs
LABEL_SMOOTHING = {TEACHER: 0.0, TWIN: 0.05}
HEADLINE, ELSEWHERE, TRIED_AT = 5, 3, 100  # numbers of seeds; the seed of the tries
KEPT_SEED = 0  # the seed of the stored students

RATES = Grid("learning_rate", (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2), (0.1, 0.2, 0.4, 0.8))
TEMPERATURES = Grid("temperature", (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0), (1.0, 2.0, 4.0), 2.0)
SHARES = Grid("share", (0.1, 0.3, 0.5, 0.9, 1.0), (0.5, 0.9, 1.0), 0.9, bounds=(1.0,))
SMOOTHINGS = Grid("smoothing", (0.0, 0.025, 0.05, 0.1, 0.2, 0.4), (0.05, 0.1, 0.2), 0.1, bounds=(0.0,))
BETAS = Grid("beta", (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0), (2.0, 4.0, 8.0), 4.0)
THRESHOLDS = Grid("threshold", (0.0, 0.3, 0.6, 0.8, 0.9, 0.95, 0.99), (0.6, 0.8, 0.9), 0.8, bounds=(0.0,))


def _weights(default: float) -> Grid:
    """Return a grid of a term's weight in steps of about three, the default in the middle."""
    values = tuple(float(f"{default * 10 ** (step / 2):.1g}") for step in range(-4, 5))
    return Grid("weight", values, values[3:6], default)


FEATURES = {
    "fitnet": 1.0,
    "attention": 10.0,
    "rkd": 10.0,
    "pkt": 300.0,
    "sp": 3000.0,
}  # weights


@dataclass(frozen=True)
class Row:
    """A row of a task's table: a method, how it is tuned, and with how many seeds it is reported.

    Attributes:
        task: a name in TASKS.
        name: of the row; rows may share a method.
        method: a name in METHODS.
        tuning: its tries; None for a row whose settings other rows have tuned.
        seeds: how many.
        settings: those that nothing decides.
        derived: those that other rows' tries decide.
        teacher: the key of its run, "" for a method without one.
    """

    task: str
    name: str
    method: str
    tuning: Tuning | None
    seeds: int
    settings: dict[str, Any] = field(default_factory=dict)
    derived: dict[str, Derived] = field(default_factory=dict)
    teacher: str = ""

    @property
    def chosen(self) -> dict[str, Derived]:
        """All settings that tries decide, its own and other rows'."""
        return {**self.derived, **(self.tuning.chosen if self.tuning else {})}

    def run(self, seed: int) -> Run:
        """Return its reported run with this seed."""
        settings = {"task": self.task, "method": self.method, "thirds": THIRDS, **self.settings}
        after = (self.teacher,) if self.teacher else ()
        network = f"{self.task}_{self.name}" if seed == KEPT_SEED else ""
        key = f"{self.task}/{self.name}/{seed}"
        return Run(key, "teach", settings, seed, self.chosen, after, network)


def _tuned(
    task: str,
    name: str,
    method: str,
    *grids: Grid,
    seeds: int = ELSEWHERE,
    teacher: str = TEACHER,
    derived: dict[str, Derived] | None = None,
    **settings: Any,
) -> Row:
    """Return a row with tries of its own: of the learning rate, then along the other grids."""
    given, after = derived or {}, (teacher,) if teacher else ()
    tried = {"task": task, "method": method, "thirds": 1, **settings}
    template = Run(f"{TUNING}/{task}/{name}", "teach", tried, TRIED_AT, given, after)
    return Row(task, name, method, tune(template, (RATES, *grids)), seeds, settings, given, teacher)


def _headlines(task: str) -> Iterator[Row]:
    """The student alone, KD, and the controls that could explain KD's gain."""
    yield _tuned(task, "alone", "alone", seeds=HEADLINE, teacher="")
    kd = _tuned(task, "kd", "kd", TEMPERATURES, SHARES, seeds=HEADLINE)
    yield kd
    yield _tuned(task, "smoothed", "alone", SMOOTHINGS, seeds=HEADLINE, teacher="")
    yield _tuned(task, "hard_labels", "hard_labels", seeds=HEADLINE)
    yield _tuned(task, "permuted", "permuted", seeds=HEADLINE, derived=_likewise(kd, "temperature", "share"))


def _twins(task: str, alone: Row) -> Iterator[Row]:
    """The student alone for three times as long, and KD from the teacher with label smoothing."""
    rate = _likewise(alone, "learning_rate")
    yield Row(task, "alone_longer", "alone", None, ELSEWHERE, {"longer": 3}, rate)
    yield _tuned(task, "kd_smoothed_teacher", "kd", TEMPERATURES, SHARES, teacher=TWIN)


def _losses(task: str, kd: Row) -> Iterator[Row]:
    """DKD, and every feature and relation loss, alone and on top of KD, where it keeps its weight."""
    yield _tuned(task, "dkd", "dkd", BETAS, derived=_likewise(kd, "temperature"))
    yield _tuned(task, "fitnet_in_stages", "fitnet_in_stages", derived=_likewise(kd, "temperature", "share"))
    for name, default in FEATURES.items():
        row = _tuned(task, name, name, _weights(default))
        yield row
        both = {**_likewise(kd, "temperature", "share"), **_likewise(row, "weight")}
        yield _tuned(task, f"{name}_kd", name, derived=both)


def _peers_and_self(task: str) -> Iterator[Row]:
    """Two peers, and born-again generations."""
    yield _tuned(task, "mutual", "mutual", _weights(1.0), teacher="")
    yield _tuned(task, "born_again", "born_again", SHARES, teacher="")


def _only_few_labels(task: str, mutual: Row) -> Iterator[Row]:
    """What is compared with few labels alone: more peers, exits, Noisy Student, smoothed hard labels."""
    weight = _likewise(mutual, "weight")
    yield _tuned(task, "hard_labels_smoothed", "hard_labels", SMOOTHINGS)
    yield _tuned(task, "mutual_four", "mutual", teacher="", derived=weight, peers=4)
    yield _tuned(task, "mutual_ensemble", "mutual", teacher="", derived=weight, peers=4, ensemble=True)
    yield _tuned(task, "deep_alone", "deep_alone", teacher="")
    yield _tuned(task, "own_teacher", "own_teacher", SHARES, teacher="")
    yield _tuned(task, "noisy_student", "noisy_student", THRESHOLDS, teacher="")


def _stages(task: str) -> Iterator[tuple[Row, ...]]:
    """The rows of a task in groups, the most telling first."""
    first, last = tuple(_headlines(task)), tuple(_peers_and_self(task))
    yield first
    yield tuple(_twins(task, first[0]))
    yield tuple(_losses(task, first[1]))
    yield last
    if task == FEW_LABELS:
        yield tuple(_only_few_labels(task, last[0]))


def _likewise(row: Row, *names: str) -> dict[str, Derived]:
    return {name: row.chosen[name] for name in names}


def _runs(rows: tuple[Row, ...]) -> Iterator[Run]:
    """The tries of some rows, then their reported runs, seed by seed."""
    for row in rows:
        yield from row.tuning.runs if row.tuning else ()
    for seed in range(max(row.seeds for row in rows)):
        yield from (row.run(seed) for row in rows if seed < row.seeds)


def _plan(stages: Iterable[tuple[Row, ...]]) -> Iterator[Run]:
    """All runs: a teacher before the first row that learns from it."""
    trained = set[str]()
    for rows in stages:
        for key in {row.teacher: None for row in rows if row.teacher and row.teacher not in trained}:
            trained.add(key)
            yield _teacher(key)
        yield from _runs(rows)


def _teacher(key: str) -> Run:
    settings = {"epochs": 14, "learning_rate": 0.1, "label_smoothing": LABEL_SMOOTHING[key]}
    return Run(key, "train_teacher", settings, 0, network=f"{key.split('/')[1]}_teacher")


STAGES = (*_stages(ALL_LABELS), *_stages(FEW_LABELS))
ROWS = tuple(row for stage in STAGES for row in stage)

EXPERIMENT = Experiment(
    lab=f"{LAB.lab}/comparison",
    plan=tuple(_plan(STAGES)),
    functions={function.__name__: function for function in (teach, train_teacher)},
    structure=structure,
    summary=(ALL_LABELS, "test_accuracy"),
    chosen={"chosen": {f"{row.task}/{row.name}": row.chosen for row in ROWS}},
)
