"""The errors of the kit: bad input, a wrong answer, and an answer that is still missing."""

from __future__ import annotations

import textwrap

__all__ = ["CompressionError", "Unwritten", "Wrong"]


class CompressionError(ValueError):
    """Bad input. Its text has three parts: what came, what is allowed, what to try."""


class Wrong(Exception):
    """A student's answer that is not right yet: the reason, and the hint on offer.

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


class Unwritten(Wrong):
    """A student's answer that is still missing. Jupyter shows one grey line: nothing is wrong yet."""

    def _render_traceback_(self) -> list[str]:
        return [f"\x1b[90m{self.reason}\x1b[0m"]
