"""The students' commands: start, doctor, labs, check, hint, reset, update."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from compresslab import __version__
from compresslab.cli.app import Audience, LabName, command, console
from compresslab.errors import BadSetting, DamagedFile

if TYPE_CHECKING:
    from compresslab.checks.exercise import Lab

__all__ = ["check", "doctor", "hint", "labs", "reset", "start", "update"]


@command(Audience.STUDENTS)
def start() -> None:
    """Copy the labs to my_labs/ (never overwriting) and open JupyterLab on them."""
    from compresslab.cli.jupyter import copy_labs, launch
    from compresslab.cli.places import require_home
    from compresslab.cli.update import copies_of_other_editions
    from compresslab.data.location import MY_LABS

    copied = copy_labs(target=MY_LABS)
    console.print(
        f"Copied {len(copied)} new files to my_labs/; files that were there are unchanged."
        if copied
        else "my_labs/ is up to date."
    )
    for name, version in copies_of_other_editions(target=MY_LABS):
        console.print(
            f"my_labs/{name} was made by {version}; compresslab update {name.partition('_')[0]} puts your "
            "cells into the new edition",
            highlight=False,
            soft_wrap=True,
        )
    require_home()
    raise typer.Exit(launch(MY_LABS, say=lambda words: console.print(words, highlight=False, soft_wrap=True)))


@command(Audience.STUDENTS)
def doctor() -> None:
    """Say whether this machine can run the labs, and what to do about what is missing."""
    from compresslab.cli.doctor import examine, findings_table

    findings = examine()
    console.print(findings_table(findings))
    if any(finding.needed and not finding.good for finding in findings):
        raise typer.Exit(1)


@command(Audience.STUDENTS)
def labs() -> None:
    """List the labs with their minutes, their points, and your progress."""
    from compresslab.cli.progress import progress
    from compresslab.course import all_labs
    from compresslab.data.location import HAS_REPOSITORY, MY_LABS

    table = Table("lab", "about", "minutes", "points", "you")
    for lab in all_labs():
        mine = progress(lab.name, MY_LABS)
        table.add_row(lab.name, lab.title, str(lab.minutes), str(lab.points), mine)
    console.print(table)
    if HAS_REPOSITORY:
        _say("Work: compresslab start   Check: compresslab check LAB   Help: compresslab hint LAB EXERCISE")
    else:
        _say("Check: compresslab check LAB NOTEBOOK   Help: compresslab hint LAB EXERCISE")
        _say("The labs' notebooks come with the repository, and compresslab is installed without it.")


@command(Audience.STUDENTS)
def check(
    lab_name: LabName,
    notebook: Annotated[
        Path | None, typer.Argument(help="your notebook; by default the one in my_labs/")
    ] = None,
) -> None:
    """Check your notebook as the grader would; exit code 0 only if every core exercise is right."""
    from compresslab.cli.progress import note
    from compresslab.course import find_lab
    from compresslab.grading.grade import grade_alone
    from compresslab.grading.scores import score_table

    lab = find_lab(lab_name)
    place = notebook or _mine(lab)
    score = grade_alone(lab, place)
    console.print(score_table(score))
    _say(f"Checked: {place}")
    _warn_of_the_courses_own(lab, place)
    problem = note(score, place) if notebook is None else ""
    if problem:
        _say(f"Your points are not noted for compresslab labs: {problem}")
    core = [test.status == "passed" for test in score.tests if not test.bonus]
    raise typer.Exit(0 if score.status == "graded" and all(core) else 1)


@command(Audience.STUDENTS)
def hint(
    lab_name: LabName,
    exercise: Annotated[str, typer.Argument(help="the exercise's name")],
    step: Annotated[int, typer.Argument(help="1 a nudge, 2 the formula, 3 a line with a blank")] = 1,
) -> None:
    """Show one of an exercise's three hints."""
    from compresslab.course import find_lab
    from compresslab.notebook.menus import hint_text

    lab = find_lab(lab_name)
    names = [each.name for each in lab.exercises]
    if exercise not in names:
        raise BadSetting(
            f"EXERCISE must be one of {lab.name}, got {exercise!r}; there are {', '.join(names)}"
        )
    count = len(lab.exercise(exercise).hints)
    if step not in range(1, count + 1):
        raise BadSetting(f"STEP must be 1 to {count}, got {step}; start with 1")
    console.print(hint_text(lab.exercise(exercise), step), markup=False, highlight=False)


@command(Audience.STUDENTS)
def reset(lab_name: LabName) -> None:
    """Restore a lab's original notebook; yours is kept as a backup beside it."""
    from compresslab.cli.jupyter import notebook_of, reset_lab
    from compresslab.cli.progress import forget
    from compresslab.course import find_lab
    from compresslab.data.location import MY_LABS

    name = find_lab(lab_name).name
    backup = reset_lab(name, now=datetime.datetime.now(), target=MY_LABS)
    forget(notebook_of(MY_LABS, name))
    kept = f"; yours is kept as {backup.name}" if backup else ""
    console.print(f"{name} is the original again{kept}.", highlight=False)


@command(Audience.STUDENTS)
def update(lab_name: LabName) -> None:
    """Put your cells into this version's edition of a lab; yours is kept as a backup beside it."""
    from compresslab.cli.update import update_lab
    from compresslab.course import find_lab
    from compresslab.data.location import MY_LABS

    name = find_lab(lab_name).name
    done = update_lab(name, now=datetime.datetime.now(), target=MY_LABS)
    if done is None:
        console.print(f"my_labs/{name} is the edition of {__version__} already.", highlight=False)
        return
    console.print(
        f"my_labs/{name} is now the edition of {__version__}, with {len(done.kept)} cells of yours; run it "
        f"from the top. Your notebook as it was is kept as {done.backup.name}.",
        highlight=False,
        soft_wrap=True,
    )
    for cell in done.twice:
        words = f"The cell {cell} is new, and you had changed it: your version stands below the new one."
        console.print(words, highlight=False, markup=False, soft_wrap=True)


def _mine(lab: Lab) -> Path:
    from compresslab.cli.jupyter import lab_names, notebook_of
    from compresslab.data.location import MY_LABS

    place = notebook_of(MY_LABS, lab.name)
    if not place.exists():
        lab_names()  # without the labs, start can't copy any: it says where they are
        raise DamagedFile(f"my_labs/{lab.name} is not there yet; copy the labs with: compresslab start")
    return place


def _warn_of_the_courses_own(lab: Lab, checked: Path) -> None:
    """Say so where a student wrote into ``labs/``, which is the course's, instead of ``my_labs/``."""
    from compresslab.cli.jupyter import notebook_of
    from compresslab.cli.progress import is_begun
    from compresslab.data.location import LABS

    theirs = notebook_of(LABS, lab.name)
    if is_begun(theirs, lab.name):
        which = "and was checked" if theirs.resolve() == checked.resolve() else "and was not checked"
        _say(
            f"labs/{lab.name} is edited {which}: labs/ belongs to the course, and an update may replace it; "
            f"work in my_labs/{lab.name}, where compresslab start puts your copy"
        )


def _say(words: str) -> None:
    console.print(words, highlight=False, markup=False, soft_wrap=True)
