"""Measured numbers, on their way from a notebook's cell to its prose: none is typed by hand.

A cell calls ``metric("int8.drop", 0.004)``; the number travels as a cell output of its own MIME type;
``build`` collects it from the executed notebook into ``solutions/NN/metrics.json``, flat, an interval's ends
beside it as ``int8.drop.low`` and ``int8.drop.high``.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from compresslab.errors import BadSetting, BadSource

__all__ = ["MIME", "collect_metrics", "metric", "read_metrics", "verdict", "write_metrics"]

MIME = "application/vnd.compresslab.metric+json"
_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*")


def metric(name: str, value: Any, low: float | None = None, high: float | None = None) -> None:
    """Show ``name = value`` and store the number for the prose.

    Args:
        name: lower case, parts separated by dots, such as ``int8.drop``.
        value: a finite number, or an object with ``value``, ``low`` and ``high`` (an ``Interval``).
        low: the lower end of its interval, together with ``high``.
        high: the upper end.

    Raises:
        BadSetting: a name of another form, half an interval, or something that is no finite number.

    >>> metric("weights.zeros", 0.9)
    weights.zeros = 0.9
    >>> metric("speedup", 1.5, low=1.42, high=1.61)
    speedup = 1.5 [1.42, 1.61]
    """
    if not _NAME.fullmatch(name) or name.endswith((".low", ".high")):
        raise BadSetting(
            f"name must be like int8.drop (lower case, dots; .low and .high are added), got {name!r}"
        )
    if hasattr(value, "low") and hasattr(value, "high"):
        value, low, high = value.value, value.low, value.high
    if (low is None) != (high is None):
        raise BadSetting(f"low and high must be given together for {name}, got one of them")
    numbers = {name: _plain(name, value)}
    words = f"{name} = {numbers[name]}"
    if low is not None:
        numbers |= {f"{name}.low": _plain(name, low), f"{name}.high": _plain(name, high)}
        words += f" [{numbers[name + '.low']}, {numbers[name + '.high']}]"
    _show(numbers, words)


def verdict(claim: str, holds: bool) -> None:
    """Print the claim and "yes"; if it does not hold, print "no" and fail.

    For what may differ in its last digits from machine to machine: the cell's output is the same everywhere,
    and nbval can compare it.

    Raises:
        AssertionError: the claim does not hold.

    >>> verdict("drop ≤ 0.002", 0.001 <= 0.002)
    drop ≤ 0.002: yes
    """
    print(f"{claim}: {'yes' if holds else 'no'}")
    assert holds, f"{claim} does not hold here"


def collect_metrics(notebook: Any) -> dict[str, int | float]:
    """Return the numbers in a notebook's outputs, by name.

    Raises:
        BadSource: two cells give the same name.
    """
    found: dict[str, int | float] = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            for name, value in output.get("data", {}).get(MIME, {}).items():
                if name in found:
                    raise BadSource(
                        f"the metric {name} must be given once, got it again in cell {cell.id}; "
                        "give it another name"
                    )
                found[name] = value
    return dict(sorted(found.items()))


def write_metrics(metrics: dict[str, int | float]) -> str:
    """Return the text of ``metrics.json``: one name per line, in order."""
    return json.dumps(metrics, indent=1, sort_keys=True) + "\n"


def read_metrics(text: str) -> dict[str, int | float]:
    """Return the numbers in the text of a ``metrics.json``."""
    return dict(json.loads(text))


def _plain(name: str, value: Any) -> int | float:
    """Return an int as it is, any other number to six significant digits: no measurement here has more."""
    try:
        number = value.item() if hasattr(value, "item") else value
        if isinstance(number, int) and not isinstance(number, bool):
            return number
        if isinstance(number, float) and math.isfinite(number):
            return float(f"{number:.6g}")
    except (TypeError, ValueError, RuntimeError):
        number = value
    raise BadSetting(f"the metric {name} must be a finite number, got {number!r}; is it a ratio with 0?")


def _show(numbers: dict[str, int | float], words: str) -> None:
    from IPython.core.getipython import get_ipython
    from IPython.display import display

    if get_ipython() is None:
        print(words)
    else:
        display({MIME: numbers, "text/plain": words}, raw=True)
