"""The HTML document around a report: one file that prints well, loads nothing and runs nothing.

Two things keep a student's text from becoming markup: Jinja escapes every value, and the document's own
security policy forbids scripts and the network, in case the first is ever forgotten. Left out: dark mode,
other languages.
"""

from __future__ import annotations

import functools
from typing import Any

import jinja2

from compresslab.grading.scores import Verdict, plain

__all__ = ["VERDICTS", "html_page", "visible"]

VERDICTS = {  # for readers: a sign that needs no colour, and a word
    Verdict.RIGHT: ("✓", "right"),
    Verdict.WRONG: ("✗", "wrong"),
    Verdict.UNWRITTEN: ("–", "not written"),
    Verdict.LATE: ("∞", "out of time"),
    Verdict.FAULT: ("!", "not judged"),
}


def html_page(body: str, style: str, **values: Any) -> str:
    """Return an HTML document from the Jinja template of its ``main`` element, in text that UTF-8 can hold.

    Args:
        body: the template. Further filters are ``plain``, ``visible`` and ``number`` (no needless zeros).
        style: CSS of this report, after the common one.
        values: what the template uses, ``title`` among them. A name that is missing raises.
    """
    template = _template(_FRAME.replace("STYLE", _STYLE + style).replace("BODY", body))
    text = template.render(values, verdicts=VERDICTS)
    return text.encode("utf-8", "replace").decode("utf-8")


def visible(name: str) -> str:
    r"""Return a name on one line, with an escape for each character that is invisible or moves others.

    >>> visible("Zoë\n<b>\u202e")
    'Zoë\\n<b>\\u202e'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


@functools.cache
def _template(text: str) -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(plain=plain, visible=visible, number="{:g}".format)
    return environment.from_string(text)


_FRAME = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
STYLE</style>
</head>
<body>
<main>
BODY
</main>
</body>
</html>
"""

_STYLE = """\
:root { --ink: #1d2430; --soft: #5b6472; --line: #dfe3e8; --good: #1f6f54; --bad: #a8401f; --paper: #fff; }
* { box-sizing: border-box; }
html { background: #f3f4f1; }
body { margin: 0; color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
main { max-width: 66rem; margin: 2rem auto; padding: 2.5rem 3rem; background: var(--paper);
  border: 1px solid var(--line); border-radius: 10px; }
h1 { margin: 0 0 1.5rem; font-size: 1.9rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 .5rem; font-size: 1.25rem; }
p { margin: .4rem 0; }
.above { margin: 0; color: var(--soft); }
.soft { color: var(--soft); font-size: .875rem; }
.said { white-space: pre-wrap; overflow-wrap: anywhere; }
.loud { margin: 0 0 1.5rem; padding: .9rem 1.2rem; border: 3px solid #b3261e; border-radius: 8px;
  background: #fdecea; font-weight: 600; }
code { font: .92em ui-monospace, "DejaVu Sans Mono", Consolas, monospace; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .5rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid var(--ink); font-size: .8rem; font-weight: 600; vertical-align: bottom; }
.figure { text-align: right; }
.sign { text-align: center; }
tr { break-inside: avoid; }
a { color: #1f4e8c; }
.right { color: var(--good); }
.wrong, .late, .fault { color: var(--bad); }
.unwritten { color: var(--soft); }
@page { margin: 16mm; }
@media print {
  html { background: none; }
  body { font-size: 10.5pt; }
  main { max-width: none; margin: 0; padding: 0; border: 0; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
@media (max-width: 45rem) { main { margin: 0; padding: 1.25rem; border: 0; } }
"""
