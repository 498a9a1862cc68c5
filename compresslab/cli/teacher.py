"""The teacher's commands: bundle, grade, sandbox."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from compresslab.cli.app import Audience, LabName, command, console
from compresslab.errors import BadSetting, DamagedFile

__all__ = ["bundle", "grade", "sandbox"]


@command(Audience.TEACHERS)
def bundle(
    lab_name: LabName,
    out: Annotated[Path, typer.Option("--out", help="a new folder; it is the teacher's alone")],
) -> None:
    """Put all that grading a lab needs into one folder, once: the same inputs for everybody, anywhere."""
    from compresslab.course import find_lab
    from compresslab.grading.bundle import make_bundle

    made = make_bundle(find_lab(lab_name), out)
    console.print(f"✓ {made.lab.name}: {out}; whoever has it can foresee the inputs", highlight=False)


@command(Audience.TEACHERS)
def sandbox(
    check: Annotated[bool, typer.Option("--check", help="try what an answer could reach")] = True,
) -> None:
    """Say whether students' code can be isolated on this machine; exit code 1 where it can't."""
    from compresslab.grading.sandbox.self_test import can_isolate, run_self_test

    table = Table("", "about", "what an answer could do when it tried")
    for finding in run_self_test():
        table.add_row("✓" if finding.holds else "[bold red]✗[/]", finding.about, escape(finding.words))
    console.print(table)
    raise typer.Exit(0 if can_isolate() else 1)


@command(Audience.TEACHERS)
def grade(
    lab_name: LabName,
    submission: Annotated[Path, typer.Argument(help="a notebook, or a folder of them; read, never run")],
    out: Annotated[Path, typer.Option("--out", help="the folder for the results")],
    bundle: Annotated[Path | None, typer.Option(help="what compresslab bundle made")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="processes; by default one a processor")] = None,
    scheduler: Annotated[str | None, typer.Option(help="a Dask cluster's, such as tcp://host:8786")] = None,
    gradebook: Annotated[Path | None, typer.Option(help="an nbgrader course, to push scores into")] = None,
    seed: Annotated[int | None, typer.Option(help="of one notebook's inputs; repeats a grading")] = None,
    trust: Annotated[bool, typer.Option("--trust-submissions", help="run them without a sandbox")] = False,
) -> None:
    """Grade a notebook or a class; exit code 0 all graded, 3 somebody needs review, 1 something failed."""
    from compresslab.grading import session
    from compresslab.grading.scores import EXIT_CODES, score_table

    several = submission.is_dir() and not submission.is_symlink()
    if not submission.exists() and not submission.is_symlink():
        raise DamagedFile(
            f"{submission} is not there; expected a notebook, or a folder of them; look at its name"
        )
    if gradebook is not None and not (gradebook / "nbgrader_config.py").is_file():
        raise DamagedFile(
            f"{gradebook} is no nbgrader course; expected a folder with nbgrader_config.py; copy the kit's"
        )
    if several and seed is not None:
        raise BadSetting("--seed is for one notebook; a class has its bundle; leave it out")
    if not several and (gradebook or scheduler or jobs):
        raise BadSetting(
            "--gradebook, --scheduler and --jobs are for a folder of submissions, got one file; put it into "
            "a folder, called as the student is, and give that"
        )
    isolated = session.is_isolated(trusted=trust, several=several)
    if not isolated:
        console.print("[bold red]not isolated[/]: students' code runs with your rights", highlight=False)
    if not several:
        with tempfile.TemporaryDirectory(prefix="compresslab-") as scratch:
            made = session.bundle_for(lab_name, bundle, Path(scratch))
            score = session.grade_notebook(made, submission, out, isolated=isolated, seed=seed)
        console.print(score_table(score))
        raise typer.Exit(EXIT_CODES[score.status])
    made = session.bundle_for_class(lab_name, bundle, submission, out)
    try:
        results = session.grade_inbox(
            made, submission, out, isolated=isolated, jobs=jobs, scheduler=scheduler
        )
    except KeyboardInterrupt:
        console.print("\nInterrupted; what had ended is kept. Go on with the same command.")
        raise typer.Exit(130) from None
    console.print(session.class_table(results, made.lab))
    console.print(f"{out}/class.html shows the class, {out}/scores.csv has a row a student", highlight=False)
    if gradebook is not None:
        for line in session.push(results, submission, made.lab, gradebook):
            console.print(line, highlight=False, markup=False)
    raise typer.Exit(EXIT_CODES[session.worst_status(results)])
