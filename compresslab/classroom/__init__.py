"""The old address of ``compresslab.notebook`` and of the labs' figures, kept for one version.

Students' half-done copies of the labs import from here.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

__all__: list[str] = []

_MOVED = {
    "lab": "compresslab.notebook:lab",
    "metric": "compresslab.notebook:metric",
    "verdict": "compresslab.notebook:verdict",
    "pictures": "compresslab.course.measuring.figures",
    "widgets": "compresslab.course.figures.sliders",
    "gain_pictures": "compresslab.course.figures.gains",
    "quantization_pictures": "compresslab.course.quantization.figures",
    "distillation_pictures": "compresslab.course.distillation.figures",
    "pruning_pictures": "compresslab.course.pruning.figures",
    "sparsity_pictures": "compresslab.course.pruning.tradeoff_figures",
    "low_rank_pictures": "compresslab.course.low_rank.figures",
    "thinness_pictures": "compresslab.course.low_rank.tradeoff_figures",
}


def __getattr__(name: str) -> Any:
    """Return a name of the old package from where it is now, with a warning that says where.

    Raises:
        AttributeError: the old package had no such name.
    """
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _MOVED[name].partition(":")
    warnings.warn(
        f"compresslab.classroom.{name} is now {_MOVED[name].replace(':', '.')}; the old name goes with the "
        "next version. `compresslab update LAB` moves your cells into the new edition",
        DeprecationWarning,
        stacklevel=2,
    )
    found = importlib.import_module(module)
    return getattr(found, attribute) if attribute else found
