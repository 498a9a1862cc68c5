"""torchvision, imported so that it also works where its compiled operators do not load.

On Linux x86-64 the package index's torchvision is built for CUDA. Beside a CPU-only torch its compiled
library does not load, and the import stops with ``operator torchvision::nms does not exist``: a Python
file of torchvision registers a shape rule for an operator that nobody has declared. Declaring the two
operators (their schemas alone, without code) lets everything written in Python work: data sets,
transforms, models, utilities. The operators themselves stay unavailable, and nothing here calls them.

A torchvision whose operators do load is never touched.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

__all__ = ["import_torchvision", "operators_load"]

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[torch.library.Library] = []  # a Library that is collected takes its operators with it


def import_torchvision() -> ModuleType:
    """The torchvision package, whether or not its compiled operators load on this machine.

    Raises:
        ImportError: torchvision is missing, or broken for another reason than the one above.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # the half of torchvision that was imported before it failed
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(operator + _SCHEMA)
    _declared.append(library)
    return importlib.import_module("torchvision")


def operators_load() -> bool:
    """Whether torchvision's compiled operators load here; else their names alone are declared."""
    import_torchvision()
    return not _declared
