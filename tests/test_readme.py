"""The README tells the truth: its generated blocks are what the repository generates today."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compresslab.classroom import readme
from compresslab.classroom.exercises import all_labs
from compresslab.classroom.proofs import Kill
from compresslab.errors import CompressionError

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", readme.BLOCKS)
def test_a_generated_block_of_the_readme_is_current(name):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    written = readme.blocks_in(text)
    assert name in written, f"README.md has no block <!-- generated: {name} --> … <!-- end -->"
    wanted = readme.generated(ROOT, names=[name])[name]
    assert written[name].strip() == wanted.strip(), "run compresslab build"


def test_the_readme_names_the_two_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make start" in text
    assert "make test" in text
    for command in (".venv/bin/compresslab check 03", "make check LAB=03", "!compresslab check 03"):
        assert f"`{command}`" in text


# the generator itself


def test_filling_changes_the_blocks_and_nothing_else():
    text = "before\n<!-- generated: a -->\nold\nlines\n<!-- end -->\nafter <!-- end -->\n"
    filled = readme.fill(text, {"a": "new"})
    assert filled == "before\n<!-- generated: a -->\nnew\n<!-- end -->\nafter <!-- end -->\n"
    assert readme.fill(filled, {"a": "new"}) == filled


def test_a_block_that_nothing_generates_is_refused():
    with pytest.raises(CompressionError, match="nothing generates the block 'b'; there are a"):
        readme.fill("<!-- generated: b -->\n<!-- end -->", {"a": ""})


def test_the_kill_table_has_a_row_a_lab_and_a_total():
    found = [
        Kill("00_a", "x", 1, 2, 4, 4, 3, ()),
        Kill("00_a", "y", 1, 3, 5, 5, 5, ()),
        Kill("01_b", "z", 1, 2, 4, 4, 4, ()),
    ]
    rows = [line.strip("| ").split(" | ") for line in readme.kill_table(found).splitlines()]
    assert rows[2:] == [
        ["00_a", "2", "5", "9", "9", "8"],
        ["01_b", "1", "2", "4", "4", "4"],
        ["**all**", "3", "7", "13", "13", "12"],
    ]


def test_the_lab_table_states_minutes_and_points():
    table = readme.lab_table(all_labs())
    for lab in all_labs():
        assert f"| {lab.minutes} | {lab.points} |" in table


MACHINE = {"processors": 2, "processor": "one", "python": "3", "torch": "2", "nbgrader": "0.9"}


def ways(ours, least, whole):
    def way(value, ratio):
        interval = {"value": ratio, "low": ratio / 2, "high": 2 * ratio}
        return {"students": 20, "seconds": {"value": value, "low": 0, "high": 99}, "ratio": interval}

    return {"ours": way(ours, 1), "holes_and_checks": way(least, 0.5), "whole_lab": way(whole, 0.1)}


def test_the_grading_tables_stand_beside_nbgraders_with_the_commands_that_repeat_them(tmp_path):
    rows = {name: ways(1, 2, 10) for name in ("cold", "batch", "two")}
    timed = {"lab": "00", "pairs": 5, "machine": MACHINE, **rows}
    soak = dict.fromkeys(readme.COUNTS, 7) | {"peak_pss_bytes": 3 * 2**29, "seconds": [60, 30]}
    (tmp_path / "grading.json").write_text(json.dumps(timed))
    (tmp_path / "soak.json").write_text(json.dumps(soak | {"killed": ["sandbox at 3"], "machine": MACHINE}))
    tables = readme.grading_tables(tmp_path)
    wanted = "| 20, two processes | 1.00 | 2.00 | 0.50 [0.25, 1.00] | 10.00 | 0.10 [0.05, 0.20] |"
    assert wanted in tables
    assert "| 7 | 7 | 7 | 7 | 7 | 7 | 7 | 1.5 GiB | 1.5 min |" in tables
    assert "tests.benchmarks.grading --write` repeats it" in tables
    assert "sandbox at 3" in tables


def test_what_was_not_measured_says_so_and_how(tmp_path):
    words = readme.grading_tables(tmp_path).splitlines()[0]
    assert words.startswith("Not measured yet: there is no `data/results/grading.json`")
    assert "tests.benchmarks.grading --write" in words


@pytest.fixture
def repository(tmp_path):
    for name, words in {
        "README.md": "",
        "compresslab/__init__.py": '"""all"""',
        "compresslab/clock.py": '"""The clock.\n\nMore."""',
        "compresslab/storage/__init__.py": '"""Tensors on disk: bytes."""',
        "compresslab/storage/container.py": '"""One file, v1.2 of it."""',
        "my_labs/x.txt": "",
        ".gitignore": "my_labs/\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(words)
    return tmp_path


def test_the_tree_prints_each_file_with_its_first_sentence(repository):
    lines = [line.split(maxsplit=1) for line in readme.tree(repository).splitlines()[1:-1]]
    assert lines == [
        ["README.md", readme.TOP["README.md"]],
        ["compresslab/", readme.TOP["compresslab/"]],
        ["clock.py", "The clock"],
        ["storage/", "Tensors on disk: bytes"],
        ["container.py", "One file, v1.2 of it"],
    ]


def test_a_file_without_words_is_refused(repository):
    (repository / "compresslab" / "new.py").write_text("x = 1")
    with pytest.raises(CompressionError, match=r"new.py has no words for the README's tree"):
        readme.tree(repository)


def test_a_file_that_nobody_planned_is_refused(repository):
    (repository / "notes.txt").write_text("")
    with pytest.raises(CompressionError, match=r"notes.txt has no words"):
        readme.tree(repository)


def test_refreshing_rewrites_the_page_once(repository):
    page = repository / "README.md"
    page.write_text("<!-- generated: tree -->\n<!-- end -->\n")
    assert readme.refresh_readme(repository)
    assert "clock.py" in page.read_text()
    assert not readme.refresh_readme(repository)
