"""The command line as a program: ``python -m compresslab``."""

from typer.models import CommandInfo

from compresslab.cli import author, student, teacher
from compresslab.cli.app import Audience, app

__all__ = ["app", "author", "student", "teacher"]


def _place_in_help(made: CommandInfo) -> int:
    """The place of a command's group in ``--help``: students come first."""
    return [*Audience].index(Audience(made.rich_help_panel or Audience.STUDENTS))


app.registered_commands.sort(key=_place_in_help)

if __name__ == "__main__":
    app(prog_name="compresslab")
