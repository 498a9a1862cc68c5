"""Numbers in prose: ``{{ int8.drop | points }}`` in a source's markdown becomes "0.42 points" there.

Both editions show the numbers of the build as plain text. Nothing marks a number, because a line of
Markdown that begins with an HTML comment would end its paragraph.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from compresslab.errors import BadSource

__all__ = ["FILTERS", "fill_prose", "typed_numbers"]

_PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_INSIDE = re.compile(r"\s*([\w.]+)\s*(?:\|\s*(\w+)\s*)?")


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %".replace("-", "−")


def _points(value: float) -> str:
    return f"{round(100 * value, 2) + 0.0:.2f} points".replace("-", "−")  # + 0.0: no "-0.00"


def _times(value: float) -> str:
    return f"{_three_digits(value)}×"


def _count(value: float) -> str:
    return f"{round(value):,}"


def _bytes(value: float) -> str:
    for unit, size in (("MB", 1_000_000), ("kB", 1_000)):
        if abs(value) >= size:
            return f"{_three_digits(value / size)} {unit}"
    return f"{round(value)} B"


def _ms(value: float) -> str:
    return f"{_three_digits(value)} ms"


def _millions(value: float) -> str:
    return f"{_three_digits(value / 1_000_000)} million"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}".replace("-", "−")


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


FILTERS: Mapping[str, Callable[[float], str]] = {
    "percent": _percent,
    "points": _points,
    "times": _times,
    "count": _count,
    "bytes": _bytes,
    "ms": _ms,
    "millions": _millions,
    "number": _number,
}


def fill_prose(text: str, metrics: Mapping[str, int | float], *, cell: str) -> str:
    """Return the text with each placeholder replaced by its number.

    Filters: percent and points take a fraction, ms a number of milliseconds, bytes shows kB of 1,000 bytes.
    Without a filter it is ``number``.

    Raises:
        BadSource: a name that was not measured, or a filter that does not exist; names the cell.

    >>> fill_prose("It keeps {{ int8.accuracy | percent }}.", {"int8.accuracy": 0.942}, cell="text-1")
    'It keeps 94.2 %.'
    """

    def fill(found: re.Match[str]) -> str:
        inside = _INSIDE.fullmatch(found[1])
        if inside is None:
            raise BadSource(
                f"cell {cell}: a number is written {{{{ name | filter }}}}, with one filter, got {found[0]}"
            )
        name, kind = inside[1], inside[2] or "number"
        if name not in metrics:
            known = ", ".join(metrics) or "none yet"
            raise BadSource(
                f"cell {cell}: the metric {name} must be measured by a cell; there are {known}. "
                f'Call metric("{name}", …) in a cell'
            )
        if kind not in FILTERS:
            raise BadSource(f"cell {cell}: the filter must be one of {', '.join(FILTERS)}, got {kind}")
        return FILTERS[kind](metrics[name])

    return _PLACEHOLDER.sub(fill, text)


_EXEMPT = re.compile(
    r"```.*?```|~~~.*?~~~"  # blocks of code
    r"|`[^`]*`"
    r"|\$\$.*?\$\$|\$[^$\n]+\$"
    r"|!?\[[^\]]*\]\([^)]*\)|https?://\S+"  # links, words and all: a quoted figure links to its source
    r"|\{\{.*?\}\}"
    r"|\b(?:arXiv:?\s*)?\d{4}\.\d{4,5}\b"
    r"|\b(?:19|20)\d\ds\b",  # a decade
    re.DOTALL | re.IGNORECASE,
)
_UNITS = (
    r"percent(?:age points?)?|points?|times|ms|s|seconds?|kB|MB|GB|kiB|MiB|k|M|million|bytes|MACs|parameters"
    r"|images per second|images/s"
)
_TYPED = re.compile(
    rf"(?<![\w.])\d[\d,]*(?:\.\d+|\s*%|\s*×(?!\s*\d)|\s*(?:{_UNITS})\b)(?:\s*(?:%|×|(?:{_UNITS})\b))?"
)


def typed_numbers(text: str) -> list[str]:
    """Return the measurements that were typed into a markdown text by hand.

    The rule: a number counts as a measurement if it is a decimal (0.94) or is followed by %, × (unless
    a further number follows: 3 × 3), points, times, percent, ms, s, seconds, kB, MB, k, M, million, bytes,
    MACs or parameters. Free are: code between backticks (settings go there), ``$mathematics$``, links with
    their words (a quoted figure is the link to its source), arXiv numbers, years, ``{{ placeholders }}``.

    >>> typed_numbers("Since 2015, `0.9` of a 3 × 3 kernel in [39×](https://example.org); here 94.2 % stay.")
    ['94.2 %']
    """
    return [found[0] for found in _TYPED.finditer(_EXEMPT.sub(" ", text))]
