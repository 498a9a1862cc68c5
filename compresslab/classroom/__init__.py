"""The former ``compresslab.classroom``, kept for this one version for students' half-done copies of 0.1.0.

``from compresslab.classroom import …`` gives the names from where they are now. Importing this package, as
the first cell of each of those copies does, also lets the technique families and ``compresslab.storage`` find
the names that have moved away from them; nothing else in the kit knows those.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

__all__: list[str] = []

_NOTEBOOK = "compresslab.notebook"
_FIGURES = "compresslab.course"
_GUESSES = "compresslab.course.figures.guesses"
_FORMER: dict[str, dict[str, tuple[str, ...]]] = {  # package, former name: the modules that have it now
    __name__: {
        "pictures": (f"{_FIGURES}.measuring.figures", _GUESSES),
        "widgets": (f"{_FIGURES}.figures.sliders", f"{_FIGURES}.measuring.figures"),
        "gain_pictures": (f"{_FIGURES}.figures.gains",),
        "quantization_pictures": (f"{_FIGURES}.quantization.figures",),
        "distillation_pictures": (f"{_FIGURES}.distillation.figures",),
        "pruning_pictures": (f"{_FIGURES}.pruning.figures",),
        "sparsity_pictures": (f"{_FIGURES}.pruning.tradeoff_figures",),
        "low_rank_pictures": (f"{_FIGURES}.low_rank.figures",),
        "thinness_pictures": (f"{_FIGURES}.low_rank.tradeoff_figures",),
    },
    "compresslab.storage": {"forms": ("compresslab.storage.sparse",)},
}
_RENAMED = {  # package, former name: its name in the same package
    "compresslab.techniques.distillation": {"tapped": "layer_outputs"},
    "compresslab.techniques.pruning": {"input_second_moments": "gram_matrices"},
    "compresslab.techniques.low_rank": {"input_second_moments": "gram_matrices"},
}
_MOVED_TO = {  # the package: where the names have moved to that it no longer has
    __name__: _NOTEBOOK,
    "compresslab.techniques.quantization": "compresslab.experiments.quantization",
    "compresslab.techniques.distillation": "compresslab.experiments.distillation",
    "compresslab.techniques.pruning": "compresslab.experiments.pruning",
    "compresslab.techniques.low_rank": "compresslab.experiments.low_rank",
}


def __getattr__(name: str) -> Any:
    """Return a name of the former package from where it is now, with a warning that says where.

    Raises:
        AttributeError: the former package had no such name.
    """
    return _former(__name__, name)


def _former(package: str, name: str) -> Any:
    """Return what a package had under a name in 0.1.0."""
    modules = _FORMER.get(package, {}).get(name, ())
    renamed = _RENAMED.get(package, {}).get(name, "")
    home = _MOVED_TO.get(package, "")
    if modules:
        found: Any = _together([importlib.import_module(module) for module in modules])
    elif renamed:
        found, modules = getattr(importlib.import_module(package), renamed), (f"{package}.{renamed}",)
    elif home and not name.startswith("_") and name in importlib.import_module(home).__all__:
        found, modules = getattr(importlib.import_module(home), name), (f"{home}.{name}",)
    else:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    warnings.warn(
        f"{package}.{name} is now in {', '.join(modules)}; the former name goes with the next version. "
        "compresslab update LAB puts your cells into the new edition",
        DeprecationWarning,
        stacklevel=3,
    )
    return found


def _together(modules: list[ModuleType]) -> Any:
    """Return one module as it is, and several as one value with the public names of all."""
    if len(modules) == 1:
        return modules[0]
    return SimpleNamespace(**{name: getattr(module, name) for module in modules for name in module.__all__})


def _finder(package: str) -> Callable[[str], Any]:
    return lambda name: _former(package, name)


for _package in {*_FORMER, *_MOVED_TO} - {__name__}:
    setattr(importlib.import_module(_package), "__getattr__", _finder(_package))  # noqa: B010
