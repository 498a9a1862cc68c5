"""The teacher's commands: build verify train for authors; bundle grade sandbox for classes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from compresslab.errors import CompressionError
from compresslab.terminal import LabName, command, console

__all__ = ["build", "bundle", "grade", "sandbox", "train", "verify"]

ROOT = Path(__file__).resolve().parents[1]


@command
def build(
    lab_name: Annotated[str | None, typer.Argument(metavar="LAB", help="by default every lab")] = None,
    run: Annotated[bool, typer.Option(help="run the notebook; --no-run keeps the stored outputs")] = True,
) -> None:
    """Make both editions of a lab from its source, with outputs and metrics."""
    from compresslab.classroom.building import build as build_lab
    from compresslab.classroom.exercises import all_labs, find_lab

    for lab in [find_lab(lab_name)] if lab_name else all_labs():
        build_lab(lab, ROOT, run=run)
        console.print(f"✓ {lab.name}: solutions/{lab.name}, labs/{lab.name}", highlight=False)


@command
def verify(as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False) -> None:
    """Run the author's checks: editions current, no answer in labs/, all mistakes killed, no typed number."""
    from compresslab.classroom.verifying import verify as verify_labs

    report = verify_labs(ROOT)
    if as_json:
        print(report.to_json())
    else:
        names = [Column(name, no_wrap=True) for name in ("lab", "exercise")]
        table = Table(*names, "points", "rights", "mistakes", "killed", "own message")
        for row in report.exercises:
            numbers = (row.points, row.rights, row.mistakes, row.killed, row.own_message)
            table.add_row(row.lab, row.name, *map(str, numbers))
        console.print(table)
        for problem in report.problems:
            console.print(f"[bold red]✗[/] {escape(problem)}", highlight=False, soft_wrap=True)
        console.print(f"{len(report.problems)} problems")
    raise typer.Exit(1 if report.problems else 0)


@command
def train(
    name: Annotated[
        str, typer.Argument(help="baseline, teacher, student, mlp, or a lab's long runs: 01_quantization, …")
    ],
) -> None:
    """Train a shipped network, or repeat a lab's long runs; an interrupted run goes on where it was."""
    from compresslab.data import fashion_mnist
    from compresslab.recipes import RECIPES, train_baseline
    from compresslab.techniques.distillation import experiments as distillation
    from compresslab.techniques.low_rank import experiments as low_rank
    from compresslab.techniques.pruning import experiments as pruning
    from compresslab.techniques.quantization import experiments as quantization

    long_runs = {runs.LAB: runs for runs in (quantization, distillation, pruning, low_rank)}
    if name not in RECIPES and name not in long_runs:
        known = ", ".join([*RECIPES, *long_runs])
        raise CompressionError(f"there is no recipe for {name!r}; there are {known}")
    try:
        if name in long_runs:
            columns, rows = long_runs[name].summary(long_runs[name].run_experiments(fashion_mnist()))
            table = Table(Column(columns[0], no_wrap=True), *columns[1:])
            for row in rows:
                table.add_row(*row)
            console.print(table)
            return
        card = train_baseline(name, fashion_mnist())
    except KeyboardInterrupt:
        console.print(f"\nInterrupted; what had ended is kept. Go on with: compresslab train {name}")
        raise typer.Exit(130) from None
    console.print(f"✓ {name}: validation {card['validation_accuracy']:.2%}, test {card['test_accuracy']:.2%}")


@command
def bundle(
    lab_name: LabName,
    out: Annotated[Path, typer.Option("--out", help="a new folder; it is the teacher's alone")],
) -> None:
    """Put all that grading a lab needs into one folder, once: the same inputs for everybody, anywhere."""
    from compresslab.classroom.exercises import find_lab
    from compresslab.classroom.grading.bundle import make_bundle

    made = make_bundle(find_lab(lab_name), out)
    console.print(f"✓ {made.lab.name}: {out}; whoever has it can foresee the inputs", highlight=False)


@command
def sandbox(
    check: Annotated[bool, typer.Option("--check", help="try what an answer could reach")] = True,
) -> None:
    """Say whether students' code can be isolated on this machine; exit code 1 where it can't."""
    from compresslab.classroom.grading.isolation import holds, isolation

    table = Table("", "about", "what an answer could do when it tried")
    for finding in isolation():
        table.add_row("✓" if finding.holds else "[bold red]✗[/]", finding.about, escape(finding.words))
    console.print(table)
    raise typer.Exit(0 if holds() else 1)


@command
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
    from compresslab.classroom.grading import session
    from compresslab.classroom.grading.scores import EXIT_CODES, score_table

    several = submission.is_dir() and not submission.is_symlink()
    if not submission.exists() and not submission.is_symlink():
        raise CompressionError(
            f"{submission} is not there; expected a notebook, or a folder of them; look at its name"
        )
    if gradebook is not None and not (gradebook / "nbgrader_config.py").is_file():
        raise CompressionError(
            f"{gradebook} is no nbgrader course; expected a folder with nbgrader_config.py; copy the kit's"
        )
    if several and seed is not None:
        raise CompressionError("--seed is for one notebook; a class has its bundle; leave it out")
    if not several and (gradebook or scheduler or jobs):
        raise CompressionError(
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
