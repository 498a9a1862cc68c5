"""Labs: one folder per lab, with its ``LAB``, its figures and one module per exercise (``EXERCISE``)."""

from __future__ import annotations

import functools
import importlib
import pkgutil

from compresslab.checks.exercise import Lab
from compresslab.errors import BadSetting

__all__ = ["all_labs", "find_lab"]


@functools.cache
def all_labs() -> tuple[Lab, ...]:
    """Return all labs, ordered by number."""
    folders = [
        importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__) if m.ispkg
    ]
    labs = [folder.LAB for folder in folders if hasattr(folder, "LAB")]  # figures/ has no LAB
    return tuple(sorted(labs, key=lambda lab: lab.name))


def find_lab(name: str) -> Lab:
    """Return the lab of this name, or the only one whose name begins or ends with it (``00``, ``measuring``).

    Raises:
        BadSetting: no lab matches, or several do.
    """
    found = [lab for lab in all_labs() if lab.name == name]
    found = found or [
        lab for lab in all_labs() if name and (lab.name.startswith(name) or lab.name.endswith(name))
    ]
    if len(found) != 1:
        names = ", ".join(lab.name for lab in all_labs())
        raise BadSetting(f"{len(found) or 'no'} labs are called {name!r}; there are {names}")
    return found[0]
