"""Write the four reports of a class: for a spreadsheet, for continuous integration, for reading.

    scores.csv     one row per student
    mistakes.csv   one row per named mistake that somebody made
    junit.xml      one test suite per student, one test case per exercise
    class.html     the summary, the heat map of mistakes, the students

All of them hold students' names and the results of students' code, so each format is escaped in its own way.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from compresslab.checks.exercise import Lab
from compresslab.grading.reports.class_page import class_html
from compresslab.grading.reports.html import visible
from compresslab.grading.reports.tallies import tallies
from compresslab.grading.scores import ExerciseScore, Score, Status, Verdict, plain, write_whole

__all__ = ["write_reports"]


def write_reports(results: Mapping[str, Score], lab: Lab, out: Path) -> tuple[Path, ...]:
    """Write the four reports into ``out``, each atomically; return their paths.

    Args:
        results: student → score, in the order of the rows.
        lab: the lab that was graded.
        out: the folder; students' feedback is expected in ``out/students/NAME/feedback.html``.

    Raises:
        CompressionError: the folder can't be made or written to.
    """
    texts = {
        "scores.csv": _csv(_score_rows(results, lab)),
        "junit.xml": _junit(results),
        "mistakes.csv": _csv(_mistake_rows(results, lab)),
        "class.html": class_html(results, lab),
    }
    for name, text in texts.items():
        write_whole(out / name, text)
    return tuple(out / name for name in texts)


# Tables for spreadsheets.

_FORMULA = re.compile(
    r"(^|;)(?=[\s\"']*[=+\-@＝＋－＠])"
)  # in much of Europe spreadsheets separate cells by ;


def _csv(rows: Iterable[Sequence[str | float]]) -> str:
    """Return a table in which every text is quoted, and none can be taken for a formula."""
    text = io.StringIO()
    table = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    table.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: str | float) -> str | float:
    r"""Return the value; a text on one line, with ' before anything that a spreadsheet would run.

    >>> _cell("=1+1"), _cell(" a\tb "), _cell(-2.0)
    ("'=1+1", 'a b', -2)
    """
    if isinstance(value, str):
        return _FORMULA.sub(r"\1'", " ".join(value.split()))
    return int(value) if value == int(value) else value


def _score_rows(results: Mapping[str, Score], lab: Lab) -> Iterable[Sequence[str | float]]:
    names = [tally.name for tally in tallies(results, lab)]
    shown = [visible(name) for name in names]
    yield ["student", "status", "score", "max_score", "isolated", *shown, "message"]
    for student, score in results.items():
        final = score.status == Status.GRADED  # other scores are empty here, not zero
        points: dict[str, str | float] = {test.name: test.score for test in score.tests if final}
        isolated = "yes" if score.isolated else "no"
        yield [
            visible(student),
            visible(score.status),
            score.score if final else "",
            score.max_score,
            isolated,
            *(points.get(name, "") for name in names),
            plain(score.message),
        ]


def _mistake_rows(results: Mapping[str, Score], lab: Lab) -> Iterable[Sequence[str | float]]:
    yield ["exercise", "mistake", "students", "share_of_those_who_wrote_it"]
    for tally in tallies(results, lab):
        for title, count in tally.mistakes:
            yield [visible(tally.name), plain(title), count, round(tally.share(count), 4)]


# JUnit's XML, which every continuous integration service shows.

_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _junit(results: Mapping[str, Score]) -> str:
    root = ElementTree.Element("testsuites", name="compresslab")
    for student, score in results.items():
        root.append(_suite(student, score))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _suite(student: str, score: Score) -> ElementTree.Element:
    name = _xml(visible(student))
    unread = all(test.verdict == Verdict.FAULT for test in score.tests)  # one error, not one per exercise
    cases = [] if unread else [_case(_xml(score.lab), test) for test in score.tests]
    if score.status != Status.GRADED:  # an error: it is not a plain zero
        cases.append(
            _test_case(_xml(score.lab), "the submission itself", "error", score.status, score.message)
        )
    failures, errors = (sum(case.find(kind) is not None for case in cases) for kind in ("failure", "error"))
    suite = ElementTree.Element(
        "testsuite",
        name=name,
        tests=str(len(cases)),
        failures=str(failures),
        errors=str(errors),
        time=f"{score.execution_time:.3f}",
    )
    suite.extend(cases)
    return suite


def _case(lab: str, test: ExerciseScore) -> ElementTree.Element:
    if test.status == "passed":
        return ElementTree.Element("testcase", classname=lab, name=_xml(test.name))
    kind = "error" if test.verdict == Verdict.FAULT else "failure"
    return _test_case(lab, test.name, kind, test.verdict, test.output)


def _test_case(lab: str, name: str, kind: str, type_: str, words: str) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname=lab, name=_xml(name))
    text = _xml(plain(words))
    problem = ElementTree.SubElement(case, kind, type=_xml(type_), message=text.partition("\n")[0])
    problem.text = text
    return case


def _xml(text: str) -> str:
    """Return the text without the characters that XML 1.0 cannot hold, escaped or not."""
    return _NOT_XML.sub("\ufffd", text)
