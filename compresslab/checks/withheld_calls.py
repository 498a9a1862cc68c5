"""Notice that a student's function calls the kit's own answer, while a check runs it.

The grader's worker has no such function to call. Without this, a notebook's check would accept what the
grader cannot run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from types import CodeType, FrameType, TracebackType
from typing import Any

__all__ = ["REVEALED", "WithheldCalls", "withheld"]

REVEALED = "revealed"  # the name of a call of the exercise's published answer


def withheld(name: str) -> str:
    """Return the sentence for an answer that calls the kit's own function, or imports its module."""
    return f"your function calls compresslab's own {name.rpartition('.')[2]}; write it yourself"


class WithheldCalls:
    """Notes, within ``with``, the first call of a function that a lab withholds.

    Args:
        modules: of compresslab; with everything below them.
        published: the code of the exercise's published answers.

    Attributes:
        called: the function's name, ``REVEALED`` for a published answer, empty if there was no such call.
    """

    def __init__(self, modules: Sequence[str] = (), published: Iterable[CodeType] = ()) -> None:
        self.called = ""
        self._modules = tuple(f"{module}." for module in modules)
        self._published = frozenset(published)
        self._before: Any = None

    def __enter__(self) -> WithheldCalls:
        if self._modules or self._published:
            self._before = sys.getprofile()
            sys.setprofile(self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._modules or self._published:
            sys.setprofile(self._before)

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        if event != "call" or self.called:
            return
        code = frame.f_code
        if code in self._published:
            self.called = REVEALED
        elif f"{frame.f_globals.get('__name__')}.".startswith(self._modules):
            self.called = code.co_name
