"""The experiments behind the labs' tables: runs as data, what runs them, and what reads their results.

One folder per lab: ``methods`` and the like are what its runs compare, ``plan`` is the list of the runs. An
experiment that is under way, with runs that are still missing, has a folder of its own inside its lab's; it
is called LAB/FOLDER.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterable
from typing import TYPE_CHECKING

from compresslab.errors import BadSetting

if TYPE_CHECKING:
    from compresslab.experiments.experiment import Experiment

__all__ = ["all_experiments", "experiments_under_way", "find_experiment"]

UNDER_WAY = ("distillation.comparison",)  # folders


@functools.cache
def all_experiments() -> dict[str, Experiment]:
    """Return every lab's experiment, {lab's name: experiment}, in the order of their numbers."""
    return _experiments(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)


@functools.cache
def experiments_under_way() -> dict[str, Experiment]:
    """Return the experiments of which runs are still missing, {LAB/FOLDER: experiment}."""
    return _experiments(UNDER_WAY)


def _experiments(folders: Iterable[str]) -> dict[str, Experiment]:
    plans = [importlib.import_module(f"{__name__}.{folder}.plan") for folder in folders]
    return {plan.EXPERIMENT.lab: plan.EXPERIMENT for plan in sorted(plans, key=lambda p: p.EXPERIMENT.lab)}


def find_experiment(name: str, *, beside: tuple[str, ...] = ()) -> Experiment:
    """Return the experiment of the lab with this name, number or topic (``02``, ``distillation``).

    Args:
        name: of the lab, or what only its name begins or ends with; the whole name of one under way.
        beside: what else the caller would have accepted, for the error.

    Raises:
        BadSetting: no lab with experiments is called so, or several are.
    """
    labs, others = all_experiments(), experiments_under_way()
    if name in others:
        return others[name]
    found = [lab for lab in labs if name and (lab.startswith(name) or lab.endswith(name))]
    if len(found) != 1:
        known = ", ".join([*beside, *labs, *others])
        raise BadSetting(f"NAME must be one of {known}, or a lab's number, got {name!r}")
    return labs[found[0]]
