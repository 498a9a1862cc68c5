"""Exports of learning platforms: one row per student, on disk, in folders around it, and in a zip."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from compresslab.grading.submission.inbox import Submitted, find_submissions

LAB = "00_measuring"
WHEN = "2026-09-01-10-11-12"

# what an export holds → {student: the file that is graded}
EXPORTS = {
    "Moodle, folders": (
        [
            "Anna Müller_123_assignsubmission_file_/lab.ipynb",
            "Anna Müller_123_assignsubmission_onlinetext_/onlinetext.html",
            "Anna Müller_124_assignsubmission_file_/00_measuring.ipynb",
            "Anna Müller_124_assignsubmission_file_/draft.ipynb",
            "José de la Cruz, Jr._7_assignsubmission_file/work/day 1/my lab.ipynb",
            "José de la Cruz, Jr._7_assignsubmission_file/plot.png",
            "Participant_9_assignsubmission_file_/00_measuring.ipynb",
        ],
        {
            "Anna Müller_123": "lab.ipynb",
            "Anna Müller_124": "00_measuring.ipynb",
            "José de la Cruz, Jr._7": "my lab.ipynb",
            "Participant_9": "00_measuring.ipynb",
        },
    ),
    "Moodle, files": (
        [
            "Anna Müller_123_assignsubmission_file_my_lab_1.ipynb",
            "Anna Müller_123_assignsubmission_onlinetext_onlinetext.html",
            "Ben O'Neil_5_assignsubmission_file_00_measuring.ipynb",
            "Ben O'Neil_5_assignsubmission_file_scratch.ipynb",
        ],
        {
            "Anna Müller_123": "Anna Müller_123_assignsubmission_file_my_lab_1.ipynb",
            "Ben O'Neil_5": "Ben O'Neil_5_assignsubmission_file_00_measuring.ipynb",
        },
    ),
    "Blackboard": (
        [
            f"Lab 00_amueller_attempt_{WHEN}_lab_v2.final.ipynb",
            f"Lab 00_amueller_attempt_{WHEN}.txt",
            f"Lab 00_b.o-neil_attempt_{WHEN}_00_measuring.ipynb",
            f"Lab 00_b.o-neil_attempt_{WHEN}_notes.txt",
            f"Lab 00_b.o-neil_attempt_{WHEN}.txt",
            "Lab 00_zoë_attempt_2026-09-01-09-00-00_lab.ipynb",
            "Lab 00_zoë_attempt_2026-09-01-09-00-00.txt",
            "Lab 00_zoë_attempt_2026-10-01-09-00-00_lab.ipynb",
            "Lab 00_zoë_attempt_2026-10-01-09-00-00.txt",
        ],
        {
            "amueller": f"Lab 00_amueller_attempt_{WHEN}_lab_v2.final.ipynb",
            "b.o-neil": f"Lab 00_b.o-neil_attempt_{WHEN}_00_measuring.ipynb",
            "zoë": "Lab 00_zoë_attempt_2026-10-01-09-00-00_lab.ipynb",
        },
    ),
    "Brightspace, folders": (
        [
            "index.html",
            "12345-67890 - Anna Müller - Sep 1, 2026 926 AM/lab.ipynb",
            "12345-67890 - Anna Müller - Sep 1, 2026 1011 PM/lab.ipynb",
            "12346-67890 - Mary-Ann O. Smith - 3 October 2026 09:00/00_measuring.ipynb",
            "12346-67890 - Mary-Ann O. Smith - 3 October 2026 09:00/extra.ipynb",
            "12347-67890 - N01234567 - Anna Müller - Dec 12, 2026 1234 PM/lab.ipynb",
        ],
        {
            "Anna Müller_12345": "lab.ipynb",
            "Mary-Ann O. Smith_12346": "00_measuring.ipynb",
            "N01234567 - Anna Müller_12347": "lab.ipynb",
        },
    ),
    "Brightspace, files": (
        [
            "index.html",
            "12345-67890 - Anna Müller - Sep 1, 2026 926 AM - lab - 2026 final.ipynb",
            "12346-67890 - Ben Li - Sep 1, 2026 926 AM - lab.ipynb",
        ],
        {
            "Anna Müller_12345": "12345-67890 - Anna Müller - Sep 1, 2026 926 AM - lab - 2026 final.ipynb",
            "Ben Li_12346": "12346-67890 - Ben Li - Sep 1, 2026 926 AM - lab.ipynb",
        },
    ),
    "Canvas": (
        [
            "mulleranna_123_4001_00_measuring.ipynb",
            "mulleranna_123_4002_plot.png",
            "mulleranna_124_4003_lab.ipynb",
            "o-neil-benjr._LATE_5_4010_lab-10.ipynb",
            "o-neil-benjr._5_4008_lab.ipynb",
            "o-neil-benjr._5_4009_lab-2.ipynb",
            "żółćewa_6_4011_my lab (1).ipynb",
            "żółćewa_6_text.html",
            "anon_x7Dk2_4020_lab.ipynb",
            "anon_LATE_Q1234_4021_lab.ipynb",
        ],
        {
            "anon_Q1234": "anon_LATE_Q1234_4021_lab.ipynb",
            "anon_x7Dk2": "anon_x7Dk2_4020_lab.ipynb",
            "mulleranna_123": "mulleranna_123_4001_00_measuring.ipynb",
            "mulleranna_124": "mulleranna_124_4003_lab.ipynb",
            "o-neil-benjr._5": "o-neil-benjr._LATE_5_4010_lab-10.ipynb",
            "żółćewa_6": "żółćewa_6_4011_my lab (1).ipynb",
        },
    ),
    "ILIAS": (
        [
            "Lab 00/Lab 00.xlsx",
            "Lab 00/Feedback_files/to_Mueller_Anna_amueller_12/from_Li_Ben_bli_13/remark.pdf",
            "Lab 00/Abgaben/Mueller_Anna_amueller_12/00_measuring.ipynb",
            "Lab 00/Abgaben/Mueller_Anna_amueller_12/00_measuring (2).ipynb",
            "Lab 00/Abgaben/Mueller_Anna_a_mueller_2_99/Verspaetete Abgabe - lab.ipynb",
            "Lab 00/Abgaben/von der Heide_Jo Ann_jh.1_13/lab.ipynb",
        ],
        {
            "Mueller_Anna_a_mueller_2_99": "Verspaetete Abgabe - lab.ipynb",
            "Mueller_Anna_amueller_12": "00_measuring (2).ipynb",
            "von der Heide_Jo Ann_jh.1_13": "lab.ipynb",
        },
    ),
    "ILIAS, teams": (
        [
            "Submissions/Team 7/Mueller_Anna_amueller_12/lab.ipynb",
            "Submissions/Team 8/Li_Ben_bli_13/00_measuring.ipynb",
            "Submissions/Team 8/Li_Ben_bli_13/00_measuring.py",
        ],
        {"Li_Ben_bli_13": "00_measuring.ipynb", "Mueller_Anna_amueller_12": "lab.ipynb"},
    ),
}
AROUND = ("", "export/", "download/Lab 00/")


def put(folder: Path, names: list[str]) -> Path:
    for name in names:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(name, encoding="utf-8")
    return folder


def zipped(place: Path, names: list[str]) -> Path:
    with zipfile.ZipFile(place, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return place


def graded(inbox: Path) -> dict[str, str]:
    """{student: name of the graded file}, where nothing is unclear; what is read is that file."""
    entries = find_submissions(inbox, LAB)
    assert not [each.problem for each in entries if each.problem]
    for each in entries:
        assert each.content().decode().endswith(each.name)
    return {each.student: each.name for each in entries}


def only(inbox: Path) -> Submitted:
    (each,) = find_submissions(inbox, LAB)
    return each


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("export", EXPORTS)
def test_an_export_is_one_row_a_student_and_nothing_else(tmp_path, export, around):
    names, wanted = EXPORTS[export]
    assert graded(put(tmp_path, [around + name for name in names])) == wanted


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("export", EXPORTS)
def test_the_zip_of_an_export_reads_as_the_folder_does(tmp_path, export, around):
    names, wanted = EXPORTS[export]
    place = zipped(tmp_path / "inbox.zip", [around + name for name in names])
    assert graded(place) == wanted
    (tmp_path / "class").mkdir()
    place.rename(tmp_path / "class" / "submissions.zip")
    assert graded(tmp_path / "class") == wanted, "the zip, put into a folder as it was downloaded"


@pytest.mark.parametrize("export", EXPORTS)
def test_the_order_of_the_files_in_a_zip_does_not_matter(tmp_path, export):
    names, wanted = EXPORTS[export]
    assert graded(zipped(tmp_path / "inbox.zip", names[::-1])) == wanted


# Which of several counts.


@pytest.mark.parametrize(
    ("names", "latest"),
    [
        (["doe_1_7_lab.ipynb", "doe_1_8_lab-1.ipynb", "doe_1_9_lab-2.ipynb"], "doe_1_9_lab-2.ipynb"),
        (["doe_1_7_lab-2.ipynb", "doe_1_7_lab-10.ipynb", "doe_1_7_lab.ipynb"], "doe_1_7_lab-10.ipynb"),
        (["doe_LATE_1_9_00_a-1.ipynb", "doe_1_7_00_a.ipynb"], "doe_LATE_1_9_00_a-1.ipynb"),
        (["doe_1_10_lab.ipynb", "doe_1_9_lab.ipynb"], "doe_1_10_lab.ipynb"),
        (
            ["L_a_attempt_2026-09-09-01-01-01_x.ipynb", "L_a_attempt_2026-10-01-01-01-01_x.ipynb"],
            "L_a_attempt_2026-10-01-01-01-01_x.ipynb",
        ),
        (
            ["1-2 - A B - Sep 9, 2026 100 PM/x.ipynb", "1-2 - A B - Sep 10, 2026 900 AM/y.ipynb"],
            "y.ipynb",
        ),
        (["1-2 - A B - 30. März 2026 1000/x.ipynb", "1-2 - A B - 1 août 2026 09:00/y.ipynb"], "y.ipynb"),
        (["E/S/Li_Ben_bli_13/lab.ipynb", "E/S/Li_Ben_bli_13/lab (2).ipynb"], "lab (2).ipynb"),
        (
            ["E/S/Li_Ben_bli_13/lab (2).ipynb", "E/S/Li_Ben_bli_13/Late Submission - lab.ipynb"],
            "Late Submission - lab.ipynb",
        ),
    ],
)  # fmt: skip
def test_the_latest_version_counts_and_a_note_says_so(tmp_path, names, latest):
    each = only(put(tmp_path, names))
    assert (each.problem, each.name) == ("", latest)
    assert f"of {len(names)} " in each.note
    assert "the latest counts" in each.note


@pytest.mark.parametrize(("first", "doubt"), [(7, False), (9, True)])
def test_a_number_in_the_name_that_contradicts_the_order_of_the_uploads_is_told(tmp_path, first, doubt):
    each = only(put(tmp_path, [f"doe_1_{first}_lab.ipynb", "doe_1_8_lab-1.ipynb"]))
    assert each.name == "doe_1_8_lab-1.ipynb"
    assert ("another of them was uploaded later, so look at both" in each.note) == doubt


def test_one_version_needs_no_note(tmp_path):
    assert only(put(tmp_path, ["doe_1_7_lab-1.ipynb"])).note == ""


def test_a_later_text_without_a_file_does_not_hide_the_file(tmp_path):
    names = ["L_a_attempt_2026-09-09-01-01-01_x.ipynb", "L_a_attempt_2026-10-01-01-01-01.txt"]
    assert only(put(tmp_path, names)).name == names[0]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["doe_1_7_a.ipynb", "doe_1_8_b.ipynb"], "doe_1 handed in 2 files (doe_1_7_a.ipynb, doe_1_8"),
        (["doe_1_text.html"], "doe_1 handed in no file, only a text or an empty folder; expected 00_meas"),
        (["A B_1_assignsubmission_onlinetext_/onlinetext.html"], "A B_1 handed in no file, only a text"),
        (["L_a_attempt_2026-10-01-01-01-01.txt"], "a handed in no file, only a text"),
        (
            ["1-2 - A B - 1 zář 2026 100/x.ipynb", "1-2 - A B - 2 zář 2026 100/x.ipynb"],
            "A B_1 handed in 2 times, at dates that can't be compared (1 zář 2026 100, 2 zář 2026 100); exp",
        ),
    ],
)  # fmt: skip
def test_what_can_not_be_decided_is_said(tmp_path, names, words):
    assert only(put(tmp_path, names)).problem.startswith(words)


# Whose it is.


def test_blackboards_own_text_tells_a_login_with_underscores(tmp_path):
    put(tmp_path, [f"Lab_0_a_smith_attempt_{WHEN}_x.ipynb", f"Lab_0_b_smith_attempt_{WHEN}_x.ipynb"])
    assert list(graded(tmp_path)) == ["Lab_0_a_smith", "Lab_0_b_smith"], "never merged to one smith"
    for login in ("a_smith", "b_smith"):
        stated = f"\ufeffName: Zoë Smith ({login})\r\nAssignment: Lab_0\r\n"
        (tmp_path / f"Lab_0_{login}_attempt_{WHEN}.txt").write_text(stated, encoding="utf-8", newline="")
    assert list(graded(tmp_path)) == ["a_smith", "b_smith"]


def test_a_login_that_the_name_does_not_end_with_is_not_believed(tmp_path):
    put(tmp_path, [f"Lab_anna_attempt_{WHEN}_x.ipynb"])
    (tmp_path / f"Lab_anna_attempt_{WHEN}.txt").write_text("Name: Ben (ben)")
    assert list(graded(tmp_path)) == ["anna"]


def test_what_only_looks_like_canvas_stays_one_row_a_file(tmp_path):
    put(tmp_path, ["lab_10_01_anna.ipynb", "lab_10_01_ben.ipynb"])
    assert list(graded(tmp_path)) == ["lab_10_01_anna", "lab_10_01_ben"]


def test_a_file_that_a_teacher_put_beside_an_export_is_a_student_of_its_own(tmp_path):
    put(tmp_path, ["doe_1_7_lab.ipynb", "carla.ipynb", "dora/00_measuring.ipynb"])
    assert list(graded(tmp_path)) == ["carla", "doe_1", "dora"]


def test_two_that_get_one_name_are_never_chosen_among(tmp_path):
    each = only(put(tmp_path, ["doe_1_7_lab.ipynb", "doe_1.ipynb"]))
    assert each.problem.startswith("doe_1 has 2 entries in the inbox (doe_1_7_lab.ipynb, doe_1.ipynb)")


def test_accents_in_two_spellings_are_one_student(tmp_path):
    put(
        tmp_path,
        ["Zo\u00eb_1_assignsubmission_file_/x.ipynb", "Zoe\u0308_1_assignsubmission_onlinetext_/t.html"],
    )
    assert graded(tmp_path) == {"Zo\u00eb_1": "x.ipynb"}


@pytest.mark.parametrize("other", ["anna.ipynb", "anna_1_3_lab.ipynb"])
def test_a_students_zip_that_names_others_is_still_that_students(tmp_path, other):
    put(tmp_path, [other])
    zipped(tmp_path / "eve.zip", ["anna_1_2_lab.ipynb", "Ben_7_assignsubmission_file_/lab.ipynb"])
    by_name = {each.student: each for each in find_submissions(tmp_path, LAB)}
    assert list(by_name) == [other.partition("_3")[0].removesuffix(".ipynb"), "eve"]
    assert "eve handed in 2 files" in by_name["eve"].problem
