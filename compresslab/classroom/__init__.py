"""The teaching: exercises, checks, notebooks and grades. Nothing outside this folder imports it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compresslab.classroom.desk import Desk, lab
    from compresslab.classroom.metrics import metric, verdict

__all__ = ["Desk", "lab", "metric", "verdict"]

_PAGES = {"Desk": "desk", "lab": "desk", "metric": "metrics", "verdict": "metrics"}


def __getattr__(name: str) -> Any:
    """A public name, fetched when it is first asked for: a grader's worker needs no desk and no exercises."""
    if name not in _PAGES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PAGES[name]}"), name)
