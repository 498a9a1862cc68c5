"""The README tells the truth: its generated blocks are what the repository generates today."""

from __future__ import annotations

import json
import pkgutil
import re
from pathlib import Path

import pytest
import typer

from compresslab.__main__ import app
from compresslab.authoring import readme
from compresslab.checks.proofs import Kill
from compresslab.cli.app import Audience
from compresslab.course import all_labs
from compresslab.errors import CompressionError

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", [name for name in readme.BLOCKS if name != "kill-table"])
def test_a_generated_block_of_the_readme_is_current(name):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    written = readme.blocks_in(text)
    assert name in written, f"README.md has no block <!-- generated: {name} --> … <!-- end -->"
    wanted = readme.generated(ROOT, names=[name])[name]
    assert written[name].strip() == wanted.strip(), "run compresslab build"


def test_the_kill_table_is_what_the_proofs_have_proved():
    """``test_proofs`` fails unless each mistake of each exercise is killed with its own message."""
    exercises = [exercise for lab in all_labs() for exercise in lab.exercises]
    proved = [
        Kill(e.lab, e.name, e.points, len(e.right), len(e.mistakes), len(e.mistakes), len(e.mistakes), ())
        for e in exercises
    ]
    written = readme.blocks_in((ROOT / "README.md").read_text(encoding="utf-8"))["kill-table"]
    assert written.strip() == readme.kill_table(proved).strip(), "run compresslab build"


def test_the_readme_names_the_two_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make start" in text
    assert "make test" in text
    for command in (".venv/bin/compresslab check 03", "make check LAB=03", "!compresslab check 03"):
        assert f"`{command}`" in text


def test_the_table_of_commands_has_every_command_in_the_order_of_the_help():
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("| command |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `compresslab (?:new )?(\w+)|^\| \*\*(for \w+)\*\*", table, re.MULTILINE)
    found: dict[str, list[str]] = {}
    for name, group in rows:
        found.setdefault(group or list(found)[-1], []).extend([name] if name else [])
    wanted: dict[str, list[str]] = {audience.value.lower(): [] for audience in Audience}
    top = typer.main.get_command(app)
    for command in (*top.commands.values(), *top.commands["new"].commands.values()):
        wanted[command.rich_help_panel.lower()].append(command.name)
    assert list(found) == list(wanted)
    assert {group: sorted(names) for group, names in found.items()} == {
        group: sorted(set(names) - {"new"}) for group, names in wanted.items()
    }


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_a_file_that_a_page_names_is_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`(?:\.venv/bin/\w+ )?([\w/]+/|[\w/.]+\.(?:py|md|cff|txt))`", text)
    named += re.findall(r"\]\(([^):#]+)\)", text)
    missing = {
        name for name in named if not (ROOT / name).exists() and not re.search(r"NN|topic|my_labs", name)
    }
    assert named
    assert missing == set()


# the generator itself


def test_filling_changes_the_blocks_and_nothing_else():
    text = "before\n<!-- generated: a -->\nold\nlines\n<!-- end -->\nafter <!-- end -->\n"
    filled = readme.fill(text, {"a": "new"})
    assert filled == "before\n<!-- generated: a -->\nnew\n<!-- end -->\nafter <!-- end -->\n"
    assert readme.fill(filled, {"a": "new"}) == filled


def test_a_block_that_nothing_generates_is_refused():
    with pytest.raises(CompressionError, match="the block 'b' must be a generated one; there are a"):
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


def test_refreshing_rewrites_the_page_once(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("<!-- generated: labs -->\n<!-- end -->\n")
    assert readme.refresh_readme(tmp_path)
    assert "00_measuring" in page.read_text()
    assert not readme.refresh_readme(tmp_path)


# the tree, written by hand


def paths_in(tree: str) -> list[str]:
    """Return each path of an indented tree, four columns a level, joined to the folders above it."""
    found, folders = [], []
    for line in tree.splitlines():
        name = line.strip().split()[0]
        depth = (len(line) - len(line.lstrip())) // 4
        folders[depth:] = [name]
        found.append("".join(folders))
    return found


def test_the_tree_is_short_and_names_what_is_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = text.partition("## What is where")[2].partition("```text\n")[2].partition("```")[0]
    paths = paths_in(tree)
    assert 20 < len(paths) <= 60
    assert [path for path in paths if not (ROOT / path).exists() and "NN_topic" not in path] == []
    packages = {
        f"compresslab/{p.name}/" for p in (ROOT / "compresslab").iterdir() if (p / "__init__.py").exists()
    }
    assert packages - {"compresslab/classroom/"} <= set(paths)


def test_paths_of_a_tree_are_joined_to_their_folders():
    assert paths_in("a/   one\n    b/   two\n        c.py   three\nd.py   four") == [
        "a/",
        "a/b/",
        "a/b/c.py",
        "d.py",
    ]


def test_the_new_names_in_the_changelog_are_there():
    rows = re.findall(r"^\| .*? \| (.*) \|$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[2:]
    missing = []
    for row in rows:
        first, *others = re.findall(r"`([\w.]+)`", row.replace("FAMILY", "pruning"))
        for name in (first, *others):
            full = name if name.startswith("compresslab") else first.rpartition(".")[0] + name
            try:
                pkgutil.resolve_name(full)
            except (ImportError, AttributeError):
                missing.append(full)
    assert len(rows) > 10
    assert missing == []
