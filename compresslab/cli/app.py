"""The Typer app, its console, and the decorator that turns a function into a command."""

from __future__ import annotations

import functools
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from compresslab import __version__
from compresslab.cli.places import cause
from compresslab.cli.streams import take_any_text
from compresslab.errors import CompressionError

__all__ = ["Audience", "LabName", "app", "command", "console", "options"]


class Audience(StrEnum):
    """Who a command is for: the title of its group in ``compresslab --help``."""

    STUDENTS = "For students"
    AUTHORS = "For authors"
    TEACHERS = "For teachers"


class _ByAudience(TyperGroup):
    def main(self, *positional: Any, **named: Any) -> Any:
        """Run a command, with output that any encoding can take."""
        take_any_text()
        return super().main(*positional, **named)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of ``--help``: the students' commands come first."""
        places = {audience.value: place for place, audience in enumerate(Audience)}
        panel = {name: str(getattr(made, "rich_help_panel", "")) for name, made in self.commands.items()}
        return sorted(self.commands, key=lambda name: places.get(panel[name], len(places)))


app = typer.Typer(cls=_ByAudience, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console()
BAD_INPUT = 2

LabName = Annotated[str, typer.Argument(metavar="LAB", help="the lab's number, topic or folder, such as 03")]


def command(
    audience: Audience, *, name: str | None = None, below: typer.Typer = app
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a command that answers bad input with one sentence, never a traceback.

    Args:
        audience: the group that ``--help`` lists it in.
        name: by default the function's.
        below: the app that it is a command of, such as the one of ``compresslab new``.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def guarded(*positional: Any, **named: Any) -> None:
            try:
                function(*positional, **named)
            except CompressionError as error:
                _refuse(error)
            except OSError as error:
                told = cause(error)
                if told is None:
                    raise
                _refuse(told)

        below.command(name, rich_help_panel=audience)(guarded)
        return guarded

    return register


def _refuse(error: CompressionError) -> NoReturn:
    console.print(f"[bold red]✗[/] {escape(str(error))}", highlight=False, soft_wrap=True)
    raise typer.Exit(BAD_INPUT) from None


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"compresslab {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Write the core of each compression method, see it work, measure it, and have it graded."""
