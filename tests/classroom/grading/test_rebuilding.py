def test_locked_cells_and_metadata_are_the_courses(course, edition, tmp_path):
    def tamper(book):
        cell(book, "check-double").source = "print('full marks')"
        cell(book, "double").metadata = {"tags": ["skip-execution"]}
        book.metadata = {"kernelspec": {"name": "evil", "display_name": "x"}}

    push_scores({"ann": score()}, {"ann": handed_in(edition, tmp_path, change=tamper)}, TWO, course)
    book = written(course)
    assert cell(book, "check-double").source == "check.double(double)"
    assert cell(book, "double").source == "def double(x):\n    return x + x"
    assert set(cell(book, "double").metadata) == {"deletable", "nbgrader"} | set(
        cell(book, "double").metadata
    )
    assert "tags" not in cell(book, "double").metadata
    assert book.metadata == nbformat.reads(edition, as_version=4).metadata


def test_deleted_cells_come_back_where_they_stood(course, edition, tmp_path):
    def delete(book):
        book.cells = [c for c in book.cells if c.id not in ("check-double", "again")]

    push_scores({"ann": score()}, {"ann": handed_in(edition, tmp_path, change=delete)}, TWO, course)
    ids = [c.id for c in written(course).cells if c.metadata.get("nbgrader")]
    assert ids == ["double", "check-double", "again", "check-again"]
    assert cell(written(course), "again").source.startswith("# not in a cell of its own in the submission\n")
    assert "3.0 / 3.0" in feedback(course)


def test_an_answer_in_a_cell_of_another_id_stands_where_the_grader_found_it(course, edition, tmp_path):
    def retype(book):
        cell(book, "double")["id"] = "mine"

    push_scores({"ann": score()}, {"ann": handed_in(edition, tmp_path, change=retype)}, TWO, course)
    book = written(course)
    assert "return x + x" in cell(book, "double").source
    assert [c.source for c in book.cells].count("def double(x):\n    return x + x") == 1


def test_the_second_cell_with_an_id_is_kept_as_an_ordinary_one(course, edition, tmp_path):
    def duplicate(book):
        book.cells += [nbformat.from_dict(dict(cell(book, "check-double"))), dict(cell(book, "double"))]
        book.cells[-1]["source"] = "def double(x):\n    return 2 * x"

    push_scores({"ann": score()}, {"ann": handed_in(edition, tmp_path, change=duplicate)}, TWO, course)
    book = written(course)
    assert "2 * x" in cell(book, "double").source
    assert sum("return x + x" in c.source for c in book.cells if c.id.startswith("submitted-")) == 1
    assert [c.id for c in book.cells].count("check-double") == 1


def test_a_flood_of_cells_is_cut_and_the_answers_are_not(course, edition, tmp_path):
    def flood(book):
        many = [{"cell_type": "markdown", "metadata": {}, "source": "x" * 30_000}]
        book.cells = many + [nbformat.v4.new_code_cell("1")] * (MOST_CELLS + 50) + book.cells

    push_scores({"ann": score()}, {"ann": handed_in(edition, tmp_path, change=flood)}, TWO, course)
    book = written(course)
    assert "return x + x" in cell(book, "double").source
    assert len(book.cells) <= MOST_CELLS + 4
    assert book.cells[0].source.endswith("… cut after 20,000 characters\n```")


BROKEN = {
    "empty": "",
    "object": "{}",
    "number": '{"cells": 3}',
    "cells": '{"cells": [3, null, {"id": []}]}',
    "deep": "[" * 99_999,
    "zero": "\x00\x01",
}


def test_broken_notebooks_are_pushed_as_the_labs_own_with_a_notice(course, tmp_path):
    places = {name: tmp_path / f"{name}.ipynb" for name in BROKEN}
    for name, place in places.items():
        place.write_text(BROKEN[name])
    review = score(status="needs-review", message="unreadable")
    pushed = push_scores(dict.fromkeys(BROKEN, review) | {"eve": score()}, places, TWO, course)
    assert pushed.students == (*BROKEN, "eve")
    for name in BROKEN:
        assert "unreadable" in written(course, name).cells[0].source
        assert f"{name}.ipynb" in written(course, name).cells[0].source
        assert "raise NotImplementedError" in cell(written(course, name), "double").source


def test_odd_cells_among_good_ones_do_no_harm(course, edition, tmp_path):
    def spoil(book):
        odd = [3, None, {}, {"cell_type": "code", "id": ["x"], "source": 5}]
        odd += [{"cell_type": "code", "source": ["a = '\ud800'", 7]}, {"cell_type": [], "id": "double"}]
        book.cells += odd

    push_scores({"ann": score()}, {"ann": handed_in(edition, tmp_path, change=spoil)}, TWO, course)
    assert "return x + x" in cell(written(course), "double").source
    assert any("a = '?'" in c.source for c in written(course).cells)
