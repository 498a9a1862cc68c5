"""An experiment as data: a plan of runs, each with its settings and with the runs that it depends on.

A ``Run`` names its function by a string, which is looked up in its experiment's table, and gives it JSON
values, so a plan can be read, tested and sent to another computer. Settings that other runs decide, such as
the learning rate that did best on validation, are data too: ``Best`` names the runs. So is whether a run is
needed at all: ``BestIs`` asks whether the best value so far lies at the edge of a grid. Runs of the group
``tries`` are tuning runs; they get no test images, so nothing can be chosen by them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from compresslab.data.images import Images, Splits
from compresslab.errors import BadSetting
from compresslab.experiments.results import RESULTS, load_weights, read_json, record_settings
from compresslab.storage.atomic import write_tensors
from compresslab.training.loop import fast_precision

__all__ = ["TUNING", "Best", "BestIs", "Context", "Derived", "Experiment", "Run"]

TUNING = "tries"  # the group of tuning runs


class Derived(Protocol):
    """A setting that follows from the results of other runs: JSON again."""

    @property
    def after(self) -> tuple[str, ...]:
        """The keys of those runs."""

    def value(self, results: Mapping[str, Any]) -> Any:
        """The setting, once they have ended."""


@dataclass(frozen=True)
class Best:
    """A setting's value in the run that did best on validation; of equals, in the first.

    A run that was not needed has no result and is left out.

    >>> a, b = ({"rate": rate, "validation_accuracy": 0.7 + rate} for rate in (0.1, 0.2))
    >>> Best("rate", ("a", "b")).value({"a": a, "b": b})
    0.2
    """

    setting: str
    after: tuple[str, ...]

    def value(self, results: Mapping[str, Any]) -> Any:
        ended = [key for key in self.after if key in results]
        best = max(ended, key=lambda key: results[key]["validation_accuracy"])
        return results[best][self.setting]


@dataclass(frozen=True)
class BestIs:
    """Whether a setting's best value is this one: if it is the last of a grid, the next one is needed.

    >>> a, b = ({"rate": rate, "validation_accuracy": 0.7 + rate} for rate in (0.1, 0.2))
    >>> BestIs(0.2, Best("rate", ("a", "b"))).value({"a": a, "b": b})
    True
    """

    edge: Any
    best: Best

    @property
    def after(self) -> tuple[str, ...]:
        return self.best.after

    def value(self, results: Mapping[str, Any]) -> bool:
        return bool(self.best.value(results) == self.edge)


@dataclass(frozen=True)
class Run:
    """One run of an experiment.

    Attributes:
        key: its name in the results, GROUP/NAME/…/SEED.
        function: what runs, by its name in the experiment's table.
        settings: JSON values.
        seed: of all chance in it, a setting too; None if it has none.
        derived: further settings, each of which other runs decide.
        after: further runs that it depends on: it is given their networks.
        network: the name of the file that keeps its network, "" if none is kept.
        network_only: whether that file is all that it leaves, without a record among the results.
        needed: whether it runs at all, if other runs decide that; None for a run that is always needed.
    """

    key: str
    function: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    derived: Mapping[str, Derived] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    network: str = ""
    network_only: bool = False
    needed: Derived | None = None

    @property
    def group(self) -> str:
        """What its key begins with, such as "networks"."""
        return self.key.partition("/")[0]

    @property
    def depends_on(self) -> set[str]:
        """The keys of all runs that must have ended before it can begin."""
        decided = [*self.derived.values(), *([self.needed] if self.needed else [])]
        return {*self.after, *(key for each in decided for key in each.after)}

    def resolve(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """All its settings, once what it depends on has ended."""
        derived = {name: setting.value(results) for name, setting in self.derived.items()}
        return {**self.settings, **derived, **({} if self.seed is None else {"seed": self.seed})}


@dataclass(frozen=True)
class Experiment:
    """A lab's runs, and how their results are read.

    Attributes:
        lab: its name.
        plan: all runs, with different keys, each after those that it depends on.
        functions: {name: function of a ``Context`` and of a run's settings, returning JSON values}.
        structure: (a stored network's name, its run's record) → a network to load its weights into.
        summary: what the command line prints: the group of the runs, and which of their values.
        chosen: {name among the results: values that the runs decide}, for readers.
        unrecorded: settings that older records of this lab lack, as their keys tell them.
    """

    lab: str
    plan: tuple[Run, ...]
    functions: Mapping[str, Callable[..., dict[str, Any]]]
    structure: Callable[[str, Mapping[str, Any]], nn.Module]
    summary: tuple[str, ...]
    chosen: Mapping[str, Any] = field(default_factory=dict)
    unrecorded: frozenset[str] = frozenset()

    def path(self, folder: Path) -> Path:
        """The file of the results."""
        return folder / f"{self.lab}.json"

    def network_path(self, name: str, folder: Path) -> Path:
        """The file of a stored network."""
        return folder / self.lab / f"{name}.safetensors"

    def load_results(self, *, folder: Path = RESULTS) -> dict[str, Any]:
        """Return what the runs found, as far as they have ended: {key: {…}}.

        Raises:
            DamagedFile: the file is damaged.
        """
        path = self.path(folder)
        return read_json(path, about="it keeps what the runs found") if path.exists() else {}

    def load_record(self, name: str, *, folder: Path = RESULTS) -> dict[str, Any]:
        """Return what the run of a stored network found, with its settings.

        Raises:
            BadSetting: no such network.
        """
        results = self.load_results(folder=folder)
        runs = {
            run.network: results.get(run.key, {})
            for run in self.plan
            if run.network and self.network_path(run.network, folder).exists()
        }
        if name not in runs:
            raise BadSetting(
                f"name must be one of the stored networks ({', '.join(runs) or 'none'}), got {name!r}; "
                f"repeat the runs with: compresslab train {self.lab}"
            )
        return record_settings(runs[name])

    def load_network(self, name: str, *, folder: Path = RESULTS) -> nn.Module:
        """Return a network that a run kept, in evaluation mode.

        Args:
            name: of its file, without the suffix.
            folder: where the results are.

        Raises:
            BadSetting: no such network.
            DamagedFile: its file is damaged or not of these results.
        """
        structure = self.structure(name, self.load_record(name, folder=folder))
        return load_weights(self.network_path(name, folder), into=structure)


@dataclass(frozen=True)
class Context:
    """What a run works with beside its settings.

    Attributes:
        data: Fashion-MNIST; a tuning run gets no test images.
        folder: of its own: an interrupted training goes on from what is there.
        run: itself.
        networks: {a run that it depends on: the bytes of its network's file}.
        small: whether everything is small, to try it out.
    """

    data: Splits
    folder: Path
    run: Run
    networks: Mapping[str, bytes] = field(default_factory=dict)
    small: bool = False

    @property
    def is_tuning(self) -> bool:
        """Whether something will be chosen by what it finds: then it reads no test image."""
        return self.run.group == TUNING

    def sample(self, count: int, seed: int) -> Images:
        """Return ``count`` different training images (all, if there are fewer), drawn by the seed."""
        train = self.data.train
        index = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:count]
        return Images(train.pixels[index], train.labels[index])

    def first_test_images(self) -> Images:
        """The first 4,000 test images (all, if there are fewer), for curves of many points."""
        return self.data.test.first(min(4000, len(self.data.test)))

    def training(self, *, epochs: int, learning_rate: float, seed: int) -> dict[str, Any]:
        """Return settings of ``fit``: one epoch if everything is small, the precision that is fast here."""
        settings = {"epochs": 1 if self.small else epochs, "learning_rate": learning_rate, "seed": seed}
        return settings | {"precision": fast_precision()}

    @property
    def checkpoint(self) -> Path:
        """The file that keeps the state of its training after every epoch."""
        return self.folder / "training.checkpoint.safetensors"

    @property
    def network_path(self) -> Path:
        """The file to which it writes the network that is to be kept."""
        return self.folder / "network.safetensors"

    def save_network(self, network: nn.Module) -> None:
        """Write the network's state dict to ``network_path``, if this run's network is kept."""
        if self.run.network:
            write_tensors(self.network_path, network.state_dict(), durable=True)
