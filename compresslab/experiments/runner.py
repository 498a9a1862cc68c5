"""Run what is missing of an experiment, on local processes or on a Dask cluster.

A run is missing unless a result with its key and just its settings is stored, so an interrupted experiment
goes on, and a changed setting is run again. A run that others make needless, such as the next value of a
grid whose best lies inside, is not started, and no result of it is kept. A run begins when those that it
depends on have ended, the first of the plan first; its network and its record are written as soon as it ends,
by this process alone, so the workers of a cluster share no files. On this computer an interrupted training
goes on from its last epoch.

Each worker uses one thread: with networks of this size two such processes do more than one with two threads.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import torch

from compresslab.data.fashion_mnist import fashion_mnist
from compresslab.data.images import Splits
from compresslab.experiments.experiment import TUNING, Context, Experiment, Run
from compresslab.experiments.results import RESULTS, record_settings, write_results
from compresslab.jobs.executor import Pool, open_pool, run_all
from compresslab.storage.atomic import write_bytes

__all__ = ["Unfinished", "estimated_seconds", "forecast", "perform", "run_missing", "training_pool"]

_ONE_AT_A_TIME = threading.Lock()  # torch's random numbers and its threads belong to the whole process


def training_pool(jobs: int | None = None, scheduler: str | None = None) -> AbstractContextManager[Pool]:
    """Return a pool to train on: processes without progress bars of their own, or a Dask cluster."""
    return open_pool(jobs, scheduler, TQDM_DISABLE="1")


class Unfinished:
    """The runs of an experiment that have no stored result, and those of them that can begin now.

    Attributes:
        results: {key: record}; ``end`` adds to them and stores them.
        ready: (run, its settings) of those that can begin, in the plan's order; the caller takes them out.
        waiting: those that depend on others which have not ended.
        needless: those that others have made needless.
    """

    def __init__(self, experiment: Experiment, *, folder: Path = RESULTS, small: bool = False) -> None:
        self.experiment, self.folder, self.small = experiment, folder, small
        self.results = experiment.load_results(folder=folder)
        self.ready: deque[tuple[Run, dict[str, Any]]] = deque()
        self.waiting, self._ended = list(experiment.plan), set[str]()
        self.needless = list[Run]()
        self._number = {run.key: number for number, run in enumerate(experiment.plan)}
        self._release()

    @property
    def runs(self) -> list[Run]:
        """All of them, in the order of the plan as far as it can be told now."""
        return [*(run for run, _ in self.ready), *self.waiting]

    def end(self, run: Run, record: Mapping[str, Any], network: bytes | None) -> None:
        """Store what a run found, its record last; runs that waited for it become ready."""
        if network is not None:
            path = self.experiment.network_path(run.network, self.folder)
            write_bytes(path, network, durable=True)
        if not run.network_only:
            self.results[run.key] = dict(record)
            write_results(self.results, self.experiment.path(self.folder))
        self._ended.add(run.key)
        self._release()

    def conclude(self) -> None:
        """Store what the runs have decided, if that has changed."""
        chosen = _values(self.experiment.chosen, self.results)
        if not self.waiting and not chosen.items() <= self.results.items():
            self.results |= chosen
            write_results(self.results, self.experiment.path(self.folder))

    def networks_for(self, run: Run) -> dict[str, bytes]:
        """Return the networks of the runs that it names: {key: bytes of the file}."""
        by_key = {each.key: each.network for each in self.experiment.plan}
        return {key: self.experiment.network_path(by_key[key], self.folder).read_bytes() for key in run.after}

    def work_folder(self, run: Run) -> Path:
        """Return where a run of this computer keeps its checkpoint."""
        return self.folder / self.experiment.lab / f"{run.key.replace('/', '_')}.unfinished"

    def _release(self) -> None:
        for run in list(self.waiting):  # in the plan's order: a stored run may free one that comes later
            if run.depends_on <= self._ended:
                self.waiting.remove(run)
                self._begin_or_pass_over(run)
        in_order = sorted(self.ready, key=lambda item: self._number[item[0].key])
        self.ready.clear()  # the caller holds this very deque
        self.ready.extend(in_order)

    def _begin_or_pass_over(self, run: Run) -> None:
        if run.needed is not None and not run.needed.value(self.results):
            self.needless.append(run)
            self.results.pop(run.key, None)  # of other settings: nothing may be chosen by it
            self._ended.add(run.key)
            return
        settings = run.resolve(self.results)
        if self._is_stored(run, settings):
            self._ended.add(run.key)
        else:
            self.ready.append((run, settings))

    def _is_stored(self, run: Run, settings: Mapping[str, Any]) -> bool:
        if run.network and not self.experiment.network_path(run.network, self.folder).exists():
            return False
        if run.network_only:
            return True
        if run.key not in self.results:
            return False
        lacking = {name: settings[name] for name in self.experiment.unrecorded & settings.keys()}
        stored = lacking | record_settings(self.results[run.key])
        return {**settings, "small": self.small}.items() <= stored.items()


def run_missing(
    unfinished: Unfinished, pool: Pool, *, report: Callable[[str], None] = print
) -> dict[str, Any]:
    """Run every run that has no stored result, saving each result as it ends; return all results.

    Args:
        unfinished: the runs that are missing, and where they are stored.
        pool: what runs them, such as ``training_pool()``.
        report: called with one line per run that has ended.

    Raises:
        ExceptionGroup: runs failed; all others that do not depend on them have ended and are stored.
    """
    total, failed = len(unfinished.runs), list[Exception]()
    with closing(run_all(unfinished.ready, functools.partial(_submit, unfinished, pool), pool)) as outcomes:
        for number, ((run, _), outcome) in enumerate(outcomes, start=1):
            if isinstance(outcome, Exception):
                outcome.add_note(f"in the run {run.key}")
                failed.append(outcome)
                report(f"[{number}/{total}] {run.key} failed: {outcome}")
            else:
                record, network = outcome
                unfinished.end(run, record, network)
                report(f"[{number}/{total}] {run.key}: {record['seconds']:.0f} s")
    if failed:
        raise ExceptionGroup(f"{len(failed)} of {total} runs failed", failed)
    unfinished.conclude()
    return unfinished.results


def _submit(
    unfinished: Unfinished, pool: Pool, executor: Executor, item: tuple[Run, dict[str, Any]]
) -> Future:
    run, settings = item
    function = unfinished.experiment.functions[run.function]
    folder = unfinished.work_folder(run) if pool.shares_files else None
    networks = unfinished.networks_for(run)
    return executor.submit(perform, function, run, settings, networks, folder, unfinished.small)


def perform(
    function: Callable[..., dict[str, Any]],
    run: Run,
    settings: Mapping[str, Any],
    networks: Mapping[str, bytes],
    folder: Path | None,
    small: bool,
) -> tuple[dict[str, Any], bytes | None]:
    """Run one run in a worker; return its record, and the bytes of the network that it kept.

    Args:
        function: of a ``Context`` and the settings.
        run: what it is called, and its seed.
        settings: its settings, resolved.
        networks: those of the runs that it depends on.
        folder: its own, for checkpoints, removed at the end; None for a temporary one.
        small: whether everything is small, to try it out.
    """
    with _ONE_AT_A_TIME, _own_folder(folder) as own:
        torch.set_num_threads(1)
        torch.manual_seed(run.seed or 0)
        context = Context(_data(small, with_test=run.group != TUNING), own, run, networks, small)
        start = time.perf_counter()
        found = function(context, **settings)
        record = {"seconds": round(time.perf_counter() - start, 1), **found, **settings, "small": small}
        record |= {"torch": torch.__version__, "date": datetime.date.today().isoformat()}
        return record, context.network_path.read_bytes() if context.network_path.exists() else None


def estimated_seconds(run: Run, results: Mapping[str, Any]) -> float | None:
    """Return the mean seconds of the stored runs whose keys have most of their beginning in common with it.

    >>> stored = {"kd/a/0": {"seconds": 20.0}, "kd/a/1": {"seconds": 22.0}, "rkd/a/0": {"seconds": 60.0}}
    >>> estimated_seconds(Run("kd/a/2", "teach"), stored)
    21.0
    """
    timed = {k: r["seconds"] for k, r in results.items() if isinstance(r, dict) and "seconds" in r}
    parts = run.key.split("/")
    for length in range(len(parts), -1, -1):
        alike = [s for key, s in timed.items() if key.split("/")[:length] == parts[:length]]
        if alike:
            return sum(alike) / len(alike)
    return None


def forecast(unfinished: Unfinished) -> str:
    """Return how many runs are missing, and how long one worker would take, in one line.

    Runs of which it can't be told yet whether they are needed are counted apart, without their time.
    """
    perhaps = [run for run in unfinished.waiting if run.needed is not None]
    runs = [run for run in unfinished.runs if run not in perhaps]
    every = len(unfinished.experiment.plan) - len(unfinished.needless) - len(perhaps)
    if not runs:
        return f"{unfinished.experiment.lab}: all {every} runs are stored, none is missing"
    estimates = [estimated_seconds(run, unfinished.results) for run in runs]
    hours = sum(seconds or 0 for seconds in estimates) / 3600
    unknown = sum(seconds is None for seconds in estimates)
    length = f"about {hours:.1f} hours of one worker" + (f", {unknown} of unknown length" if unknown else "")
    if perhaps:
        length += f"; at most {len(perhaps)} more, where the best of a grid lies at its edge"
    return f"{unfinished.experiment.lab}: {len(runs)} of {every} runs are missing: {length}"


def _values(chosen: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """The values of derived settings, nested as they are."""
    return {
        name: _values(each, results) if isinstance(each, Mapping) else each.value(results)
        for name, each in chosen.items()
    }


@contextlib.contextmanager
def _own_folder(folder: Path | None) -> Iterator[Path]:
    """The folder, made and, unless the run fails, removed; or a temporary one."""
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
        return
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    shutil.rmtree(folder)


@functools.lru_cache(maxsize=2)
def _data(small: bool, *, with_test: bool) -> Splits:
    data = fashion_mnist()
    test = data.test if with_test else None  # whoever reads it all the same fails
    if small:
        train, validation = data.train.first(1000), data.validation.first(500)
        return Splits(train, validation, test and test.first(100))  # type: ignore[arg-type]
    return Splits(data.train, data.validation, test)  # type: ignore[arg-type]
