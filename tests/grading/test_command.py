"""``compresslab grade``: contradictions are refused at once, in a sentence, and nothing is lost."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from submissions import code, saved
from typer.testing import CliRunner

from compresslab.__main__ import app
from compresslab.course import find_lab
from compresslab.errors import CompressionError
from compresslab.grading import command
from compresslab.grading.bundle import make_bundle
from compresslab.grading.grade import ungraded
from compresslab.grading.sandbox.self_test import Finding
from compresslab.grading.scores import Score, Status, write_results

LAB = find_lab("00")


def request(lab_name, submission=Path("none"), out=Path("none"), *, bundle=None):
    return command.Request(lab_name, submission, out, bundle)


def said(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(LAB, tmp_path_factory.mktemp("made") / "bundle")


@pytest.fixture
def inbox(tmp_path):
    place = tmp_path / "inbox"
    place.mkdir()
    saved(code("def conv_macs(): raise NotImplementedError", ids=["conv_macs"]), place, "anna.ipynb")
    return place


@pytest.fixture
def nowhere(monkeypatch):
    """A machine that can't isolate."""
    monkeypatch.setattr(command, "run_self_test", lambda: (Finding("network", False, "it is open"),))


def test_a_class_is_refused_where_nobody_can_be_isolated(nowhere, inbox, tmp_path):
    code, words = said("grade", "00", inbox, "--out", tmp_path / "out")
    assert code == 2
    assert "can't be isolated on this machine (network: it is open)" in words
    assert "--trust-submissions" in words
    assert not (tmp_path / "out").exists()


def test_who_trusts_a_class_has_it_graded_and_every_result_says_so(nowhere, bundle, inbox, tmp_path):
    out = tmp_path / "out"
    settings = ("--bundle", bundle.folder, "--jobs", 1, "--trust-submissions")
    code, words = said("grade", "00", inbox, "--out", out, *settings)
    assert (code, "not isolated" in words) == (0, True)
    results = json.loads((out / "students" / "anna" / "results.json").read_text())
    assert results["extra_data"]["isolated"] is False
    assert "isolated" in (out / "class.html").read_text()


def test_one_notebook_is_graded_without_isolation_and_says_so(nowhere, bundle, inbox, tmp_path):
    place = inbox / "anna.ipynb"
    code, words = said("grade", "--bundle", bundle.folder, "00", place, "--out", tmp_path / "out")
    assert (code, "not isolated" in words) == (0, True)
    assert (tmp_path / "out" / "feedback.html").exists()
    assert str(tmp_path) not in (tmp_path / "out" / "results.json").read_text()


def test_a_zip_of_a_class_is_graded_like_its_folder_and_the_note_is_in_every_report(
    nowhere, bundle, inbox, tmp_path
):
    with zipfile.ZipFile(tmp_path / "submissions.zip", "w") as archive:
        archive.write(inbox / "anna.ipynb", "export/lianna_12_34_lab.ipynb")
        archive.write(inbox / "anna.ipynb", "export/lianna_LATE_12_35_lab-1.ipynb")
    out, settings = tmp_path / "out", ("--bundle", bundle.folder, "--jobs", 1, "--trust-submissions")
    for _ in range(2):  # the second time from the stored result
        code, words = said("grade", "00", tmp_path / "submissions.zip", "--out", out, *settings)
        assert code == 0, words
        note = "of 2 versions (lianna_12_34_lab.ipynb, lianna_LATE_12_35_lab-1.ipynb) the latest counts"
        assert words.replace(" │ ", " ").count("lianna_12 ") == 1
        results = json.loads((out / "students" / "lianna_12" / "results.json").read_text())
        assert note in results["output"]
        assert note in results["extra_data"]["notes"][0]
        assert note in (out / "scores.csv").read_text()
        assert note in (out / "students" / "lianna_12" / "feedback.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{tmp}/none", "--out", "{tmp}/out"), "does not exist; expected a notebook, or a folder of them"),
        (
            ("{inbox}", "--out", "{inbox}/out"),
            "is inside the inbox, where results would be taken for submissions",
        ),
        (
            ("{inbox}", "--out", "{bundle}/out", "--bundle", "{bundle}"),
            "is inside the bundle, and a bundle must not change",
        ),
        (("{inbox}", "--out", "{tmp}/out", "--seed", "3"), "--seed is for one notebook"),
        (("{inbox}/anna.ipynb", "--out", "{tmp}/out", "--jobs", "2"), "are for a folder of submissions"),
        (("{inbox}", "--out", "{tmp}/out", "--gradebook", "{tmp}"), "is not an nbgrader course"),
        (("{inbox}", "--out", "{tmp}/out", "--bundle", "{inbox}"), "is not a bundle"),
    ],
)
def test_what_can_not_be_meant_is_refused_before_anything_is_graded(
    bundle, inbox, tmp_path, arguments, words
):
    places = {"tmp": tmp_path, "inbox": inbox, "bundle": bundle.folder}
    code, output = said("grade", "00", *(a.format(**places) for a in arguments), "--trust-submissions")
    assert (code, words in output) == (2, True), output
    assert not (tmp_path / "out" / "students").exists()


def test_a_bundle_of_another_lab_is_refused(bundle):
    with pytest.raises(
        CompressionError, match=r"is of lab 00_measuring, not of '01'; expected one and the same"
    ):
        command.bundle_for(request("01", bundle=bundle.folder), bundle.folder)


def test_results_of_another_lab_are_not_written_over(bundle, inbox, tmp_path):
    out = tmp_path / "out"
    other = ungraded(find_lab("01"), "needs-review", "of another lab")
    before = write_results(other, out / "students" / "anna").read_text()
    code, words = said("grade", "00", inbox, "--out", out, "--bundle", bundle.folder, "--trust-submissions")
    assert (code, "holds results of lab 01_quantization" in words) == (2, True)
    assert (out / "students" / "anna" / "results.json").read_text() == before


def test_a_class_without_a_bundle_keeps_the_one_that_was_made(inbox, tmp_path):
    asked = request("00", inbox, tmp_path / "out")
    first = command.bundle_for_inbox(asked)
    again = command.bundle_for_inbox(asked)
    assert first.digest == again.digest
    shutil.rmtree(first.folder)
    assert command.bundle_for_inbox(asked).digest != first.digest


def test_the_whole_is_as_good_as_its_worst():
    scores = {name: Score("lab", Status(name), (), "", 0.0) for name in ("graded", "needs-review", "failed")}
    assert command.worst_status({}) == command.worst_status({"a": scores["graded"]}) == "graded"
    assert command.worst_status({"a": scores["needs-review"], "b": scores["graded"]}) == "needs-review"
    assert command.worst_status(dict(scores)) == "failed"
