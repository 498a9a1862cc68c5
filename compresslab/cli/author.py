"""The authors' commands: new, build, verify, train."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from compresslab.cli.app import Audience, LabName, app, command, console
from compresslab.data.location import REPOSITORY, require_repository

if TYPE_CHECKING:
    from compresslab.experiments.experiment import Experiment
    from compresslab.jobs.executor import Pool

__all__ = ["build", "new_exercise", "new_lab", "train", "verify"]

LabOrAll = Annotated[str | None, typer.Argument(metavar="LAB", help="the lab; by default all of them")]
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
    require_repository("compresslab new")
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
    require_repository("compresslab new")
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
    require_repository("compresslab build")
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
    require_repository("compresslab verify")
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
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", help="baseline, teacher, student, mlp, or labs: 02, 03"),
    ],
    jobs: Annotated[int | None, typer.Option(help="runs at once, by default one per processor")] = None,
    scheduler: Annotated[str | None, typer.Option(help="a Dask cluster, such as tcp://host:8786")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only print what is missing")] = False,
) -> None:
    """Train shipped networks, or run what is missing of labs' experiments; interrupted runs go on."""
    require_repository("compresslab train")
    from compresslab.data.fashion_mnist import fashion_mnist
    from compresslab.experiments import find_experiment
    from compresslab.experiments.runner import training_pool
    from compresslab.training.recipes import RECIPES, train_baseline

    labs = {name: find_experiment(name, beside=tuple(RECIPES)) for name in names if name not in RECIPES}
    try:
        for name in names:
            if name in labs:
                _run_experiment(labs[name], training_pool(jobs, scheduler), dry_run=dry_run)
            elif not dry_run:
                card = train_baseline(name, fashion_mnist())
                reached = f"validation {card['validation_accuracy']:.2%}, test {card['test_accuracy']:.2%}"
                console.print(f"✓ {name}: {reached}")
    except KeyboardInterrupt:
        again = f"compresslab train {' '.join(names)}"
        console.print(f"\nInterrupted; what had ended is stored. Go on with: {again}")
        raise typer.Exit(130) from None


def _run_experiment(experiment: Experiment, pool: AbstractContextManager[Pool], *, dry_run: bool) -> None:
    """Print what is missing, run it, and print a table of what was found."""
    from compresslab.experiments.results import summarize
    from compresslab.experiments.runner import Unfinished, forecast, run_missing

    unfinished = Unfinished(experiment)
    console.print(forecast(unfinished), highlight=False)
    if dry_run:
        return
    with pool as workers:
        run_missing(unfinished, workers, report=lambda line: console.print(line, highlight=False))
    group, *keys = experiment.summary
    table = Table(Column(group or "run", no_wrap=True), *(key.replace("_", " ") for key in keys))
    for row in summarize(unfinished.results, group, *keys):
        table.add_row(*row)
    console.print(table)
