"""The stored results of experiments: what a run found, found again by its key, and the networks it kept.

A lab's results are one JSON file, ``data/results/LAB.json``: {run's key: what it found and its settings}. A
key is ``GROUP/NAME/…/SEED``. Accuracies are fractions. Networks are ``data/results/LAB/NAME.safetensors``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from compresslab.data.location import DATA, way_back
from compresslab.errors import BadSetting, CompressionError, DamagedFile
from compresslab.storage import load_model
from compresslab.storage.atomic import write_json

__all__ = [
    "RESULTS",
    "load_weights",
    "read_json",
    "record_settings",
    "summarize",
    "values",
    "write_results",
]

RESULTS = DATA / "results"
GET_BACK = way_back("data/results")
REPEAT = "repeat the runs with: compresslab train LAB"


def values(results: Mapping[str, Any], *names: str, key: str = "test_accuracy") -> list[Any]:
    """Return one value per seed, in the order of the seeds: ``values(results, "methods", "kd")``.

    Args:
        results: of ``load_results``: {"name/…/seed": {key: value}}.
        names: what comes before the seed.
        key: which of the values.

    Raises:
        BadSetting: no run has that name, or that key.
    """
    start = "/".join(names) + "/"
    runs = {int(name.rpartition("/")[2]): run for name, run in results.items() if _is_seed_of(start, name)}
    if not runs:
        there = ", ".join(sorted({name.rpartition("/")[0] for name in results if "/" in name}))
        raise BadSetting(f"no run is called {start}SEED; there are {there or 'none'}; {REPEAT}")
    if any(key not in run for run in runs.values()):
        known = ", ".join(sorted(set.intersection(*(set(run) for run in runs.values()))))
        raise BadSetting(f"key must be one of {known} for the runs {start}SEED, got {key}")
    return [run[key] for _, run in sorted(runs.items())]


def record_settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with its settings beside what was found: the first lab's older ones nest them."""
    return {"small": False, **record, **record.get("settings", {})}


def summarize(results: Mapping[str, Any], group: str, *keys: str) -> list[tuple[str, ...]]:
    """Return a row per name of a group, the highest first value first: the mean over its seeds of each key.

    >>> summarize({"kd/a/0": {"x": 0.5}, "kd/a/1": {"x": 0.7}, "kd/b/0": {"x": 1_000}}, "kd", "x")
    [('b', '1,000'), ('a', '0.6')]
    """
    start = f"{group}/" if group else ""
    records: dict[str, list[Mapping[str, Any]]] = {}
    for name, record in results.items():
        if name.startswith(start) and set(keys) <= record.keys():
            name = name.removeprefix(start)
            records.setdefault(name.rpartition("/")[0] or name, []).append(record)
    means = {name: [fmean(run[key] for run in runs) for key in keys] for name, runs in records.items()}
    ordered = sorted(means.items(), key=lambda item: -item[1][0])
    return [(name, *(f"{mean:,.4f}".rstrip("0").rstrip(".") for mean in row)) for name, row in ordered]


def read_json(path: Path, *, about: str) -> dict[str, Any]:
    """Return what a JSON file among the results holds.

    Args:
        path: of the file.
        about: what it holds, for the error.

    Raises:
        DamagedFile: the file is missing or damaged.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DamagedFile(f"{path} can't be read ({error}); {about}. {GET_BACK}") from error


def write_results(results: Mapping[str, Any], path: Path) -> None:
    """Write the results atomically, as JSON in the order of their keys."""
    write_json(path, dict(sorted(results.items())), durable=True)


def load_weights(path: Path, *, into: nn.Module) -> nn.Module:
    """Return the network ``into`` with the weights of a file, in evaluation mode.

    Args:
        path: of a file that ``save_model`` wrote, or of a plain state dict.
        into: a network of the stored one's structure.

    Raises:
        DamagedFile: the file is missing or damaged, or holds another network.
    """
    try:
        with safe_open(path, "pt") as file:
            is_container = "compresslab" in (file.metadata() or {})
        if is_container:
            into = load_model(path, into=into)
        else:
            into.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, OSError, CompressionError) as error:
        reason = str(error).splitlines()[0]
        raise DamagedFile(
            f"{path} can't be loaded ({reason}); it holds the network of a run. {GET_BACK}"
        ) from error
    return into.eval()


def _is_seed_of(start: str, name: str) -> bool:
    """Whether a run is called so, with nothing but its seed behind."""
    return name.startswith(start) and name.removeprefix(start).isdigit()
