"""The errors of the kit, by kind: what a caller can decide by, without reading a text.

``check_fraction`` and ``check_whole`` raise the errors that most techniques need: a share out of range or a
percentage, a number that is not whole or out of range.
"""

from __future__ import annotations

import math
import numbers
import operator
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
    "check_fraction",
    "check_seed",
    "check_whole",
    "is_whole",
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


def check_fraction(name: str, value: object, *, within: str = "[0, 1)", hint: str) -> None:
    """Raise if a setting is not a fraction in an interval from 0 to 1; a percentage gets its fraction told.

    Args:
        name: the setting, for the message.
        value: what it was given.
        within: the interval; a square bracket includes its end, a round one does not.
        hint: what to try.

    Raises:
        BadSetting: another value, or no number.

    >>> check_fraction("sparsity", 50, hint="try 0.5")
    Traceback (most recent call last):
    compresslab.errors.BadSetting: sparsity must be a fraction in [0, 1), got 50; did you mean 0.5?
    """
    if not _is_within(value, within):
        fraction = float(value) / 100 if isinstance(value, numbers.Real) and float(value) > 1 else None
        advice = f"did you mean {fraction:g}?" if _is_within(fraction, within) else hint
        raise BadSetting(f"{name} must be a fraction in {within}, got {value}; {advice}")


def check_whole(
    name: str, value: object, *, least: int = 1, most: float = math.inf, allowed: str = "", hint: str
) -> int:
    """Return the ``int`` that a setting means; raise if it is not a whole number in its range.

    Args:
        name: the setting, for the message.
        value: what it was given: an int, or a whole number of NumPy or torch.
        least: the smallest that is allowed.
        most: the largest that is allowed.
        allowed: the range in other words than "from 1 up".
        hint: what to try.

    Raises:
        BadSetting: another value; a bool too, which would be 0 or 1.

    >>> check_whole("bits", 12, most=8, hint="try 4")
    Traceback (most recent call last):
    compresslab.errors.BadSetting: bits must be a whole number from 1 to 8, got 12; try 4
    """
    number = _whole(value)
    if number is not None and least <= number <= most:
        return number
    allowed = allowed or (f"from {least} up" if most == math.inf else f"from {least} to {most}")
    raise BadSetting(f"{name} must be a whole number {allowed}, got {value}; {hint}")


def check_seed(seed: object) -> int:
    """Return a seed as an ``int``; NumPy's are as good.

    Raises:
        BadSetting: it is not a whole number of up to 64 bits.
    """
    allowed = "of up to 64 bits"
    return check_whole("seed", seed, least=-(2**63), most=2**64 - 1, allowed=allowed, hint="try 0")


def is_whole(value: object, least: int = 1, most: float = math.inf) -> bool:
    """Return whether a value is a whole number from least to most, of whichever kind, and not a bool."""
    number = _whole(value)
    return number is not None and least <= number <= most


def _whole(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def _is_within(value: object, interval: str) -> bool:
    """Whether this is a number in an interval from 0 to 1, such as "(0, 1]"."""
    if not isinstance(value, numbers.Real):
        return False
    number = float(value)
    return 0 <= number <= 1 and (number > 0 or interval[0] == "[") and (number < 1 or interval[-1] == "]")


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
