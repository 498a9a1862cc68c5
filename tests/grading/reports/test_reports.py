"""The teacher's reports: figures that add up, formats that parse, nothing in them that a student could do."""

from __future__ import annotations

import csv
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from submissions import tiny
from test_feedback import HOSTILE, Page

from compresslab.errors import CompressionError
from compresslab.grading.reports.class_page import class_html
from compresslab.grading.reports.reports import write_reports
from compresslab.grading.reports.tallies import tallies
from compresslab.grading.scores import ExerciseScore, Score

LAB = tiny("first", "second")
NAMES = (
    "Zoë Müller",
    "<script>",
    "=cmd|'x'!A0",
    "-rf",
    "@x;=1",
    "a\nb",
    "a\x00b",
    "]]>",
    "50%_#?.",
    "\udcff",
)


def marked(name: str, verdict: str, mistake: str = "", output: str = "so") -> ExerciseScore:
    return ExerciseScore(name, verdict, 2, output, mistake)


def scored(
    first: str, second: str, mistake: str = "", *, status="graded", isolated=True, message="m"
) -> Score:
    tests = (marked("first", first, mistake), marked("second", second))
    return Score(LAB.name, status, tests, message, 0.25, (), isolated)


CLASS = {
    "Ana": scored("right", "right"),
    "Bo": scored("wrong", "late", "takes the mean"),
    "Cy": scored("wrong", "unwritten", "takes the mean"),
    "Di": scored("wrong", "right"),
    "Ed": scored("fault", "fault", status="needs-review", isolated=False, message="Ed.ipynb is no notebook"),
    "Fy": scored("fault", "right", status="failed", message="our own fault"),
}


def rows(place) -> list[dict[str, str]]:
    with open(place, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    write_reports(CLASS, LAB, folder)
    return folder


def test_the_four_reports_are_written_and_named(tmp_path):
    paths = write_reports(CLASS, LAB, tmp_path / "new")
    assert {path.name for path in paths} == {"scores.csv", "junit.xml", "mistakes.csv", "class.html"}
    assert sorted(paths) == sorted((tmp_path / "new").iterdir())


def test_an_out_that_cannot_be_a_folder_is_said_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("here first")
    with pytest.raises(CompressionError, match=r"can't be written .* give another --out"):
        write_reports(CLASS, LAB, tmp_path / "file")


# scores.csv and mistakes.csv.


def test_the_table_of_scores_has_one_row_a_student_with_every_exercise(out):
    table = rows(out / "scores.csv")
    assert [row["student"] for row in table] == list(CLASS)
    assert list(table[3]) == [
        "student",
        "status",
        "score",
        "max_score",
        "isolated",
        "first",
        "second",
        "message",
    ]
    assert list(table[3].values()) == ["Di", "graded", "2", "4", "yes", "0", "2", "m"]
    assert (table[4]["status"], table[4]["isolated"]) == ("needs-review", "no")
    assert table[4]["message"] == "Ed.ipynb is no notebook"


def test_a_named_mistake_counts_its_students_among_those_who_wrote_the_exercise(out):
    assert rows(out / "mistakes.csv") == [
        {
            "exercise": "first",
            "mistake": "takes the mean",
            "students": "2",
            "share_of_those_who_wrote_it": "0.5",
        }
    ]


@pytest.mark.parametrize(
    "name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", '"=1', "＝1", "Ana;=1+1", 'Ana; "-1']
)
def test_no_cell_begins_with_what_a_spreadsheet_would_run(tmp_path, name):
    write_reports({name: scored("right", "right", message=name)}, LAB, tmp_path)
    row = rows(tmp_path / "scores.csv")[0]
    for cell in [part for value in row.values() for part in value.split(";")]:
        assert cell.lstrip(" \"'\t")[:1] not in {*"=+-@＝"} or cell.lstrip().startswith("'")


def test_an_exercise_that_the_lab_no_longer_has_gets_its_column_and_row(tmp_path):
    old = Score(LAB.name, "graded", (marked("of_old", "right"),), "m", 0.1)
    write_reports({"Al": old, **CLASS}, LAB, tmp_path)
    table = rows(tmp_path / "scores.csv")
    assert (table[0]["of_old"], table[0]["first"], table[1]["of_old"]) == ("2", "", "")
    assert "of_old" in (tmp_path / "class.html").read_text(encoding="utf-8")


# junit.xml.


def test_each_student_is_a_suite_whose_counts_are_those_of_its_cases(out):
    suites = ElementTree.parse(out / "junit.xml").getroot().findall("testsuite")
    assert [suite.get("name") for suite in suites] == list(CLASS)
    for suite in suites:
        assert int(suite.get("tests")) == len(suite.findall("testcase"))
        assert int(suite.get("failures")) == len(suite.findall("testcase/failure"))
        assert int(suite.get("errors")) == len(suite.findall("testcase/error"))
    assert [int(suite.get("failures")) for suite in suites] == [0, 2, 2, 1, 0, 0]


def test_what_is_not_final_is_an_error_of_its_suite_and_no_plain_zero(out):
    suites = ElementTree.parse(out / "junit.xml").getroot().findall("testsuite")
    told = {suite.get("name"): [e.attrib for e in suite.iterfind("testcase/error")] for suite in suites}
    assert [name for name, errors in told.items() if errors] == ["Ed", "Fy"]
    assert told["Ed"][-1] == {"type": "needs-review", "message": "Ed.ipynb is no notebook"}
    assert told["Fy"] == [{"type": "fault", "message": "so"}, {"type": "failed", "message": "our own fault"}]


# class.html.


def test_a_tally_adds_up_to_the_class():
    first, second = tallies(CLASS, LAB)
    assert (first.mistakes, first.unnamed, first.wrote) == ((("takes the mean", 2),), 1, 4)
    assert (second.wrote, second.share(1)) == (4, 0.25)
    assert all(sum(tally.verdicts.values()) == len(CLASS) for tally in (first, second))
    assert tallies({}, LAB)[0].share(0) == 0


def test_the_page_of_the_class_shows_figures_mistakes_and_reasons():
    page = Page(class_html(CLASS, LAB)).text
    assert dict(_figures(CLASS)) == {
        "students": "6",
        "graded": "4",
        "need review": "1",
        "failed": "1",
        "median score, of 4": "1",
    }
    for words in ("2 takes the mean", "Ed.ipynb is no notebook", "our own fault"):
        assert words in page, words


def test_each_student_links_to_the_own_page_and_to_nothing_else():
    class_of_all = CLASS | dict.fromkeys(NAMES, CLASS["Ana"])
    attributes = Page(class_html(class_of_all, LAB)).attributes
    links = [value for name, value in attributes if name == "href"]
    wanted = [f"students/{name}/feedback.html" for name in (*CLASS, *NAMES)]
    assert [unquote(link, errors="surrogateescape") for link in links] == wanted
    assert all(link.count("/") == 2 and not set(link) & set(" <>\"'#?\n\x00") for link in links)


@pytest.mark.parametrize("name", ["..", ".", "", "../../etc", "a/b", "\ud800"])
def test_a_name_that_is_no_folder_has_a_row_and_no_link(name):
    page = Page(class_html({name: CLASS["Ana"]}, LAB))
    assert page.tags["a"] == 0
    assert page.tags["tbody"] == 2


@pytest.mark.parametrize(
    ("score", "loud"),
    [
        (scored("right", "right", isolated=False), True),
        (scored("unwritten", "unwritten", isolated=False), True),
        (scored("late", "late", status="needs-review", isolated=False), True),
        (scored("fault", "fault", status="needs-review", isolated=False), False),  # nothing of it was run
        (scored("right", "right"), False),
    ],
)
def test_scores_that_were_not_isolated_are_said_loudly(score, loud):
    assert ("These scores were not isolated" in Page(class_html({"Ana": score}, LAB)).text) == loud


def test_the_median_is_that_of_graded_students_alone():
    assert _figures({"Ed": CLASS["Ed"]})[-1][1] == "–"
    assert _figures({"Ana": CLASS["Ana"], "Bo": CLASS["Bo"], "Ed": CLASS["Ed"]})[-1][1] == "2"


def _figures(results) -> list[tuple[str, str]]:
    text = class_html(results, LAB)
    return [tuple(part.split("</dt><dd>")) for part in text.replace("</dd>", "<dt>").split("<dt>")[1::2]]


# All of them.


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_student_leaves_every_format_whole(tmp_path, name):
    tests = (marked("first", "wrong", HOSTILE, HOSTILE), marked("second", "fault", "", HOSTILE))
    results = {
        name: Score(LAB.name, "needs-review", tests, HOSTILE, 0.1, (HOSTILE,), True),
        "Ana": CLASS["Ana"],
    }
    tame = tuple(
        marked(name, verdict, "m" if verdict == "wrong" else "")
        for name, verdict in (("first", "wrong"), ("second", "fault"))
    )
    expected = {"Tom": Score(LAB.name, "needs-review", tame, "m", 0.1, (), True), "Ana": CLASS["Ana"]}
    csv_path, xml, mistakes, page = write_and_order(results, tmp_path)
    assert Page(page.read_text(encoding="utf-8")).tags == Page(class_html(expected, LAB)).tags
    assert [len(row) for row in rows(csv_path)] == [8, 8]
    assert len(csv_path.read_text(encoding="utf-8").splitlines()) == 3
    assert rows(mistakes)[0]["students"] == "1"
    assert len(ElementTree.parse(xml).getroot().findall("testsuite/testcase")) == 5
    for path in (csv_path, xml, mistakes, page):
        assert not set("\x00\x1b\u202e") & set(path.read_text(encoding="utf-8"))


def write_and_order(results, folder):
    paths = {path.name: path for path in write_reports(results, LAB, folder)}
    return [paths[name] for name in ("scores.csv", "junit.xml", "mistakes.csv", "class.html")]


def test_an_empty_class_has_all_reports_too(tmp_path):
    table, xml, mistakes, page = write_and_order({}, tmp_path)
    assert rows(table) == rows(mistakes) == []
    assert list(ElementTree.parse(xml).getroot()) == []
    assert "Nothing has been handed in" in page.read_text(encoding="utf-8")


def test_three_hundred_students_are_all_there(tmp_path):
    results = {f"{number:03}": list(CLASS.values())[number % 6] for number in range(300)}
    table, _, _, page = write_and_order(results, tmp_path)
    assert len(rows(table)) == 300
    assert Page(page.read_text(encoding="utf-8")).tags["a"] == 300
