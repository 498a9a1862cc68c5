"""What a student reads after the grading: one page, every exercise with what we saw and a hint to go on.

It quotes the lab's statements and hints, and what the check said, the same as in the notebook. It shows no
test source, no reference code, and no inputs but those in the check's own sentence.
"""

from __future__ import annotations

from dataclasses import dataclass

from compresslab.checks.exercise import Exercise, Hint, Lab
from compresslab.grading.reports.html import html_page, visible
from compresslab.grading.scores import ExerciseScore, Score, plain

__all__ = ["feedback_html"]

NEXT = {  # status -> what it is called, what it means for the student, what happens next
    "graded": (
        "Graded",
        "Everything that you handed in was checked, on inputs that your notebook had not seen.",
        "To go on, mend an exercise in your notebook and run its check cell: it says what this page says.",
    ),
    "needs-review": (
        "A person has to look at this",
        "The grader could not settle it by itself. That is not a zero: your points are still open.",
        "It is on your teacher's list. The reason may tell you what to mend; then you may hand it in again.",
    ),
    "failed": (
        "Not graded yet: the fault is ours",
        "The grader broke down, not your work. That is not a zero: your points are still open.",
        "Your teacher sees this and will have it graded again. There is nothing that you need to do.",
    ),
}
UNKNOWN = ("Not graded yet", "This result has a status that this page does not know.", "Ask your teacher.")


def feedback_html(student: str, score: Score, lab: Lab) -> str:
    """The page of one student, self-contained: no scripts, nothing loaded.

    Args:
        student: the name, whatever it holds.
        score: of the submission; an exercise that the lab does not know is shown with what the score says.
        lab: where statements and hints come from.
    """
    known = {exercise.name: exercise for exercise in lab.exercises}
    called, means, next_step = NEXT.get(score.status, UNKNOWN)
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
    """One exercise on the page. ``saw`` is empty where the page has said it already."""

    test: ExerciseScore
    statement: str
    choices: tuple[tuple[str, str], ...]
    saw: str
    hint: Hint | None


def _shown(test: ExerciseScore, exercise: Exercise | None, message: str) -> _Shown:
    saw = plain(test.output).strip()
    if test.verdict == "fault" and message and saw.endswith(plain(message)):
        saw = ""  # the head of the page has said it
    if exercise is None:
        return _Shown(test, "", (), saw, None)
    first = exercise.hints[0] if exercise.hints else None
    if first is not None:  # the page offers it below, with its text
        saw = saw.removesuffix(f"Hint on offer: {plain(first.symptom)}").strip()
    if test.status == "passed":
        saw = exercise.explanation if saw == plain(exercise.statement) else saw
    helps = first if test.verdict in ("wrong", "late", "unwritten") else None
    return _Shown(test, exercise.statement, exercise.choices, saw, helps)


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
{% set sign, word = verdicts.get(shown.test.verdict, ('?', shown.test.verdict)) %}
{% set colour = shown.test.verdict if shown.test.verdict in verdicts else 'unwritten' %}
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
    {% if shown.saw %}<p class="saw said {{ colour }}"><span>
    {%- if shown.test.mistake %}<strong>A known mistake: {{ shown.test.mistake|plain }}</strong><br>
    {%- endif %}
    {{- shown.saw }}</span></p>{% endif %}
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
