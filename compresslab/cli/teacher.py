"""The teacher's commands: bundle, grade, sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from compresslab.cli.app import Audience, LabName, command, console

if TYPE_CHECKING:
    from compresslab.grading.command import ClassOptions, Request
    from compresslab.grading.scores import Status

__all__ = ["bundle", "grade", "sandbox"]


@command(Audience.TEACHERS)
def bundle(
    lab_name: LabName,
    out: Annotated[Path, typer.Option("--out", help="a new folder; for the teacher alone")],
) -> None:
    """Put all that grading a lab needs into one folder, once: the same inputs for everybody, anywhere."""
    from compresslab.course import find_lab
    from compresslab.grading.bundle import make_bundle

    made = make_bundle(find_lab(lab_name), out)
    console.print(f"✓ {made.lab.name}: {out}; with it one can predict the inputs", highlight=False)


@command(Audience.TEACHERS)
def sandbox(
    check: Annotated[bool, typer.Option("--check", help="try what an answer could reach")] = True,
) -> None:
    """Test whether students' code can be isolated on this machine; exit code 1 if it can't."""
    from compresslab.grading.sandbox.self_test import can_isolate, run_self_test

    table = Table("", "about", "what was tried, and what came of it")
    for finding in run_self_test():
        table.add_row("✓" if finding.holds else "[bold red]✗[/]", finding.about, escape(finding.words))
    console.print(table)
    raise typer.Exit(0 if can_isolate() else 1)


@command(Audience.TEACHERS)
def grade(
    lab_name: LabName,
    submission: Annotated[Path, typer.Argument(help="a notebook, or a folder or zip of them; never run")],
    out: Annotated[Path, typer.Option("--out", help="the folder for the results")],
    bundle: Annotated[Path | None, typer.Option(help="what compresslab bundle made")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="processes; by default one per processor")] = None,
    scheduler: Annotated[str | None, typer.Option(help="a Dask cluster's, such as tcp://host:8786")] = None,
    gradebook: Annotated[Path | None, typer.Option(help="an nbgrader course, to push scores into")] = None,
    seed: Annotated[int | None, typer.Option(help="of one notebook's inputs; repeats a grading")] = None,
    trust: Annotated[bool, typer.Option("--trust-submissions", help="run them without a sandbox")] = False,
) -> None:
    """Grade a notebook or a class; exit code 0 all graded, 3 somebody needs review, 1 something failed."""
    from compresslab.grading.command import ClassOptions, Request, is_isolated, refuse_contradictions
    from compresslab.grading.scores import EXIT_CODES

    request = Request(lab_name, submission, out, bundle, trusted=trust)
    options = ClassOptions(jobs, scheduler, gradebook)
    refuse_contradictions(request, options, seed=seed)
    isolated = is_isolated(request)
    if not isolated:
        console.print("[bold red]not isolated[/]: students' code runs with your rights", highlight=False)
    if request.is_class:
        status = _grade_class(request, options, isolated=isolated)
    else:
        status = _grade_notebook(request, isolated=isolated, seed=seed)
    raise typer.Exit(EXIT_CODES[status])


def _grade_notebook(request: Request, *, isolated: bool, seed: int | None) -> Status:
    """Grade one notebook and print its score."""
    from compresslab.grading.command import grade_notebook
    from compresslab.grading.scores import score_table

    score = grade_notebook(request, isolated=isolated, seed=seed)
    console.print(score_table(score))
    return score.status


def _grade_class(request: Request, options: ClassOptions, *, isolated: bool) -> Status:
    """Grade a class, print its table, and enter it into a gradebook where one is given."""
    from compresslab.grading.command import class_table, grade_inbox, push_class, worst_status

    try:
        graded = grade_inbox(request, options, isolated=isolated)
    except KeyboardInterrupt:
        console.print("\nInterrupted; finished results are kept. Continue with the same command.")
        raise typer.Exit(130) from None
    out = request.out
    console.print(class_table(graded))
    console.print(f"{out}/class.html shows the class, {out}/scores.csv one row per student", highlight=False)
    if options.gradebook is not None:
        for line in push_class(graded, request.submission, options.gradebook):
            console.print(line, highlight=False, markup=False)
    return worst_status(graded.results)
