"""An update loses nothing: the student's words are in the new edition, and the old one is kept."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import made_course
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell
from submissions import right_answers

from compresslab.authoring.edition_metadata import KEY, shipped_cells, version_of
from compresslab.cli.jupyter import copy_labs
from compresslab.cli.update import copies_of_other_editions, merged, update_lab
from compresslab.course import find_lab
from compresslab.data import location
from compresslab.data.location import LABS
from compresslab.errors import BadSetting, DamagedFile
from compresslab.grading.grade import grade_alone

NOON = datetime.datetime(2026, 9, 1, 12, 0, 0)
FORMER = Path(__file__).parent / "made_by_0_1_0" / "00_measuring.ipynb"
LAB = made_course.LAB.name
WRITTEN = "def double(x):\n    return x + x"


def edition():
    return nbformat.reads(made_course.edition(), as_version=4)


def newer(**changed):
    """The edition of a later version, with these cells' text changed."""
    book = edition()
    book.metadata[KEY]["version"] = "9.9"
    for name, text in changed.items():
        cell(book, name.replace("_", "-")).source = text
    return book


def cell(book, name):
    return next(cell for cell in book.cells if cell.id == name)


def put_after(book, name, new):
    book.cells.insert(book.cells.index(cell(book, name)) + 1, new)
    return new


def ids(book):
    return [cell.id for cell in book.cells]


def texts(book):
    return [cell.source for cell in book.cells]


def update(mine, new):
    made, kept, twice = merged(mine, new, LAB)
    return made, kept, twice


# where the student's words go


def test_holes_are_the_students_and_everything_else_is_the_new_editions():
    mine = edition()
    cell(mine, "double").source = WRITTEN
    made, kept, twice = update(
        mine, newer(card_double="a new card", check_double="check.double(double)  # new")
    )
    assert ids(made) == ids(edition())
    assert cell(made, "double").source == WRITTEN
    assert cell(made, "card-double").source == "a new card"
    assert cell(made, "check-double").source.endswith("# new")
    assert (kept, twice) == (("double",), ())
    assert made.metadata[KEY]["version"] == "9.9"


def test_an_untouched_hole_gets_the_new_docstring():
    made, kept, _ = update(edition(), newer(double='def double(x):\n    """New."""'))
    assert '"""New."""' in cell(made, "double").source
    assert kept == ()


def test_a_written_hole_is_kept_even_where_its_docstring_is_new():
    mine = edition()
    cell(mine, "double").source = WRITTEN
    made, _, _ = update(mine, newer(double="def double(x):\n    ..."))
    assert cell(made, "double").source == WRITTEN
    assert cell(made, "double").metadata == cell(edition(), "double").metadata


def test_a_bet_that_the_student_alone_changed_is_kept_with_its_output():
    mine = edition()
    bet = cell(mine, "code-print-3-2")
    bet.source, bet.execution_count = "print(7)", 4
    bet.outputs = [nbformat.v4.new_output("stream", text="7\n")]
    made, kept, _ = update(mine, newer())
    assert cell(made, "code-print-3-2").source == "print(7)"
    assert cell(made, "code-print-3-2").outputs[0].text == "7\n"
    assert kept == ("code-print-3-2",)


def test_a_cell_that_both_changed_is_there_twice_the_students_below():
    mine = edition()
    cell(mine, "code-print-3-2").source = "print(7)"
    made, _, twice = update(mine, newer(code_print_3_2="print(8)"))
    place = ids(made).index("code-print-3-2")
    assert texts(made)[place : place + 2] == ["print(8)", "print(7)"]
    assert twice == ("code-print-3-2",)


def test_added_cells_stay_below_the_cell_that_they_followed():
    mine = edition()
    mine.cells.insert(0, new_markdown_cell("my notes", id="top"))
    put_after(mine, "double", new_code_cell("double(2)", id="one"))
    put_after(mine, "one", new_code_cell("double(3)", id="two"))
    made, kept, _ = update(mine, newer())
    assert ids(made)[0] == "top"
    place = ids(made).index("double")
    assert ids(made)[place : place + 4] == ["double", "one", "two", "check-double"]
    assert set(kept) == {"top", "one", "two"}


def test_a_cell_that_the_new_edition_dropped_goes_unless_the_student_changed_it():
    new = newer()
    new.cells.remove(cell(new, "code-print-3-2"))
    assert "print(3 * 2)" not in "".join(texts(update(edition(), new)[0]))
    mine = edition()
    cell(mine, "code-print-3-2").source += "  # why?"
    assert sum("# why?" in text for text in texts(update(mine, new)[0])) == 1


def test_a_hole_that_is_gone_is_an_added_cell_without_its_marks():
    new = newer()
    new.cells = [cell for cell in new.cells if not cell.id.endswith("again")]
    mine = edition()
    cell(mine, "again").source = WRITTEN.replace("double", "again")
    made, _, _ = update(mine, new)
    assert "nbgrader" not in cell(made, "again").metadata


def test_a_function_written_in_a_new_cell_fills_the_hole_whose_cell_was_deleted():
    mine = edition()
    put_after(mine, "double", new_code_cell(WRITTEN, id="mine"))
    mine.cells.remove(cell(mine, "double"))
    made, _, _ = update(mine, newer())
    assert cell(made, "double").source == WRITTEN
    assert texts(made).count(WRITTEN) == 1


def test_ids_that_another_program_lost_are_found_again_by_the_text():
    mine = edition()
    cell(mine, "double").source = WRITTEN
    for place, each in enumerate(mine.cells):
        each.id = f"lost-{place}"
    made, kept, _ = update(mine, newer())
    assert ids(made) == ids(edition())
    assert kept == ("double",)


def test_deleted_cells_of_the_lab_come_back():
    mine = edition()
    mine.cells.remove(cell(mine, "card-double"))
    assert ids(update(mine, newer())[0]) == ids(edition())


# the files


@pytest.fixture
def folders(tmp_path):
    """The course's labs with the made lab, and a student's copy of its former edition."""
    places = {name: tmp_path / name / LAB / f"{LAB}.ipynb" for name in ("labs", "my_labs")}
    for place, book in zip(places.values(), (newer(), edition()), strict=True):
        place.parent.mkdir(parents=True)
        nbformat.write(book, place)
    return {"labs": tmp_path / "labs", "target": tmp_path / "my_labs"}


def mine_in(folders):
    return folders["target"] / LAB / f"{LAB}.ipynb"


def test_an_update_keeps_a_backup_and_a_second_one_has_nothing_to_do(folders):
    place = mine_in(folders)
    before = place.read_bytes()
    assert list(copies_of_other_editions(**folders)) == [(LAB, version_of(edition()))]
    done = update_lab(LAB, now=NOON, **folders)
    assert done.backup.name == f"{LAB}.20260901-120000.ipynb"
    assert done.backup.read_bytes() == before
    after = place.read_bytes()
    assert update_lab(LAB, now=NOON, **folders) is None
    assert place.read_bytes() == after
    assert sorted(file.name for file in place.parent.iterdir()) == sorted([place.name, done.backup.name])
    assert list(copies_of_other_editions(**folders)) == []


def test_a_second_update_to_a_third_edition_keeps_what_the_first_one_kept(folders):
    mine = edition()
    cell(mine, "code-print-3-2").source = "print(7)"
    cell(mine, "double").source = WRITTEN
    nbformat.write(mine, mine_in(folders))
    update_lab(LAB, now=NOON, **folders)
    third = newer(card_double="third")
    third.metadata[KEY]["version"] = "10"
    nbformat.write(third, folders["labs"] / LAB / f"{LAB}.ipynb")
    update_lab(LAB, now=NOON, **folders)
    made = nbformat.read(mine_in(folders), as_version=4)
    wanted = ("print(7)", WRITTEN, "third")
    assert tuple(cell(made, name).source for name in ("code-print-3-2", "double", "card-double")) == wanted


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not a notebook that can be read"),
        ("<<<<<<< HEAD\n{}", "is not a notebook that can be read"),
        ("{}", "is not a notebook that can be read"),
        ("[1]", "is not a notebook that can be read"),
        (
            '{"cells": [{"cell_type": "odd"}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}',
            "can be read",
        ),
        ('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', "has no exercise of this lab"),
    ],
)
@pytest.mark.filterwarnings("ignore::Warning:nbformat")
def test_a_damaged_notebook_is_refused_and_stays_as_it_is(folders, text, says):
    mine_in(folders).write_text(text)
    with pytest.raises(DamagedFile, match=f"{says}.* compresslab reset {LAB}"):
        update_lab(LAB, now=NOON, **folders)
    assert [file.read_text() for file in mine_in(folders).parent.iterdir()] == [text]
    assert list(copies_of_other_editions(**folders)) in ([], [(LAB, "0.1.0")])


def test_a_lab_that_was_not_copied_or_does_not_exist_is_said(folders):
    mine_in(folders).unlink()
    with pytest.raises(BadSetting, match=f"my_labs/{LAB} is not there yet; .* compresslab start"):
        update_lab(LAB, now=NOON, **folders)
    with pytest.raises(BadSetting, match=f"name must be a lab, got '07_magic'; there are {LAB}"):
        update_lab("07_magic", now=NOON, **folders)


# a copy that 0.1.0 made, whose edition said nothing about itself


def test_what_0_1_0_shipped_is_known_by_its_digests():
    former = nbformat.read(FORMER, as_version=4)
    assert version_of(former) == "0.1.0"
    assert ids(former) == list(shipped_cells(former, "00_measuring"))


def test_a_solved_copy_of_0_1_0_earns_the_same_points_after_an_update(tmp_path):
    lab = find_lab("measuring")
    book = nbformat.read(FORMER, as_version=4)
    for name, text in right_answers(lab).items():
        cell(book, name).source = text
    cell(book, lab.exercises[1].name).source = "def wrong():\n    return"
    place = tmp_path / lab.name / f"{lab.name}.ipynb"
    place.parent.mkdir()
    nbformat.write(book, place)
    before = grade_alone(lab, place, seed=0)
    done = update_lab(lab.name, now=NOON, target=tmp_path)
    after = grade_alone(lab, place, seed=0)
    assert [(test.name, test.score) for test in after.tests] == [
        (test.name, test.score) for test in before.tests
    ]
    assert 0 < after.score == before.score < lab.points
    assert (len(done.kept), done.twice) == (len(lab.exercises), ())
    made, new = (nbformat.read(folder / lab.name / place.name, as_version=4) for folder in (tmp_path, LABS))
    assert ids(made) == ids(new)
    assert not re.search("classroom", "".join(texts(made)))


def test_start_and_update_say_which_copies_are_of_another_version(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    import compresslab.cli.jupyter as start
    from compresslab.__main__ import app

    copy_labs(target=tmp_path)
    place = tmp_path / "00_measuring" / "00_measuring.ipynb"
    place.write_bytes(FORMER.read_bytes())
    monkeypatch.setattr(location, "MY_LABS", tmp_path)
    monkeypatch.setattr(start, "launch", lambda target, say: 0)
    runs = [CliRunner().invoke(app, words) for words in (["start"], ["update", "00"]) * 2]
    assert [run.exit_code for run in runs] == [0] * 4
    said = [" ".join(run.output.split()) for run in runs]
    told = (
        "my_labs/00_measuring was made by 0.1.0; compresslab update 00 puts your cells into the new edition"
    )
    assert told in said[0]
    assert "is now the edition of" in said[1]
    assert told not in said[2]
    assert "already" in said[3]
