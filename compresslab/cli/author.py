"""The author's commands: build, verify, train."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from compresslab.cli.app import Audience, command, console
from compresslab.data.location import REPOSITORY
from compresslab.errors import BadSetting

__all__ = ["build", "train", "verify"]


@command(Audience.AUTHORS)
def build(
    lab_name: Annotated[str | None, typer.Argument(metavar="LAB", help="by default every lab")] = None,
    run: Annotated[bool, typer.Option(help="run the notebook; --no-run keeps the stored outputs")] = True,
) -> None:
    """Make both editions of a lab from its source, with outputs and metrics."""
    from compresslab.authoring.build import build as build_lab
    from compresslab.course import all_labs, find_lab

    for lab in [find_lab(lab_name)] if lab_name else all_labs():
        build_lab(lab, REPOSITORY, run=run)
        console.print(f"✓ {lab.name}: solutions/{lab.name}, labs/{lab.name}", highlight=False)


@command(Audience.AUTHORS)
def verify(as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False) -> None:
    """Run the author's checks: editions current, no answer in labs/, all mistakes killed, no typed number."""
    from compresslab.authoring.verify import verify as verify_labs

    report = verify_labs(REPOSITORY)
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
