"""The HTML feedback for a student: each exercise with what the check found and a hint.

It quotes the lab's statements and hints and the check's text, as the notebook does. It shows no test source,
no reference code, and no inputs except those in the check's own sentence.
"""

from __future__ import annotations

from dataclasses import dataclass

from compresslab.checks.exercise import Exercise, Hint, Lab
from compresslab.grading.reports.html import html_page, visible
from compresslab.grading.scores import ExerciseScore, Score, Status, Verdict, plain

__all__ = ["feedback_html"]

NEXT = {  # status → its title, what it means for the student, what happens next
    Status.GRADED: (
        "Graded",
        "Everything that you handed in was checked, on inputs that your notebook had not seen.",
        "To go on, correct an exercise in your notebook and run its check cell: it gives the same result.",
    ),
    Status.NEEDS_REVIEW: (
        "A person has to look at this",
        "The grader could not decide it by itself. That is not a zero: your points are still open.",
        "Your teacher sees this. The reason may tell you what to correct; then you can hand it in again.",
    ),
    Status.FAILED: (
        "Not graded yet: an error of the grader",
        "The grader failed, not your work. That is not a zero: your points are still open.",
        "Your teacher sees this and will grade it again. You need not do anything.",
    ),
}


def feedback_html(student: str, score: Score, lab: Lab) -> str:
    """Return the HTML for one student, self-contained: no scripts, nothing loaded.

    Args:
        student: the name, with any characters.
        score: of the submission; an exercise that is not the lab's is shown with the score's own texts.
        lab: the source of statements and hints.
    """
    known = {exercise.name: exercise for exercise in lab.exercises}
    called, means, next_step = NEXT[score.status]
    return html_page(
        _BODY,
        _STYLE,
        title=f"{visible(student)}: {lab.title}",
        student=student,
        score=score,
        lab=lab,
        called=called,
        means=means,
        next_step=next_step,
        exercises=[_shown(test, known.get(test.name), score.message) for test in score.tests],
    )


@dataclass(frozen=True)
class _Shown:
    """One exercise in the feedback. ``found`` is empty where its text stands elsewhere already."""

    test: ExerciseScore
    statement: str
    choices: tuple[tuple[str, str], ...]
    found: str
    hint: Hint | None


def _shown(test: ExerciseScore, exercise: Exercise | None, message: str) -> _Shown:
    found = plain(test.output).strip()
    if test.verdict == Verdict.FAULT and message and found.endswith(plain(message)):
        found = ""  # the summary on top has it
    if exercise is None:
        return _Shown(test, "", (), found, None)
    first = exercise.hints[0] if exercise.hints else None
    if first is not None:  # it follows below, with its text
        found = found.removesuffix(f"Hint on offer: {plain(first.symptom)}").strip()
    if test.status == "passed":
        found = exercise.explanation if found == plain(exercise.statement) else found
    hint = first if test.verdict in (Verdict.WRONG, Verdict.LATE, Verdict.UNWRITTEN) else None
    return _Shown(test, exercise.statement, exercise.choices, found, hint)


_STYLE = """\
.sum { display: flex; gap: 2rem; align-items: center; padding: 1.2rem 1.5rem; border-radius: 8px;
  background: #eef3f0; border-left: 8px solid var(--good); }
.sum.open { background: #fbf1e6; border-color: #c77a1e; }
.sum h2 { margin: 0; }
.total { flex: none; margin: 0; font-size: 3rem; line-height: 1; font-weight: 700; }
.total small { display: block; margin-top: .4rem; font-size: .9rem; font-weight: 400; color: var(--soft); }
article { display: grid; grid-template-columns: 2.2rem 1fr; padding: 1.1rem 0; break-inside: avoid;
  border-bottom: 1px solid var(--line); }
article > .mark { font-size: 1.35rem; line-height: 1.6rem; font-weight: 700; }
article h3 { display: flex; justify-content: space-between; gap: 1rem; margin: 0; font-size: 1.05rem; }
article h3 span { flex: none; font-size: 1rem; font-weight: 400; }
article h3 code { font-size: 1.02rem; overflow-wrap: anywhere; }
.saw { margin: .6rem 0; padding: .55rem .9rem; border-left: 3px solid currentColor; background: #fbf6f3; }
.saw.right { background: #f1f6f3; }
.saw.unwritten { background: #f5f6f7; }
.saw span { color: var(--ink); }
details { margin-top: .5rem; }
summary { cursor: pointer; color: #1f4e8c; }
details p { margin: .4rem 0 0 1.1rem; }
ul { padding-left: 1.2rem; }
"""

_BODY = """\
<p class="above">{{ lab.name }} · {{ lab.title }}</p>
<h1>Feedback for <bdi>{{ student|visible }}</bdi></h1>
<section class="sum{{ '' if score.status == 'graded' else ' open' }}">
  <p class="total">{{ score.points.partition(' of ')[0] }}
  <small>of {{ score.points.partition(' of ')[2] or (score.max_score|number) }} points
  {%- if score.status != 'graded' %}, not final{% endif %}</small></p>
  <div>
    <h2>{{ called }}</h2>
    <p>{{ means }}</p>
    {% if score.message %}<p class="said"><strong>{{ score.message|plain }}</strong></p>{% endif %}
    <p>{{ next_step }}</p>
  </div>
</section>
<h2>Exercise by exercise</h2>
{% for shown in exercises %}
{% set sign, word = verdicts[shown.test.verdict] %}
{% set colour = shown.test.verdict %}
<article>
  <div class="mark {{ colour }}">{{ sign }}</div>
  <div>
    <h3><code>{{ shown.test.name|visible }}</code>
    <span><span class="{{ colour }}">{{ word }}</span> ·
    {% if shown.test.verdict == 'fault' %}–{% else %}{{ shown.test.score|number }}{% endif %} of
    {{ shown.test.max_score|number }} {{ 'bonus ' if shown.test.bonus -}}
    point{{ 's' if shown.test.max_score != 1 }}</span></h3>
    {% if shown.statement %}<p>{{ shown.statement }}</p>{% endif %}
    {% for letter, text in shown.choices %}<p class="soft">({{ letter }}) {{ text }}</p>
    {% endfor %}
    {% if shown.found %}<p class="saw said {{ colour }}"><span>
    {%- if shown.test.mistake %}<strong>A known mistake: {{ shown.test.mistake|plain }}</strong><br>
    {%- endif %}
    {{- shown.found }}</span></p>{% endif %}
    {% if shown.hint %}<details><summary>A hint: {{ shown.hint.symptom }}</summary>
    <p>{{ shown.hint.text }}</p></details>{% endif %}
  </div>
</article>
{% else %}
<p>There is nothing to show: the submission could not be read.</p>
{% endfor %}
{% if score.notes %}
<h2>What was left out of your notebook, and other notes</h2>
<ul>
{% for note in score.notes %}<li class="said">{{ note|plain }}</li>
{% endfor %}
</ul>
{% endif %}"""
