"""The errors of the kit, by kind: what a caller can decide by, without reading a text."""

from __future__ import annotations

import textwrap

__all__ = [
    "BadSetting",
    "BadSource",
    "CompressionError",
    "DamagedFile",
    "Diverged",
    "NotAvailable",
    "Unsupported",
    "Unwritten",
    "WrongAnswer",
]


class CompressionError(ValueError):
    """Base of all kinds below: catch it to show the text, catch a kind to decide.

    A text names the argument first, then what came, what is allowed, and what to try.
    """


class BadSetting(CompressionError):
    """An argument or option that is not allowed: out of range, of another shape, or an unknown name."""


class Unsupported(CompressionError):
    """A model, layer or operation that a method can't handle."""


class Diverged(CompressionError):
    """A training or an iteration whose values became infinite or NaN."""


class DamagedFile(CompressionError):
    """A file, or what came out of one, that is missing, unreadable, damaged or of something else."""


class NotAvailable(CompressionError):
    """Something that this machine lacks: a package, a network address, a sandbox, a place to write."""


class BadSource(CompressionError):
    """A lab's source, exercise or README that its author has to correct."""


class WrongAnswer(Exception):
    """A student's answer that is not right yet, with the reason and a hint.

    Jupyter shows an exception through ``_render_traceback_`` where it has one, so a failed check is
    one clean line in the notebook instead of a traceback through files the student never wrote.

    Args:
        reason: what is wrong, in a sentence, with the smallest example.
        hint: what to try next; empty where there is nothing to add.
        details: named values for a mistake's message (``where``, ``yours``, ``wanted``).
    """

    def __init__(self, reason: str, hint: str = "", **details: object) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.details = details

    def __str__(self) -> str:
        return f"{self.reason}\n{self.hint}" if self.hint else self.reason

    def _render_traceback_(self) -> list[str]:
        lines = textwrap.wrap("✗ " + self.reason, 100, subsequent_indent="  ")
        return lines + textwrap.wrap(self.hint, 100, initial_indent="  ", subsequent_indent="  ")


class Unwritten(WrongAnswer):
    """A student's answer that is still missing. Jupyter shows one grey line: nothing is wrong yet."""

    def _render_traceback_(self) -> list[str]:
        return [f"\x1b[90m{self.reason}\x1b[0m"]
