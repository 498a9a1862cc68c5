"""The HTML report of a class for its teacher: summary, frequent mistakes, one row per student."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from compresslab.checks.exercise import Lab
from compresslab.grading.reports.html import html_page
from compresslab.grading.reports.tallies import ran_unprotected, tallies
from compresslab.grading.scores import Score, Status

__all__ = ["class_html"]


def class_html(results: Mapping[str, Score], lab: Lab) -> str:
    """Return the HTML of one class, self-contained except for links to ``students/NAME/feedback.html``."""
    statuses = [score.status for score in results.values()]
    return html_page(
        _BODY,
        _STYLE,
        title=f"The class: {lab.title}",
        lab=lab,
        figures={
            "students": len(results),
            "graded": statuses.count(Status.GRADED),
            "need review": statuses.count(Status.NEEDS_REVIEW),
            "failed": statuses.count(Status.FAILED),
            f"median score, of {_most(results, lab):g}": _median(results),
        },
        unprotected=sum(map(ran_unprotected, results.values())),
        rows=tallies(results, lab),
        statements={exercise.name: exercise.statement for exercise in lab.exercises},
        students=[
            (student, _link(student), score, {test.name: test for test in score.tests})
            for student, score in results.items()
        ],
    )


def _median(results: Mapping[str, Score]) -> str:
    """Return the median score of the graded students; other scores are not final."""
    final = [score.score for score in results.values() if score.status == Status.GRADED]
    return f"{statistics.median(final):g}" if final else "–"


def _most(results: Mapping[str, Score], lab: Lab) -> float:
    return max((score.max_score for score in results.values()), default=float(lab.points))


def _link(student: str) -> str:
    """Return the path of the student's feedback, or an empty text if the name is not that of one folder."""
    if student in ("", ".", "..") or Path(student).name != student:
        return ""
    try:
        return f"students/{quote(os.fsencode(student))}/feedback.html"
    except UnicodeEncodeError:  # no file system here holds such a name
        return ""


_STYLE = """\
dl { display: flex; flex-wrap: wrap; gap: .8rem; margin: 0; }
dl div { display: flex; flex-direction: column-reverse; flex: 1 1 8rem; padding: .8rem 1rem;
  border: 1px solid var(--line); border-radius: 8px; }
dt { color: var(--soft); font-size: .875rem; }
dd { margin: 0; font-size: 1.9rem; line-height: 1.2; font-weight: 700; }
.heat tbody th { font-weight: 400; }
.heat td:nth-child(4) { width: 50%; }
.share { background: rgb(46 139 110 / var(--share)); }
.chips { display: flex; flex-wrap: wrap; gap: .3rem; margin: 0; padding: 0; list-style: none; }
.chips li { display: flex; align-items: baseline; gap: .5rem; padding: .15rem .6rem;
  border: 1px solid #e3b98f; border-radius: 5px; background: rgb(236 132 52 / var(--share));
  font-size: .875rem; line-height: 1.35; }
.chips b { font-size: 1.05rem; }
.class td { padding-top: .3rem; padding-bottom: .3rem; }
.class .name { overflow-wrap: anywhere; min-width: 10rem; }
.wide { white-space: nowrap; }
.open { font-weight: 600; color: var(--bad); }
"""

_BODY = """\
<p class="above">{{ lab.name }} · {{ lab.title }}</p>
<h1>Results of the class</h1>
{% if unprotected %}
<p class="loud" role="alert">⚠ These scores were not isolated: the code of {{ unprotected }}
{{ 'student' if unprotected == 1 else 'students' }} ran with the rights of the person who graded. It may have
forged scores, its own and others', and read or changed files here. Trust them as far as you trust the
students.</p>
{% endif %}
<dl>
{% for name, figure in figures.items() %}<div><dt>{{ name }}</dt><dd>{{ figure }}</dd></div>
{% endfor %}
</dl>
{% if not students %}
<p>Nothing has been handed in, so there is nothing to show yet.</p>
{% else %}
<h2>Frequent mistakes</h2>
<p class="soft">One row per exercise. Each block is a named mistake with the number of students who made it;
the darker it is, the larger their share of those who wrote the exercise.</p>
<table class="heat">
<thead><tr><th></th><th>exercise</th><th class="figure">right</th><th>named mistakes</th>
<th class="figure">other wrong</th><th class="figure">out of time</th><th class="figure">not written</th>
<th class="figure">not judged</th></tr></thead>
<tbody>
{% for row in rows %}
<tr><td class="figure soft">{{ loop.index }}</td>
<th scope="row" title="{{ statements.get(row.name, '') }}"><code>{{ row.name|visible }}</code></th>
<td class="figure share" style="--share: {{ '%.2f'|format(0.6 * row.share(row.verdicts.get('right', 0))) }}">
{{- row.verdicts.get('right', 0) }}</td>
<td><ul class="chips">
{%- for title, count in row.mistakes %}
<li style="--share: {{ '%.2f'|format([row.share(count) * 1.5, 1]|min) }}">
<b>{{ count }}</b> {{ title|plain }}</li>
{%- endfor %}</ul></td>
{% for count in (row.unnamed, row.verdicts.get('late', 0), row.verdicts.get('unwritten', 0),
                 row.verdicts.get('fault', 0)) %}
<td class="figure">{% if count %}{{ count }}{% else %}<span class="unwritten">0</span>{% endif %}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
<h2>Student by student</h2>
<p class="soft">The columns are the exercises, numbered as above:
{% for sign, word in verdicts.values() %}
{{ sign }} {{ word }}{{ ', ' if not loop.last else '.' }}
{% endfor %}</p>
<table class="class">
<thead><tr><th>student</th><th>status</th><th class="figure">score</th>
{% for row in rows %}<th class="sign" title="{{ row.name|visible }}">{{ loop.index }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for student, link, score, tests in students %}
<tr><td class="name">
{%- if link %}<a href="{{ link }}"><bdi>{{ student|visible }}</bdi></a>
{%- else %}<bdi>{{ student|visible }}</bdi>{% endif %}
{% if score.status != 'graded' %}<div class="soft said">{{ score.message|plain }}</div>{% endif %}</td>
<td class="wide{{ ' open' if score.status != 'graded' }}">{{ score.status|visible }}</td>
<td class="figure wide">{{ score.points }}</td>
{% for row in rows %}
{% set verdict = tests[row.name].verdict if row.name in tests else '' %}
<td class="sign {{ verdict if verdict in verdicts else 'unwritten' }}">
{{- verdicts.get(verdict, (' ', ''))[0] }}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
{% endif %}"""
