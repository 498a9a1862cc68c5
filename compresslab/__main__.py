"""The command line: start doctor labs check hint reset for students; build verify train grade for teachers.

Each command calls one plain function and prints what it returned. Bad input is one sentence and exit code 2.
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from compresslab.errors import CompressionError

if TYPE_CHECKING:
    from compresslab.classroom.exercise import Lab

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Neural-network compression, taught: write it, see it work, measure it, be graded.",
)  # fmt: skip
console = Console()
BAD_INPUT = 2
PROGRESS = ".progress.json"  # beside the student's notebook: the last check's score


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Registers a command whose bad input is one sentence on the screen, never a traceback."""

    @functools.wraps(function)
    def guarded(*positional: Any, **named: Any) -> None:
        try:
            function(*positional, **named)
        except CompressionError as error:
            console.print(f"[bold red]✗[/] {escape(str(error))}", highlight=False, soft_wrap=True)
            raise typer.Exit(BAD_INPUT) from None

    app.command()(guarded)
    return guarded


LabName = Annotated[
    str, typer.Argument(metavar="LAB", help="a lab's folder, or the part that tells it: 00_measuring, 00")
]


@command
def start() -> None:
    """Copy the labs to my_labs/ (never overwriting) and open JupyterLab on them."""
    from compresslab.start import copy_labs, launch

    copied = copy_labs()
    console.print(
        f"{len(copied)} new files in my_labs/; what was there stays as it is."
        if copied
        else "my_labs/ is up to date."
    )
    raise typer.Exit(launch(say=lambda words: console.print(words, highlight=False, soft_wrap=True)))


@command
def doctor() -> None:
    """Say whether this machine can run the labs, and how to mend what can't."""
    from compresslab.doctor import examine, findings_table

    findings = examine()
    console.print(findings_table(findings))
    if any(finding.needed and not finding.good for finding in findings):
        raise typer.Exit(1)


@command
def labs() -> None:
    """List the labs, with the minutes they take and how far you are."""
    from compresslab.classroom.exercises import all_labs

    table = Table("lab", "about", "minutes", "points", "you")
    for lab in all_labs():
        table.add_row(lab.name, lab.title, str(lab.minutes), str(lab.points), _progress(lab))
    console.print(table)
    console.print(
        "Work: compresslab start   Mark: compresslab check LAB   Stuck: compresslab hint LAB EXERCISE"
    )


@command
def check(
    lab_name: LabName,
    notebook: Annotated[
        Path | None, typer.Argument(help="your notebook; by default the one in my_labs/")
    ] = None,
) -> None:
    """Mark your notebook as the grader would; exit code 0 only when everything is right."""
    from compresslab.classroom.exercises import find_lab
    from compresslab.classroom.grading.marking import grade as grade_submission
    from compresslab.classroom.grading.marking import score_table

    lab = find_lab(lab_name)
    place = notebook or _mine(lab)
    score = grade_submission(lab, place)
    console.print(score_table(score))
    if notebook is None:
        note = {
            "score": score.score,
            "max_score": score.max_score,
            "at": datetime.datetime.now().isoformat(timespec="minutes"),
        }
        place.with_name(PROGRESS).write_text(json.dumps(note))
    raise typer.Exit(0 if score.status == "graded" and score.score >= score.max_score else 1)


@command
def hint(
    lab_name: LabName,
    exercise: Annotated[str, typer.Argument(help="the exercise's name")],
    step: Annotated[int, typer.Argument(help="1 a nudge, 2 the formula, 3 one line with a blank")] = 1,
) -> None:
    """Show one of an exercise's three hints."""
    from compresslab.classroom.desk import hint_text
    from compresslab.classroom.exercises import find_lab

    lab = find_lab(lab_name)
    names = [each.name for each in lab.exercises]
    if exercise not in names:
        raise CompressionError(f"{lab.name} has no exercise {exercise!r}; there are {', '.join(names)}")
    count = len(lab.exercise(exercise).hints)
    if step not in range(1, count + 1):
        raise CompressionError(f"a hint's step is 1 to {count}, got {step}; begin with 1")
    console.print(hint_text(lab.exercise(exercise), step), markup=False, highlight=False)


@command
def reset(lab_name: LabName) -> None:
    """Put a lab back as the course ships it; your notebook is kept as a backup beside it."""
    from compresslab.classroom.exercises import find_lab
    from compresslab.start import MY_LABS, reset_lab

    name = find_lab(lab_name).name
    backup = reset_lab(name, now=datetime.datetime.now(), target=MY_LABS)
    kept = f"; yours is kept as {backup.name}" if backup else ""
    console.print(f"{name} is as new{kept}.", highlight=False)


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
def grade(
    lab_name: LabName,
    submission: Annotated[Path, typer.Argument(help="the student's notebook; it is read, never run")],
    out: Annotated[Path, typer.Option("--out", help="the folder for results.json")],
    seed: Annotated[int | None, typer.Option(help="repeats a grading; by default drawn in secret")] = None,
) -> None:
    """Grade one notebook; exit code 0 graded, 3 needs review, 1 failed."""
    from compresslab.classroom.exercises import find_lab
    from compresslab.classroom.grading.marking import EXIT_CODES, score_table, write_results
    from compresslab.classroom.grading.marking import grade as grade_submission

    score = grade_submission(find_lab(lab_name), submission, seed=seed)
    console.print(score_table(score))
    write_results(score, out)
    raise typer.Exit(EXIT_CODES[score.status])


def _mine(lab: Lab) -> Path:
    from compresslab.start import MY_LABS

    place = MY_LABS / lab.name / f"{lab.name}.ipynb"
    if not place.exists():
        raise CompressionError(f"my_labs/{lab.name} is not there yet; copy the labs with: compresslab start")
    return place


def _progress(lab: Lab) -> str:
    from compresslab.start import MY_LABS

    folder = MY_LABS / lab.name
    try:
        note = json.loads((folder / PROGRESS).read_text())
        return f"{note['score']:g} of {note['max_score']:g} points ({note['at'].replace('T', ' ')})"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "begun, not yet checked" if folder.exists() else "not begun"


ROOT = Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    app()
