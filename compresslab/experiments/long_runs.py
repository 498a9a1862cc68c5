"""Runs for which a notebook has no time, side by side: each is kept as soon as it ends, and none runs twice.

A lab's results are one JSON file, {run's key: what it found}. A job is missing unless a run of that key with
just its settings is among the results, so an interrupted command goes on and a changed setting is run anew.
The workers are processes of one thread each: with networks of this size two of them do more than one process
with two threads.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm.auto import tqdm

from compresslab.errors import BadSetting, DamagedFile
from compresslab.jobs.openmp import environment_for_children

__all__ = [
    "Job",
    "load_whole",
    "read_kept",
    "read_results",
    "run_missing",
    "save_whole",
    "values_by_seed",
    "workers",
    "write_results",
]


class Job(Protocol):
    """One run, by its name in the results."""

    @property
    def key(self) -> str: ...


J = TypeVar("J", bound=Job)


def run_missing(
    jobs: Sequence[J],
    perform: Callable[[J], dict],
    *,
    settings: Callable[[J], Mapping[str, Any]],
    results: dict,
    place: Path,
    pool: Executor,
) -> None:
    """Runs the jobs that are not among the results, and keeps what each found; a bar shows how far it is.

    A run that fails, or an interruption, ends all: what has ended by then is kept.

    Args:
        jobs: with different keys.
        perform: job → what it found, as JSON values; a function that can be sent to another process.
        settings: job → what its run depends on, as JSON values; kept with what was found.
        results: {key: found}, added to.
        place: the JSON file that keeps them.
        pool: what runs them, such as ``workers()``.
    """
    missing = [job for job in jobs if not _is_there(job.key, settings(job), results)]
    started: dict[Future, J] = {pool.submit(perform, job): job for job in missing}
    try:
        for ended in tqdm(as_completed(started), desc=_group(jobs), total=len(missing), unit="run"):
            job = started[ended]
            results[job.key] = {**ended.result(), **settings(job)}
            write_results(results, place)
    except BaseException:  # an interruption too: what has ended is kept, what waits is not begun
        pool.shutdown(wait=False, cancel_futures=True)
        raise


@contextlib.contextmanager
def workers(jobs: int | None = None) -> Iterator[Executor]:
    """Processes of one thread each, by default one a processor, without progress bars of their own."""
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    settings: dict[str, Any] = {"initializer": torch.set_num_threads, "initargs": (1,)}
    with (
        environment_for_children(TQDM_DISABLE="1"),  # read at the import of tqdm: theirs is still to come
        ProcessPoolExecutor(jobs or os.cpu_count() or 1, mp_context=context, **settings) as pool,
    ):
        yield pool


def read_results(place: Path) -> dict:
    """What the runs found, as far as they have ended: {key: found}; empty where there is no file yet.

    Raises:
        CompressionError: the file is damaged.
    """
    return read_kept(place, about="it keeps what the long runs found") if place.exists() else {}


def read_kept(place: Path, *, about: str) -> dict:
    """What a JSON file among the results holds; ``about`` says what that is.

    Raises:
        CompressionError: the file is missing or damaged.
    """
    try:
        return dict(json.loads(place.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise DamagedFile(
            f"{place} can't be read ({error}); {about}. Get it back with: git checkout -- data/results"
        ) from error


def write_results(results: Mapping[str, Any], place: Path) -> None:
    """Writes the results as JSON in the order of their keys, or leaves what was there: never half of them."""
    unfinished = _unfinished(place)
    unfinished.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")
    os.replace(unfinished, place)


def save_whole(network: nn.Module, place: Path) -> None:
    """Writes the network's weights to a file, or leaves what was there: never half of them."""
    unfinished = _unfinished(place)
    save_file(network.state_dict(), unfinished)
    os.replace(unfinished, place)


def load_whole(place: Path, *, into: nn.Module) -> nn.Module:
    """The network ``into``, with the weights of a file that ``save_whole`` wrote.

    Raises:
        CompressionError: the file is missing or damaged, or holds another network.
    """
    try:
        into.load_state_dict(load_file(place))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise DamagedFile(
            f"{place} can't be loaded ({str(error).splitlines()[0]}); it holds what a long run found. "
            "Get it back with: git checkout -- data/results"
        ) from error
    return into


def values_by_seed(results: Mapping[str, Any], *names: str, key: str, command: str) -> list[float]:
    """One value a seed, in the order of the seeds: the results ``NAME/…/0``, ``NAME/…/1``, …

    Args:
        results: {"name/…/seed": {key: value}}.
        names: what comes before the seed.
        key: which of the values.
        command: what repeats the runs, for the error.

    Raises:
        CompressionError: no run has that name, or that key.
    """
    start = "/".join(names) + "/"
    runs = {int(name.rpartition("/")[2]): run for name, run in results.items() if _is_seed(name, start)}
    if not runs:
        there = ", ".join(sorted({name.rpartition("/")[0] for name in results if "/" in name}))
        raise BadSetting(
            f"no run is called {start}SEED; there are {there or 'none'}. Repeat the runs with: {command}"
        )
    if any(key not in run for run in runs.values()):
        known = ", ".join(sorted(set.intersection(*(set(run) for run in runs.values()))))
        raise BadSetting(f"the runs {start}SEED have no {key}; they have {known}: choose one of those")
    return [run[key] for _, run in sorted(runs.items())]


def _is_there(key: str, settings: Mapping[str, Any], results: Mapping[str, Any]) -> bool:
    """Whether a run of just these settings is among the results."""
    return key in results and settings.items() <= results[key].items()


def _group(jobs: Sequence[Job]) -> str:
    """What the first job's key begins with: the progress bar's title."""
    return jobs[0].key.partition("/")[0] if jobs else ""


def _is_seed(name: str, start: str) -> bool:
    """Whether a run is called so, with nothing but its seed behind."""
    return name.startswith(start) and name.removeprefix(start).isdigit()


def _unfinished(place: Path) -> Path:
    """Where a file is written before it takes its place; its folder is made."""
    place.parent.mkdir(parents=True, exist_ok=True)
    return place.with_name(place.name + ".part")
