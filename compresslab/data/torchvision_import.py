"""Import of torchvision that also works if its compiled operators cannot be loaded.

On Linux x86-64 the package index's torchvision is built for CUDA. With a CPU-only torch its compiled
library does not load, and the import fails with ``operator torchvision::nms does not exist``: a Python
file of torchvision registers a shape rule for an operator that was never declared. Declaring the two
operators (their schemas only, without code) makes everything written in Python work: data sets,
transforms, models, utilities. The operators themselves stay unavailable, and nothing here calls them.

If the operators load, torchvision is left as it is.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

__all__ = ["import_torchvision", "operators_load"]

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[torch.library.Library] = []  # a garbage-collected Library removes its operators


def import_torchvision() -> ModuleType:
    """Import and return torchvision, whether or not its compiled operators load on this machine.

    Raises:
        ImportError: torchvision is missing, or its import fails for another reason.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # the modules that were imported before the failure
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(operator + _SCHEMA)
    _declared.append(library)
    return importlib.import_module("torchvision")


def operators_load() -> bool:
    """Whether torchvision's compiled operators load on this machine; if not, only their schemas exist."""
    import_torchvision()
    return not _declared
