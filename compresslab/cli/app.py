"""The terminal: the Typer app, its console, and what makes a plain function a command of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from compresslab.errors import CompressionError

__all__ = ["LabName", "app", "command", "console"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Neural-network compression, taught: write it, see it work, measure it, be graded.",
)
console = Console()
BAD_INPUT = 2


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
