"""The author's commands: new, build, verify, train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from compresslab.cli.app import Audience, LabName, app, command, console
from compresslab.data.location import REPOSITORY
from compresslab.errors import BadSetting

__all__ = ["build", "new_exercise", "new_lab", "train", "verify"]

LabOrAll = Annotated[str | None, typer.Argument(metavar="LAB", help="by default every lab")]
new = typer.Typer(no_args_is_help=True, help="Write the skeleton of a lab or of an exercise.")
app.add_typer(new, name="new", rich_help_panel=Audience.AUTHORS)


@command(Audience.AUTHORS, name="lab", below=new)
def new_lab(
    name: Annotated[str, typer.Argument(help="the lab's topic, in lower case, such as low_rank")],
    number: Annotated[
        int | None, typer.Option(help="the lab's number; by default the first free one")
    ] = None,
) -> None:
    """Write the skeleton of a lab: its LAB, its source, its test."""
    from compresslab.authoring import new as authoring

    full_name, files = authoring.new_lab(name, REPOSITORY, number=number)
    _print_written(files)
    console.print(f"Next: compresslab new exercise {full_name} NAME", highlight=False)


@command(Audience.AUTHORS, name="exercise", below=new)
def new_exercise(
    lab_name: LabName,
    name: Annotated[str, typer.Argument(help="the name of the function that students write")],
) -> None:
    """Write the skeleton of an exercise, and add it to its lab and to the lab's source."""
    from compresslab.authoring import new as authoring
    from compresslab.course import find_lab

    lab = find_lab(lab_name)
    _print_written(authoring.new_exercise(lab, name, REPOSITORY))
    console.print(f"What is missing is marked TODO. Next: compresslab verify {lab.name}", highlight=False)


def _print_written(files: tuple[Path, ...]) -> None:
    for file in files:
        console.print(f"wrote {file.relative_to(REPOSITORY)}", highlight=False)


@command(Audience.AUTHORS)
def build(
    lab_name: LabOrAll = None,
    run: Annotated[bool, typer.Option(help="run the notebook; --no-run keeps the stored outputs")] = True,
) -> None:
    """Make both editions of a lab from its source, with outputs and metrics."""
    from compresslab.authoring.build import build as build_lab
    from compresslab.course import all_labs, find_lab

    for lab in [find_lab(lab_name)] if lab_name else all_labs():
        build_lab(lab, REPOSITORY, run=run)
        console.print(f"✓ {lab.name}: solutions/{lab.name}, labs/{lab.name}", highlight=False)


@command(Audience.AUTHORS)
def verify(
    lab_name: LabOrAll = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
) -> None:
    """Say what is missing or wrong in the labs: TODOs, editions, leaked answers, unproved checks."""
    from compresslab.authoring.verify import verify as verify_labs
    from compresslab.course import find_lab

    report = verify_labs(REPOSITORY, labs=[find_lab(lab_name)] if lab_name else None)
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


@command(Audience.AUTHORS)
def train(
    name: Annotated[
        str, typer.Argument(help="baseline, teacher, student, mlp, or a lab's long runs, by the lab's name")
    ],
) -> None:
    """Train a shipped network, or repeat a lab's long runs; an interrupted run goes on where it was."""
    from compresslab.data.fashion_mnist import fashion_mnist
    from compresslab.experiments.distillation import plan as distillation
    from compresslab.experiments.low_rank import plan as low_rank
    from compresslab.experiments.pruning import plan as pruning
    from compresslab.experiments.quantization import plan as quantization
    from compresslab.training.recipes import RECIPES, train_baseline

    long_runs = {runs.LAB: runs for runs in (quantization, distillation, pruning, low_rank)}
    if name not in RECIPES and name not in long_runs:
        known = ", ".join([*RECIPES, *long_runs])
        raise BadSetting(f"there is no recipe for {name!r}; there are {known}")
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
