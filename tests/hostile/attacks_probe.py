"""Deceiving the probe, which watches *how* an answer works, in the student's own process.

A number is judged where no student's code runs, so a forged one must still be right. But that a function has
called, timed or left alone what it was given is noted beside the student's code, and whoever has read our
source can write that note. The first attacks fail. Those with a ``limit`` do not: they earn points for work
that was not done, though only together with the right number.
"""

from __future__ import annotations

import statistics
import sys

from hostile.attack import Attack, attack

__all__ = ["ATTACKS"]


@attack("each function runs", hole="paired_speedup")
def a_watch_that_is_only_read(baseline, candidate, clock, *, pairs, warmup):
    """Asks for the time only, and never runs what it should measure."""
    times = [clock() for _ in range(2 * pairs + 2)]
    return (times[1] - times[0] + 1) / (times[2] - times[1] + 1)


@attack("each function runs", hole="paired_speedup")
def a_table_read_from_a_closure(baseline, candidate, clock, *, pairs, warmup):
    """Takes the right result from the made-up machine's own table, and runs nothing."""
    tables = [dict(zip(f.__code__.co_freevars, f.__closure__, strict=True)) for f in (baseline, candidate)]
    one, other = (table["seconds"].cell_contents[warmup:] for table in tables)
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


@attack(hole="paired_speedup", limit="the note of the calls is kept beside the student's code")
def a_forged_note_of_the_calls(baseline, candidate, clock, *, pairs, warmup):
    """Takes the right result from the machine's own table, and writes the note of the calls itself."""
    tables = [dict(zip(f.__code__.co_freevars, f.__closure__, strict=True)) for f in (baseline, candidate)]
    one, other = (table["seconds"].cell_contents[warmup:] for table in tables)
    tables[0]["log"].cell_contents[:] = [*"AB" * warmup, *"|A||B|" * pairs]
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


@attack(limit="the note of a changed input is kept beside the student's code")
def a_forged_note_of_a_changed_input(x):
    """Spoils its input after it has computed the right sum, and makes the watch over the input blind."""
    total = float(x.sum())
    x.zero_()
    sys.modules["compresslab.checks.call"].same = lambda *given: True
    return total


ATTACKS = [value for value in list(vars().values()) if isinstance(value, Attack)]
