"""What a notebook has without an import, for the answers in a worker: menus, ``display``, IPython's names.

Nothing here marks, shows or reveals: a function that uses such a name in passing must not fail for it.
``yours`` holds what the submission gave to ``check``; ``reveal`` hands out the published answer of another
exercise, where the grader has sent it.
"""

from __future__ import annotations
import __future__

import math
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from compresslab.checks.withheld_calls import withheld

__all__ = [
    "NAMES",
    "Revealed",
    "Withheld",
    "WithheldModule",
    "library_names",
    "notebook_modules",
    "notebook_names",
]

LIBRARIES = ("torch", "nn", "np", "math", "F", "Tensor")  # what an opening cell imports in every lab
NAMES = (
    *LIBRARIES,
    *("check", "hint", "reveal", "yours", "lab", "metric", "verdict"),
    *("display", "get_ipython", "In", "Out", "_", "__", "___", "__name__"),
)


class Revealed(Exception):
    """The exercise asks for its own published answer: that works in the notebook, and earns nothing here."""


class Withheld(AttributeError):
    """A function of the kit's that answers an exercise of the lab, and so is not in the worker's copy."""

    def __init__(self, name: str) -> None:
        super().__init__(withheld(name))


class WithheldModule(ModuleNotFoundError):
    """A module of the kit's that answers an exercise of the lab, and so is not in the worker's copy."""

    def __init__(self, name: str) -> None:
        super().__init__(withheld(name), name=name)


class _Nothing:
    """What stands for an object of the notebook's: it takes any call and any question, and does nothing."""

    def __getattr__(self, name: str) -> _Nothing:
        if name.startswith("__"):  # what Python asks of every object
            raise AttributeError(name)
        return self

    def __call__(self, *_: Any, **__: Any) -> _Nothing:
        return self

    def __repr__(self) -> str:
        return ""


def library_names() -> dict[str, Any]:
    """Return what probes and answers may use without an import."""
    return {"torch": torch, "nn": nn, "np": np, "math": math, "F": nn.functional, "Tensor": torch.Tensor}


def notebook_names(marked: str, published: Mapping[str, str]) -> dict[str, Any]:
    """Return what an answer finds in a notebook.

    Args:
        marked: the exercise that is being marked.
        published: of other exercises, the source of the published answer.
    """
    menus = _Menus(marked, published)
    offered = {"lab": lambda *_: menus.all(), "metric": _nothing, "verdict": _nothing}
    names = dict(zip(("check", "hint", "reveal", "yours"), menus.all(), strict=True))
    shell = {"display": _nothing, "get_ipython": _Nothing, "In": [""], "Out": {}}
    return library_names() | offered | names | shell | dict.fromkeys(("_", "__", "___"), "")


def notebook_modules(names: Mapping[str, Any]) -> dict[str, types.ModuleType]:
    """Return what stands for the modules that a notebook imports ``lab``, ``metric`` and ``verdict`` from."""
    modules = {}
    for address in ("compresslab.notebook", "compresslab.classroom"):
        modules[address] = types.ModuleType(address)
        vars(modules[address]).update({name: names[name] for name in ("lab", "metric", "verdict")})
    return modules


def _nothing(*_: Any, **__: Any) -> None:
    """Take anything and do nothing."""


class _Menus:
    """The four menus; they share what was checked and what was revealed."""

    def __init__(self, marked: str, published: Mapping[str, str]) -> None:
        self.marked = marked
        self.published = published
        self.checked: dict[str, Callable[..., Any]] = {}
        self.revealed: dict[str, Callable[..., Any]] = {}

    def all(self) -> tuple[_Menu, ...]:
        """Return check, hint, reveal and yours, in this order."""
        return tuple(map(_Menu, (self.check, lambda _: _nothing, self.reveal, self.yours)))

    def check(self, name: str) -> Callable[..., None]:
        def check(answer: Any) -> None:
            if answer is not self.revealed.get(name):
                self.checked[name] = answer

        return check

    def reveal(self, name: str) -> Callable[[], Callable[..., Any]]:
        def reveal() -> Callable[..., Any]:
            return self.revealed.setdefault(name, self._published(name))

        return reveal

    def yours(self, name: str) -> Callable[..., Any]:
        answer = self.checked.get(name) or self.revealed.get(name)
        if answer is None:
            raise LookupError(f"this uses your {name}: write it and run its check, or call reveal.{name}()")
        return answer

    def _published(self, name: str) -> Callable[..., Any]:
        def revealed(*_: Any, **__: Any) -> Any:
            raise Revealed(name)

        if name == self.marked or name not in self.published:
            return revealed
        space = library_names()
        text, flags = self.published[name], __future__.annotations.compiler_flag
        code = compile(text, f"<reveal.{name}()>", "exec", flags=flags, dont_inherit=True)
        exec(code, space)
        return space[name]


class _Menu:
    """An object with one attribute for each exercise."""

    def __init__(self, action: Callable[[str], Any]) -> None:
        self._action = action

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._action(name)
